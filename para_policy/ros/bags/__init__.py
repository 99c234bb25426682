"""Runs of the policy node in rosbag2 bags: recorded, and replayed to the bit.

Recording: `recorder`, `writer`. Replaying: `reader` and `records` tell what a bag holds, `observations`
finds what the policy saw, `rerun` solves, `replay` and `replay_bag` do so for a run and for a bag,
`comparison`, `report` and `plots` judge.
"""
