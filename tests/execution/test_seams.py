"""Seams as an executor plays them that always takes the newest chunk."""

from __future__ import annotations

import numpy as np
import pytest

from para_policy.execution.chunk import ActionChunk
from para_policy.execution.coordinates import read_coordinates
from para_policy.execution.seams import ACCELERATION, VELOCITY, executed, jumps

DT = 100_000_000


def chunk(step: int, values: list[float]) -> ActionChunk:
    return ActionChunk(step * DT, DT, np.array(values)[:, None])


def test_a_late_chunk_is_played_from_the_first_action_that_is_due() -> None:
    first, second = chunk(0, [0, 1, 2, 3, 4, 5]), chunk(3, [30, 31, 32, 33])
    (run,) = executed([(first, 0), (second, 3 * DT + DT // 2)])
    assert [part.ravel().tolist() for part in run] == [[0, 1, 2, 3], [31, 32, 33]]


def test_a_pause_between_chunks_is_no_seam() -> None:
    first, second = chunk(0, [0, 1]), chunk(5, [2, 3])
    assert [len(run) for run in executed([(first, 0), (second, 5 * DT)])] == [1, 1]
    assert executed([]) == []


def test_a_straight_line_has_no_jumps_and_a_kink_has_its_own() -> None:
    line = [np.arange(0.0, 6.0)[:, None], np.arange(6.0, 12.0)[:, None]]
    for order in (VELOCITY, ACCELERATION):
        at_seams, inside = jumps(line, order, 0.1)
        assert at_seams == pytest.approx(0.0, abs=1e-9)
        assert inside == pytest.approx(0.0, abs=1e-9)
    kink = [line[0], 5.0 + 3.0 * np.arange(1.0, 7.0)[:, None]]
    at_seams, _ = jumps(kink, VELOCITY, 0.1)
    assert at_seams == pytest.approx([20.0])  # from 10 to 30 units/s


def test_numbers_that_jump_where_the_angle_does_not_are_no_jump() -> None:
    turning = np.arange(2.0, 4.4, 0.2)[:, None]
    wrapped = np.where(turning > np.pi, turning - 2 * np.pi, turning)
    angles = read_coordinates(["angle 0"])
    for order in (VELOCITY, ACCELERATION):
        at_seams, inside = jumps([wrapped[:6], wrapped[6:]], order, 0.1, angles)
        assert at_seams == pytest.approx(0.0, abs=1e-9)
        assert inside == pytest.approx(0.0, abs=1e-9)
    assert jumps([wrapped[:6], wrapped[6:]], VELOCITY, 0.1)[0][0] > 50
