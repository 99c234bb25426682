from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from para_policy.errors import InputError, NonFiniteError
from para_policy.execution.coordinates import NUMBERS, UNKNOWN, poses, read_coordinates
from para_policy.planning.history import ObservationHistory

DT = 100_000_000
MS = 1_000_000
GAP = 5 * DT
START = 1_700_000_000 * 10**9


def make_history(n_obs_steps: int = 2, **shapes: tuple[int, ...]) -> ObservationHistory:
    return ObservationHistory(shapes or {"x": ()}, n_obs_steps, DT, GAP)


def nearest(offsets: list[int], time: int) -> int:
    """Of two that are equally near the older."""
    return min(sorted(offsets), key=lambda offset: abs(offset - time))


def test_the_sample_nearest_to_each_time_counts() -> None:
    history = make_history(n_obs_steps=3)
    for offset, value in [(0, 0.0), (90, 1.0), (101, 2.0), (199, 3.0), (200, 4.0), (201, 5.0)]:
        history.append("x", START + offset * MS, value)
    assert history.sample(START + 2 * DT)["x"].tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("rate_hz", [10, 20, 25, 30, 100, 1000])
@pytest.mark.parametrize("phase_ms", [0.0, 0.2, 24.9, 25.1, 50.0, 99.8])
def test_jitter_and_phase_leave_observations_a_step_apart(rate_hz: int, phase_ms: float) -> None:
    """Two sensors of any rate from the control rate on, each stamp up to half a millisecond off."""
    jitter_ms = np.random.default_rng(0).uniform(-0.5, 0.5, 200)
    history = make_history(a=(), b=())
    worst_ns = 1.5 * MS + (0 if rate_hz % 10 == 0 else 0.2 * DT)  # 25 Hz: steps of 80 or 120 ms
    for step, off_ms in enumerate(jitter_ms):
        stamp_ns = START + round(1e9 * step / rate_hz + off_ms * MS)
        history.append("a", stamp_ns, 0)
        history.append("b", stamp_ns + round(phase_ms * MS), 0)
        time_ns = history.newest_common_ns()
        assert time_ns is not None
        for gap_ns in history.spacing_ns(time_ns).values():
            assert abs(gap_ns - DT) <= worst_ns


@pytest.mark.parametrize(("rate_hz", "expected_ms"), [(4, 0), (10 / 3, 0), (10, 100), (20, 100)])
def test_a_sensor_that_is_too_slow_is_seen_twice_and_that_is_said(
    rate_hz: float, expected_ms: float
) -> None:
    history = make_history(x=(), slow=())
    for step in range(5):
        history.append("slow", START + round(1e9 * step / rate_hz), 0)
    newest_ns = history.newest_ns()["slow"]
    for step in range(30):
        history.append("x", newest_ns - (29 - step) * DT // 10, step)
    expected_ns = {"x": DT, "slow": pytest.approx(expected_ms * MS, abs=2)}
    assert history.spacing_ns(newest_ns) == expected_ns


def test_repetition_of_the_first_sample_is_no_fault() -> None:
    history = make_history()
    history.append("x", START, 1)
    assert history.spacing_ns(START) == {}
    history.append("x", START + DT, 2)
    assert history.spacing_ns(START + DT) == {"x": DT}
    history.append("x", START + 5 * DT, 3)
    assert history.spacing_ns(START + 5 * DT) == {"x": 0}
    history.append("x", START + 20 * DT, 4)  # anew, after a gap
    assert history.spacing_ns(START + 20 * DT) == {}


def test_mixed_observations_are_a_step_apart_whatever_the_samples() -> None:
    history = ObservationHistory({"x": ()}, 3, DT, GAP, linear=["x"], coordinates={"x": NUMBERS})
    for offset in (0, 170, 290, 410):
        history.append("x", START + offset * MS, offset)
    assert history.spacing_ns(START + 410 * MS) == {"x": DT}


def test_of_values_that_cannot_be_mixed_the_nearest_counts_beside_those_that_are() -> None:
    coordinates = {"x": read_coordinates(["angle 0"]), "untold": UNKNOWN}
    history = ObservationHistory(
        {"x": (2,), "untold": ()}, 2, DT, GAP, linear=["x", "untold"], coordinates=coordinates
    )
    for offset, value in ((0, 3.1), (101, -3.1), (200, -3.0)):  # jitter: the last before 100 is 0
        history.append("x", START + offset * MS, [value, offset])
        history.append("untold", START + offset * MS, offset)
    seen = history.sample(START + 200 * MS)
    on_the_way = -3.1 - 0.01 / 1.01 * (2 * np.pi - 6.2)
    np.testing.assert_allclose(seen["x"][0], [on_the_way, 101], atol=1e-12)
    assert seen["x"][1].tolist() == [-3.0, 200]
    assert seen["untold"].tolist() == [101, 200]
    assert history.spacing_ns(START + 200 * MS) == dict.fromkeys(["x", "untold"], 99 * MS)


@given(st.permutations([20, 60, 110, 170, 230, 290]), st.integers(0, 320))
def test_order_of_arrival_does_not_matter(offsets: list[int], at: int) -> None:
    history = make_history()
    for offset in offsets:
        history.append("x", START + offset * MS, offset)
    newest = nearest(offsets, at)
    taken = [nearest(offsets, newest - 100), newest]
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


@pytest.mark.parametrize(
    ("newest", "stamp", "received", "straggler"),
    [
        (100, 100 - GAP - 1, 100, True),
        (100, 100 - GAP, 100, False),  # late, but of use
        (100, 0, 0, False),  # time has begun again, for the receiver too
        (100, 0, 100 + GAP + 1, False),  # the newer ones are too old themselves
        (100, 101, 100 + 9 * GAP, False),
    ],
)
def test_stragglers(newest: int, stamp: int, received: int, straggler: bool) -> None:
    history = make_history()
    assert not history.is_straggler("x", stamp, received)
    history.append("x", newest, 0.0)
    assert history.is_straggler("x", stamp, received) == straggler
    assert not history.is_straggler("unknown", stamp, received)


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
    expected = [stamps.index(nearest(stamps, stamps[-1] - k * DT)) for k in (3, 2, 1, 0)]
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
    said = r"camera is stamped 19\.900 s after x, and samples are kept for 10\.2 s"
    with pytest.raises(InputError, match=said):
        history.sample(START)
    history.append("x", START + 199 * DT, 0)
    assert history.sample(START + 199 * DT)["camera"][:, 0, 0, 0].tolist() == [198, 199]


@given(st.permutations([0, 40, 130, 170, 230, 290]), st.integers(-50, 290))
def test_linear_inputs_are_interpolated_whatever_the_order(offsets: list[int], at: int) -> None:
    history = ObservationHistory(
        {"x": (2,), "y": ()}, 2, DT, GAP, linear=["x"], coordinates={"x": NUMBERS}
    )
    for offset in offsets:
        history.append("x", START + offset * 1_000_000, [offset, -3 * offset])
        history.append("y", START + offset * 1_000_000, offset)
    seen = history.sample(START + at * 1_000_000)
    expected = np.clip([at - 100, at], 0, None)
    np.testing.assert_allclose(seen["x"], np.stack([expected, -3 * expected], axis=1), atol=1e-9)
    assert set(seen["y"].tolist()) <= set(offsets)


def test_a_sample_of_the_very_time_is_not_blurred() -> None:
    history = ObservationHistory({"x": ()}, 2, DT, GAP, linear=["x"], coordinates={"x": NUMBERS})
    for step, value in enumerate([0.1, 0.2, 0.7]):
        history.append("x", START + step * DT, value)
    assert history.sample(START + DT)["x"].tolist() == [0.1, 0.2]
    assert history.sample(START + 2 * DT)["x"].tolist() == [0.2, 0.7]


def test_each_input_may_have_its_own_gap() -> None:
    gaps = {"b": 20 * DT}
    history = ObservationHistory({"a": (), "b": ()}, 2, 10 * DT, GAP, max_gaps_ns=gaps)
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


def test_rotations_and_angles_are_interpolated_the_shorter_way_and_unknown_values_not() -> None:
    history = ObservationHistory(
        {"pose": (1, 7), "wheel": (), "state": (1,)},
        n_obs_steps=1,
        dt_ns=DT,
        max_gap_ns=GAP,
        linear=["pose", "wheel", "state"],
        coordinates={"pose": poses(), "wheel": read_coordinates(["angle 0"])},
    )
    half = np.sqrt(0.5)
    for step, x, quaternion, angle in (
        (0, 1.0, [0, 0, 0, 1], 3.1),
        (1, 2.0, [0, 0, -half, -half], -3.1),
    ):
        history.append("pose", START + step * DT, [[x, 0, 0, *quaternion]])
        history.append("wheel", START + step * DT, angle)
        history.append("state", START + step * DT, [angle])
    seen = history.sample(START + DT // 4)
    turned = np.radians(22.5) / 2
    expected = [1.25, 0, 0, 0, 0, np.sin(turned), np.cos(turned)]
    np.testing.assert_allclose(seen["pose"], [[expected]], atol=1e-12)
    assert seen["wheel"].tolist() == [pytest.approx(3.1 + (2 * np.pi - 6.2) / 4)]
    assert seen["state"].tolist() == [[3.1]]


def test_an_orientation_that_is_none_is_refused_by_name() -> None:
    history = ObservationHistory({"pose": (7,)}, 1, DT, GAP, coordinates={"pose": poses()})
    with pytest.raises(InputError, match=r"input 'pose' has the quaternion \[0.*\] of length 0"):
        history.append("pose", START, np.zeros(7))
    assert history.missing() == ["pose"]


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
    assert history.spacing_ns(START + 3 * DT) == {"state[0]": DT, "state[1]": 2 * DT, "other": DT}
