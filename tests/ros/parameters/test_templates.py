from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from para_policy.errors import InputError
from para_policy.networks.config import VisionConfig
from para_policy.policies.config import PolicyConfig
from para_policy.ros.parameters.templates import inputs_text, parameters_text, write_ros_files
from sim.aloha.env import ACTION_NAMES
from sim.ros.simulators import ARM_COMMANDS
from sim.ros.simulators import ARMS as JOINTS_OF_ARMS
from tests.checkpoint import tiny_config

CONFIG = Path(__file__).resolve().parents[3] / "config" / "ros"
ROBOT_INPUTS = {
    "observation.images.top": (3, 240, 320),
    "image": (3, 96, 128),
    "wrist_image": (3, 64, 64),
    "observation.state": (6,),
    "force torque": (6,),
}
CAMERAS = ("observation.images.top", "image", "wrist_image")


def config(**changes: Any) -> PolicyConfig:
    return PolicyConfig.model_validate({**tiny_config().model_dump(), **changes})


def robot(**changes: Any) -> PolicyConfig:
    return config(
        inputs=ROBOT_INPUTS,
        vision=VisionConfig(cameras=CAMERAS),
        action_names=[f"axis {i}" for i in range(6)],
        **changes,
    )


def parameters(made: PolicyConfig, checkpoint: Path = Path("/policy")) -> dict[str, Any]:
    parsed = yaml.safe_load(parameters_text(checkpoint, made, Path("/inputs.yaml")))
    return {name.removeprefix("/**/"): node["ros__parameters"] for name, node in parsed.items()}


def inputs(made: PolicyConfig) -> dict[str, Any]:
    return yaml.safe_load(inputs_text(made))["inputs"]


def test_files_of_a_pusht_policy_fit_the_simulator(tmp_path: Path) -> None:
    checkpoint = tmp_path / "policy"
    (checkpoint / "calibration").mkdir(parents=True)
    paths = write_ros_files(checkpoint, tmp_path / "new" / "ros", config(), device="cuda")
    assert paths == [tmp_path / "new" / "ros" / name for name in ("policy.yaml", "inputs.yaml")]
    written = yaml.safe_load(paths[0].read_text())
    assert written["/**/policy_node"]["ros__parameters"] == {
        "checkpoint": str(checkpoint),
        "device": "cuda",
        "sampler": "x0",
        "control_rate_hz": 10.0,
        "max_observation_age_s": 0.5,
        "inputs_file": str(paths[1]),
        "joint_names": ["agent_x", "agent_y"],
        "stamp_mode": "observation",
    }
    assert written["/**/pusht_sim"]["ros__parameters"]["publish_image"] is False
    assert "TODO" not in paths[0].read_text() + paths[1].read_text()
    shipped = CONFIG / "pusht_inputs.yaml"
    assert yaml.safe_load(paths[1].read_text()) == yaml.safe_load(shipped.read_text())


def test_image_policy_of_pusht_makes_the_simulator_draw() -> None:
    made = config(
        inputs={"image": (3, 84, 84), "agent_pos": (2,)}, vision=VisionConfig(cameras=("image",))
    )
    assert parameters(made)["pusht_sim"] == {"publish_image": True, "image_size": 84}
    shipped = CONFIG / "pusht_image_inputs.yaml"
    assert inputs(made) == yaml.safe_load(shipped.read_text())["inputs"]


ARMS = {"agent_pos": (14,), "environment_state": (7,)}


def two_arms(names: dict[str, tuple[int, ...]] = ARMS, **changes: Any) -> PolicyConfig:
    return config(inputs=names, action_names=ACTION_NAMES, **changes)


def test_files_of_a_policy_for_two_arms_fit_their_simulator() -> None:
    made = two_arms(control_hz=50)
    nodes = parameters(made)
    assert nodes["aloha_sim"] == {"publish_image": False}
    assert nodes["chunk_executor"]["command_topics"] == list(ARM_COMMANDS.values())
    assert nodes["policy_node"]["control_rate_hz"] == 50.0
    shipped = yaml.safe_load((CONFIG / "aloha" / "inputs.yaml").read_text())["inputs"]
    assert inputs(made) == shipped
    both = [part["joints"] for part in inputs(made)["agent_pos"]]
    assert both == list(JOINTS_OF_ARMS.values())
    renamed = {"observation.state": (14,), "observation.environment_state": (7,)}
    lerobot = two_arms(renamed, control_hz=50).model_copy(
        update={"action_names": tuple(f"motor_{index}" for index in range(14))}
    )
    assert list(inputs(lerobot).values()) == list(shipped.values())
    assert parameters(lerobot)["policy_node"]["joint_names"] == list(ACTION_NAMES)


def test_two_arms_with_a_camera_alone_may_be_real_ones() -> None:
    seen = {"observation.state": (14,), "observation.images.top": (3, 480, 640)}
    made = two_arms(seen, vision=VisionConfig(cameras=("observation.images.top",)), control_hz=50)
    assert "aloha_sim" not in parameters(made)
    mapped = yaml.safe_load(inputs_text(made, "aloha"))["inputs"]
    assert mapped["observation.images.top"]["topic"] == "image"


def test_calibrated_checkpoint_gets_chord(tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "ddpm_100.safetensors").touch()
    assert parameters(config(), tmp_path)["policy_node"]["sampler"] == "chord"
    fewer = config(num_inference_steps=10)  # nothing was measured for ten steps
    assert parameters(fewer, tmp_path)["policy_node"]["sampler"] == "x0"


@pytest.mark.parametrize(
    ("made", "rate", "age", "todo"),
    [
        (robot(control_hz=30), 30.0, 0.5, False),
        (robot(control_hz=2), 2.0, 1.5, False),  # three periods of a slow policy
        (robot(control_hz=None), 0.0, 0.5, True),
        (config(control_hz=None), 10.0, 0.5, False),  # PushT's is known
    ],
)
def test_rate_and_age(made: PolicyConfig, rate: float, age: float, todo: bool) -> None:
    node = parameters(made)["policy_node"]
    assert (node["control_rate_hz"], node["max_observation_age_s"]) == (rate, age)
    assert isinstance(node["control_rate_hz"], float)  # ROS refuses an integer
    text = parameters_text(Path("/policy"), made, Path("/inputs.yaml"))
    assert bool(re.search("control_rate_hz: .* # TODO", text)) == todo


def test_robot_gets_guesses_that_are_marked() -> None:
    made = robot()
    assert "pusht_sim" not in parameters(made)
    assert inputs(made) == {
        "observation.images.top": {"topic": "top/image_raw", "type": "sensor_msgs/msg/Image"},
        "image": {"topic": "camera/image_raw", "type": "sensor_msgs/msg/Image"},
        "wrist_image": {"topic": "wrist/image_raw", "type": "sensor_msgs/msg/Image"},
        "observation.state": {
            "topic": "joint_states",
            "type": "sensor_msgs/msg/JointState",
            "joints": [f"joint_{i}" for i in range(1, 7)],
        },
        "force torque": {"topic": "force_torque", "type": "std_msgs/msg/Float64MultiArray"},
    }
    text = inputs_text(made)
    assert text.count("# TODO") == 6
    assert "must be 240 x 320 pixels (height x width)" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"observation.state": (2,)}},  # as many robots call it
        {"inputs": {"agent_pos": (2,), "environment_state": (8,)}},
        {"control_hz": 20},
        {"action_names": ["x", "y", "z"]},
    ],
)
def test_what_only_resembles_pusht_is_a_robot(changes: dict[str, Any]) -> None:
    made = config(**changes)
    assert "pusht_sim" not in parameters(made)
    assert "agent_x" not in inputs_text(made)


@settings(max_examples=30)
@given(st.text(min_size=1), st.text(min_size=1).filter(lambda name: name != "action"), st.text())
@example("y", "off", "\x7f")
@example("1e5", "null", 'a $(b) "c" # d: e')
def test_any_name_survives(action: str, name: str, folder: str) -> None:
    made = config(inputs={name: (3,)}, action_names=[action])
    assert list(inputs(made)) == [name]
    topic = inputs(made)[name]["topic"]
    assert re.fullmatch("[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*_?", topic)
    nodes = parameters(made, Path("/", folder.replace("\0", "")))
    assert nodes["policy_node"]["joint_names"] == [action]
    assert nodes["policy_node"]["checkpoint"] == str(Path("/", folder.replace("\0", "")))


def test_existing_files_are_replaced_only_by_force(tmp_path: Path) -> None:
    mine = tmp_path / "inputs.yaml"
    mine.write_text("mine")
    with pytest.raises(InputError, match=f"'{mine}' exists; give --force"):
        write_ros_files("/policy", tmp_path, config())
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.yaml"]
    assert mine.read_text() == "mine"
    write_ros_files("/policy", tmp_path, config(), force=True)
    assert "agent_pos" in mine.read_text()


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(InputError, match="is no folder"):
        write_ros_files("/policy", path, config())
