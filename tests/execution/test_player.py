from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from para_policy.errors import InputError
from para_policy.execution.chunk import ActionChunk
from para_policy.execution.player import ChunkPlayer
from tests.execution.chunks import at, make_chunk


def test_actions_are_held_until_the_next_is_due() -> None:
    player = ChunkPlayer()
    player.offer(make_chunk(), at(0))
    played = [player.action_at(at(step)) for step in (0, 0.999, 1, 1.5, 7.999)]
    assert [action[0] for action in played if action is not None] == [0, 0, 1, 1, 7]
    assert player.action_at(at(8)) is None


def test_past_actions_are_dropped() -> None:
    player = ChunkPlayer()
    player.offer(make_chunk(), at(3.5))
    assert player.action_at(at(3.5)).tolist() == [3, 0]


def test_newer_chunk_replaces_the_one_in_force_at_once() -> None:
    player = ChunkPlayer()
    player.offer(make_chunk(0, tag=1), at(0))
    player.offer(make_chunk(2, tag=2), at(4))
    assert player.action_at(at(4)).tolist() == [4, 2]


def test_a_chunk_for_the_same_time_replaces_the_one_in_force() -> None:
    player = ChunkPlayer()
    player.offer(make_chunk(0, tag=1), at(0))
    player.offer(make_chunk(0, tag=2), at(1))
    assert player.action_at(at(1)).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("chunk", "now", "reason"),
    [
        (make_chunk(step=3), 5, "0.100 s older"),
        (make_chunk(step=5, steps=2), 9, "too late"),
        (make_chunk(step=5, steps=2), 7, "too late"),
        (make_chunk(step=30), 5, "in the future"),
        (make_chunk(step=5, dim=3), 5, "3 joints, expected 2"),
    ],
)
def test_refused_chunks_leave_the_old_one_in_force(
    chunk: ActionChunk, now: int, reason: str
) -> None:
    player = ChunkPlayer()
    player.offer(make_chunk(step=4, tag=7), at(4))
    with pytest.raises(InputError, match=reason):
        player.offer(chunk, at(now))
    assert player.action_at(at(now)).tolist() == [now, 7]


def test_nothing_is_due_without_a_chunk() -> None:
    assert ChunkPlayer().action_at(at(0)) is None


def test_clock_that_steps_back_ends_the_chunk() -> None:
    player = ChunkPlayer()
    player.offer(make_chunk(step=100), at(100))
    assert player.action_at(at(99)) is None
    player.offer(make_chunk(step=0), at(0))
    assert player.action_at(at(0)).tolist() == [0, 0]


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 10), st.integers(0, 3)),
        min_size=1,
        max_size=30,
    )
)
def test_played_actions_are_always_due_and_never_from_an_older_chunk(
    offers: list[tuple[int, int, int]],
) -> None:
    player = ChunkPlayer()
    now, newest = 0, -1
    for step, steps, pause in offers:
        now += pause
        with contextlib.suppress(InputError):
            player.offer(make_chunk(step, steps, tag=step), at(now))
        action = player.action_at(at(now))
        if action is not None:
            assert action[0] == now
            assert action[1] >= newest
            newest = action[1]
