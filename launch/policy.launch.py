"""policy_node, configured and active, and chunk_executor; with sim also a simulator for a robot.

ros2 launch para_policy policy.launch.py sim:=true     # PushT
ros2 launch para_policy policy.launch.py sim:=aloha    # two arms
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch.events.process import ProcessExited, ProcessStarted
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterFile
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import Transition

SHARE = Path(get_package_share_directory("para_policy"))
CONFIG = SHARE / "config"


class Simulation(NamedTuple):  # no dataclass: those need their module, which `ros2 launch` hides
    """A simulator in the robot's place.

    Attributes:
        node: its name, and that of its executable.
        params_file: shipped parameters of all nodes.
        checkpoint: shipped policy, where the repository has it.
        remappings: of its topics, to those of chunk_executor.
    """

    node: str
    params_file: Path
    checkpoint: Path
    remappings: tuple[tuple[str, str], ...] = ()


PUSHT = Simulation(
    "pusht_sim",
    CONFIG / "policy.yaml",
    Path("checkpoints", "pusht_state"),
    (("command", "chunk_executor/command"),),
)
ALOHA = Simulation(
    "aloha_sim", CONFIG / "aloha" / "policy.yaml", Path("checkpoints", "aloha_state")
)
SIMULATIONS = {"pusht": PUSHT, "aloha": ALOHA}
NO_USE_STARTING_AGAIN = {
    2: "a parameter of {name} is not valid",
    3: "{name} cannot be imported",
}
"""What exit codes of our nodes mean."""
HIGHEST_DOMAIN = 232
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
LOOK_EVERY_S = 0.2
ENDPOINTS_FOLLOW_S = 0.5

ARGUMENTS = {
    "checkpoint": (
        "",
        "directory of the policy; empty: as in params_file, or the shipped policy, PushT's without sim",
    ),
    "device": ("", "torch device of the network, such as cpu or cuda; empty: as in params_file"),
    "engine": (
        "",
        "how the network runs: auto, eager, openvino, cuda-graph ...; empty: as in params_file",
    ),
    "sampler": ("", "chord, x0, sequential ...; empty: as in params_file"),
    "control_rate_hz": ("", "actions per second; empty: as in params_file"),
    "deadline_ms": ("", "time by which a chunk must be planned; empty: as in params_file"),
    "params_file": (
        "",
        f"parameters of all nodes; empty: {PUSHT.params_file}, or those shipped for the simulator",
    ),
    "sim": (
        "false",
        "simulator to start, too, for the policy to move: true or pusht, the PushT board; aloha, two "
        "arms with a cube",
    ),
    "executor": ("true", "false: no chunk_executor; whatever takes the chunks guards nothing"),
    "auto_enable": (
        "",
        "true: move without a call of chunk_executor/enable; empty: as in params_file",
    ),
    "namespace": ("", "namespace of all nodes"),
    "robots": (
        "",
        "names such as left,right: one policy_node serves all of them, and each has a "
        "chunk_executor in the namespace of its name; empty: one robot",
    ),
    "respawn": ("true", "start policy_node and chunk_executor again when their process dies"),
    "respawn_delay_s": ("1.0", "time before that"),
    "record": ("", "directory of a bag that `para-policy record` writes; empty: none"),
    "log_level": ("info", f"of the nodes: {', '.join(LOG_LEVELS)}"),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=make_nodes)])


def make_nodes(context: LaunchContext) -> list[Any]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    warn_of_misspelt(context)
    given["params_file"] = given["params_file"] or str((simulation(given) or PUSHT).params_file)
    check(given)
    robots = [name.strip() for name in given["robots"].split(",") if name.strip()]
    policy = node(LifecycleNode, "policy_node", given, policy_overrides(given, robots))
    actions = [*BringUp(policy).handlers(), policy]
    for robot in robots or [""]:
        actions += robot_nodes(given, robot)
    if given["record"]:
        # The Python that runs the nodes, which is not always the one of `ros2 launch`.
        command = ["python3", "-m", "para_policy", "record", "--output", given["record"]]
        command += ["--namespace", f"/{given['namespace'].strip('/')}"]
        actions.append(ExecuteProcess(cmd=command, name="record", output="screen"))
    return actions


def robot_nodes(given: dict[str, str], robot: str) -> list[Any]:
    """What stands beside each robot: the executor, and the simulator in its place."""
    robot_sim = simulation(given)
    overrides = {}
    if given["auto_enable"]:
        overrides["auto_enable"] = is_true(given, "auto_enable")
    elif robot_sim:
        overrides["auto_enable"] = True
    actions: list[Any] = []
    if is_true(given, "executor"):
        chunks = ("action_chunk", "policy_node/action_chunk")
        executor = node(Node, "chunk_executor", given, overrides, robot, chunks)
        actions += [RegisterEventHandler(end_when_wrong(executor)), executor]
    if robot_sim:
        simulator = node(Node, robot_sim.node, given, {}, robot, *robot_sim.remappings)
        actions += [RegisterEventHandler(end_when_wrong(simulator)), simulator]
    return actions


def node(
    kind: type[Node],
    name: str,
    given: dict[str, str],
    overrides: dict[str, Any],
    robot: str = "",
    *remappings: tuple[str, str],
) -> Node:
    namespace = "/".join(part for part in (given["namespace"].strip("/"), robot) if part)
    logger = ".".join([*namespace.split("/"), name]).lstrip(".")
    # A node comes back as it was started. So an executor that was enabled by hand comes back
    # disabled: why it died is unknown, and the robot may have been moved meanwhile. A policy_node
    # only proposes, and the enabled executor's guards compare its next chunk with the robot. The
    # simulator stands for a robot, which does not come back by itself either.
    stands_for_robot = name in {each.node for each in SIMULATIONS.values()}
    respawn = not stands_for_robot and is_true(given, "respawn")
    return kind(
        package="para_policy",
        executable=name,
        name=name,
        namespace=namespace,
        parameters=[ParameterFile(given["params_file"], allow_substs=True), overrides],
        remappings=list(remappings),
        # Of this node's logger: that of the middleware would drown it.
        ros_arguments=["--log-level", f"{logger}:={given['log_level']}"],
        respawn=respawn,
        respawn_delay=number(given, "respawn_delay_s"),
        output="screen",
    )


def policy_overrides(given: dict[str, str], robots: list[str]) -> dict[str, Any]:
    """Parameters of policy_node that the arguments set; numbers as floats, which ROS insists on."""
    overrides: dict[str, Any] = {
        name: given[name] for name in ("checkpoint", "device", "engine", "sampler") if given[name]
    }
    for name in ("control_rate_hz", "deadline_ms"):
        if given[name]:
            overrides[name] = number(given, name)
    shipped = simulation(given) or PUSHT
    if not given["checkpoint"] and given["params_file"] == str(shipped.params_file):
        overrides["checkpoint"] = found(shipped.checkpoint)
    if robots:
        overrides["robots"] = robots
    # This file asks for the transitions; a node that made them by itself would refuse.
    return {**overrides, "autostart": False}


def simulation(given: dict[str, str]) -> Simulation | None:
    """The simulator that is asked for; None: there is a robot."""
    name = given["sim"].lower()
    if name not in SIMULATIONS:
        return PUSHT if is_true(given, "sim") else None
    return SIMULATIONS[name]


def found(checkpoint: Path) -> str:
    """A shipped policy, in the checkout that was built or that is the working directory."""
    starts = (Path.cwd(), SHARE, Path(__file__).resolve())
    for folder in (parent for start in starts for parent in (start, *start.parents)):
        if (folder / checkpoint).is_dir():
            return str(folder / checkpoint)
    raise RuntimeError(
        f"no {checkpoint} in or above {Path.cwd()} and {SHARE}; give checkpoint:=DIRECTORY"
    )


def end_when_wrong(action: Node) -> OnProcessExit:
    """End everything, with exit code 1, when starting a process again would not help."""

    def ended(event: ProcessExited, _: LaunchContext) -> list[Any]:
        if event.returncode in NO_USE_STARTING_AGAIN:
            why = NO_USE_STARTING_AGAIN[event.returncode].format(name=event.process_name)
            # A shutdown that is asked for counts as a success; this is none.
            raise RuntimeError(f"ending: {why}, see above")
        return []

    return OnProcessExit(target_action=action, on_exit=ended)


class BringUp:
    """Configures `policy` whenever its process starts, and activates it once it is configured.

    DDS lists a killed process for some 20 s more, and a request that reaches nobody else is lost.
    So the new process is asked when it has shown itself by an endpoint that was not there before.
    """

    def __init__(self, policy: LifecycleNode) -> None:
        self._policy = policy

    def handlers(self) -> list[RegisterEventHandler]:
        activate_when_configured = OnStateTransition(
            target_lifecycle_node=self._policy,
            # Without a start state a deactivated node would be activated again at once.
            start_state="configuring",
            goal_state="inactive",
            entities=[self._request(Transition.TRANSITION_ACTIVATE)],
        )
        started = OnProcessStart(target_action=self._policy, on_start=self._started)
        handlers = (activate_when_configured, started, end_when_wrong(self._policy))
        return [RegisterEventHandler(handler) for handler in handlers]

    def _started(self, event: ProcessStarted, context: LaunchContext) -> list[Any]:
        return self._look(context, event.pid, self._endpoints(context))

    def _look(self, context: LaunchContext, pid: int, known: set[bytes]) -> list[Any]:
        """Ask for the transition, or look again later, as long as the process `pid` is there."""
        if self._endpoints(context) - known:
            # The node's services are announced just after this topic.
            ask = self._request(Transition.TRANSITION_CONFIGURE)
            return [TimerAction(period=ENDPOINTS_FOLLOW_S, actions=[ask])]
        if not Path("/proc", str(pid)).exists():
            return []
        again = OpaqueFunction(function=self._look, args=[pid, known])
        return [TimerAction(period=LOOK_EVERY_S, actions=[again])]

    def _endpoints(self, context: LaunchContext) -> set[bytes]:
        topic = f"{self._policy.node_name}/transition_event"
        found = get_ros_node(context).get_publishers_info_by_topic(topic)
        return {bytes(endpoint.endpoint_gid) for endpoint in found}

    def _request(self, transition_id: int) -> EmitEvent:
        matcher = matches_action(self._policy)
        event = ChangeState(lifecycle_node_matcher=matcher, transition_id=transition_id)
        return EmitEvent(event=event)


def check(given: dict[str, str]) -> None:
    """Refuse values that would otherwise fail later, without the name of the argument, or not at all."""
    # Fast DDS ends the process that makes a node there, which is this one.
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not re.fullmatch("[0-9]{1,3}", domain) or int(domain) > HIGHEST_DOMAIN:
        raise RuntimeError(
            f"ROS_DOMAIN_ID is {domain!r}; expected 0 to {HIGHEST_DOMAIN}, the same for all nodes"
        )
    params_file = f"params_file:={given['params_file']}"
    try:
        yaml.safe_load(Path(given["params_file"]).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        # Without a file nodes would run with their defaults, that is without limits.
        raise RuntimeError(f"{params_file}: expected a file that can be read: {error}") from None
    except yaml.YAMLError as error:
        raise RuntimeError(f"{params_file}: expected valid YAML: {error}") from None
    if given["log_level"].lower() not in LOG_LEVELS:
        expected = ", ".join(LOG_LEVELS)
        raise RuntimeError(f"log_level:={given['log_level']}: expected one of {expected}")


def warn_of_misspelt(context: LaunchContext) -> None:
    """`ros2 launch` ignores an argument that nobody declares; a launch file above may have its own."""
    for name in context.launch_configurations.keys() - ARGUMENTS.keys():
        if close := difflib.get_close_matches(name, ARGUMENTS, n=1, cutoff=0.8):
            warning = f"{name} is no argument of policy.launch.py; did you mean {close[0]}?"
            get_logger("policy.launch").warning(warning)


def number(given: dict[str, str], name: str) -> float:
    try:
        return float(given[name])
    except ValueError:
        raise RuntimeError(f"{name}:={given[name]}: expected a number") from None


def is_true(given: dict[str, str], name: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if given[name].lower() not in words:
        others = f", {' or '.join(SIMULATIONS)}" if name == "sim" else ""
        raise RuntimeError(f"{name}:={given[name]}: expected true or false{others}")
    return words[given[name].lower()]
