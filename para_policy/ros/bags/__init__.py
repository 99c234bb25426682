"""Runs of the policy node in rosbag2 bags: record them, replay them, compare."""
