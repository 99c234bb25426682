"""Parameters that make no sense, at start and while a robot moves: refused, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter as Setting

from para_policy.errors import InputError
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.parameters import executor as executor_parameters
from para_policy.ros.parameters import policy as policy_parameters
from para_policy.ros.parameters.declare import Parameter
from para_policy.ros.policy_node import PolicyNode
from tests.ros.faults.loop import POLICY, Loop
from tests.ros.graph import Graph

NAN, INF = float("nan"), float("inf")
WRONG_TYPES: dict[type, list[Any]] = {
    bool: ["magic", 1, 0.5, [True]],
    int: ["magic", 1.5, True, [1]],
    float: ["magic", 3, True, [1.0]],
    str: [7, True, NAN, ["magic"]],
    list: ["magic", 7, True, [True]],
}
WRONG_VALUES: dict[type, list[Any]] = {
    bool: [],
    int: [-(2**40), -7],
    float: [NAN, INF, -INF, -1e300, 1e300],
    str: ["\n\x01{magic", "magic"],
    list: [[NAN], ["magic", "magic"], []],
}
FREE_TEXT = {"frame_id", "marker_frame"}


def nonsense(parameters: Sequence[Parameter]) -> Iterator[tuple[str, Any]]:
    for parameter in parameters:
        kind = type(parameter.default)
        values = WRONG_VALUES[kind] if parameter.name not in FREE_TEXT else []
        for value in (*WRONG_TYPES[kind], *values):
            yield parameter.name, value


def refusal(make: Callable[[], Any]) -> str:
    """Why a node could not be made; what it says is one line."""
    try:
        make()
    except (InputError, ParameterException) as error:
        return str(error)
    return ""


def test_executor_does_not_start_with_nonsense(graph: Graph) -> None:
    for name, value in nonsense(executor_parameters.PARAMETERS):
        reason = refusal(lambda name=name, value=value: graph.add(ChunkExecutor, **{name: value}))
        assert name in reason, f"{name}: {value}"
        assert len(reason.splitlines()) == 1 or "\n" in str(value)


@pytest.mark.slow
def test_policy_does_not_configure_with_nonsense(graph: Graph, poses_checkpoint: Path) -> None:
    for name, value in nonsense(policy_parameters.PARAMETERS):
        parameters = {**POLICY, "checkpoint": str(poses_checkpoint), name: value}
        made: list[PolicyNode] = []
        reason = refusal(
            lambda parameters=parameters, made=made: made.append(
                graph.add(PolicyNode, **parameters)
            )
        )
        if made:
            assert made[0].trigger_configure() == TransitionCallbackReturn.FAILURE, (
                f"{name}: {value}"
            )
            reason = made[0]._problem
            graph.nodes.remove(made[0])
            made[0].destroy_node()
        assert name in reason, f"{name}: {value}: {reason}"


def test_nonsense_while_the_robot_moves_changes_nothing(loop: Loop) -> None:
    before = policy_parameters.present_values(loop.policy)
    for name, value in nonsense(policy_parameters.PARAMETERS):
        result = loop.policy.set_parameters_atomically([Setting(name, value=value)])
        assert not result.successful, f"{name}: {value}"
        assert name in result.reason or "Wrong parameter type" in result.reason
    for name, value in nonsense(executor_parameters.PARAMETERS):
        result = loop.executor.set_parameters_atomically([Setting(name, value=value)])
        assert not result.successful, f"{name}: {value}"
    assert policy_parameters.present_values(loop.policy) == before
    loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)


@pytest.mark.parametrize("name", ["joint_names", "state_joints"])
def test_a_joint_that_is_named_twice_is_refused(graph: Graph, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} has 'left' more than once"):
        graph.add(ChunkExecutor, **{name: ["left", "right", "left"]})
