"""Commands of tests in sessions of their own, with the processes that they start, and a Ray cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def environment(home: Path) -> dict[str, str]:
    """One thread, as a task has, and a home directory in which nothing can be made."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(home / "missing")}


def processes(group: int) -> dict[int, str]:
    """Those of a session, by their number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended
            continue
        if session == group and line:
            found[int(folder.name)] = line
    return found


def kill_busy_workers(session: int) -> int:
    """Kill the workers of Ray that are at a task just now; how many. Between two tasks they are idle."""
    busy = [pid for pid, line in processes(session).items() if "ray::_task" in line]
    for pid in busy:
        os.kill(pid, signal.SIGKILL)
    return len(busy)


@contextmanager
def started(command: list[str], home: Path) -> Iterator[subprocess.Popen[str]]:
    """Nothing of its session is left afterwards."""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(home), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            for number in processes(process.pid):
                with suppress(ProcessLookupError):  # it has ended
                    os.kill(number, signal.SIGKILL)


@contextmanager
def ray_cluster(home: Path) -> Iterator[tuple[str, int]]:
    """One of this machine with one CPU: its HOST:PORT, and its session."""
    ray = str(Path(sys.executable).with_name("ray"))
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    head = [
        *(ray, "start", "--head", "--block", "--num-cpus", "1", "--include-dashboard=false"),
        *("--node-ip-address", "127.0.0.1", "--port", address.rpartition(":")[2]),
        *("--object-store-memory", "100000000", "--disable-usage-stats", "--temp-dir"),
    ]
    with (
        # Ray's sockets have long names.
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as short,
        started([*head, short], home) as cluster,
    ):
        assert cluster.stdout
        said = []
        for line in cluster.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            pytest.fail(f"Ray has not started: {''.join(said)}")
        yield address, cluster.pid
        cluster.terminate()
        cluster.communicate(timeout=60)
