"""Main function that all nodes share."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import rclpy
import yaml
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from para_policy.errors import InputError, ParaPolicyError
from para_policy.ros.domain import check_domain
from para_policy.strict_yaml import RepeatedKeyError, read_yaml

WRONG_PARAMETER = 2
"""Exit code: starting the node again would not help."""
_PATIENCE_S = 1.5
"""Time from Ctrl-C to the end of the process, whatever it is doing."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NO_SIGNAL = 0
"""In place of a number: the node has ended by itself."""
_SWITCH_S = 0.0005
"""Time for which one thread may keep the interpreter while another waits for it. The inference thread
asks for it thousands of times in a plan, and 1,000 observations a second would make it wait for 5
ms, the default, time and again."""


def _check_parameter_files(arguments: Sequence[str]) -> None:
    """ROS takes the last of two values, such as the shipped one without a limit."""
    for option, path in pairwise(arguments):
        if option != "--params-file":
            continue
        try:
            read_yaml(Path(path).read_text(encoding="utf-8"))
        except RepeatedKeyError as error:
            raise InputError(f"parameter file '{path}': {error}") from error
        except (OSError, ValueError, yaml.YAMLError):
            continue  # ROS says what is wrong with it


def run_node(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Spin a node until SIGINT or SIGTERM and tear it down.

    Its `destroy_node` may still publish: a robot that is moved by velocities must be told to stand.
    The process ends, with code 0, as soon as the node is torn down, and where a computation or the
    tear-down does not let go, a second and a half after the signal.

    Returns:
        2 (with one line on stderr) when a parameter, an argument or the domain is not valid; otherwise
        not at all.
    """
    sys.setswitchinterval(_SWITCH_S)
    ending = _Ending()
    node: Node | None = None
    code = 0
    try:
        check_domain()
        _check_parameter_files(sys.argv if args is None else args)
        _connect(args)
        node = make_node()
        _spin(node, ending)
    except ExternalShutdownException:
        pass
    except (ParaPolicyError, ParameterException) as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_PARAMETER
    except Exception:
        code = 1
        raise
    finally:
        # Nothing may keep the process from now on: not DDS, which takes the connections down, and
        # not a lock that a thread holds which the interpreter waits for.
        ending.begin(code)
        try:
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
        except Exception:  # no reason to stay, nor to call what ran well until now a failure
            traceback.print_exc()
        ending.finish()
    if code == 0:
        _leave(code)
    return code


def _connect(args: Sequence[str] | None) -> None:
    """Like `rclpy.init`, whose own signal handlers would end all communication at once."""
    try:
        rclpy.init(
            args=None if args is None else list(args),
            signal_handler_options=SignalHandlerOptions.NO,
        )
    except RuntimeError as error:  # base of what rcl says about arguments and parameter files
        reason = str(error).split(", at ")[0].strip()
        raise InputError(f"the arguments of the node are not valid: {reason}") from error


class _Ending:
    """End of the process: begins with a signal or by itself, and takes no longer than `_PATIENCE_S`.

    Python handles a signal between two steps of the main thread, which may be in a slow call. But the
    number of the signal is in the pipe at once, where another thread reads it. Further signals, which
    `ros2 launch` sends, change nothing.
    """

    def __init__(self) -> None:
        self.begun = False
        self.wake: Callable[[], object] = lambda: None
        """Called by another thread when a signal has come."""
        self._code = 0
        self._over = threading.Event()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._end_in_time, daemon=True).start()

    def begin(self, code: int) -> None:
        """From now on the process may be ended, with `code`."""
        self._code = code
        os.write(self._writer, bytes([_NO_SIGNAL]))

    def finish(self) -> None:
        """Nothing is left that could keep the process."""
        self._over.set()

    def _end_in_time(self) -> None:
        while (number := os.read(self._reader, 1)[0]) not in (_NO_SIGNAL, *_SIGNALS):
            pass  # of a signal that others handle
        self.begun = True
        try:
            if number != _NO_SIGNAL:
                self.wake()
        finally:
            if not self._over.wait(_PATIENCE_S):
                _leave(self._code)


def _spin(node: Node, ending: _Ending) -> None:
    """Like `rclpy.spin`, until the end begins."""
    executor = rclpy.get_global_executor()
    executor.add_node(node)
    # `spin_once` returns after a task only.
    ending.wake = lambda: executor.create_task(lambda: None)
    try:
        while not ending.begun and rclpy.ok():
            executor.spin_once()
    finally:
        executor.remove_node(node)


def _leave(code: int) -> None:
    """End the process at once.

    The interpreter would wait for native code in other threads, and unload libraries whose threads
    still run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
