"""Benchmarks of the samplers: rounds, errors, options."""
