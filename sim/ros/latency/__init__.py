"""Latency experiment: what latency costs a robot, and what helps."""
