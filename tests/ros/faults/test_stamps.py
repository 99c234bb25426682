"""Stamps that jitter, sensors that are too slow, clocks that disagree: what the policy sees, what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseArray
from sensor_msgs.msg import JointState

from para_policy.ros.messages.conversions import ns_to_stamp, stamp_to_ns
from para_policy.ros.messages.diagnostics import status_values
from sim.ros.pusht_sim import PushTSim
from tests.ros.faults.loop import DT_NS, Loop
from tests.ros.graph import Graph
from tests.ros.policy_rig import Rig

INPUTS = ("agent_pos", "environment_state")


def real_time(graph: Graph, checkpoint: Path, **parameters: Any) -> Rig:
    return Rig(graph, checkpoint=str(checkpoint), lockstep=False, **parameters).start()


def spacings(rig: Rig) -> list[dict[str, float]]:
    """Of each chunk but the first two, which see the beginning."""
    told = [status_values(info) for info in rig.infos[2:]]
    return [{n: float(v[f"observation_spacing_ms/{n}"]) for n in INPUTS} for v in told]


@pytest.mark.parametrize("per_step", [1, 2, 3])
def test_stamps_that_jitter_leave_observations_a_step_apart(
    graph: Graph, poses_checkpoint: Path, per_step: int
) -> None:
    rig = real_time(graph, poses_checkpoint, replan_steps=1)
    graph.add(PushTSim, observations_per_step=per_step, stamp_jitter_ms=2.0)
    graph.wait(lambda: len(rig.infos) > 15)
    seen = [gap for chunk in spacings(rig) for gap in chunk.values()]
    assert sum(not 95 < gap < 105 for gap in seen) <= 2, seen  # the simulator may lose a step
    assert any(gap != 100 for gap in seen)
    rig.wait_for_status(DiagnosticStatus.OK, "active")


def test_a_sensor_of_a_third_of_the_rate_is_told(loop: Loop) -> None:
    infos = loop.graph.listen(DiagnosticStatus, "policy_node/chunk_info")
    count = 0

    def feed(joints: JointState, keypoints: PoseArray) -> None:
        nonlocal count
        loop.sensors.joints.publish(joints)
        if count % 3 == 0:
            loop.sensors.keypoints.publish(keypoints)
        count += 1

    loop.sensors.feed = feed
    told = "observations of environment_state are 0.0 ms apart, expected 50 within 20"
    loop.wait_for_status(f"active, but {told}", DiagnosticStatus.WARN)
    known = len(infos)
    loop.graph.wait(lambda: len(infos) > known)
    assert (infos[-1].level, told in infos[-1].message) == (DiagnosticStatus.WARN, True)
    assert status_values(infos[-1])["observation_spacing_ms/environment_state"] == "0"
    loop.sensors.feed = loop.sensors.send
    loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)


def test_a_clock_that_is_ahead_is_told_with_the_number(loop: Loop) -> None:
    def feed(joints: JointState, keypoints: PoseArray) -> None:
        stamp_ns = stamp_to_ns(joints.header.stamp) + 4 * DT_NS
        joints.header.stamp = ns_to_stamp(stamp_ns)
        loop.sensors.send(joints, keypoints)

    loop.sensors.feed = feed
    loop.wait_for_status("active, but agent_pos is stamped 0.1", DiagnosticStatus.WARN)
    loop.sensors.feed = loop.sensors.send
    loop.wait_for_status("active", DiagnosticStatus.OK)


@pytest.mark.parametrize(("limit_s", "level"), [(0.005, "WARN"), (0.5, "OK")])
def test_a_chunk_from_the_future_is_told_with_the_number(
    make_loop: Callable[..., Loop], limit_s: float, level: str
) -> None:
    loop = make_loop(policy={"max_future_s": limit_s}, executor={"max_future_s": limit_s})
    loop.sensors.now_ns = lambda: loop.now_ns() + 3 * DT_NS
    text = "playing" if level == "OK" else "playing: the chunk was stamped 0."
    loop.wait_for_status(text, getattr(DiagnosticStatus, level))
