from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from para_policy.errors import InputError
from para_policy.ros.graph import qos_for
from para_policy.ros.messages.conversions import stamp_to_ns
from sim.pusht.env import PushT, legacy_start_state
from sim.pusht.task import PUSHT
from sim.ros.client import Played
from sim.ros.pusht_sim import PushTSim
from tests.ros.graph import Graph

DT_NS = 100_000_000
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_real_time_stamps_lie_on_a_grid_and_the_last_command_is_held(graph: Graph) -> None:
    graph.add(PushTSim, seed=3, episodes=1, max_steps=5, publish_image=True)
    joints = graph.listen(JointState, "joint_states")
    keypoints = graph.listen(PoseArray, "keypoints")
    images = graph.listen(Image, "image")
    results = graph.listen(String, "pusht_sim/episode", LATCHED)
    command = graph.talk(Float64MultiArray, "command")
    graph.wait(lambda: len(joints) > 2 and len(keypoints) > 2 and images)
    board = PushT()
    start = board.reset(legacy_start_state(3))
    np.testing.assert_array_equal(joints[-1].position, start["agent_pos"])
    points = [[pose.position.x, pose.position.y] for pose in keypoints[-1].poses]
    np.testing.assert_array_equal(np.ravel(points), start["environment_state"])
    assert (images[0].width, images[0].height, images[0].encoding) == (96, 96, "rgb8")

    command.publish(Float64MultiArray(data=[float("nan"), 0.0]))  # ignored
    command.publish(Float64MultiArray(data=[256.0, 300.0]))
    graph.wait(lambda: results)
    result = json.loads(results[0].data)
    scores = [board.step([256.0, 300.0]).score for _ in range(5)]
    assert (result["seed"], result["steps"], result["success"]) == (3, 5, False)
    assert result["max_reward"] == PUSHT.score.rewards(scores).max()
    spacing = np.diff([stamp_to_ns(message.header.stamp) for message in joints])
    assert set(spacing % DT_NS) == {0}


def test_lockstep_steps_once_per_command_and_time_never_steps_back(
    graph: Graph, tmp_path: Path
) -> None:
    graph.add(PushTSim, seed=4, episodes=2, max_steps=3, lockstep=True, record_dir=str(tmp_path))
    clock = graph.listen(Clock, "/clock")
    joints = graph.listen(JointState, "joint_states")
    results = graph.listen(String, "pusht_sim/episode", LATCHED)
    command = graph.talk(Float64MultiArray, "command", qos_for(lockstep=True))

    def seen() -> list[int]:
        return sorted({stamp_to_ns(message.header.stamp) for message in joints})

    def play(episode: int) -> None:
        for step in range(3):
            graph.wait(lambda step=step: len(seen()) == 3 * episode + step + 1)
            command.publish(Float64MultiArray(data=[100.0, 100.0]))
        graph.wait(lambda: len(results) > episode)

    play(0)
    play(1)
    graph.spin_for(0.3)
    assert len(seen()) == 6  # both episodes are over
    assert graph.call(Trigger, "pusht_sim/reset", Trigger.Request()).success
    play(2)
    assert [json.loads(result.data)["seed"] for result in results] == [4, 5, 4]
    times = [stamp_to_ns(message.clock) for message in clock]
    assert times == sorted(times)
    with np.load(tmp_path / "episode_4.npz") as record:
        assert record["states"].shape == (4, 5)
        assert record["actions"].tolist() == [[100, 100]] * 3
        np.testing.assert_array_equal(record["states"][0], first_state(4))


def test_what_counts_at_start_only_does_not_change(graph: Graph) -> None:
    node = graph.add(PushTSim, autostart=False)
    changes = {
        "max_steps": 5,
        "lockstep": True,
        "drop": 0.5,
        "seed": 4,
        "episodes": 2,
        "image_size": 64,
    }
    answers = {
        name: node.set_parameters([rclpy.Parameter(name, value=value)])[0]
        for name, value in changes.items()
    }
    assert [name for name, answer in answers.items() if answer.successful] == [
        *("seed", "episodes", "image_size")
    ]
    assert answers["max_steps"].reason == "max_steps is read at start only; restart the node"


def test_an_episode_that_cannot_be_recorded_says_why(graph: Graph, tmp_path: Path) -> None:
    folder = tmp_path / "file" / "folder"
    folder.parent.touch()
    graph.add(PushTSim, episodes=1, max_steps=1, lockstep=True, record_dir=str(folder))
    results = graph.listen(String, "pusht_sim/episode", LATCHED)
    command = graph.talk(Float64MultiArray, "command", qos_for(lockstep=True))
    command.publish(Float64MultiArray(data=[100.0, 100.0]))
    graph.wait(lambda: results)
    with pytest.raises(InputError, match=r"cannot write '.*folder'.*make room for it"):
        _ = Played(result=json.loads(results[0].data)).record


def test_observations_between_two_steps_lie_between_them(graph: Graph) -> None:
    graph.add(PushTSim, seed=3, observations_per_step=4, stamp_skew_ms=7.0)
    joints = graph.listen(JointState, "joint_states")
    command = graph.talk(Float64MultiArray, "command")
    graph.wait(lambda: len(joints) > 8)
    command.publish(Float64MultiArray(data=[400.0, 300.0]))
    known = len(joints)
    graph.wait(lambda: len(joints) > known + 24)
    seen = {stamp_to_ns(message.header.stamp): message.position[0] for message in joints}
    stamps = sorted(seen)[5:-4]  # of the first and the last step some may be missing
    assert set(np.diff(stamps)) == {DT_NS // 4}
    places = np.array([seen[stamp] for stamp in stamps])
    assert np.ptp(places) > 1
    bends = np.abs(np.diff(places, 2)) > 1e-9
    assert 0 < bends.sum() <= len(stamps) / 4 + 1  # straight but where a step was


def test_in_lockstep_nothing_is_disturbed(graph: Graph) -> None:
    with pytest.raises(InputError, match=r"drop is 0\.1 in lockstep.* leave drop"):
        graph.add(PushTSim, lockstep=True, drop=0.1)


def first_state(seed: int) -> np.ndarray:
    board = PushT()
    board.reset(legacy_start_state(seed))
    return board.state()
