"""A node that asks and listens for a while, and is no part of what it examines."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

NAME = "para_policy_doctor"
_TICK_S = 0.05


class Listener:
    """A context manager.

    Attributes:
        node: to make subscriptions and clients with; they are gone at the end.
    """

    def __enter__(self) -> Listener:
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = Node(
            NAME, context=self._context, enable_rosout=False, start_parameter_services=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
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

    def wait(self, condition: Callable[[], Any], limit_s: float) -> bool:
        """Listen until `condition` holds, or in vain for `limit_s`."""
        end = time.monotonic() + limit_s
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(_TICK_S, left))
        return True

    def listen(self, seconds: float) -> None:
        self.wait(lambda: False, seconds)

    def call(self, kind: type, service: str, request: Any, limit_s: float = 3.0) -> Any:
        """The answer of a service, or None when there is none in time."""
        client = self.node.create_client(kind, service)
        if not self.wait(client.service_is_ready, limit_s):
            return None
        future = client.call_async(request)
        return future.result() if self.wait(future.done, limit_s) else None
