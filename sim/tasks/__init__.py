"""Simulated tasks: what one is, which there are, episodes of one, and a policy that plays them."""
