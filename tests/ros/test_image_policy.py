"""A policy with a camera over real DDS: what it sees, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from para_policy import load_policy
from para_policy.planning.seeding import chunk_seed
from para_policy.policies.policy import DiffusionPolicy
from para_policy.ros.messages.conversions import message_to_chunk, ns_to_stamp
from para_policy.ros.policy_node import PolicyNode
from tests.ros.graph import Graph
from tests.ros.image_policy import (
    POSITIONS,
    camera_image,
    png,
    raw,
    save_policy,
    wait_for_status,
)

T0 = 50 * 10**9


@pytest.fixture(scope="module")
def pusht(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As LeRobot calls the inputs of PushT."""
    directory = tmp_path_factory.mktemp("policy")
    return save_policy(directory, "observation.image", "observation.state")


@pytest.fixture(scope="module")
def policy(pusht: Path) -> DiffusionPolicy:
    return load_policy(pusht)


class Rig:
    """A policy node with a camera that publishes best-effort, as cameras do."""

    def __init__(self, graph: Graph, checkpoint: Path, folder: Path, kind: type, keys: str) -> None:
        inputs = folder / "inputs.yaml"
        inputs.write_text(
            f"inputs:\n  observation.image: {{topic: top/image_raw, "
            f"type: sensor_msgs/msg/{kind.__name__}{keys}}}\n"
            "  observation.state: {topic: joint_states, type: sensor_msgs/msg/JointState, "
            "joints: [a, b]}\n"
        )
        self.graph = graph
        self.node = graph.add(
            PolicyNode,
            checkpoint=str(checkpoint),
            inputs_file=str(inputs),
            control_rate_hz=10.0,
            sampler="sequential",
            lockstep=True,
            engine="eager",
        )
        self.chunks = graph.listen(JointTrajectory, "policy_node/action_chunk")
        self.said = graph.listen(DiagnosticArray, "/diagnostics")
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.images = graph.talk(kind, "top/image_raw", qos_profile_sensor_data)
        self.joints = graph.talk(JointState, "joint_states")
        graph.wait(lambda: graph.probe.count_publishers("policy_node/action_chunk"))

    def observe(self, step: int, image: Any) -> None:
        joints = JointState(name=["a", "b"], position=POSITIONS)
        joints.header.stamp = image.header.stamp = ns_to_stamp(T0 + step * 10**8)
        self.joints.publish(joints)
        self.images.publish(image)

    def plan(self, step: int, image: Any) -> np.ndarray:
        known = len(self.chunks)
        self.observe(step, image)
        self.graph.wait(lambda: len(self.chunks) > known)
        return message_to_chunk(self.chunks[-1], 0).actions


def answer(policy: DiffusionPolicy, *images: np.ndarray, chunk: int = 0) -> np.ndarray:
    observation = {
        "observation.image": np.array([image.transpose(2, 0, 1) for image in images], order="C"),
        "observation.state": np.tile(POSITIONS, (2, 1)),
    }
    return policy.sample(observation, sampler="sequential", seed=chunk_seed(0, chunk)).actions


@pytest.mark.parametrize(("kind", "make"), [(Image, raw), (CompressedImage, png)])
def test_policy_sees_the_pixels_of_the_camera(
    graph: Graph,
    pusht: Path,
    policy: DiffusionPolicy,
    tmp_path: Path,
    kind: type,
    make: Callable[[np.ndarray], Any],
) -> None:
    rig = Rig(graph, pusht, tmp_path, kind, ", crop: [10, 20, 96, 96]")
    image, later = camera_image(120, 160), camera_image(120, 160, shade=50)
    seen, seen_later = (pixels[10:106, 20:116] for pixels in (image, later))
    np.testing.assert_array_equal(rig.plan(0, make(image)), answer(policy, seen, seen))
    rig.observe(7, make(image))
    expected = answer(policy, seen, seen_later, chunk=1)
    np.testing.assert_array_equal(rig.plan(8, make(later)), expected)
    assert np.abs(expected - answer(policy, seen, seen, chunk=1)).max() > 1e-3  # it does look


@pytest.mark.parametrize(
    ("kind", "good", "bad", "reason"),
    [
        (
            Image,
            raw(camera_image()),
            raw(camera_image(48, 64)),
            "image is 48 x 64 pixels (height x width), the policy needs 96 x 96",
        ),
        (
            Image,
            raw(camera_image()),
            raw(camera_image(), encoding="nv21"),
            "image encoding is 'nv21'",
        ),
        (Image, raw(camera_image()), raw(camera_image(), data=b"12"), "image is damaged"),
        (Image, raw(camera_image()), Image(encoding="rgb8"), "image is empty"),
        (
            CompressedImage,
            png(camera_image()),
            CompressedImage(format="jpeg", data=b"\xff\xd8\xff"),
            "compressed image of format 'jpeg' is",
        ),
    ],
)
def test_bad_image_gives_no_chunk_but_a_reason(
    graph: Graph, pusht: Path, tmp_path: Path, kind: type, good: Any, bad: Any, reason: str
) -> None:
    rig = Rig(graph, pusht, tmp_path, kind, "")
    rig.plan(0, good)
    rig.observe(8, bad)
    wait_for_status(graph, rig.said, DiagnosticStatus.WARN, f"holding: observation.image: {reason}")
    assert len(rig.chunks) == 1
    rig.plan(9, good)
    wait_for_status(graph, rig.said, DiagnosticStatus.OK, "active")
