"""Random states of the board, to learn from what they look like."""

from __future__ import annotations

import numpy as np

from sim.pusht.drawing import T_OUTLINE
from sim.pusht.env import BOARD_SIZE, GOAL_POSE
from sim.tasks.task import Array

_WALL = 5.0
"""Distance of the walls to the edge of the board, pixels."""
_AGENT_RADIUS = 15.0
_NEAR_GOAL = np.array([30.0, 30.0, 0.3])
"""Standard deviation of poses near the goal: pixels and radians."""
_NEAR_BLOCK = 120.0
"""Distance from the middle of the T up to which an agent is near it, pixels."""


def random_states(count: int, random: np.random.Generator) -> Array:
    """States (n, 5): agent x, y, block x, y, pixels, and the block's angle, 0 to 2 pi.

    Half the blocks are near the goal, half anywhere within the walls. Half the agents are near the block,
    where the policy spends its time, or on it, so that they cover a part; half anywhere.
    """
    blocks = np.empty((0, 3))
    while len(blocks) < count:
        drawn = random.uniform([0, 0, 0], [BOARD_SIZE, BOARD_SIZE, 2 * np.pi], (count, 3))
        near = random.random(count) < 0.5
        drawn[near] = GOAL_POSE + _NEAR_GOAL * random.standard_normal((near.sum(), 3))
        corners = _placed(T_OUTLINE, drawn)
        inside = ((corners >= _WALL) & (corners <= BOARD_SIZE - _WALL)).all(axis=(1, 2))
        blocks = np.concatenate([blocks, drawn[inside]])
    blocks = blocks[:count]
    least, most = _WALL + _AGENT_RADIUS, BOARD_SIZE - _WALL - _AGENT_RADIUS
    agents = random.uniform(least, most, (count, 2))
    near = random.random(count) < 0.5
    middles = _placed(np.array([[0.0, 45.0]]), blocks)[:, 0]
    agents[near] = middles[near] + random.uniform(-_NEAR_BLOCK, _NEAR_BLOCK, (near.sum(), 2))
    blocks[:, 2] %= 2 * np.pi
    return np.concatenate([agents.clip(least, most), blocks], axis=1)


def _placed(points: Array, poses: Array) -> Array:
    """Points (m, 2) of the T's own frame on the board, for each of the poses (n, 3): (n, m, 2)."""
    c, s = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    turned = points @ np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], axis=1)
    return np.asarray(turned + poses[:, None, :2])
