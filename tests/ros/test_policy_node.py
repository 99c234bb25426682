from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from para_policy import DiffusionPolicy, load_policy
from para_policy.errors import NonFiniteError
from para_policy.planning.seeding import chunk_seed
from para_policy.ros.graph import LATCHED
from para_policy.ros.messages.conversions import message_to_chunk, stamp_to_ns
from para_policy.ros.messages.diagnostics import status_values
from para_policy.ros.messages.settings import read_settings
from para_policy.ros.serving import configured
from tests.ros.graph import CONFIG, Graph
from tests.ros.policy_rig import AGENT, DT_NS, KEYPOINTS, T0, Rig

GOOD_PARAMETERS = {
    "sampler": "sequential",
    "sampler_options": "{}",
    "scheduler": "",
    "steps": 0,
    "device": "cpu",
    "engine": "eager",
    "precision": "float32",
    "inputs_file": str(CONFIG / "pusht_inputs.yaml"),
    "joint_names": ["left", "right"],
    "stamp_mode": "zero",
    "cpu_affinity": [-1],
    "shift_noise": False,
    "n_action_steps": 15,
    "tolerance": 0.0,
}


@pytest.fixture
def rig(graph: Graph, checkpoint: Path) -> Callable[..., Rig]:
    return lambda **parameters: Rig(graph, **{"checkpoint": str(checkpoint), **parameters})


def positions(chunk: JointTrajectory) -> np.ndarray:
    return message_to_chunk(chunk, 0).actions


def expected_actions(checkpoint: Path, seed: int) -> np.ndarray:
    observation = {
        "agent_pos": np.tile(AGENT, (2, 1)),
        "environment_state": np.tile(KEYPOINTS, (2, 1)),
    }
    return load_policy(checkpoint).sample(observation, sampler="sequential", seed=seed).actions


def test_chunk_is_the_policys_answer_stamped_with_the_observations_time(
    rig: Callable[..., Rig], checkpoint: Path
) -> None:
    started = rig().start()
    chunk = started.plan(T0)
    assert stamp_to_ns(chunk.header.stamp) == T0
    assert chunk.joint_names == ["agent_x", "agent_y"]
    assert [stamp_to_ns(p.time_from_start) for p in chunk.points] == [
        (i + 1) * DT_NS for i in range(8)
    ]
    np.testing.assert_array_equal(positions(chunk), expected_actions(checkpoint, chunk_seed(7, 0)))
    started.graph.wait(lambda: started.infos)
    values = status_values(started.infos[0])
    assert (values["chunk"], values["stamp_ns"], values["sampler"]) == ("0", str(T0), "sequential")
    assert (values["rounds"], values["evals"], values["converged"]) == ("10", "10", "true")
    assert {"residual", "latency_ms", "encode_ms", "deadline_misses", "observation_age_ms"} <= set(
        values
    )


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_another_engine_gives_the_same_chunk_and_is_named(
    rig: Callable[..., Rig], checkpoint: Path, engine: str
) -> None:
    pytest.importorskip("openvino")
    created = rig(engine=engine)
    settings = created.graph.listen(String, "policy_node/settings", LATCHED)
    chunk = created.start().plan(T0)
    expected = expected_actions(checkpoint, chunk_seed(7, 0))
    pixels = 256.0  # of a normalised unit
    np.testing.assert_allclose(positions(chunk), expected, rtol=0, atol=1e-4 * pixels)
    policy = created.node._parts.loaded.policy
    sizes = len(policy.runtime.engine.sizes)
    assert policy.runtime.engine.memory_bytes > sizes * 1000, (
        "all sizes are prepared before the first plan"
    )
    created.graph.wait(lambda: created.diagnostics and settings)
    assert read_settings(settings[-1].data).engine == policy.runtime.in_use
    assert policy.runtime.in_use.label == "openvino"
    created.graph.wait(
        lambda: any(
            status_values(status).get("engine") == "openvino"
            for message in created.diagnostics
            for status in message.status
        )
    )


def test_next_chunk_comes_when_the_first_has_been_played(rig: Callable[..., Rig]) -> None:
    started = rig().start()
    for step in range(17):
        started.observe(T0 + step * DT_NS)
        started.graph.wait(lambda step=step: len(started.chunks) >= 1 + step // 8)
    assert [(stamp_to_ns(c.header.stamp) - T0) // DT_NS for c in started.chunks] == [0, 8, 16]


def test_inactive_node_plans_nothing(rig: Callable[..., Rig]) -> None:
    started = rig().start()
    started.plan(T0)
    assert started.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    started.observe(T0 + 10 * DT_NS)
    started.graph.spin_for(0.5)
    assert len(started.chunks) == 1
    started.wait_for_status(DiagnosticStatus.OK, "inactive")
    assert started.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert stamp_to_ns(started.plan(T0 + 20 * DT_NS).header.stamp) == T0 + 20 * DT_NS


def test_node_can_be_configured_again(rig: Callable[..., Rig]) -> None:
    started = rig().start()
    first = started.plan(T0)
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        outcome = getattr(started.node, f"trigger_{transition}")()
        assert outcome == TransitionCallbackReturn.SUCCESS
    started.graph.wait(lambda: started.joints.get_subscription_count() == 1)
    started.graph.wait(lambda: started.keypoints.get_subscription_count() == 1)
    np.testing.assert_array_equal(positions(started.plan(T0)), positions(first))


def test_reset_restarts_the_noise_with_the_present_seed(
    rig: Callable[..., Rig], checkpoint: Path
) -> None:
    started = rig(lockstep=False).start()
    chunks = []
    for seed in (7, 7, 8):
        started.node.set_parameters([rclpy.Parameter("seed", value=seed)])
        response = started.graph.call(Trigger, "policy_node/reset", Trigger.Request())
        assert response.success
        chunks.append(positions(started.plan(started.node.get_clock().now().nanoseconds)))
    np.testing.assert_array_equal(chunks[0], chunks[1])
    np.testing.assert_array_equal(chunks[2], expected_actions(checkpoint, chunk_seed(8, 0)))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"agent": [float("nan"), 0.0]}, "agent_pos: input 'agent_pos' holds NaN"),
        ({"agent": [1.0]}, "agent_pos: no position of joint agent_y"),
    ],
)
def test_bad_observation_gives_no_chunk_but_a_reason(
    rig: Callable[..., Rig], bad: dict[str, Any], reason: str
) -> None:
    started = rig().start()
    started.plan(T0)
    started.observe(T0 + 8 * DT_NS, **bad)
    started.wait_for_status(DiagnosticStatus.WARN, f"holding: {reason}")
    assert len(started.chunks) == 1
    # The keypoints of step 8 were good; with the joints of step 9 before its keypoints, 8 is due.
    assert stamp_to_ns(started.plan(T0 + 9 * DT_NS).header.stamp) >= T0 + 8 * DT_NS
    started.wait_for_status(DiagnosticStatus.OK, "active")


def test_stale_observation_gives_no_chunk(rig: Callable[..., Rig]) -> None:
    started = rig(lockstep=False).start()
    started.observe(started.node.get_clock().now().nanoseconds - 10**9)
    started.wait_for_status(DiagnosticStatus.WARN, "the limit is 0.500 s")
    assert not started.chunks


def test_topic_of_another_type_is_reported(rig: Callable[..., Rig], others: Graph) -> None:
    others.probe.create_publisher(String, "keypoints", 10)
    created = rig()
    created.node.trigger_configure()
    created.node.trigger_activate()
    created.wait_for_status(
        DiagnosticStatus.ERROR,
        "topic /keypoints carries std_msgs/msg/String from probe, expected geometry_msgs/msg/PoseArray",
    )


def test_failing_policy_holds_and_the_node_lives_on(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = rig().start()
    for error in (NonFiniteError("the network diverged"), ZeroDivisionError("a defect")):
        with monkeypatch.context() as patch:
            patch.setattr(DiffusionPolicy, "sample", raises(error))
            started.observe(T0)
            started.wait_for_status(DiagnosticStatus.WARN, str(error))
    assert not started.chunks
    started.plan(T0)


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"checkpoint": ""}, "parameter checkpoint is empty"),
        ({"checkpoint": "/nowhere"}, "no checkpoint at '/nowhere'"),
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"sampler_options": "{magic: 1}"}, "has no option ['magic']"),
        ({"sampler_options": "magic"}, "sampler_options is 'magic'"),
        ({"scheduler": "magic"}, "'magic'"),
        ({"sampler": "chord", "steps": 5}, "calibration for ddpm with 5 steps (there: ddpm 10)"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"engine": "magic"}, "engine is 'magic'; expected one of auto, eager"),
        ({"engine": "cuda-graph"}, "engine 'cuda-graph' cannot be used on cpu"),
        ({"precision": "float8"}, "precision is 'float8'; expected one of float32"),
        ({"inputs_file": "/nowhere"}, "cannot read inputs_file '/nowhere'"),
        ({"joint_names": ["a", "b", "c"]}, "the policy has 2 actions"),
        ({"joint_names": ["a", "a"]}, "joint_names have a more than once"),
        (
            {"joint_names": ["agent_y", "agent_x"]},
            "actions in another order: each joint would get the action of another",
        ),
        ({"stamp_mode": "magic"}, "stamp_mode is 'magic'"),
        ({"cpu_affinity": [4095]}, "cpu_affinity is [4095]; this process may run on"),
        ({"shift_noise": True}, "it needs warm_start: true and lockstep: false"),
        ({"n_action_steps": 16}, "expected 1 to 15, or 0 for the checkpoint's number"),
        ({"tolerance": 0.1}, "sampler 'sequential' has no option ['tolerance']"),
    ],
)
def test_bad_parameters_fail_configuration_with_one_line(
    rig: Callable[..., Rig], checkpoint: Path, parameters: dict[str, Any], reason: str
) -> None:
    created = rig(**parameters)
    assert created.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    created.wait_for_status(DiagnosticStatus.ERROR, reason)
    good = {**GOOD_PARAMETERS, "checkpoint": str(checkpoint)}
    created.node.set_parameters([rclpy.Parameter(name, value=good[name]) for name in parameters])
    assert created.node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_truncated_checkpoint_fails_configuration(
    rig: Callable[..., Rig], checkpoint: Path, tmp_path: Path
) -> None:
    for file in (path for path in checkpoint.iterdir() if path.is_file()):
        content = file.read_bytes()
        cut = len(content) // 2 if file.name == "model.safetensors" else len(content)
        (tmp_path / file.name).write_bytes(content[:cut])
    created = rig(checkpoint=str(tmp_path))
    assert created.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    created.wait_for_status(DiagnosticStatus.ERROR, "model.safetensors' is truncated")


def test_defect_in_a_transition_is_not_swallowed(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    created = rig()
    with monkeypatch.context() as patch:
        patch.setattr(configured, "load", raises(ZeroDivisionError("a defect")))
        assert created.node.trigger_configure() == TransitionCallbackReturn.ERROR
    created.wait_for_status(
        DiagnosticStatus.ERROR, "on_configure failed: ZeroDivisionError('a defect')"
    )
    assert created.node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_invalid_transition_is_refused_and_the_node_lives_on(rig: Callable[..., Rig]) -> None:
    created = rig()
    answers = {}
    for name in ("ACTIVATE", "CONFIGURE"):
        request = ChangeState.Request(
            transition=Transition(id=getattr(Transition, f"TRANSITION_{name}"))
        )
        answers[name] = created.graph.call(ChangeState, "policy_node/change_state", request).success
    assert answers == {"ACTIVATE": False, "CONFIGURE": True}


def test_inference_runs_on_the_chosen_cpu(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = max(os.sched_getaffinity(0))
    started = rig(cpu_affinity=[cpu]).start()
    seen: list[set[int]] = []
    sample = DiffusionPolicy.sample

    def spy(*arguments: Any, **options: Any) -> Any:
        seen.append(os.sched_getaffinity(0))
        return sample(*arguments, **options)

    monkeypatch.setattr(DiffusionPolicy, "sample", spy)
    started.plan(T0)
    assert seen == [{cpu}]


def test_zero_stamp_and_own_joint_names(rig: Callable[..., Rig]) -> None:
    started = rig(stamp_mode="zero", joint_names=["left", "right"]).start()
    chunk = started.plan(T0)
    assert stamp_to_ns(chunk.header.stamp) == 0
    assert chunk.joint_names == ["left", "right"]


def test_unconverged_and_late_samples_warn(rig: Callable[..., Rig]) -> None:
    started = rig(sampler="paradigms", sampler_options="{max_rounds: 1}", deadline_ms=1e-6).start()
    started.plan(T0)
    started.graph.wait(lambda: started.infos)
    assert started.infos[0].level == DiagnosticStatus.WARN
    assert status_values(started.infos[0])["converged"] == "false"
    assert status_values(started.infos[0])["deadline_misses"] == "1"
