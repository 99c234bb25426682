"""Benchmarks of the engines: how fast networks and whole chunks run."""
