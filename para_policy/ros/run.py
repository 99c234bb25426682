"""The main function that all nodes share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from para_policy.errors import ParaPolicyError


def run_node(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Spin a node until SIGINT or SIGTERM and tear it down.

    Returns:
        0 after a clean end, 2 (with one line on stderr) when a parameter is not valid.
    """
    rclpy.init(args=None if args is None else list(args))
    node: Node | None = None
    try:
        node = make_node()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ParaPolicyError, ParameterException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        # `ros2 launch` signals a second time, which must not interrupt the tear-down.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
