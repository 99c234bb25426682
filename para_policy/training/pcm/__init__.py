"""Training of the Picard Consistency Model (So et al. 2025): trajectories, then distillation."""
