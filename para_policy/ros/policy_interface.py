"""Topics and the service of a configured policy node."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from para_policy.control.chunk import ActionChunk
from para_policy.ros.conversions import chunk_to_message
from para_policy.ros.inputs import InputMapping
from para_policy.ros.qos import for_mode


class PolicyInterface:
    """Made in on_configure and removed by `close`; what was made before an error is removed, too.

    Args:
        inputs: of the policy, by name.
        observe: called with the name of an input, its mapping and a message of its topic.
        reset: answers `~/reset`.
        joint_names, stamp_mode, lockstep: parameters of the node.

    Attributes:
        topic_types: message type by topic that is subscribed to.
    """

    def __init__(
        self,
        node: LifecycleNode,
        inputs: Mapping[str, InputMapping],
        observe: Callable[[str, InputMapping, Any], None],
        reset: Callable[[Trigger.Request, Trigger.Response], Trigger.Response],
        *,
        joint_names: Sequence[str],
        stamp_mode: str,
        lockstep: bool,
    ) -> None:
        self.topic_types: dict[str, str] = {}
        self._joint_names = list(joint_names)
        self._start_now = stamp_mode == "zero"
        with ExitStack() as undo:

            def publisher(kind: type, topic: str, qos: Any) -> Any:
                made = node.create_lifecycle_publisher(kind, topic, qos)
                undo.callback(node.destroy_lifecycle_publisher, made)
                return made

            self._chunks = publisher(JointTrajectory, "~/action_chunk", for_mode(lockstep))
            self._infos = publisher(DiagnosticStatus, "~/chunk_info", 10)
            undo.callback(node.destroy_service, node.create_service(Trigger, "~/reset", reset))
            for name, mapping in inputs.items():
                subscription = node.create_subscription(
                    mapping.converter.message,
                    mapping.topic,
                    functools.partial(observe, name, mapping),
                    mapping.qos(lockstep=lockstep),
                )
                undo.callback(node.destroy_subscription, subscription)
                self.topic_types[subscription.topic_name] = mapping.type
            self._undo = undo.pop_all()

    def publish_chunk(self, chunk: ActionChunk) -> None:
        message = chunk_to_message(chunk, self._joint_names, start_now=self._start_now)
        self._chunks.publish(message)

    def publish_info(self, status: DiagnosticStatus) -> None:
        self._infos.publish(status)

    def close(self) -> None:
        self._undo.close()
