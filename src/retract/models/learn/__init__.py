"""The mathematics that takes gradients: the only models that need torch (the extra `learn`)."""
