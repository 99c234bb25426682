"""Checkpoints of the original diffusion_policy project, read without running what is in them."""
