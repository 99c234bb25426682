"""Ways to play chunks beyond one after the other: offset, age, interpolation, blending."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from para_policy.errors import InputError
from para_policy.execution.blending import (
    Blending,
    CrossFade,
    Interpolation,
    NoBlending,
    TemporalEnsemble,
)
from para_policy.execution.chunk import ActionChunk
from para_policy.execution.coordinates import NUMBERS, UNKNOWN, Coordinates, read_coordinates
from para_policy.execution.player import ChunkPlayer, PlayerSettings
from tests.execution.chunks import DT, T0, at, make_chunk


def make_player(*chunks: tuple[ActionChunk, float], **settings: Any) -> ChunkPlayer:
    """A player to which each chunk was offered at its step."""
    player = ChunkPlayer(settings=PlayerSettings(**{"coordinates": NUMBERS, **settings}))
    for chunk, step in chunks:
        player.offer(chunk, at(step))
    return player


def play(player: ChunkPlayer, *steps: float) -> list[float | None]:
    """The last coordinate at these steps: the tag of a chunk from `make_chunk`."""
    actions = [player.action_at(at(step)) for step in steps]
    return [None if action is None else float(action[-1]) for action in actions]


def ramp(step: int, *values: float) -> ActionChunk:
    return ActionChunk(T0 + step * DT, DT, np.array(values)[:, None])


@pytest.mark.parametrize(
    ("offset_steps", "played"), [(-0.5, [0, 1, 1, None]), (0.5, [None, 0, 0, 1])]
)
def test_negative_offset_commands_earlier(offset_steps: float, played: list[float | None]) -> None:
    player = make_player((ramp(0, 0, 1), 0), offset_ns=round(offset_steps * DT))
    assert play(player, 0, 0.5, 1.49, 1.5) == played


def test_linear_interpolation_passes_through_the_actions() -> None:
    player = make_player((ramp(0, 1, 3, 0), 0), interpolation="linear")
    assert play(player, 0, 0.25, 1, 1.5, 2, 2.9, 3) == [1, 1.5, 3, 1.5, 0, 0, None]


@given(st.integers(1, 8), st.integers(-5, 10), st.integers(1, 10**9))
def test_interpolation_changes_nothing_when_an_action_is_due(
    steps: int, step: int, dt_ns: int
) -> None:
    actions = np.random.default_rng(steps).normal(size=(steps, 3))
    chunk = ActionChunk(T0, dt_ns, actions)
    held, moved = ChunkPlayer(), make_player(interpolation="linear")
    for player in (held, moved):
        player.offer(chunk, T0 - dt_ns // 2)
    time_ns = T0 + max(step, 0) * dt_ns
    np.testing.assert_equal(moved.action_at(time_ns), held.action_at(time_ns))


def test_chunk_beyond_its_age_is_not_played_even_if_it_has_actions() -> None:
    player = make_player((make_chunk(0, 8, tag=1), 0), max_age_ns=3 * DT)
    assert play(player, 3, 3.01, 7) == [1, None, None]
    with pytest.raises(InputError, match=r"too old: it was observed 0\.400 s ago, .* 0\.3 s"):
        player.offer(make_chunk(3, 8), at(7))


def test_over_budget_plays_the_last_action_on_the_next_grid_step() -> None:
    player = ChunkPlayer(settings=PlayerSettings(catch_up=True))
    late = ramp(0, 1, 2, 3)
    player.offer(late, at(4.3))
    assert play(player, 4.9, 5, 5.9, 6) == [None, 3, 3, None]
    assert player.caught_up == 1
    with pytest.raises(InputError, match="too late"):  # the same once more
        player.offer(late, at(6.5))
    player.offer(ramp(1, 4, 5), at(7))  # newer, though its stamp lies before what was played
    assert play(player, 7, 7.99, 8) == [5, 5, None]


def test_cross_fade_goes_from_the_old_chunk_to_the_new_one() -> None:
    chunks = (make_chunk(0, 8, tag=0), 0), (make_chunk(1, 8, tag=1), 2)
    player = make_player(*chunks, blending=CrossFade(2 * DT))
    assert play(player, 2, 2.5, 3, 4, 8.9, 9) == [0, 0.25, 0.5, 1, 1, None]


def test_cross_fade_is_over_when_the_old_chunk_ends() -> None:
    chunks = (make_chunk(0, 3, tag=0), 0), (make_chunk(1, 8, tag=1), 2)
    player = make_player(*chunks, blending=CrossFade(10 * DT))
    assert play(player, 2, 2.5, 3, 4) == [0, 0.5, 1, 1]


def test_a_fade_starts_from_what_the_one_before_had_reached() -> None:
    chunks = (
        (make_chunk(0, 9, tag=0), 0),
        (make_chunk(1, 9, tag=1), 1),
        (make_chunk(2, 9, tag=4), 2),
    )
    player = make_player(*chunks, blending=CrossFade(2 * DT))
    assert play(player, 2, 3, 4) == [0.5, 0.5 * (1 + 4), 4]


def test_old_chunk_plays_on_until_the_new_one_starts() -> None:
    chunks = (make_chunk(0, 8, tag=0), 0), (make_chunk(3, 8, tag=1), 2)
    player = make_player(*chunks, blending=CrossFade(2 * DT))
    assert play(player, 2, 3, 4, 5) == [0, 0, 0.5, 1]


@pytest.mark.parametrize("coefficient", [0.0, 0.5, -0.5])
def test_ensemble_weighs_all_chunks_that_cover_the_time(coefficient: float) -> None:
    """Against the sum that the paper writes down."""
    tags = (1.0, 5.0, 7.0)
    chunks = [(make_chunk(k, 3, tag=tag), k) for k, tag in enumerate(tags)]
    player = make_player(*chunks, blending=TemporalEnsemble(coefficient))
    weights = np.exp(-coefficient * np.arange(3))
    expected = [np.average(tags, weights=weights), np.average(tags[1:], weights=weights[:2])]
    assert play(player, 2, 3) == pytest.approx(expected)
    assert play(player, 4, 5) == [7, None]


def test_chunk_sent_again_counts_once() -> None:
    player = make_player(
        (make_chunk(0, tag=1), 0), *[(make_chunk(1, tag=3), 1)] * 3, blending=TemporalEnsemble(0.0)
    )
    assert play(player, 1) == [2]


def test_what_an_old_chunk_still_has_is_not_played_after_the_newest() -> None:
    chunks = (make_chunk(0, 20, tag=0), 0), (make_chunk(1, 3, tag=1), 1)
    player = make_player(*chunks, blending=CrossFade(DT))
    assert play(player, 3.9, 4, 5) == [1, None, None]


def test_an_old_chunk_does_not_come_back_when_a_newer_one_ends_in_the_fade_of_the_next() -> None:
    """The fade is over by then: it lasts no longer than the chunk that it leads away from."""
    old, middle = make_chunk(0, 20, tag=0), make_chunk(3, 8, tag=10)
    player = make_player((old, 0), (middle, 3), blending=CrossFade(2 * DT))
    assert play(player, 4, 5) == [5, 10]
    player.offer(make_chunk(9, 8, tag=20), at(10))
    assert play(player, 10, 10.5, 10.9, 11, 11.1, 16.9, 17) == [10, 15, 19, 20, 20, 20, None]


def test_a_chunk_that_outlasts_a_newer_one_leaves_the_ensemble_with_it() -> None:
    chunks = (
        (make_chunk(0, 20, tag=0), 0),
        (make_chunk(3, 8, tag=10), 3),
        (make_chunk(9, tag=20), 9),
    )
    player = make_player(*chunks, blending=TemporalEnsemble(0.0))
    assert play(player, 9, 10.9, 11, 16.9, 17) == [10, 10, 20, 20, None]


def test_an_old_chunk_does_not_fill_the_time_until_the_next_one_begins() -> None:
    chunks = (make_chunk(0, 20, tag=0), 0), (make_chunk(1, 3, tag=1), 1), (make_chunk(5, tag=2), 3)
    player = make_player(*chunks, blending=CrossFade(DT))
    assert play(player, 3.9, 4, 4.9, 5) == [1, None, None, 2]


def test_cross_fade_is_over_when_the_old_chunk_is_too_old() -> None:
    chunks = (make_chunk(0, 8, tag=0), 0), (make_chunk(4, 8, tag=1), 5)
    player = make_player(*chunks, blending=CrossFade(2 * DT), max_age_ns=6 * DT)
    assert play(player, 5, 5.5, 5.9, 6, 6.1) == [0, 0.5, 0.9, 1, 1]
    later = make_player(*chunks, blending=CrossFade(2 * DT), max_age_ns=6 * DT, offset_ns=-DT)
    assert play(later, 5, 5.5, 6, 6.1) == [0, 0.5, 1, 1]  # its age counts by the clock


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 8), st.integers(-8, 8), st.floats(0.1, 9)),
        min_size=2,
        max_size=8,
    ),
    st.sampled_from([CrossFade(DT // 2), CrossFade(2 * DT), TemporalEnsemble(0.5)]),
    st.sampled_from([None, 2 * DT]),
    st.sampled_from([-DT, 0, DT // 2]),
)
def test_what_a_newer_chunk_has_overruled_does_not_come_back(
    offers: list[tuple[int, int, int, float]],
    blending: Blending,
    max_age_ns: int | None,
    offset_ns: int,
) -> None:
    """Each chunk says more than those before it; so the command never falls, whatever ends when."""
    player = make_player(blending=blending, max_age_ns=max_age_ns, offset_ns=offset_ns)
    quarter, level, last = 0, 0.0, -np.inf
    for steps, pause, ahead, rise in offers:
        level += rise
        chunk = ActionChunk(at((quarter + ahead) / 4), DT, np.full((steps, 1), level))
        with contextlib.suppress(InputError):  # too late, too early, too old or no newer
            player.offer(chunk, at(quarter / 4))
        for _ in range(pause):
            action = player.action_at(at(quarter / 4))
            if action is not None:
                assert action[0] >= last - 1e-9
                last = action[0]
            quarter += 1


@pytest.mark.parametrize("blending", [CrossFade(50 * DT), TemporalEnsemble(0.01)])
def test_a_flood_of_chunks_does_not_fill_the_memory(blending: Any) -> None:
    player = ChunkPlayer(settings=PlayerSettings(blending=blending, coordinates=NUMBERS))
    for index in range(500):
        player.offer(ActionChunk(T0 + index, DT, np.zeros((8, 1))), T0 + index)
    assert len(player._candidates) <= 100
    assert play(player, 1) == [0]


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 30), st.floats(-9, 9)), min_size=1, max_size=8
    ),
    st.sampled_from(["none", "linear"]),
    st.sampled_from([NoBlending(), CrossFade(DT), TemporalEnsemble(0.5), TemporalEnsemble(-5.0)]),
    st.integers(-DT, DT),
)
def test_nothing_is_invented(
    offers: list[tuple[int, int, float]],
    interpolation: Interpolation,
    blending: Blending,
    offset_ns: int,
) -> None:
    """Between the extremes of what chunks said while the newest has actions, then silence."""
    player = make_player(offset_ns=offset_ns, interpolation=interpolation, blending=blending)
    quarter, tags = 0, []
    for steps, pause, tag in offers:
        chunk = ActionChunk(at(quarter / 4), DT, np.full((steps, 1), tag))
        player.offer(chunk, chunk.stamp_ns + offset_ns)
        tags.append(tag)
        for played in range(pause):
            action = player.action_at(at((quarter + played) / 4) + offset_ns)
            if played >= 4 * steps:
                assert action is None
            else:
                assert action is not None
                assert min(tags) - 1e-9 <= action[0] <= max(tags) + 1e-9
        quarter += pause


SAME_BUT_FOR_FOUR_DEGREES = np.radians([[178.0, 0.0, 0.0], [-178.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    "mixing",
    [
        {"interpolation": "linear"},
        {"blending": CrossFade(2 * DT)},
        {"blending": TemporalEnsemble(0.01)},
        {"interpolation": "linear", "blending": CrossFade(2 * DT)},
        {"interpolation": "linear", "blending": TemporalEnsemble(0.01)},
    ],
)
@pytest.mark.parametrize(
    ("coordinates", "is_mixed"),
    [(read_coordinates(["number 0-2", "rotation_vector 3-5"]), True), (UNKNOWN, False)],
)
def test_rotations_written_on_both_sides_of_pi_stay_near(
    mixing: dict[str, Any], coordinates: Coordinates, is_mixed: bool
) -> None:
    first, second = SAME_BUT_FOR_FOUR_DEGREES
    rows = [
        [np.concatenate([[0.4, 0, 0.3], turn]) for turn in turns]
        for turns in ([first, second, first, first, first, first], [second] * 8)
    ]
    player = make_player(coordinates=coordinates, **mixing)
    player.offer(ActionChunk(T0, DT, np.array(rows[0])), T0)
    seen = []
    for tick in range(60):
        if tick == 20:
            player.offer(ActionChunk(at(2), DT, np.array(rows[1])), at(2))
        command = player.action_at(at(tick / 10))
        turned = Rotation.from_rotvec(command[3:].copy()) * Rotation.from_rotvec(first).inv()
        seen.append(np.degrees(turned.magnitude()))
        assert command[:3] == pytest.approx([0.4, 0, 0.3])
    assert max(seen) == pytest.approx(4)
    between = [degrees for degrees in seen if 1e-6 < degrees < 4 - 1e-6]
    assert bool(between) == is_mixed


def test_coordinates_that_nobody_told_are_those_of_the_newest_chunk() -> None:
    chunks = (make_chunk(0, 8, tag=0), 0), (make_chunk(1, 8, tag=1), 2)
    for blending in (CrossFade(2 * DT), TemporalEnsemble(0.01)):
        player = make_player(*chunks, blending=blending, coordinates=UNKNOWN)
        assert play(player, 2, 3) == [1, 1]
    half = read_coordinates(["number 0"])  # the step number; the tag is unknown
    player = make_player(*chunks, interpolation="linear", coordinates=half)
    assert player.action_at(at(2.5)).tolist() == [2.5, 1]


def test_weights_of_an_ensemble_never_overflow() -> None:
    chunks = [(make_chunk(0, 90, tag=0), 0), *[(make_chunk(k, 90, tag=1), k) for k in range(1, 80)]]
    player = make_player(*chunks, blending=TemporalEnsemble(-10.0))
    assert play(player, 80) == [1]
