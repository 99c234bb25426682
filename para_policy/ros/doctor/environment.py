"""Check of ROS 2: its installation and settings. Imports ROS only where that may fail."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from para_policy.ros.doctor.case import Case
from para_policy.ros.doctor.report import Finding, fail, ok, skipped, warn
from para_policy.ros.domain import HIGHEST, is_domain

_PACKAGE = "para_policy"
_SOURCE = "source the setup.bash of ROS 2 in this shell"
_PATIENCE_S = 30.0
_YEAR_2020_S = 1_577_836_800
_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")


def check(_: Case) -> Iterator[Finding]:
    yield _rclpy()
    yield _rmw()
    yield _domain()
    yield from _discovery()
    yield from _package()
    yield _clock()


@functools.cache
def import_problem() -> str:
    """Reason why rclpy cannot be imported; empty if it can.

    Found out in another process: with a wrong RMW_IMPLEMENTATION the import ends Python.
    """
    command = [sys.executable, "-c", "import rclpy"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"the import takes longer than {_PATIENCE_S:g} s"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def _rclpy() -> Finding:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    problem = import_problem()
    if not problem:
        import rclpy

        distro = os.environ.get("ROS_DISTRO", "ROS_DISTRO is not set")
        found = f"{_rclpy_version()} ({distro}) in {Path(rclpy.__file__).parent}"
        return ok("rclpy", f"{found}; Python {version} has torch, too")
    if "RMW" in problem:
        return fail(
            "rclpy", problem, "install that RMW implementation, or unset RMW_IMPLEMENTATION"
        )
    built_for = sorted({path.parents[1].name for path in _installed_rclpy()})
    if built_for and f"python{version}" not in built_for:
        found = f"is for {', '.join(built_for)}, this is Python {version} ({sys.executable})"
        advice = "make the environment of para_policy and torch with the Python of ROS"
        return fail("rclpy", found, advice)
    return fail("rclpy", f"{problem}; Python is {sys.executable}", _SOURCE)


def _rclpy_version() -> str:
    for name in ("rclpy", "ros-rclpy"):  # of ROS itself, and of its wheels
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "of unknown version"


def _installed_rclpy() -> Iterator[Path]:
    """rclpy of the ROS that is sourced, whatever Python it is for."""
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(":")):
        yield from Path(prefix).glob("lib/python3*/*-packages/rclpy")


def _rmw() -> Finding:
    chosen = "RMW_IMPLEMENTATION" if os.environ.get("RMW_IMPLEMENTATION") else "the default"
    if import_problem():
        return skipped("RMW implementation", "unknown without rclpy")
    from rclpy.utilities import get_rmw_implementation_identifier

    return ok("RMW implementation", f"{get_rmw_implementation_identifier()} ({chosen})")


def _domain() -> Finding:
    text = os.environ.get("ROS_DOMAIN_ID", "")
    if not text:
        return ok("ROS_DOMAIN_ID", "0 (not set): all nodes of this machine's network")
    if not is_domain(text):
        advice = f"set it to 0 to {HIGHEST}, the same for all nodes"
        return fail("ROS_DOMAIN_ID", f"is {text!r}", advice)
    return ok("ROS_DOMAIN_ID", f"{text}: only nodes with the same number are seen")


def _discovery() -> Iterator[Finding]:
    subject = "discovery"
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if os.environ.get("ROS_LOCALHOST_ONLY", "0") not in ("", "0"):
        yield warn(
            subject,
            "ROS_LOCALHOST_ONLY is set, which newer ROS 2 ignores",
            "from Iron on set ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST instead",
        )
    if reach == "OFF":
        advice = "set ROS_AUTOMATIC_DISCOVERY_RANGE to SUBNET or LOCALHOST"
        yield fail(subject, "range OFF: no node finds another", advice)
    elif reach and reach not in _RANGES:
        found = f"ROS_AUTOMATIC_DISCOVERY_RANGE is {reach!r}, which ROS takes for LOCALHOST"
        yield warn(subject, found, f"set it to one of {', '.join(_RANGES)}")
    elif reach == "LOCALHOST":
        yield ok(
            subject, "LOCALHOST: only nodes of this machine are seen, by Fast DDS of 32 processes"
        )
    else:
        yield ok(subject, f"{reach or 'SUBNET (default)'}: nodes of other machines are seen, too")


def _package() -> Iterator[Finding]:
    """`ros2 launch` and `ros2 run` need the package in the ament index, not only in Python."""
    subject = "package para_policy"
    advice = "build with colcon and source install/setup.bash; with pip: add $VIRTUAL_ENV to it"
    try:
        from ament_index_python.packages import get_package_prefix

        prefix = Path(get_package_prefix(_PACKAGE))
    except Exception as error:  # of three kinds, by what is missing
        reason = str(error).strip("\"'").split("\n")[0]
        yield warn(subject, f"`ros2 launch` will not find it: {reason}", advice)
        return
    yield ok(subject, f"found in {prefix}")
    yield from _interpreter(prefix / "lib" / _PACKAGE / "policy_node")


def _interpreter(executable: Path) -> Iterator[Finding]:
    """The nodes may run with another Python than this one, which may lack torch or rclpy."""
    subject = "Python of the nodes"
    try:
        words = executable.read_text().split("\n")[0].removeprefix("#!").split()
    except (OSError, UnicodeDecodeError):
        yield warn(subject, f"{executable} cannot be read", "build and install the package again")
        return
    # "#!/usr/bin/env python3": the one that comes first in PATH.
    python = shutil.which(words[-1]) if words[0].endswith("/env") else words[0]
    probe = (
        "import importlib.util as u; print([n for n in ('torch', 'rclpy') if not u.find_spec(n)])"
    )
    try:
        answer = subprocess.run(
            [str(python), "-c", probe],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        yield fail(subject, f"{python} does not run: {error}", "build the package again")
        return
    missing = answer.stdout.strip()
    if missing == "[]":
        yield ok(subject, f"{python}, with torch and rclpy")
    else:
        found = f"{python} (first line of {executable}) has no {missing.strip('[]')}"
        advice = f"run `{sys.executable} -m colcon build`, or start in the environment with torch"
        yield fail(subject, found, advice)


def _clock() -> Finding:
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    if time.time() < _YEAR_2020_S:
        found = f"{now} UTC: the system clock was never set"
        return fail("clock", found, "set it (timedatectl, chrony): stamps of other machines differ")
    return ok("clock", f"{now} UTC")
