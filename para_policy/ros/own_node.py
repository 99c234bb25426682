"""Node with a context of its own, for whoever talks to nodes without being one of them."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from para_policy.ros.domain import check_domain

if TYPE_CHECKING:
    from typing import Self

_MOMENT_S = 0.05


class OwnNode:
    """A context manager: the node is gone at its end, with all that was made with it.

    Args:
        domain_id: ROS domain; None for that of the environment.
        options: of `rclpy.node.Node`.

    Raises:
        InputError: for a domain that there is not.

    Attributes:
        node: to make publishers, subscriptions and clients with. It hears nothing unless its owner
            calls `spin_once`.
    """

    def __init__(self, name: str, domain_id: int | None = None, **options: Any) -> None:
        check_domain(domain_id)
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

    def spin_once(self) -> None:
        """Handle one message, or wait for one, for a moment.

        Always for the same time: with another one the executor forgets what else was ready and begins
        with the timers again, and one that is always due would keep all messages out.
        """
        self._executor.spin_once(timeout_sec=_MOMENT_S)


class Question:
    """A request that is sent again until one of its answers arrives.

    An answer gets lost for good where the server has not discovered the client yet, whatever
    `service_is_ready` says (rmw_fastrtps: "client will not receive response"). So only for
    requests that may be carried out twice.

    Args:
        client: of `rclpy.node.Node.create_client`.
        again_s: seconds after which it is sent again.
    """

    def __init__(self, client: Any, request: Any, again_s: float = 1.0) -> None:
        self._client, self._request, self._again_s = client, request, again_s
        self._futures: list[Any] = []
        self._due = time.monotonic()

    def answered(self) -> bool:
        """Whether an answer is here; sends the request when it is time."""
        if any(future.done() for future in self._futures):
            return True
        if time.monotonic() >= self._due:
            self._futures.append(self._client.call_async(self._request))
            self._due = time.monotonic() + self._again_s
        return False

    def answer(self) -> Any:
        """The answer that came first; None while there is none."""
        return next((future.result() for future in self._futures if future.done()), None)
