"""Angles and rotations, in whatever numbers they are written, against rotation matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from para_policy.errors import InputError
from para_policy.execution.chunk import ActionChunk
from para_policy.execution.coordinates import NUMBERS, UNKNOWN, poses, read_coordinates

Write = Callable[[Rotation], np.ndarray]
TURN = 2 * math.pi


def six(rotation: Rotation) -> np.ndarray:
    return rotation.as_matrix()[:, :2].T.ravel()


def from_six(value: np.ndarray) -> Rotation:
    columns = value.reshape(2, 3)
    return Rotation.from_matrix(np.stack([*columns, np.cross(*columns)], axis=1))


def other_vector(value: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(value)
    return value if angle == 0 else value * (1 - TURN / angle)


# Kind, how a rotation is written in it and read, and another way to write it.
WAYS = {
    "rotation_vector 0-2": (Rotation.as_rotvec, Rotation.from_rotvec, other_vector),
    "quaternion 0-3": (Rotation.as_quat, Rotation.from_quat, np.negative),
    "rotation_6d 0-5": (six, from_six, np.copy),
    **{
        f"euler_{order} 0-2": (
            lambda r, order=order: r.as_euler(order),
            lambda value, order=order: Rotation.from_euler(order, value),
            lambda value: value + np.array([TURN, 0, -TURN]),
        )
        for order in ("xyz", "ZYX", "zxz")
    },
    "euler_XYZ_degrees 0-2": (
        lambda r: r.as_euler("XYZ", degrees=True),
        lambda value: Rotation.from_euler("XYZ", value, degrees=True),
        lambda value: value + np.array([180, 180 - 2 * value[1], -180]),
    ),
}
ways = pytest.mark.parametrize("way", WAYS)
rotations = st.integers(0, 2**32 - 1).map(lambda seed: Rotation.random(random_state=seed))
parts = st.floats(0, 1)


def angle_between(a: Rotation, b: Rotation) -> float:
    return float((a * b.inv()).magnitude())


@ways
@pytest.mark.filterwarnings("ignore:Gimbal lock")
@given(a=rotations, b=rotations, t=parts)
def test_the_way_between_two_rotations_is_the_shortest_turn(
    way: str, a: Rotation, b: Rotation, t: float
) -> None:
    coordinates = read_coordinates([way])
    write, read, other = WAYS[way]
    whole = angle_between(a, b)
    assume(whole < math.pi - 1e-3)  # there are two ways to the opposite
    value, end = write(a), write(b)
    between = coordinates.interpolate(value, end, t)
    np.testing.assert_allclose(coordinates.canonical(between), between, atol=1e-9)
    assert angle_between(read(between), a) == pytest.approx(t * whole, abs=1e-6)
    assert angle_between(read(between), b) == pytest.approx((1 - t) * whole, abs=1e-6)
    same = coordinates.interpolate(other(value), end, t)
    assert angle_between(read(same), read(between)) < 1e-6
    np.testing.assert_array_equal(coordinates.interpolate(value, end, 0), value)
    np.testing.assert_array_equal(coordinates.interpolate(value, end, 1), end)


@ways
@pytest.mark.filterwarnings("ignore:Gimbal lock")
@given(
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.floats(0.01, 1), min_size=2, max_size=6),
    centre=rotations,
)
def test_the_mean_is_amid_the_rotations_whatever_their_order_and_numbers(
    way: str, seed: int, weights: list[float], centre: Rotation
) -> None:
    coordinates = read_coordinates([way])
    write, read, other = WAYS[way]
    turns = np.random.default_rng(seed).uniform(-0.5, 0.5, (len(weights), 3))
    values = [write(Rotation.from_rotvec(turn) * centre) for turn in turns]
    mean = read(coordinates.mean(values, weights))
    ways_to = np.array([(read(value) * mean.inv()).as_rotvec() for value in values])
    np.testing.assert_allclose(weights @ ways_to / sum(weights), 0, atol=1e-6)
    mixed = [other(value) for value in values][::-1]
    assert angle_between(read(coordinates.mean(mixed, weights[::-1])), mean) < 1e-6
    a, b = values[:2]
    middle = coordinates.mean([a, b], [3, 3])
    assert angle_between(read(middle), read(coordinates.interpolate(a, b, 0.5))) < 1e-6
    assert coordinates.mean([a, b], [0, 1]).tolist() == b.tolist()


@ways
@pytest.mark.filterwarnings("ignore:Gimbal lock")
@given(a=rotations, b=rotations)
def test_differences_are_angles_and_numbers_stay_close_to_the_reference(
    way: str, a: Rotation, b: Rotation
) -> None:
    coordinates = read_coordinates([way])
    write, read, other = WAYS[way]
    unit = 180 / math.pi if "degrees" in way else 1.0
    value, end = write(a), write(b)
    sizes = coordinates.sizes(coordinates.difference(value, end))
    np.testing.assert_allclose(sizes, unit * angle_between(a, b), atol=1e-6)
    assert coordinates.same(value, other(value))
    assert coordinates.same(value, end) == (angle_between(a, b) < 1e-12)
    for reference in (value, end):
        aligned = coordinates.align(other(value), reference)
        assert angle_between(read(aligned), a) < 1e-6
        distance = np.linalg.norm(aligned - reference)
        assert distance <= np.linalg.norm(value - reference) + 1e-9


@given(st.floats(-20, 20), st.floats(-20, 20), parts, st.integers(-3, 3))
def test_angles_go_the_shorter_way_round(a: float, b: float, t: float, turns: int) -> None:
    coordinates = read_coordinates(["angle 0"])
    way = math.remainder(b - a, TURN)
    assume(abs(way) < math.pi - 1e-6)
    value, end = np.array([a]), np.array([b])
    for start in (value, value + turns * TURN):
        between = coordinates.interpolate(start, end, t)[0]
        assert abs(math.remainder(between - a - t * way, TURN)) < 1e-9
        middle = coordinates.mean([start, end], [1, 1])[0]
        assert abs(math.remainder(middle - a - way / 2, TURN)) < 1e-9
    assert coordinates.difference(end, value)[0] == pytest.approx(way)
    assert abs(coordinates.align(end, value) - value)[0] <= math.pi + 1e-9
    assert coordinates.interpolate(value, end, 0)[0] == a
    assert coordinates.interpolate(value, end, 1)[0] == b
    assert coordinates.same(value, value + turns * TURN)


def test_interpolated_angles_stay_on_the_turn_of_the_nearer_end() -> None:
    degrees = read_coordinates(["angle_degrees 0"])
    ends = np.array([178.0]), np.array([-178.0])
    assert [degrees.interpolate(*ends, t)[0] for t in (0.25, 0.75)] == [179.0, -179.0]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2), parts)
def test_numbers_are_mixed_one_by_one_and_unknown_ones_not_at_all(
    values: list[float], t: float
) -> None:
    a, b = (np.array([value, 5.0]) for value in values)
    expected = (1 - t) * a + t * b
    for coordinates in (NUMBERS, read_coordinates(["number 0-1"])):
        np.testing.assert_allclose(coordinates.interpolate(a, b, t), expected)
        np.testing.assert_allclose(coordinates.mean([a, b], [1 - t, t]), expected, atol=1e-9)
    held = b if t == 1 else a
    np.testing.assert_array_equal(UNKNOWN.interpolate(a, b, t), held)
    np.testing.assert_array_equal(UNKNOWN.mean([a, b], [1 - t, t]), b)
    for coordinates in (NUMBERS, UNKNOWN):
        np.testing.assert_array_equal(coordinates.difference(a, b), a - b)
        assert coordinates.same(a, b) == np.array_equal(a, b)


def test_groups_lie_anywhere_and_the_rest_is_unknown() -> None:
    mixed = read_coordinates(["rotation_vector 4,0,2", "number 1"])
    a, b = np.zeros(6), np.array([0.2, 10.0, 0.0, 7.0, 0.1, 8.0])
    assert mixed.interpolate(a, b, 0.5) == pytest.approx([0.1, 5, 0, 0, 0.05, 0])
    assert (mixed.untold(6), mixed.untold(None)) == ("3, 5", "all but those named")
    assert mixed.flat(6).tolist() == [False, True, False, False, False, False]
    assert (UNKNOWN.untold(2), UNKNOWN.untold(None), NUMBERS.untold(2)) == ("0, 1", "all", "")


def test_order_of_a_quaternion_does_not_matter() -> None:
    a, b = (Rotation.random(random_state=seed).as_quat() for seed in (1, 2))
    given_as = read_coordinates(["quaternion 0-3"])
    shifted = given_as.interpolate(np.roll(a, 1), np.roll(b, 1), 0.3)
    np.testing.assert_allclose(shifted, np.roll(given_as.interpolate(a, b, 0.3), 1), atol=1e-12)


def test_a_chunk_is_normalised_and_its_signs_continue() -> None:
    turns = [Rotation.from_euler("z", degrees, degrees=True) for degrees in (0, 10, 20)]
    actions = np.array([[x, 0, 0, *turn.as_quat()] for x, turn in enumerate(turns)])
    spoiled = actions.copy()
    spoiled[1, 3:] *= -1.2
    spoiled[2, 3:] *= 0.9
    prepared = poses().prepare(ActionChunk(0, 1, spoiled))
    np.testing.assert_allclose(prepared.actions, actions, atol=1e-15)


def test_six_numbers_become_two_orthonormal_directions() -> None:
    turn = Rotation.from_euler("xyz", [0.3, -0.2, 1.0])
    spoiled = six(turn) * 1.3
    spoiled[3:] += 0.2 * spoiled[:3]
    prepared = read_coordinates(["rotation_6d 0-5"]).prepare(ActionChunk(0, 1, spoiled[None]))
    np.testing.assert_allclose(prepared.actions[0], six(turn), atol=1e-12)


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        ("quaternion 0-3", [0, 0, 0, 0], r"action 1 has the quaternion \[0.*\] of length 0"),
        ("rotation_6d 0-5", [1, 0, 0, 2, 0, 0], "action 1 has the 6-D rotation .* two directions"),
        ("rotation_6d 0-5", [0, 0, 0, 1, 0, 0], "action 1 has the 6-D rotation"),
        ("rotation_6d 0-5", [1e300, 0, 0, 0, 1, 0], "action 1 has the rotation .* up to 1e.06"),
        ("quaternion 0-3", [0, 0, 1e300, 0], "action 1 has the rotation"),
        ("rotation_vector 0-2", [0, -1e300, 0], "action 1 has the rotation"),
        ("euler_xyz 0-2", [0, 0, 1e300], "action 1 has the rotation"),
    ],
)
def test_numbers_without_direction_are_refused(entry: str, value: list[float], reason: str) -> None:
    good = np.eye(len(value))[0] + np.eye(len(value))[-1]
    with pytest.raises(InputError, match=reason):
        read_coordinates([entry]).prepare(ActionChunk(0, 1, np.array([good, value])))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (["magic 0"], "'magic' is no kind of coordinates; expected number, angle, .*euler_XYZ"),
        (["euler_xyx_rad 0-2"], "is no kind"),
        (["euler_xxy 0-2"], "is no kind"),
        (["euler_xYz 0-2"], "is no kind"),
        (["angle"], "'angle' cannot be read; expected a kind and places"),
        (["angle -1"], "cannot be read"),
        (["0-2 number"], "cannot be read"),
        (["number 3-1"], "'3-1' is no range"),
        (["number 0-99999999999"], "is no range"),
        (["rotation_vector 3-4"], "'rotation_vector 3-4' are 2; this kind expects 3"),
        (["quaternion 0-2"], "'quaternion 0-2' are 3; this kind expects 4"),
        (["rotation_6d 0-4"], "are 5; this kind expects 6"),
        (["number 0-3", "angle 3"], "coordinate 3 is in 'number 0-3' and in 'angle 3'"),
        (["number 0,0"], "coordinate 0 is in 'number 0,0' and in 'number 0,0'"),
    ],
)
def test_wrong_texts_say_what_is_wrong(entries: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_coordinates(entries)


def test_places_that_do_not_exist_are_refused() -> None:
    coordinates = read_coordinates(["number 0-2", "rotation_vector 3-5"])
    coordinates.check(6)
    with pytest.raises(InputError, match=r"'rotation_vector 3-5' name coordinate 5; there are 5"):
        coordinates.check(5)
    with pytest.raises(InputError, match="there are 5, 0 to 4"):
        coordinates.prepare(ActionChunk(0, 1, np.ones((2, 5))))


@pytest.mark.filterwarnings("ignore:Gimbal lock")
def test_in_gimbal_lock_the_rotation_is_right_whatever_its_angles() -> None:
    ends = [np.array([0.1, math.pi / 2, 0.2]), np.array([0.3, math.pi / 2, 0.2])]
    between = read_coordinates(["euler_ZYX 0-2"]).interpolate(*ends, 0.5)
    right = Rotation.from_euler("ZYX", [0.2, math.pi / 2, 0.2])
    assert angle_between(Rotation.from_euler("ZYX", between), right) < 1e-6


def test_poses_follow_one_another() -> None:
    assert [group.index for group in poses(2).groups] == [(3, 4, 5, 6), (10, 11, 12, 13)]
    two = np.concatenate([np.zeros(3), [0, 0, 0, 2], np.ones(3), [0, 3, 0, 0]])
    assert poses(2).canonical(two).tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 0]
