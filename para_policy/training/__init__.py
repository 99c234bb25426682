"""Training: behaviour cloning, its data, and the Picard Consistency Model."""
