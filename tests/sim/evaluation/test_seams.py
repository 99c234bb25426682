"""Jumps at the seams between chunks, against numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from para_policy.execution import seams
from para_policy.execution.seams import ACCELERATION, VELOCITY
from sim.evaluation.seams import executed_actions, seam_metrics
from sim.pusht.env import CONTROL_DT
from sim.pusht.task import PUSHT
from sim.tasks.episode import Chunk, Episode


def jumps(chunks: list[np.ndarray], order: int) -> tuple[np.ndarray, np.ndarray]:
    return seams.jumps(chunks, order, CONTROL_DT)


def along_x(*positions: float) -> np.ndarray:
    return np.array([[x, 100.0] for x in positions])


def episode(*chunks: np.ndarray, seed: int = 0, first_action: int = 0) -> Episode:
    """An episode that executes all of `chunks`, each predicted with `first_action` past actions."""
    starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
    records = tuple(
        Chunk(
            int(start), 1, 1, None, True, (), 1, 0.1, _predicted(chunk, first_action), first_action
        )
        for start, chunk in zip(starts, chunks, strict=False)
    )
    steps = int(starts[-1])
    return Episode(
        PUSHT, seed, np.zeros((steps + 1, 5)), np.zeros(steps), records, np.zeros((16, 2))
    )


def _predicted(chunk: np.ndarray, first_action: int) -> np.ndarray:
    """Actions that are never executed before and after, which must not count."""
    return np.concatenate([np.full((first_action, 2), 1e6), chunk, np.full((4, 2), -1e6)])


def test_constant_velocity_across_the_seam_has_no_jump() -> None:
    chunks = [along_x(0, 1, 2, 3, 4, 5), along_x(6, 7, 8, 9, 10, 11)]
    for order in (VELOCITY, ACCELERATION):
        at_seams, inside = jumps(chunks, order)
        np.testing.assert_allclose(at_seams, [0.0], atol=1e-9)
        np.testing.assert_allclose(inside, 0.0, atol=1e-9)


def test_offset_between_the_chunks() -> None:
    """Both chunks move 1 px per action; the second is 5 px ahead.

    Steps of the path are 1, 1, 1, 1+5, 1, 1, ... px: second differences at the seam are +5 and
    -5 px, third differences +5, -10, +5 px.
    """
    chunks = [along_x(0, 1, 2, 3), along_x(9, 10, 11, 12)]
    assert jumps(chunks, VELOCITY)[0] == pytest.approx([5 / CONTROL_DT])
    assert jumps(chunks, ACCELERATION)[0] == pytest.approx([10 / CONTROL_DT**2])


def test_change_of_velocity_between_the_chunks() -> None:
    """From 1 to 4 px per action: second differences 0 and 3 px, third 0 (before), 3 and -3 px."""
    chunks = [along_x(0, 1, 2, 3), along_x(4, 8, 12, 16)]
    assert jumps(chunks, VELOCITY)[0] == pytest.approx([3 / CONTROL_DT])
    assert jumps(chunks, ACCELERATION)[0] == pytest.approx([3 / CONTROL_DT**2])


def test_a_jump_is_a_length_in_the_plane() -> None:
    chunks = [np.zeros((4, 2)), np.tile([3.0, 4.0], (4, 1))]
    assert jumps(chunks, VELOCITY)[0] == pytest.approx([5 / CONTROL_DT])


def test_inside_is_the_same_statistic_at_the_places_within_a_chunk() -> None:
    """Squares: second differences all 2 px, third all 0. One odd action shows where places are."""
    squares = along_x(0, 1, 4, 9, 16, 25, 36, 49)
    _, inside = jumps([squares], VELOCITY)
    assert inside == pytest.approx([2 / CONTROL_DT] * 5)
    _, inside = jumps([squares], ACCELERATION)
    np.testing.assert_allclose(inside, [0.0] * 3, atol=1e-9)

    # Action 2 is 1 px off: second differences of the six places are 1, -2, 1, 0, 0, 0 px.
    _, inside = jumps([along_x(0, 0, 1, 0, 0, 0, 0, 0)], VELOCITY)
    assert inside == pytest.approx([2 / CONTROL_DT, 2 / CONTROL_DT, 1 / CONTROL_DT, 0, 0])


def test_a_seam_equals_the_same_actions_inside_one_chunk() -> None:
    path = np.random.default_rng(0).normal(size=(12, 2))
    for order in (VELOCITY, ACCELERATION):
        (at_seam,) = jumps([path[:6], path[6:]], order)[0]
        assert at_seam == jumps([path], order)[1][6 - order]


def test_seams_with_too_few_actions_are_left_out() -> None:
    chunks = [along_x(0, 1, 2, 3), along_x(9, 10), along_x(20)]
    assert len(jumps(chunks, VELOCITY)[0]) == 1
    assert len(jumps(chunks, ACCELERATION)[0]) == 0


def test_only_executed_actions_count() -> None:
    chunks = [along_x(0, 1, 2, 3), along_x(9, 10, 11)]
    found = executed_actions(episode(*chunks, first_action=1))
    for expected, actions in zip(chunks, found, strict=True):
        np.testing.assert_array_equal(actions, expected)


def test_metrics_are_means_over_all_seams_with_intervals_over_episodes() -> None:
    """Seams of 10, 10 and 40 px/s in two episodes: mean 20, not the mean of means 25."""
    slow = episode(along_x(0, 0, 0, 0), along_x(1, 1, 1, 1), along_x(2, 2, 2, 2))
    fast = episode(along_x(0, 0, 0, 0), along_x(4, 4, 4, 4), seed=1)
    metrics = seam_metrics([slow, fast])
    assert metrics["count"] == 3
    velocity = metrics["velocity_jump_px_per_s"]
    assert velocity["seam"]["mean"] == pytest.approx(20.0)
    low, high = velocity["seam"]["ci95"]
    assert 10.0 <= low < 20.0 < high <= 40.0
    assert velocity["inside"] == {"mean": 0.0, "ci95": (0.0, 0.0)}
    assert metrics["acceleration_jump_px_per_s2"]["seam"]["mean"] == pytest.approx(400.0)


def test_an_episode_of_one_short_chunk_has_no_seams() -> None:
    metrics = seam_metrics([episode(along_x(0, 1))])
    nothing = {"mean": None, "ci95": None}
    assert metrics == {
        "count": 0,
        "velocity_jump_px_per_s": {"seam": nothing, "inside": nothing},
        "acceleration_jump_px_per_s2": {"seam": nothing, "inside": nothing},
    }
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
