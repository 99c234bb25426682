from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from para_policy.execution.chunk import ActionChunk
from para_policy.execution.commander import Commander, RobotState
from para_policy.execution.coordinates import poses, read_coordinates
from para_policy.execution.guards import Guards, Limits
from para_policy.execution.player import ChunkPlayer, PlayerSettings

T0 = 1_700_000_000 * 10**9
DT = 100_000_000
PERIOD_S = 0.02


def make_commander(*, limits: dict[str, Any] | None = None, **options: Any) -> Commander:
    given = Limits(**{name: (limit,) for name, limit in (limits or {}).items()})
    direct = options.get("hold") == "zero"
    guards = Guards(given, PERIOD_S, commands_are_velocities=direct)
    return Commander(ChunkPlayer(), guards, **{"enabled": True, **options})


def offer(commander: Commander, step: int, *values: float) -> None:
    chunk = ActionChunk(T0 + step * DT, DT, np.array(values, dtype=float)[:, None])
    commander._player.offer(chunk, T0 + step * DT)


def play(commander: Commander, *steps: float, state: float | None = None) -> list[float | None]:
    """The command at each control step, with a present state that is always fresh."""
    played: list[float | None] = []
    for step in steps:
        now = T0 + round(step * DT)
        present = None if state is None else RobotState(now, np.array([state]))
        command = commander.command(now, present)
        played.append(None if command is None else float(command[0]))
    return played


def test_violation_latches_until_a_person_enables_again() -> None:
    commander = make_commander(limits={"position_max": 5.0})
    offer(commander, 0, 1, 9, 1)
    assert play(commander, 0, 1, 2) == [1, None, None]
    assert (commander.latched, commander.violations) == (True, 1)
    offer(commander, 3, 2, 2)
    assert play(commander, 3) == [None]
    assert commander.violation.guard == "position_max"
    commander.enable(True)
    assert play(commander, 4) == [2]
    assert commander.violation is None


def test_next_chunk_plays_on_and_the_rest_of_the_bad_one_does_not() -> None:
    commander = make_commander(limits={"position_max": 5.0}, latch=False)
    offer(commander, 0, 1, 9, 1, 1)
    assert play(commander, 0, 1, 2) == [1, None, None]
    offer(commander, 3, 8, 2)
    assert play(commander, 3) == [None]
    offer(commander, 4, 3)
    assert play(commander, 4) == [3]
    assert commander.violations == 2


def test_disabling_does_not_take_a_latch_back() -> None:
    commander = make_commander(limits={"position_max": 5.0})
    offer(commander, 0, 9)
    assert play(commander, 0) == [None]
    commander.enable(False)
    offer(commander, 1, 1, 1)
    assert play(commander, 1) == [None]
    commander.enable(True)
    assert play(commander, 1) == [1]


def test_repeat_sends_the_last_safe_command_while_enabled() -> None:
    commander = make_commander(limits={"position_max": 5.0}, hold="repeat")
    assert play(commander, 0) == [None]
    offer(commander, 0, 1, 2, 9)
    assert play(commander, 0, 1, 2, 3, 9) == [1, 2, 2, 2, 2]
    commander.enable(False)
    assert play(commander, 10) == [None]
    commander.enable(True)  # the robot may be elsewhere by now
    assert play(commander, 11) == [None]


def test_repeat_is_silent_as_long_as_somebody_else_may_command_the_robot() -> None:
    """After a violation, too: the command is ours alone until the latch."""
    commander = make_commander(limits={"position_max": 5.0}, hold="repeat")
    offer(commander, 0, 1, 9)
    assert play(commander, 0, 1, 2) == [1, 1, 1]
    commander.latch("a teleoperation")
    assert play(commander, 3, 4) == [None, None]
    commander.enable(True)
    offer(commander, 5, 2)
    assert play(commander, 5, 6) == [2, 2]


def test_velocities_end_by_one_zero_where_somebody_else_commands_the_robot() -> None:
    commander = make_commander(hold="zero")
    offer(commander, 0, 3)
    assert play(commander, 0) == [3]
    commander.latch("a teleoperation")
    assert play(commander, 1, 2) == [0, None]


def test_repeat_is_silent_when_the_robot_was_moved() -> None:
    commander = make_commander(limits={"max_jump": 1.0}, hold="repeat")
    offer(commander, 0, 1)
    assert play(commander, 0, 1, state=1.5) == [1, 1]
    assert play(commander, 2, state=3.0) == [None]
    assert play(commander, 3) == [None]  # no state at all
    assert commander.violations == 0


@pytest.mark.parametrize("how", ["runs out", "violation", "disabled", "disabled and enabled"])
def test_velocities_hold_by_one_zero(how: str) -> None:
    commander = make_commander(hold="zero", limits={"velocity_max": 5.0})
    assert play(commander, 0) == [None]
    offer(commander, 0, 3, *([9] if how == "violation" else []))
    assert play(commander, 0) == [3]
    if how.startswith("disabled"):
        commander.enable(False)
    if how == "disabled and enabled":
        commander.enable(True)
    assert play(commander, 1, 2, 3) == [0, None, None]


@pytest.mark.parametrize(
    ("age_ns", "reason"),
    [
        (None, "no state of the robot"),
        (2 * DT, "0.200 s old"),
        (-DT // 2, "0.050 s ahead of the clock, which was set back"),
    ],
)
def test_without_a_present_state_the_robot_waits_and_goes_on_by_itself(
    age_ns: int | None, reason: str
) -> None:
    commander = make_commander(limits={"max_jump": 1.0}, max_state_age_ns=DT)
    offer(commander, 0, 1, 2)
    stale = None if age_ns is None else RobotState(T0 - age_ns, np.array([1.0]))
    assert commander.command(T0, stale) is None
    assert reason in commander.waiting
    assert play(commander, 1, state=1.0) == [2]
    assert commander.waiting == ""


def test_first_command_far_from_the_robot_is_refused() -> None:
    commander = make_commander(limits={"max_jump": 0.5})
    offer(commander, 0, 1)
    assert play(commander, 0, state=0.0) == [None]
    assert str(commander.violation) == "max_jump guard: action 0 would have 1, limit 0.5"


def test_enabling_while_playing_forgets_nothing() -> None:
    commander = make_commander(limits={"velocity_max": 1.0})
    offer(commander, 0, 1, 2)
    assert play(commander, 0, state=1.0) == [1]
    commander.enable(True)
    assert play(commander, 1, state=2.0) == [None]


def test_each_tick_is_answered_once() -> None:
    commander = make_commander()
    assert commander.answer_tick(T0) is None
    offer(commander, 0, 1, 2)
    assert commander.answer_tick(T0) == [1]
    assert commander.answer_tick(T0) is None
    assert commander.answer_tick(T0 + DT) == [2]


def test_quaternion_of_the_next_chunk_takes_the_sign_of_the_last_command() -> None:
    player = ChunkPlayer(settings=PlayerSettings(coordinates=poses()))
    guards = Guards(Limits(velocity_max=(1.0,)), PERIOD_S, coordinates=poses())
    commander = Commander(player, guards, coordinates=poses(), enabled=True)
    pose = np.array([0, 0, 0, 0, 0, 0.6, 0.8])
    for step, sign in enumerate((1, -1)):
        actions = (pose * [1, 1, 1, sign, sign, sign, sign])[None]
        player.offer(ActionChunk(T0 + step * DT, DT, actions), T0 + step * DT)
        state = RobotState(T0, pose)
        np.testing.assert_allclose(commander.command(T0 + step * DT, state), pose)


def test_a_continuous_joint_goes_on_from_where_it_is_and_does_not_turn_back() -> None:
    coordinates = read_coordinates(["angle 0"])
    player = ChunkPlayer(settings=PlayerSettings(coordinates=coordinates))
    limits = Limits(max_jump=(0.5,), velocity_max=(100.0,))
    guards = Guards(limits, PERIOD_S, coordinates=coordinates)
    commander = Commander(player, guards, coordinates=coordinates, enabled=True)
    player.offer(ActionChunk(T0, DT, np.array([[3.1], [-3.1], [-3.0]])), T0)
    turned = 3.0 + 4 * np.pi  # the joint has made two turns
    commands = []
    for step in range(3):
        now = T0 + step * DT
        commands.append(commander.command(now, RobotState(now, np.array([turned + 0.1 * step])))[0])
    assert commands == pytest.approx(np.array([3.1, 2 * np.pi - 3.1, 2 * np.pi - 3.0]) + 4 * np.pi)
