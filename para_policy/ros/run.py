"""Main function that all nodes share."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from para_policy.errors import InputError, ParaPolicyError

WRONG_PARAMETER = 2
"""Exit code: starting the node again would not help."""
_PATIENCE_S = 1.5
"""Time from Ctrl-C to the end of the process, whatever it is doing."""
_POLL_S = 0.1
_SWITCH_S = 0.0005
"""Time for which one thread may keep the interpreter while another waits for it. The inference thread
asks for it thousands of times in a plan, and 1,000 observations a second would make it wait for 5
ms, the default, time and again."""


def run_node(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Spin a node until SIGINT or SIGTERM and tear it down.

    The process ends, with code 0, as soon as the node is torn down, and where a computation or the
    tear-down does not let go, a second and a half after the signal.

    Returns:
        2 (with one line on stderr) when a parameter or an argument is not valid; otherwise not at all.
    """
    sys.setswitchinterval(_SWITCH_S)
    node: Node | None = None
    code = 0
    torn_down = threading.Event()
    try:
        try:
            rclpy.init(args=None if args is None else list(args))
        except RuntimeError as error:  # base of what rcl says about arguments and parameter files
            reason = str(error).split(", at ")[0].strip()
            raise InputError(f"the arguments of the node are not valid: {reason}") from error
        threading.Thread(target=_leave_in_time, args=(torn_down,), daemon=True).start()
        node = make_node()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ParaPolicyError, ParameterException) as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_PARAMETER
    except Exception:
        if not _is_ending():
            code = 1
            raise
        # The signal came in the middle of a callback, which could no longer publish.
    finally:
        # `ros2 launch` signals a second time, which must not interrupt the tear-down.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # No signal ends the process from now on. So nothing may keep it: not DDS, which takes the
        # connections down, and not a lock that a thread holds which the interpreter waits for.
        farewell = threading.Timer(_PATIENCE_S, _leave, [code])
        farewell.daemon = True
        farewell.start()
        try:
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
        except Exception:  # no reason to stay, nor to call what ran well until now a failure
            traceback.print_exc()
        torn_down.set()
        farewell.cancel()
    if code == 0:
        _leave(code)
    return code


def _is_ending() -> bool:
    """True where a signal has come: the context is shut down a moment after it, by another thread."""
    if rclpy.ok():
        time.sleep(_POLL_S)
    return not rclpy.ok()


def _leave_in_time(torn_down: threading.Event) -> None:
    """End the process where a slow call keeps the main thread from seeing the signal."""
    while rclpy.ok():
        if torn_down.wait(_POLL_S):
            return
    if not torn_down.wait(_PATIENCE_S):
        _leave(0)


def _leave(code: int) -> None:
    """End the process at once.

    The interpreter would wait for native code in other threads, and unload libraries whose threads
    still run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
