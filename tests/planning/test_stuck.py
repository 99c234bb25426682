from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from para_policy.execution.coordinates import poses, read_coordinates
from para_policy.planning.stuck import StuckWatch

MS = 10**6
T0 = 1_700_000_000 * 10**9
A, B = np.array([1.0, 2.0]), np.array([1.0, 2.0000000000000004])


def watched(*samples: tuple[int, np.ndarray], limit_s: float = 0.5) -> StuckWatch:
    """A watch that has seen samples, times in milliseconds."""
    watch = StuckWatch(limit_s)
    for time_ms, values in samples:
        watch.seen(T0 + time_ms * MS, values)
    return watch


@pytest.mark.parametrize(
    ("samples", "stuck_for_s"),
    [
        ((), None),
        (((0, A),), None),
        (((0, A), (500, A)), None),  # not longer than the limit
        (((0, A), (501, A)), 0.501),
        (((0, A), (300, A), (900, A)), 0.9),
        (((0, A), (300, B), (700, B)), None),  # the last digit has changed
        (((0, A), (300, B), (900, B)), 0.6),
        (((0, A), (900, A), (1000, B)), None),  # it thaws at once
        (((0, A), (600, A), (300, B)), 0.6),  # a late sample says nothing about now
        (((0, A), (600, A), (600, B)), 0.6),
        (((5000, A), (0, A), (400, A)), None),  # time began again
        (((5000, A), (0, A), (600, A)), 0.6),
    ],
)
def test_stuck_is_what_stays_the_same_for_longer_than_the_limit(
    samples: tuple[tuple[int, np.ndarray], ...], stuck_for_s: float | None
) -> None:
    assert watched(*samples).stuck_for_s() == stuck_for_s


def test_a_new_episode_starts_the_watch_anew() -> None:
    watch = watched((0, A), (900, A))
    watch.clear()
    assert watch.stuck_for_s() is None
    watch.seen(T0 + 1000 * MS, A)
    assert watch.stuck_for_s() is None


def test_images_are_compared_by_pixel_and_may_be_overwritten_by_the_driver() -> None:
    image = np.zeros((3, 480, 640), np.uint8)
    watch = watched((0, image))
    image[2, 479, 639] = 1
    watch.seen(T0 + 900 * MS, image)
    assert watch.stuck_for_s() is None
    watch.seen(T0 + 1800 * MS, image)
    assert watch.stuck_for_s() == 0.9


def test_another_shape_is_a_change() -> None:
    assert watched((0, A), (900, A[:1])).stuck_for_s() is None


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 1)), min_size=1, max_size=40))
def test_time_since_the_last_change(steps: list[tuple[int, int]]) -> None:
    watch = StuckWatch(0.5)
    now_ms = since_ms = 0
    before = None
    for step_ms, value in steps:
        now_ms += step_ms
        watch.seen(now_ms * MS, np.array([value]))
        since_ms, before = (since_ms if value == before else now_ms), value
    unchanged_ms = now_ms - since_ms
    assert watch.stuck_for_s() == (unchanged_ms / 1e3 if unchanged_ms > 500 else None)


def test_the_same_rotation_in_other_numbers_has_not_changed() -> None:
    pose = np.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.6, 0.8])
    flipped = pose * [1, 1, 1, -1, -1, -1, -1]
    moved = pose + np.array([0, 1e-15, 0, 0, 0, 0, 0])
    turned = pose + np.array([0, 0, 0, 1e-6, 0, 0, 0])
    for after, stuck in ((flipped, True), (moved, False), (turned, False)):
        watch = StuckWatch(0.5, poses())
        watch.seen(T0, pose)
        watch.seen(T0 + 900 * MS, after)
        assert (watch.stuck_for_s() is not None) == stuck
    wheel = StuckWatch(0.5, read_coordinates(["angle 0"]))
    wheel.seen(T0, np.array([3.0]))
    wheel.seen(T0 + 900 * MS, np.array([3.0 - 2 * np.pi]))
    assert wheel.stuck_for_s() == 0.9
