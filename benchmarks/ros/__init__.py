"""Benchmarks of the ROS nodes: overhead, fleets, soaks."""
