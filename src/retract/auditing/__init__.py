"""Did it forget? What is measured and signed when a model unlearns."""
