"""The systems: each a way to learn and to unlearn."""
