"""policy_node, configured and active, and chunk_executor; with sim:=true also the PushT simulator.

ros2 launch para_policy policy.launch.py sim:=true
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterFile
from lifecycle_msgs.msg import Transition

SHARE = Path(get_package_share_directory("para_policy"))
SHIPPED_PARAMETERS = str(SHARE / "config" / "policy.yaml")
SHIPPED_CHECKPOINT = Path("checkpoints", "pusht_state")

ARGUMENTS = {
    "checkpoint": (
        "",
        "directory of the policy; empty: as in params_file, or the shipped PushT policy",
    ),
    "device": ("", "torch device of the network, such as cpu or cuda; empty: as in params_file"),
    "sampler": ("", "chord, x0, sequential ...; empty: as in params_file"),
    "control_rate_hz": ("", "actions per second; empty: as in params_file"),
    "deadline_ms": ("", "time by which a chunk must be planned; empty: as in params_file"),
    "params_file": (SHIPPED_PARAMETERS, "parameters of all nodes"),
    "sim": ("false", "true: start the PushT simulator, too, and let the policy move it"),
    "auto_enable": (
        "",
        "true: move without a call of chunk_executor/enable; empty: as in params_file",
    ),
    "namespace": ("", "namespace of all nodes"),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=make_nodes)])


def make_nodes(context: LaunchContext) -> list[Any]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    with_sim = is_true(given["sim"], "sim")
    executor_overrides = {}
    if given["auto_enable"]:
        executor_overrides["auto_enable"] = is_true(given["auto_enable"], "auto_enable")
    elif with_sim:
        executor_overrides["auto_enable"] = True
    policy = node(LifecycleNode, "policy_node", given, policy_overrides(given), [])
    executor = node(
        Node,
        "chunk_executor",
        given,
        executor_overrides,
        [("action_chunk", "policy_node/action_chunk")],
    )
    nodes = [*start_lifecycle(policy), executor]
    if with_sim:
        nodes.append(node(Node, "pusht_sim", given, {}, [("command", "chunk_executor/command")]))
    return nodes


def node(
    kind: type[Node],
    name: str,
    given: dict[str, str],
    overrides: dict[str, Any],
    remappings: list[tuple[str, str]],
) -> Node:
    return kind(
        package="para_policy",
        executable=name,
        name=name,
        namespace=given["namespace"],
        parameters=[ParameterFile(given["params_file"], allow_substs=True), overrides],
        remappings=remappings,
        output="screen",
    )


def policy_overrides(given: dict[str, str]) -> dict[str, Any]:
    """Parameters of policy_node that the arguments set; numbers as floats, which ROS insists on."""
    overrides: dict[str, Any] = {
        name: given[name] for name in ("checkpoint", "device", "sampler") if given[name]
    }
    for name in ("control_rate_hz", "deadline_ms"):
        if given[name]:
            overrides[name] = float(given[name])
    if not given["checkpoint"] and given["params_file"] == SHIPPED_PARAMETERS:
        overrides["checkpoint"] = shipped_checkpoint()
    # This file asks for the transitions; a node that made them by itself would refuse.
    return {**overrides, "autostart": False}


def shipped_checkpoint() -> str:
    """The PushT policy of the checkout that was built or that is the working directory."""
    starts = (Path.cwd(), SHARE, Path(__file__).resolve())
    for folder in (parent for start in starts for parent in (start, *start.parents)):
        if (folder / SHIPPED_CHECKPOINT).is_dir():
            return str(folder / SHIPPED_CHECKPOINT)
    raise RuntimeError(
        f"no {SHIPPED_CHECKPOINT} in or above {Path.cwd()} and {SHARE}; give checkpoint:=DIRECTORY"
    )


def start_lifecycle(policy: LifecycleNode) -> list[Any]:
    """Configure `policy` when its process runs, and activate it once it is configured."""

    def request(transition_id: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(
                lifecycle_node_matcher=matches_action(policy), transition_id=transition_id
            )
        )

    activate_when_configured = OnStateTransition(
        target_lifecycle_node=policy,
        # Without a start state a deactivated node would be activated again at once.
        start_state="configuring",
        goal_state="inactive",
        entities=[request(Transition.TRANSITION_ACTIVATE)],
    )
    # The handler before the node, the request after it.
    return [
        RegisterEventHandler(activate_when_configured),
        policy,
        request(Transition.TRANSITION_CONFIGURE),
    ]


def is_true(text: str, name: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise RuntimeError(f"{name}:={text}: expected true or false")
    return words[text.lower()]
