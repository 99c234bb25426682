"""The two simulated arms as a robot: what they tell, and what they do with trajectories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.graph import qos_for
from para_policy.ros.messages.conversions import chunk_to_message, stamp_to_ns
from tests.ros.graph import Graph

pytest.importorskip("gym_aloha")

from sim.aloha.env import Aloha
from sim.ros.aloha_sim import AlohaSim
from sim.ros.simulators import ARM_COMMANDS, ARMS

DT_NS = 20_000_000
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Arms:
    """The simulator, what it says, and somebody who commands it."""

    def __init__(self, graph: Graph, *, lockstep: bool = False, **parameters: object) -> None:
        self.graph = graph
        graph.add(AlohaSim, lockstep=lockstep, **parameters)
        self.states = {side: graph.listen(JointState, f"{side}/joint_states") for side in ARMS}
        self.cubes: list[PoseStamped] = graph.listen(PoseStamped, "cube_pose")
        self.results: list[String] = graph.listen(String, "aloha_sim/episode", LATCHED)
        qos = qos_for(lockstep)
        self._commands = {
            side: graph.talk(JointTrajectory, topic, qos) for side, topic in ARM_COMMANDS.items()
        }

    def tell(self, side: str, positions: np.ndarray, horizon_ns: int = DT_NS) -> None:
        chunk = ActionChunk(0, horizon_ns, positions[None])
        message = chunk_to_message(chunk, ARMS[side], on_arrival=True)
        self._commands[side].publish(message)

    def where(self) -> np.ndarray:
        """All 14 joints, as they were said last."""
        return np.concatenate([self.states[side][-1].position for side in ARMS])

    def wait_for_states(self, count: int = 1) -> None:
        known = min(map(len, self.states.values()))
        self.graph.wait(lambda: min(map(len, self.states.values())) >= known + count)


def test_it_tells_where_arms_and_cube_are(graph: Graph) -> None:
    arms = Arms(graph, seed=3, publish_image=True, image_height=24, image_width=32)
    images = graph.listen(Image, "image")
    arms.graph.wait(lambda: arms.cubes and images and all(arms.states.values()))
    scene = Aloha()
    scene.begin(3)
    np.testing.assert_array_equal(arms.where(), scene.joints())
    for side in ARMS:
        assert list(arms.states[side][-1].name) == ARMS[side]
        assert ARMS[side][-1] == f"{side}_gripper"
    pose = arms.cubes[-1].pose
    at, turned = pose.position, pose.orientation
    seen = [at.x, at.y, at.z, turned.w, turned.x, turned.y, turned.z]
    np.testing.assert_array_equal(seen, scene.cube())
    assert arms.cubes[-1].header.frame_id == "world"
    assert bytes(images[-1].data) == scene.image(24, 32).tobytes()
    arms.wait_for_states(5)
    stamps = [stamp_to_ns(message.header.stamp) for message in arms.states["left"]]
    assert set(np.diff(stamps) % DT_NS) == {0}


def test_an_arm_moves_by_its_own_trajectory_and_stands_when_none_comes(graph: Graph) -> None:
    arms = Arms(graph, seed=3, episodes=1)
    arms.wait_for_states()
    start = arms.where()
    goal = start[:7] + np.array([0.2, 0, 0, 0, 0, 0, 0])
    arms.tell("left", goal, horizon_ns=100 * DT_NS)
    graph.wait(lambda: abs(arms.where()[0] - goal[0]) < 0.005)
    path = np.array([message.position[0] for message in arms.states["left"]]) - start[0]
    assert ((path > 0.02) & (path < 0.18)).sum() > 20, "it goes there in two seconds, not at once"
    arms.wait_for_states(30)
    stands = arms.where()
    assert stands[0] == pytest.approx(goal[0], abs=0.01)
    np.testing.assert_allclose(stands[7:], start[7:], atol=0.02, rtol=0)
    arms.wait_for_states(30)
    np.testing.assert_allclose(arms.where(), stands, atol=1e-3, rtol=0)
    assert not arms.results


def test_a_refused_trajectory_is_told_of_and_moves_nothing(graph: Graph) -> None:
    warnings = graph.warnings()
    arms = Arms(graph, seed=3)
    arms.wait_for_states()
    start = arms.where()
    message = JointTrajectory(joint_names=ARMS["right"])
    arms._commands["left"].publish(message)
    graph.wait(lambda: any("trajectory for the left arm refused" in text for text in warnings))
    arms.wait_for_states(3)
    np.testing.assert_array_equal(arms.where(), start)


def test_in_lockstep_a_point_one_period_ahead_is_the_action_itself(
    graph: Graph, tmp_path: Path
) -> None:
    arms = Arms(graph, lockstep=True, seed=4, max_steps=5, episodes=1, record_dir=str(tmp_path))
    scene = Aloha()
    scene.begin(4)
    states = [scene.state()]
    random = np.random.default_rng(0)
    for step in range(5):
        arms.graph.wait(
            lambda step=step: (
                len({stamp_to_ns(m.header.stamp) for m in arms.states["right"]}) == step + 1
            )
        )
        action = scene.joints() + random.normal(0, 0.05, 14)
        scene.step(action)
        states.append(scene.state())
        arms.tell("right", action[7:])
        graph.spin_for(0.05)
        assert not arms.results, "one arm alone lets no time pass"
        arms.tell("left", action[:7])
    graph.wait(lambda: arms.results)
    assert json.loads(arms.results[0].data)["steps"] == 5
    with np.load(tmp_path / "episode_4.npz") as record:
        np.testing.assert_array_equal(record["states"], states)
