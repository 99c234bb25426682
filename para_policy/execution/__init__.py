"""Execution of action chunks on a clock, within limits. Integer nanoseconds, no torch, no ROS.

A chunk goes through `ChunkPlayer` (which action is due, mixed by a `Blending` as `Coordinates` say) and
`Commander` (whether it may be sent, by `Guards`) to a command.
"""
