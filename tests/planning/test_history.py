from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from para_policy.errors import InputError, NonFiniteError
from para_policy.planning.history import ObservationHistory

DT = 100_000_000
GAP = 5 * DT
START = 1_700_000_000 * 10**9


def make_history(n_obs_steps: int = 2, **shapes: tuple[int, ...]) -> ObservationHistory:
    return ObservationHistory(shapes or {"x": ()}, n_obs_steps, DT, GAP)


def test_last_sample_not_after_each_time_counts() -> None:
    history = make_history(n_obs_steps=3)
    for offset, value in [(0, 0.0), (90, 1.0), (101, 2.0), (199, 3.0), (200, 4.0), (201, 5.0)]:
        history.append("x", START + offset * 1_000_000, value)
    assert history.sample(START + 2 * DT)["x"].tolist() == [0.0, 1.0, 4.0]


@given(st.permutations([20, 60, 110, 170, 230, 290]), st.integers(0, 320))
def test_order_of_arrival_does_not_matter(offsets: list[int], at: int) -> None:
    history = make_history()
    for offset in offsets:
        history.append("x", START + offset * 1_000_000, offset)
    taken = [max([o for o in offsets if o <= t], default=20) for t in (at - 100, at)]
    assert history.sample(START + at * 1_000_000)["x"].tolist() == taken


def test_first_sample_is_repeated_before_the_start() -> None:
    history = make_history(x=(2,))
    history.append("x", START, [1, 2])
    assert history.sample(START)["x"].tolist() == [[1, 2], [1, 2]]


def test_common_time_is_that_of_the_slowest_input() -> None:
    history = make_history(a=(), b=())
    assert history.newest_common_ns() is None
    history.append("a", START, 0)
    assert history.missing() == ["b"]
    with pytest.raises(InputError, match="no observation yet of b"):
        history.sample(START)
    history.append("b", START - DT, 0)
    assert history.newest_common_ns() == START - DT


def test_message_sent_again_replaces_the_first() -> None:
    history = make_history(n_obs_steps=1)
    history.append("x", START, 1)
    history.append("x", START, 2)
    assert history.sample(START)["x"].tolist() == [2]


@pytest.mark.parametrize("jump", [GAP + 1, -GAP - 1])
def test_stream_starts_anew_after_a_gap(jump: int) -> None:
    history = make_history()
    history.append("x", START, 1)
    history.append("x", START + jump, 2)
    assert history.sample(START + jump)["x"].tolist() == [2, 2]


@given(st.lists(st.integers(1, GAP), min_size=50, max_size=100))
def test_memory_is_bounded_and_the_past_that_counts_is_kept(steps: list[int]) -> None:
    history = make_history(n_obs_steps=4)
    stamps = (START + np.cumsum(steps)).tolist()
    for index, stamp in enumerate(stamps):
        history.append("x", stamp, index)
    expected = [
        max(np.searchsorted(stamps, stamps[-1] - k * DT, "right") - 1, 0) for k in (3, 2, 1, 0)
    ]
    assert history.sample(stamps[-1])["x"].tolist() == expected
    kept = history._streams["x"].stamps
    assert stamps[-1] - kept[0] <= GAP + 4 * DT + GAP


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("y", [0, 0], InputError, "no input 'y'"),
        ("x", [0, 0, 0], InputError, r"shape \(3,\), expected \(2,\)"),
        ("x", [0, np.nan], NonFiniteError, "NaN"),
        ("x", [0, np.inf], NonFiniteError, "infinity"),
    ],
)
def test_bad_observations_leave_the_history_as_it_was(
    name: str, value: list[float], error: type[Exception], message: str
) -> None:
    history = make_history(x=(2,))
    history.append("x", START, [1, 2])
    with pytest.raises(error, match=message):
        history.append(name, START + DT, value)
    assert history.newest_common_ns() == START


def test_images_stay_bytes_and_are_copied() -> None:
    history = make_history(camera=(3, 2, 2), x=())
    message = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)  # as a camera sends it
    history.append("camera", START, np.moveaxis(message, -1, 0))
    history.append("x", START, 1)
    expected = np.moveaxis(message, -1, 0).copy()
    message[:] = 0
    sampled = history.sample(START)
    assert {name: value.dtype for name, value in sampled.items()} == {"camera": "u1", "x": "f8"}
    np.testing.assert_array_equal(sampled["camera"], np.stack([expected, expected]))


def test_a_patient_limit_does_not_fill_the_memory() -> None:
    hour = 3600 * 10**9
    history = ObservationHistory({"camera": (3, 2, 2), "x": ()}, 2, DT, max_gap_ns=hour)
    history.append("x", START, 0)
    for step in range(200):  # twenty seconds in which nothing comes from x
        history.append("camera", START + step * DT, np.full((3, 2, 2), step, dtype=np.uint8))
        assert len(history._streams["camera"].stamps) <= 104
        if step == 90:  # x may lag behind, and gets what belongs to it
            assert history.sample(START)["camera"][0, 0, 0, 0] == 0
    with pytest.raises(
        InputError, match=r"camera ran ahead of the other inputs by more than 10\.2 s"
    ):
        history.sample(START)
    history.append("x", START + 199 * DT, 0)
    assert history.sample(START + 199 * DT)["camera"][:, 0, 0, 0].tolist() == [198, 199]


@given(st.permutations([0, 40, 130, 170, 230, 290]), st.integers(-50, 290))
def test_linear_inputs_are_interpolated_whatever_the_order(offsets: list[int], at: int) -> None:
    history = ObservationHistory({"x": (2,), "y": ()}, 2, DT, GAP, linear=["x"])
    for offset in offsets:
        history.append("x", START + offset * 1_000_000, [offset, -3 * offset])
        history.append("y", START + offset * 1_000_000, offset)
    seen = history.sample(START + at * 1_000_000)
    expected = np.clip([at - 100, at], 0, None)
    np.testing.assert_allclose(seen["x"], np.stack([expected, -3 * expected], axis=1), atol=1e-9)
    assert set(seen["y"].tolist()) <= set(offsets)


def test_a_sample_of_the_very_time_is_not_blurred() -> None:
    history = ObservationHistory({"x": ()}, 2, DT, GAP, linear=["x"])
    for step, value in enumerate([0.1, 0.2, 0.7]):
        history.append("x", START + step * DT, value)
    assert history.sample(START + DT)["x"].tolist() == [0.1, 0.2]
    assert history.sample(START + 2 * DT)["x"].tolist() == [0.2, 0.7]


def test_each_input_may_have_its_own_gap() -> None:
    history = ObservationHistory({"a": (), "b": ()}, 2, DT, GAP, max_gaps_ns={"b": 20 * DT})
    for name in ("a", "b"):
        history.append(name, START, 1)
        history.append(name, START + 10 * DT, 2)
    seen = history.sample(START + 10 * DT)
    assert (seen["a"].tolist(), seen["b"].tolist()) == ([2, 2], [1, 2])
    assert history.newest_ns() == dict.fromkeys("ab", START + 10 * DT)


def test_time_between_observations_can_change() -> None:
    history = make_history()
    for step in range(5):
        history.append("x", START + step * DT, step)
    history.set_dt(3 * DT)
    assert history.sample(START + 4 * DT)["x"].tolist() == [1, 4]


def test_parts_of_an_input_are_looked_up_by_their_own_stamps() -> None:
    """The arm comes at every step, the gripper half as often and 30 ms earlier."""
    shapes = {"state[0]": (2,), "state[1]": (1,), "other": ()}
    parts = {"state": ("state[1]", "state[0]")}
    history = ObservationHistory(shapes, 2, DT, GAP, parts=parts)
    for step in range(5):
        history.append("state[0]", START + step * DT, [step, 10 + step])
        history.append("other", START + step * DT, step)
        if step % 2:
            history.append("state[1]", START + step * DT - 30_000_000, [100 + step])
    seen = history.sample(START + 3 * DT)
    assert set(seen) == {"state", "other"}
    assert seen["state"].tolist() == [[101, 2, 12], [103, 3, 13]]
    assert history.newest_common_ns() == START + 3 * DT - 30_000_000
