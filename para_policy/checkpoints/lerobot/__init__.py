"""Checkpoints that LeRobot saved, read without LeRobot."""
