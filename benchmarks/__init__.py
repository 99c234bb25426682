"""Measurements of the samplers, each a command of its own: `python -m benchmarks.pareto --help`."""
