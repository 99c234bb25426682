"""The problem: a scheduler as an affine recurrence, its noise, and the network inside it."""
