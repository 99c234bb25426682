"""One joint_states topic of several broadcasters, each with its own joints, as ros2_control has it."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseArray
from rcl_interfaces.msg import Log
from sensor_msgs.msg import JointState

from para_policy.ros.messages.diagnostics import status_values
from tests.ros.faults.loop import Loop


def part(joints: JointState, *names: str) -> JointState:
    """The message of a broadcaster of some joints."""
    kept = [joint for joint in joints.name if joint in names]
    positions = [joints.position[list(joints.name).index(joint)] for joint in kept]
    return JointState(header=joints.header, name=kept, position=positions)


def other(joints: JointState) -> JointState:
    """The message of a broadcaster of joints that the policy does not know."""
    return JointState(header=joints.header, name=["finger"], position=[0.04])


def policy_says(loop: Loop) -> list[tuple[bytes, str]]:
    return [
        (status.level, status.message)
        for array in loop.diagnostics
        for status in array.status
        if status.name == "policy_node: policy"
    ]


def test_messages_without_our_joints_are_passed_over(loop: Loop) -> None:
    def feed(joints: JointState, keypoints: PoseArray) -> None:
        loop.sensors.send(joints, keypoints)
        loop.sensors.joints.publish(other(joints))

    loop.sensors.feed = feed
    loop.wait_for_motion()
    loop.diagnostics.clear()
    for _ in range(3):
        loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)
    assert {level for level, _ in policy_says(loop)} == {DiagnosticStatus.OK}


def test_joints_of_two_broadcasters_make_one_observation(loop: Loop) -> None:
    def feed(joints: JointState, keypoints: PoseArray) -> None:
        loop.sensors.keypoints.publish(keypoints)
        for name in ("agent_x", "agent_y"):
            loop.sensors.joints.publish(part(joints, name))
        loop.sensors.joints.publish(other(joints))

    loop.sensors.feed = feed
    loop.wait_for_motion()
    loop.diagnostics.clear()
    loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)
    assert {level for level, _ in policy_says(loop)} == {DiagnosticStatus.OK}

    def told() -> set[str]:
        values = [status_values(s) for array in loop.diagnostics for s in array.status]
        return {key for one in values for key in one if key.startswith("observation_age_ms/agent")}

    ages = {f"observation_age_ms/agent_pos/{joint}" for joint in ("agent_x", "agent_y")}
    loop.graph.wait(lambda: ages <= told())


def test_one_silent_broadcaster_of_two_holds_the_robot_and_is_named(loop: Loop) -> None:
    def feed(joints: JointState, keypoints: PoseArray) -> None:
        loop.sensors.keypoints.publish(keypoints)
        loop.sensors.joints.publish(part(joints, "agent_x"))
        loop.sensors.joints.publish(other(joints))

    loop.sensors.feed = feed
    loop.wait_for_hold("agent_pos: the newest values of joint agent_y are", DiagnosticStatus.WARN)
    loop.sensors.feed = loop.sensors.send
    loop.wait_for_motion()


def test_a_fault_in_every_second_message_fills_no_log(loop: Loop) -> None:
    """Good and bad messages in turn: the state changes with each, and is told once a second."""
    logs: list[Log] = loop.graph.listen(Log, "/rosout", 100)

    def feed(joints: JointState, keypoints: PoseArray) -> None:
        loop.sensors.send(joints, keypoints)
        bad = JointState(header=joints.header, name=list(joints.name), position=[1.0])
        loop.sensors.joints.publish(bad)

    loop.sensors.feed = feed
    loop.wait_for_status("no position of joint agent_y")
    logs.clear()
    loop.diagnostics.clear()
    loop.graph.spin_for(2.0)  # 40 good and 40 bad messages
    assert len([log for log in logs if log.name == "policy_node"]) <= 6
    assert len(policy_says(loop)) <= 8
