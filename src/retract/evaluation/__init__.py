"""What good means: ranking metrics over all items."""
