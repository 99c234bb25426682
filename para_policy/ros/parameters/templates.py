"""Parameter file and observation mapping of the ROS nodes, written from a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

import yaml

from para_policy.checkpoints.calibration import FOLDER
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import scheduler_kind
from para_policy.errors import InputError
from para_policy.files import check_output_folder, write_text
from para_policy.policies.config import PolicyConfig
from para_policy.ros.parameters.simulated import SIMULATED, simulated

PARAMETERS_FILE = "policy.yaml"
INPUTS_FILE = "inputs.yaml"

_MIN_AGE_S = 0.5
_AGE_PERIODS = 3
_STATES = ("observation.state", "agent_pos", "state")

_PARAMETERS = Template("""\
# Parameters of `ros2 launch para_policy policy.launch.py params_file:=THIS_FILE`.
# $hint
# `ros2 param describe /policy_node NAME` explains each one, and more are in config/ros/policy.yaml of
# the package. Floats need their decimal point.
/**/policy_node:
  ros__parameters:
    checkpoint: $checkpoint
    device: $device
    sampler: $sampler
    control_rate_hz: $rate
    max_observation_age_s: $age  # hold when the newest observation is older
    inputs_file: $inputs_file
    joint_names: $joints  # one for each action, as the controller calls them
    stamp_mode: observation  # or zero: the chunk starts when it arrives

/**/chunk_executor:
  ros__parameters:
    command_rate_hz: 50.0
    joint_names: $joints  # other chunks are refused
$executor    # coordinates: [number 0-2, rotation_vector 3-5]  # what may be interpolated; see docs/ros2.md
    auto_enable: false  # true: moves the robot without a call of ~/enable
""")

_INPUTS_HEAD = """\
# Which topic feeds which input of the policy. One entry for each input of the checkpoint.
#   topic     relative to the node's namespace
#   type      message type, as `ros2 topic info` prints it
#             (docs/ros2_reference.md has all that are known)
#   joints    (JointState) whose positions, in this order
#   fields    (JointState) of position, velocity, effort; (Twist, Wrench, Odometry, Imu) which values
#   axes      (poses) xy, xyz, or pose: x y z and the quaternion x y z w; pose_wxyz: with w first
#   crop      (images) [top, left, height, width], pixels: the part that is used
#   resize    (images) true scales what is left to the policy's size
#   reliable  false also accepts best-effort publishers; default false for images, else true
#   max_age_s      an older value is stale; default: parameter max_observation_age_s
#   latency_s      from the measurement to its stamp; default 0.0
#   interpolation  (not images) hold or linear: value at a time between two samples; default hold
#   coordinates    (not images, not poses) what the values are, such as [number 0-2, angle 3]:
#                  others are not interpolated; see docs/ros2.md
#   max_unchanged_s  values that stay exactly the same for longer count as frozen; default never
#   frame_id         the header must name this frame; default any
#   transform        (poses) {translation: [x, y, z], rotation: [x, y, z, w]}, into the trained frame
#   scale, offset    (not images) value * scale + offset; one number, or one for each value
# A list of such entries, each with its own age and latency, feeds one input from several topics:
#   observation.state:
#     - {topic: joint_states, type: sensor_msgs/msg/JointState, joints: [a, b]}
#     - {topic: gripper/width, type: std_msgs/msg/Float32, latency_s: 0.02}
inputs:
"""


def write_ros_files(
    checkpoint_directory: str | Path,
    output: str | Path,
    config: PolicyConfig,
    *,
    device: str = "cpu",
    force: bool = False,
) -> list[Path]:
    """Write `policy.yaml` and `inputs.yaml` for `policy.launch.py` to the folder `output`.

    Topics, message types and joint names are guesses, and marked where a person must replace them;
    for a policy with the inputs of a simulated task they are those of its simulator.

    Args:
        config: of the checkpoint.
        device: torch device of the network.
        force: replace files that are there.
    Returns:
        The paths of the files.
    Raises:
        InputError: when a file is there already, or `output` cannot be written.
    """
    folder = Path(output).resolve()
    paths = [folder / PARAMETERS_FILE, folder / INPUTS_FILE]
    for path in paths:
        if path.exists() and not force:
            raise InputError(f"'{path}' exists; give --force to replace it, or another --output")
    check_output_folder(folder)
    parameters = parameters_text(Path(checkpoint_directory).resolve(), config, paths[1], device)
    for path, text in zip(paths, (parameters, inputs_text(config)), strict=True):
        write_text(path, text)
    return paths


def parameters_text(
    checkpoint: Path, config: PolicyConfig, inputs_file: Path, device: str = "cpu"
) -> str:
    """The parameter file of the policy in the directory `checkpoint`, with its paths as given."""
    robot = simulated(config)
    rate_hz = config.control_hz or (robot.hz if robot else 0.0)
    text = _PARAMETERS.substitute(
        hint=f"With {robot.argument} the policy drives {robot.title}."
        if robot
        else "Lines marked TODO, here and in inputs_file, need the values of your robot.",
        checkpoint=_quoted(str(checkpoint)),
        device=f"{_quoted(device)}  # cpu, cuda, cuda:1 ...",
        sampler=_sampler(checkpoint, config),
        rate=_rate(rate_hz, config.control_hz),
        age=max(_MIN_AGE_S, round(_AGE_PERIODS / rate_hz, 3) if rate_hz else 0.0),
        inputs_file=_quoted(str(inputs_file)),
        joints=_names((robot and robot.joints) or config.action_names),
        executor="".join(f"    {line}\n" for line in robot.executor) if robot else "",
    )
    return text + robot.section(config) if robot else text


def inputs_text(config: PolicyConfig, task: str | None = None) -> str:
    """The observation mapping of a policy, as `load_inputs` of the ROS nodes reads it.

    Args:
        task: name of the simulated task that publishes the inputs; None: what the policy looks like.
    """
    robot = SIMULATED[task] if task else simulated(config)
    lines = []
    for name, shape in config.inputs.items():
        lines.append(f"  {_key(name)}:  # {tuple(shape)}")
        entry = robot.entries[name] if robot else _guess(name, shape, config)
        lines += [f"    {line}" for line in entry]
    return _INPUTS_HEAD + "\n".join(lines) + "\n"


def _sampler(checkpoint: Path, config: PolicyConfig) -> str:
    kind = scheduler_kind(config.noise_scheduler)
    steps = Process.from_scheduler(config.noise_scheduler, config.num_inference_steps).num_steps
    if (checkpoint / FOLDER / f"{kind}_{steps}.safetensors").is_file():
        return "chord  # this checkpoint is calibrated; x0 and sequential need no calibration"
    return "x0  # `para-policy calibrate` measures the checkpoint; then chord needs fewer rounds"


def _rate(rate_hz: float, known_hz: float | None) -> str:
    if known_hz:
        return f"{float(rate_hz)}  # actions per second, as in the demonstrations"
    if rate_hz:
        return f"{float(rate_hz)}  # actions per second; the simulator's, as the checkpoint does not say"
    return "0.0  # TODO actions per second of the demonstrations; the checkpoint does not say"


def _guess(name: str, shape: tuple[int, ...], config: PolicyConfig) -> Iterator[str]:
    """Lines of an entry for a robot that nobody has described yet."""
    if name in config.cameras:
        size = f"{shape[1]} x {shape[2]}"
        yield f"topic: {_camera(name)}/image_raw  # TODO the camera's topic"
        yield "type: sensor_msgs/msg/Image  # or sensor_msgs/msg/CompressedImage"
        yield f"# Images must be {size} pixels (height x width); other sizes need crop or resize:"
        yield f"# crop: [0, 0, {shape[1]}, {shape[2]}]"
        yield "# resize: true"
        yield "# reliable: true  # where the camera publishes so: large images are not lost"
    elif name in _STATES and len(shape) == 1:
        joints = _names([f"joint_{index + 1}" for index in range(shape[0])])
        yield "topic: joint_states"
        yield "type: sensor_msgs/msg/JointState"
        yield f"joints: {joints}  # TODO names of the {shape[0]} joints, in the order of training"
    else:
        yield f"topic: {_key(_topic(name))}  # TODO"
        yield "type: std_msgs/msg/Float64MultiArray  # TODO"


def _camera(name: str) -> str:
    camera = name.removeprefix("observation.").removeprefix("images.").removesuffix("_image")
    return "camera" if camera in ("image", "") else _topic(camera)


def _topic(name: str) -> str:
    """A topic that ROS accepts: letters, digits and single underscores, no digit at the start."""
    words = re.findall("[A-Za-z0-9]+", name)
    topic = "_".join(words)
    return f"input_{topic}" if not topic or topic[0].isdigit() else topic


def _quoted(text: str) -> str:
    """Always in quotes, because ROS takes a plain y for a boolean."""
    dumped: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf)
    return dumped.rstrip("\n")


def _names(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, names))}]"


def _key(name: str) -> str:
    """`name`, quoted where YAML would read something else."""
    plain = re.fullmatch(r"[A-Za-z_][\w./-]*", name) and yaml.safe_load(name) == name
    return name if plain else _quoted(name)
