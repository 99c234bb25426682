"""Execution of action chunks on a clock, within limits: numpy and integer nanoseconds, no torch, no ROS."""
