"""A policy that moves a 6-DoF arm through ros2_control; docs/guides/arm.md says how.

ros2 launch para_policy arm.launch.py checkpoint:=DIRECTORY
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("para_policy")
PARAMETERS = PathJoinSubstitution([SHARE, "config", "arm_6dof", "policy.yaml"])
DIRECT = LaunchConfiguration("direct")
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
    # Only one of the two nodes has a topic of this name.
    source = PythonExpression(["'~/action_chunk' if '", DIRECT, "' == 'true' else '~/command'"])
    included = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(POLICY_LAUNCH),
        launch_arguments={"executor": PythonExpression(["'", DIRECT, "' != 'true'"])}.items(),
    )
    group = GroupAction([SetRemap(source, LaunchConfiguration("command_topic")), included])
    return LaunchDescription([*declared, group])
