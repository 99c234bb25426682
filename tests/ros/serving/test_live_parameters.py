from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rcl_interfaces.srv import DescribeParameters
from rclpy.lifecycle import TransitionCallbackReturn

from para_policy.ros.messages.conversions import message_to_chunk
from para_policy.ros.parameters.policy import FIXED, LIVE, PARAMETERS
from tests.ros.graph import CONFIG, Graph
from tests.ros.policy_rig import Rig


@pytest.fixture
def rig(graph: Graph, checkpoint: Path) -> Rig:
    return Rig(graph, checkpoint=str(checkpoint), lockstep=False, control_rate_hz=20.0).start()


def fresh_chunk(rig: Rig) -> Any:
    """The first chunk of an episode: nothing else that is in force delays it."""
    rig.node._begin_episodes()
    return message_to_chunk(rig.plan_now(), 0)


def test_what_may_change_does_from_the_next_chunk_on(rig: Rig) -> None:
    assert fresh_chunk(rig).dt_ns == 50_000_000
    assert rig.info()["sampler"] == "sequential"
    changes = {"sampler": "x0", "sampler_options": "{window: 4}", "tolerance": 1.0}
    changes |= {"n_action_steps": 3, "control_rate_hz": 12.5, "deadline_ms": 5000.0}
    assert rig.set(**changes) == ""
    chunk = fresh_chunk(rig)
    assert (chunk.dt_ns, len(chunk.actions)) == (80_000_000, 3)
    loose = rig.info()
    assert (loose["sampler"], loose["converged"]) == ("x0", "true")
    assert 0 < float(loose["margin_ms"]) < 5000
    assert rig.set(tolerance=1e-7) == ""
    chunk = fresh_chunk(rig)
    assert float(rig.info()["residual"]) < 1e-7
    assert int(rig.info()["rounds"]) > int(loose["rounds"])
    # The noise is the same: another exact sampler moves nothing but the rounding.
    assert rig.set(sampler="sequential", sampler_options="{}", tolerance=0.0) == ""
    assert abs(fresh_chunk(rig).actions - chunk.actions).max() < 0.1
    assert rig.info()["sampler"] == "sequential"


def test_chunks_do_not_become_shorter_than_the_steps_to_the_next(
    graph: Graph, checkpoint: Path
) -> None:
    rig = Rig(graph, checkpoint=str(checkpoint), lockstep=False, replan_steps=5).start()
    assert rig.set(n_action_steps=5) == ""
    assert rig.set(n_action_steps=4) == (
        "parameter replan_steps is 5; a chunk has 4 actions, and the next one is planned when they "
        "run out: expected 1 to 4, or 0 for this"
    )
    assert rig.node._parts.fleet.settings.n_action_steps == 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"sampler": "x0", "sampler_options": "{magic: 1}"}, "has no option ['magic']"),
        ({"sampler": "x0", "sampler_options": "{1: 1}"}, "sampler_options is '{1: 1}'"),
        ({"sampler": "x0", "sampler_options": "{window: nonsense}"}, "window"),
        ({"sampler": "x0", "sampler_options": "{window: -3}"}, "window"),
        ({"tolerance": 0.1}, "sampler 'sequential' has no option ['tolerance']"),
        ({"tolerance": -0.1}, "range"),
        ({"n_action_steps": 16}, "predicts 15 actions from the newest observation on"),
        ({"n_action_steps": -1}, "range"),
        ({"control_rate_hz": 1e-9}, "control_rate_hz is 1e-09; expected 0, or 0.001 to 1000"),
        ({"control_rate_hz": float("nan")}, "range"),
        (
            {"control_rate_hz": 200.0},
            "configured for 20, and the robot would move 10 times as fast",
        ),
        ({"deadline_ms": float("inf")}, "range"),
        ({"deadline_ms": "soon"}, "type"),
        ({"n_action_steps": 3, "checkpoint": "/other"}, "checkpoint cannot change now; deactivate"),
        ({"n_action_steps": 3, "sampler": "magic"}, "unknown sampler"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    rig: Rig, changes: dict[str, Any], reason: str
) -> None:
    before = {name: rig.node.get_parameter(name).value for name in changes}
    settings = rig.node._parts.fleet.settings
    assert reason in rig.set(**changes)
    assert {name: rig.node.get_parameter(name).value for name in changes} == before
    assert rig.node._parts.fleet.settings is settings
    assert len(fresh_chunk(rig).actions) == 8
    assert rig.info()["sampler"] == "sequential"


def test_the_rate_rises_above_the_demonstrations_only_by_force(
    graph: Graph, checkpoint: Path
) -> None:
    rig = Rig(graph, checkpoint=str(checkpoint), lockstep=False).start()
    assert "at most 10, or force_control_rate" in rig.set(control_rate_hz=10.5)
    assert rig.set(control_rate_hz=5.0) == ""
    assert rig.set(control_rate_hz=10.0) == ""
    assert rig.set(control_rate_hz=10.5, force_control_rate=True) == ""
    assert fresh_chunk(rig).dt_ns == round(1e9 / 10.5)
    assert "at most 10" in rig.set(force_control_rate=False)
    assert rig.set(control_rate_hz=0.0, force_control_rate=False) == ""
    assert fresh_chunk(rig).dt_ns == 100_000_000


def test_a_sampler_that_fails_only_when_it_runs_is_refused(graph: Graph, checkpoint: Path) -> None:
    rig = Rig(graph, checkpoint=str(checkpoint), lockstep=False, scheduler="ddim").start()
    assert "asd" in rig.set(sampler="asd")
    assert rig.node.get_parameter("sampler").value == "sequential"
    fresh_chunk(rig)


def test_fixed_parameters_change_only_while_unconfigured(rig: Rig) -> None:
    for name in sorted(FIXED):
        reason = rig.set(**{name: rig.node.get_parameter(name).value})
        assert reason == f"{name} cannot change now; deactivate and cleanup the node first"
    assert rig.set(use_sim_time=True) == ""  # not ours
    assert rig.set(use_sim_time=False) == ""
    assert rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert "cannot change now" in rig.set(max_overruns=3)
    assert rig.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert rig.set(max_overruns=3, warm_start=False) == ""


def test_every_parameter_says_what_it_is_and_which_may_change(rig: Rig) -> None:
    request = DescribeParameters.Request(names=[parameter.name for parameter in PARAMETERS])
    answer = rig.graph.call(DescribeParameters, "policy_node/describe_parameters", request)
    assert all(descriptor.description.endswith(".") for descriptor in answer.descriptors)
    live = {d.name for d in answer.descriptors if "any time" in d.additional_constraints}
    assert live == LIVE
    chosen = {"sampler", "sampler_options", "tolerance", "deadline_ms", "seed"}
    assert live == chosen | {"control_rate_hz", "force_control_rate", "n_action_steps"}
    for descriptor, parameter in zip(answer.descriptors, PARAMETERS, strict=True):
        number = isinstance(parameter.default, (int, float)) and parameter.default is not False
        if number and parameter.default is not True:
            assert descriptor.floating_point_range or descriptor.integer_range, parameter.name


def test_the_shipped_file_sets_parameters_that_exist_to_values_that_fit() -> None:
    file = yaml.safe_load((CONFIG / "policy.yaml").read_text())
    shipped = file["/**/policy_node"]["ros__parameters"]
    defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
    assert {"tolerance", "max_overruns", "warm_start", "cpu_affinity"} <= set(shipped)
    assert {name: type(content) for name, content in shipped.items()} == {
        name: type(defaults[name]) for name in shipped
    }
