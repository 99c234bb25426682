"""Mends of rclpy's lifecycle nodes: transitions that fail aloud, and an end that is one."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from para_policy.errors import ParaPolicyError


class FailingNode(Protocol):
    """A node, as far as `logged` needs it."""

    def get_logger(self) -> Any: ...

    def fail(self, problem: str) -> None:
        """Release everything and remember the problem for diagnostics."""


def logged(transition: Callable[..., TransitionCallbackReturn]) -> Any:
    """Turn an error in a transition into a log entry, a diagnostic and the right outcome.

    rclpy swallows some errors and dies of others. Bad input is the user's to mend: one line, FAILURE,
    and back to the state before. Anything else is a defect: traceback, ERROR, and on to `on_error`.
    """

    @functools.wraps(transition)
    def wrapper(node: FailingNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except ParaPolicyError as error:
            problem, outcome = str(error), TransitionCallbackReturn.FAILURE
        except Exception as error:
            node.get_logger().error(traceback.format_exc())
            problem, outcome = repr(error), TransitionCallbackReturn.ERROR
        problem = f"{transition.__name__} failed: {problem}"
        node.get_logger().error(problem)
        node.fail(problem)
        return outcome

    return wrapper


def survive_invalid_requests(node: LifecycleNode) -> None:
    """Answer a transition that the present state does not allow with "no".

    rclpy (Jazzy at least) lets the error escape from the service, which would end the process:
    a second launch file or a mistyped `ros2 lifecycle set` would stop a running robot.
    """
    service = node._service_change_state
    change_state = service.callback

    def answer(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except RuntimeError as error:
            wanted = request.transition.label or request.transition.id
            node.get_logger().warning(f"transition {wanted} refused: {error}")
            response.success = False
            return response

    service.callback = answer


def leave_the_graph(node: LifecycleNode) -> None:
    """To be called after `destroy_node`: let go of what rclpy 7.1 forgets, the state machine.

    It holds on to the node's handle and with it to the DDS participant, until Python's garbage
    collector comes by: others would see a node that nobody answers for.
    """
    node._state_machine.destroy_when_not_in_use()
