"""The first commands of a robot that stood: from where it is, within the limits, or none at all."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from para_policy.execution.chunk import ActionChunk
from para_policy.execution.commander import Commander, RobotState
from para_policy.execution.coordinates import NUMBERS, UNKNOWN, poses, read_coordinates
from para_policy.execution.guards import Guards, Limits
from para_policy.execution.player import ChunkPlayer, PlayerSettings

T0 = 1_700_000_000 * 10**9
DT = 100_000_000
PERIOD = 20_000_000
PERIOD_S = PERIOD / 1e9


class Arm:
    """A commander with a robot of any number of joints that follows at once."""

    def __init__(self, limits: Limits, state: list[float], **options: object) -> None:
        direct = options.get("hold") == "zero"
        coordinates = options.setdefault("coordinates", NUMBERS)
        settings = PlayerSettings(interpolation="linear", coordinates=coordinates)
        self.player = ChunkPlayer(len(state), settings)
        guards = Guards(limits, PERIOD_S, commands_are_velocities=direct, coordinates=coordinates)
        self.commander = Commander(self.player, guards, **{"enabled": True, **options})
        self.state = np.array(state)
        self.now = T0

    def offer(self, actions: np.ndarray) -> None:
        self.player.offer(ActionChunk(self.now, DT, actions), self.now)

    def play(self, periods: int) -> list[np.ndarray | None]:
        played = []
        for _ in range(periods):
            command = self.commander.command(self.now, RobotState(self.now, self.state))
            self.state = self.state if command is None else command
            played.append(command)
            self.now += PERIOD
        return played


def check_motion(start: list[float], commands: list, velocity: float, acceleration: float) -> None:
    """A stop is allowed at any time, every other change of velocity is limited."""
    places = np.array([start, start, *commands])
    velocities = np.diff(places, axis=0) / PERIOD_S
    assert np.abs(velocities).max() <= velocity * (1 + 1e-9)
    moving = np.abs(velocities[1:]).max(axis=1) > 0
    accelerations = np.diff(velocities, axis=0)[moving] / PERIOD_S
    assert np.abs(accelerations).max() <= acceleration * (1 + 1e-9)


@pytest.mark.parametrize("again", ["enabled", "latched", "disabled within a period"])
def test_it_begins_where_the_robot_stands_and_joins_the_actions(again: str) -> None:
    arm = Arm(Limits(velocity_max=(1.5,), acceleration_max=(40.0,)), [0.0, 0.5])
    if again != "enabled":
        arm.offer(np.full((9, 2), 0.5) if again == "latched" else np.full((9, 2), 0.2))
        assert arm.play(5)[0] is not None
        arm.commander.latched = again == "latched"
        arm.commander.enable(again == "latched")
        arm.commander.enable(True)
        arm.state = np.array([0.0, 0.5])  # moved by hand
    arm.offer(np.full((20, 2), 0.29))
    commands = arm.play(60)
    check_motion([0.0, 0.5], commands, 1.5, 40.0)
    assert np.abs(commands[0] - [0.0, 0.5]).max() < 0.03
    np.testing.assert_array_equal(commands[-1], [0.29, 0.29])


def test_it_joins_actions_that_move_with_their_velocity() -> None:
    arm = Arm(Limits(velocity_max=(1.5,), acceleration_max=(40.0,)), [0.0])
    actions = 0.2 + 0.07 * np.arange(30)[:, None]  # 0.7 rad/s
    arm.offer(actions)
    commands = np.array(arm.play(100))
    check_motion([0.0], list(commands), 1.5, 40.0)
    ahead = np.interp(np.arange(100) * PERIOD, np.arange(30) * DT, actions[:, 0])
    np.testing.assert_allclose(commands[60:, 0], ahead[60:])


def test_a_robot_that_cannot_catch_up_follows_within_its_limits() -> None:
    arm = Arm(Limits(velocity_max=(0.8,), acceleration_max=(40.0,)), [0.0])
    arm.offer(0.1 + 0.079 * np.arange(30)[:, None])  # 0.79 rad/s away from it
    commands = arm.play(140)
    assert arm.commander.violations == 0
    assert arm.commander.approaching
    check_motion([0.0], [c for c in commands if c is not None], 0.8, 40.0)


def test_a_pause_is_followed_by_an_approach_from_the_last_command() -> None:
    arm = Arm(Limits(velocity_max=(1.5,)), [0.0])
    arm.offer(np.zeros((2, 1)))
    arm.play(20)
    assert not arm.commander.moving
    arm.offer(np.full((20, 1), 0.2))
    commands = arm.play(50)
    assert arm.commander.violations == 0
    check_motion([0.0], commands, 1.5, np.inf)
    assert commands[-1] == 0.2


@pytest.mark.parametrize("limits", [{}, {"max_jump": (0.5,)}])
def test_a_robot_that_was_moved_during_a_hold_starts_where_it_is(limits: dict) -> None:
    arm = Arm(Limits(velocity_max=(1.5,), **limits), [0.0])
    arm.offer(np.zeros((2, 1)))
    arm.play(80)
    arm.state = np.array([0.4])
    arm.offer(np.full((20, 1), 0.3))
    commands = arm.play(50)
    check_motion([0.4], commands, 1.5, np.inf)
    assert commands[-1] == 0.3


def test_nothing_moves_before_the_state_is_known() -> None:
    arm = Arm(Limits(velocity_max=(1.5,)), [0.0])
    arm.offer(np.full((9, 1), 0.2))
    assert arm.commander.command(T0) is None
    assert "no state of the robot yet" in arm.commander.waiting
    assert arm.play(1)[0] is not None
    assert arm.commander.command(arm.now) is not None  # only max_jump needs it from then on


def test_far_actions_are_refused_with_the_time_that_they_would_take() -> None:
    arm = Arm(Limits(velocity_max=(1.5,)), [0.0, 0.0], max_approach_s=0.5)
    arm.offer(np.tile([0.1, 0.5], (9, 1)))
    assert arm.play(2) == [None, None]
    assert str(arm.commander.violation) == (
        "max_approach_s guard: action 1 would have 1, limit 0.5"
    )
    assert arm.commander.latched


@pytest.mark.parametrize(("way", "moves"), [(0.009, True), (0.011, False)])
def test_without_an_approach_only_a_step_passes(way: float, moves: bool) -> None:
    """A third of velocity_max times the period, as a fade may take half of the limit."""
    arm = Arm(Limits(velocity_max=(1.5,)), [0.0], max_approach_s=0.0)
    arm.offer(np.full((9, 1), way))
    (command,) = arm.play(1)
    assert (command is not None) == moves
    assert (arm.commander.violation is None) == moves


def test_a_robot_outside_of_the_box_is_not_moved() -> None:
    arm = Arm(Limits(position_max=(1.0,), velocity_max=(1.5,)), [1.2])
    arm.offer(np.full((9, 1), 0.9))
    assert arm.play(1) == [None]
    assert str(arm.commander.violation) == "position_max guard: action 0 would have 1.2, limit 1"


def test_velocities_rise_from_zero() -> None:
    arm = Arm(Limits(velocity_max=(1.0,), acceleration_max=(5.0,)), [0.0], hold="zero")
    for _ in range(2):  # the second time after a stop
        arm.offer(np.full((8, 1), 0.8))
        commands = [command for command in arm.play(50) if command is not None]
        rise = np.diff([0.0, *(float(command[0]) for command in commands[:39])])
        assert rise.max() <= 5.0 * PERIOD_S
        assert commands[38] == 0.8
        assert commands[-1] == 0


def test_poses_turn_the_short_way_from_the_present_one() -> None:
    half = np.radians(20) / 2
    state = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]  # the driver may choose the other sign
    arm = Arm(Limits(velocity_max=(0.5,), max_jump=(0.4,)), state, coordinates=poses())
    arm.offer(np.tile([0.1, 0, 0, 0, 0, np.sin(half), np.cos(half)], (40, 1)))
    commands = np.array(arm.play(150))
    check_motion(state, list(commands), 0.5, np.inf)
    np.testing.assert_allclose(np.linalg.norm(commands[:, 3:], axis=1), 1.0)
    np.testing.assert_allclose(commands[-1, :3], [0.1, 0, 0])
    np.testing.assert_allclose(commands[-1, 3:], [0, 0, -np.sin(half), -np.cos(half)])


def test_rotations_turn_the_short_way_within_the_limits_whatever_their_numbers() -> None:
    """From 178 degrees to -170 degrees about x, which are 12 degrees apart."""
    coordinates = read_coordinates(["rotation_vector 0-2"])
    start, goal = np.radians([178.0, 0, 0]), np.radians([-170.0, 0, 0])
    arm = Arm(Limits(velocity_max=(0.5,)), start.tolist(), coordinates=coordinates)
    arm.offer(np.tile(goal, (20, 1)))
    commands = [command for command in arm.play(100) if command is not None]
    steps = [
        coordinates.sizes(coordinates.difference(after, before))[0]
        for before, after in pairwise([start, *commands])
    ]
    assert max(steps) <= 0.5 * PERIOD_S + 1e-9
    assert sum(steps) == pytest.approx(np.radians(12.0))
    assert coordinates.difference(commands[-1], goal) == pytest.approx(0.0, abs=1e-9)


def test_joints_of_which_nobody_told_the_kind_begin_where_the_robot_stands() -> None:
    arm = Arm(Limits(velocity_max=(1.5,)), [0.0], coordinates=UNKNOWN)
    arm.offer(np.full((20, 1), 0.3))
    commands = arm.play(60)
    check_motion([0.0], commands, 1.5, np.inf)
    assert commands[-1] == pytest.approx([0.3])


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 3.0), st.floats(0.2, 3.0), st.floats(3.0, 300.0))
def test_no_start_breaks_a_limit(seed: int, size: float, velocity: float, accel: float) -> None:
    """Whatever walk the actions take, from wherever the robot stands."""
    generator = np.random.default_rng(seed)
    arm = Arm(
        Limits(velocity_max=(velocity,), acceleration_max=(accel,)),
        generator.uniform(-size, size, 3).tolist(),
        max_approach_s=1e9,
        latch=False,
    )
    start = arm.state
    for _ in range(4):
        arm.offer(arm.state + size * generator.uniform(-1, 1, (10, 3)).cumsum(axis=0))
        commands = [c if c is not None else None for c in arm.play(45)]
        last = start
        held: list[np.ndarray] = []
        for command in commands:
            last = last if command is None else command
            held.append(last)
        check_motion(start.tolist(), held, velocity, accel)
        start = held[-1]
        if arm.commander.moving:  # the next chunk finds a robot that stands
            arm.player.clear()
            arm.play(1)


def test_after_a_pause_without_a_state_the_robot_waits_for_one() -> None:
    """Somebody may have moved it: the last command says nothing any more."""
    arm = Arm(Limits(velocity_max=(1.5,)), [0.0])
    arm.offer(np.zeros((5, 1)))
    arm.play(200)  # the chunk runs out
    arm.offer(np.zeros((20, 1)))
    for _ in range(5):
        assert arm.commander.command(arm.now, None) is None
        arm.now += PERIOD
    arm.state = np.array([0.2])
    commands = arm.play(5)
    assert commands[0] == pytest.approx([0.2], abs=1.5 * PERIOD_S)


def test_a_clock_that_was_set_back_does_not_hide_that_the_robot_has_stood() -> None:
    arm = Arm(Limits(velocity_max=(1.5,)), [0.0])
    arm.offer(np.zeros((5, 1)))
    arm.play(60)  # the chunk runs out
    arm.now -= 30 * 10**9
    arm.player.clear()
    arm.state = np.array([0.28])
    arm.play(150)
    arm.offer(np.zeros((20, 1)))
    (first, *_) = arm.play(5)
    assert first == pytest.approx([0.28], abs=1.5 * PERIOD_S)
