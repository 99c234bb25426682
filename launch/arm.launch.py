"""A policy that moves a 6-DoF arm through ros2_control; docs/guides/arm.md says how.

ros2 launch para_policy arm.launch.py checkpoint:=DIRECTORY
"""

from __future__ import annotations

from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("para_policy")
PARAMETERS = PathJoinSubstitution([SHARE, "config", "arm_6dof", "policy.yaml"])
POLICY_LAUNCH = PathJoinSubstitution([SHARE, "launch", "policy.launch.py"])


def generate_launch_description() -> LaunchDescription:
    # All other arguments are those of policy.launch.py.
    declared = [
        DeclareLaunchArgument(
            "params_file", default_value=PARAMETERS, description="parameters of all nodes"
        ),
        DeclareLaunchArgument(
            "command_topic",
            default_value="joint_trajectory_controller/joint_trajectory",
            description="topic of the controller, relative to the namespace of the nodes",
        ),
        DeclareLaunchArgument(
            "direct",
            default_value="false",
            choices=["true", "false"],
            description="true: the controller gets whole chunks of policy_node; no limit is guarded",
        ),
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=make_nodes)])


def make_nodes(context: LaunchContext) -> list[Any]:
    given = context.launch_configurations
    direct, topic = given["direct"] == "true", given["command_topic"]
    robots = [name.strip() for name in given.get("robots", "").split(",") if name.strip()]
    if robots and topic.startswith("/"):
        raise RuntimeError(
            f"command_topic:={topic}: expected a relative name, for each robot has a controller"
        )
    if direct and given.get("record"):
        raise RuntimeError(
            f"record:={given['record']}: with direct:=true chunks have the topic of the controller, "
            "which a replay does not know; expected one or the other"
        )
    # Only one of the two nodes has a topic of this name; that of a served robot is spelled out.
    chunks = [f"{robot}/policy_node/action_chunk" for robot in robots] or ["~/action_chunk"]
    places = [f"{robot}/{topic}" for robot in robots] or [topic]
    pairs = zip(chunks, places, strict=True) if direct else [("~/command", topic)]
    arguments = {"executor": "false"}.items() if direct else ()
    included = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(POLICY_LAUNCH), launch_arguments=arguments
    )
    return [GroupAction([*(SetRemap(*pair) for pair in pairs), included])]
