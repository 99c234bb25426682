"""Child processes of a ROS run: started from this environment, watched, and ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from para_policy.children import tied
from para_policy.errors import ParaPolicyError
from para_policy.ros.domain import check_domain
from para_policy.stopping import stoppable
from sim.ros.simulators import Simulator

_PATIENCE_S = 8.0


class RosProcesses:
    """ROS nodes as child processes; a context manager that ends them all.

    They end, too, when this process is killed, or the thread that has started them ends.

    Args:
        domain_id: ROS domain of the run. Discovery stays on this machine.
        threads: threads that each process may compute with; None leaves it to the libraries.

    Raises:
        InputError: for a domain that there is not.
    """

    def __init__(self, domain_id: int, threads: int | None = None) -> None:
        check_domain(domain_id)
        self._env = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain_id),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        }
        if threads is not None:
            self._env["OMP_NUM_THREADS"] = str(threads)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._signals = contextlib.ExitStack()
        self._logs = tempfile.TemporaryDirectory(prefix="para_policy_")

    def __enter__(self) -> RosProcesses:
        # By default SIGTERM ends Python at once and would leave the nodes behind.
        self._signals.enter_context(stoppable())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._logs.cleanup()
        self._signals.close()

    def start(
        self, executable: str, module: str, parameters: Mapping[str, object], *args: str
    ) -> None:
        """Start a node of this environment with `parameters` and further ROS arguments `args`.

        Uses the installed executable, the one that launch files name, or `module` where the
        package has not been installed.
        """
        installed = Path(sys.executable).with_name(executable)
        command = [str(installed)] if installed.exists() else [sys.executable, "-m", module]
        command += ["--ros-args", *args]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={_as_yaml(value)}"]
        with self._log(executable).open("wb") as log:
            # In a session of its own: Ctrl-C reaches this process first, which then ends the
            # children in an orderly way.
            self._running[executable] = subprocess.Popen(
                tied(command), env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def pid(self, executable: str) -> int:
        """Number of a running process."""
        return self._running[executable].pid

    def kill(self, executable: str) -> None:
        """End a process at once (SIGKILL), as a crash would; it may be started again."""
        process = self._running.pop(executable)
        process.kill()
        process.wait()

    def check(self) -> None:
        """Raise ParaPolicyError with the end of its output when a process has ended."""
        for executable, process in self._running.items():
            if process.poll() is not None:
                raise ParaPolicyError(
                    f"{executable} ended with code {process.returncode}: {self.last_words(executable)}"
                )

    def pids(self) -> dict[str, int]:
        """Process ids by executable."""
        return {executable: process.pid for executable, process in self._running.items()}

    def last_words(self, executable: str) -> str:
        return self._log(executable).read_text(errors="replace").strip()[-2000:]

    def stop(self) -> dict[str, int]:
        """End all processes, ever less politely; exit codes by executable."""
        # A parent that runs in the background may have made them ignore SIGINT.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            alive = [process for process in self._running.values() if process.poll() is None]
            for process in alive:
                process.send_signal(number)
            deadline = time.monotonic() + _PATIENCE_S
            while time.monotonic() < deadline and any(process.poll() is None for process in alive):
                time.sleep(0.02)
        codes = {name: process.wait() for name, process in self._running.items()}
        self._running.clear()
        return codes

    def _log(self, executable: str) -> Path:
        return Path(self._logs.name) / f"{executable}.log"


def start_runtime(
    processes: RosProcesses, policy: Mapping[str, object], executor: Mapping[str, object]
) -> None:
    """Start policy_node and chunk_executor, connected as `policy.launch.py` connects them."""
    processes.start("policy_node", "para_policy.ros.policy_node", policy)
    remap = ("-r", "action_chunk:=policy_node/action_chunk")
    processes.start("chunk_executor", "para_policy.ros.chunk_executor", executor, *remap)


def start_simulator(
    processes: RosProcesses, simulator: Simulator, parameters: Mapping[str, object]
) -> None:
    """Start a simulator, connected to the executor."""
    processes.start(simulator.name, simulator.module, parameters, *simulator.arguments)


def _as_yaml(value: object) -> str:
    """A parameter value as `--ros-args -p` reads it: floats keep their point, text its quotes."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, Sequence):
        return f"[{', '.join(_as_yaml(item) for item in value)}]"
    return repr(value).lower() if isinstance(value, bool) else repr(value)
