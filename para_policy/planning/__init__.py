"""Planning of action chunks for the robots that one policy serves. No ROS.

`Fleet` asks the `Planner` of each robot for the chunk that it wants, solves all of them in one batch
with `Solver`, and hands each back to be placed on the clock.
"""
