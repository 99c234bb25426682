"""Node with a context of its own, for whoever talks to nodes without being one of them."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

if TYPE_CHECKING:
    from typing import Self


class OwnNode:
    """A context manager: the node is gone at its end, with all that was made with it.

    Args:
        domain_id: ROS domain; None for that of the environment.
        options: of `rclpy.node.Node`.

    Attributes:
        node: to make publishers, subscriptions and clients with. It hears nothing unless its owner
            calls `spin_once`.
    """

    def __init__(self, name: str, domain_id: int | None = None, **options: Any) -> None:
        self._context = Context()
        rclpy.init(args=[], context=self._context, domain_id=domain_id)
        self.node = Node(name, context=self._context, **options)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def spin_once(self, timeout_s: float) -> None:
        """Handle one message, or wait for one for so long."""
        self._executor.spin_once(timeout_sec=timeout_s)
