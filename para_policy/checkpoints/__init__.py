"""Checkpoints of every format, and what is measured and trained for them."""
