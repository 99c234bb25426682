"""Overhead of the policy node beyond the sampler: `python -m benchmarks.ros.overhead --help`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.common import Document, quantiles, run_within_limits
from para_policy import comparison
from para_policy.errors import InputError
from para_policy.extras import require_ros
from para_policy.files import check_output_file, write_text
from para_policy.inference.device import cpu_name
from para_policy.terminal import progress_bars
from sim.ros.processes import RosProcesses

_PAUSE = 1.25
"""Time from a chunk to the next observation, in control periods: the node is at rest then."""
_WARM_UP = 20
PARTS = {
    "dds_there": "last observation sent, until its callback begins",
    "take_in": "reading it, and waking the inference thread",
    "look": "history of observations, until the policy is called",
    "send": "policy has returned, until the chunk is sent",
    "dds_back": "chunk sent, until the callback of the listener",
}
"""Where the overhead goes; the parts of a chunk add up to its overhead."""


@dataclass(frozen=True)
class Options:
    """Time from the last observation to the chunk on the listener's side, without the sampler.

    A robot and a policy node are two processes on this machine. Subtracted is the wall time of the
    call of the policy, from its observations to its actions. Everything else counts: both ways
    through DDS, conversion of messages, history, threads, making the message. Needs an idle
    machine; two cores suffice.
    """

    chunks: int = 500
    """Chunks that are measured."""
    rate_hz: float = 20.0
    """Control rate; a chunk has one action, so that each observation wants one."""
    json: Path | None = None
    """Where the numbers go."""
    domain_id: int = 78
    """ROS domain of the run."""
    limit_ms: float | None = None
    """End with code 1 when p99 of the overhead is above it."""


def measure(options: Options) -> dict[str, Any]:
    """The numbers as a JSON document.

    Raises:
        ParaPolicyError: when the node cannot be started, or dies.
    """
    if options.chunks < 1 or options.rate_hz <= 0:
        raise InputError(f"--chunks {options.chunks} --rate-hz {options.rate_hz:g} must be above 0")
    require_ros()
    load = os.getloadavg()
    times = _times(options)[_WARM_UP:]
    sampler, parts = _split(times)
    overhead = sum(parts.values())
    return {
        "chunks": len(times),
        "rate_hz": options.rate_hz,
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "load_average_before": load,
        "load_average_after": os.getloadavg(),
        **comparison.describe_software(),
        "total_ms": quantiles(sampler + overhead),
        "sampler_ms": quantiles(sampler),
        "overhead_ms": quantiles(overhead),
        "parts_ms": {name: quantiles(values) for name, values in parts.items()},
        "parts": PARTS,
    }


def _times(options: Options) -> NDArray[np.int64]:
    """(chunks, 7) ns: observation sent, MARKS of the node, chunk received."""
    from benchmarks.ros.rig import Robot, policy_parameters, small_checkpoint

    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="para_policy_overhead_") as name,
        RosProcesses(options.domain_id, threads=1) as processes,
        Robot(options.domain_id, processes.check) as robot,
    ):
        folder = Path(name)
        policy = policy_parameters(small_checkpoint(folder / "policy"), folder, options.rate_hz)
        policy |= {"n_action_steps": 1}
        processes.start("timed_policy_node", "benchmarks.ros.timed_node", policy)
        robot.wait(robot.connected)
        with progress_bars() as progress:
            bar = progress.add_task("measuring chunks", total=options.chunks)
            for number in range(options.chunks + _WARM_UP):
                robot.forget()
                sent_ns = robot.observe()
                robot.wait(lambda: robot.chunks and robot.marks)
                rows.append((sent_ns, *robot.marks[0], robot.chunks[0]))
                robot.listen(_PAUSE / options.rate_hz)
                progress.update(bar, completed=max(number + 1 - _WARM_UP, 0))
    return np.array(rows, dtype=np.int64)


def _split(times: NDArray[np.int64]) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Of each chunk, ms: the call of the policy, and the parts of all else."""
    steps = np.diff(times, axis=1) / 1e6
    there, take_in, look, sampler, send, back = steps.T
    return sampler, dict(zip(PARTS, (there, take_in, look, send, back), strict=True))


def table(document: Document) -> str:
    """Markdown: one row per part."""
    lines = ["| ms | p50 | p95 | p99 | max |", "| --- | --- | --- | --- | --- |"]
    rows = {
        "observation to chunk": document["total_ms"],
        "call of the policy": document["sampler_ms"],
        "**overhead**": document["overhead_ms"],
        **{PARTS[name]: values for name, values in document["parts_ms"].items()},
    }
    for name, values in rows.items():
        cells = " | ".join(f"{value:.2f}" for value in values.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    options = tyro.cli(Options, args=argv, prog="python -m benchmarks.ros.overhead")
    broken: list[str] = []

    def command() -> None:
        if options.json is not None:
            check_output_file(options.json)
        document = measure(options)
        print(table(document))
        if options.json is not None:
            write_text(options.json, json.dumps(document, indent=1) + "\n")
        p99 = document["overhead_ms"]["p99"]
        if options.limit_ms is not None and p99 > options.limit_ms:
            broken.append(f"p99 of the overhead is {p99:.2f} ms, the limit {options.limit_ms:g} ms")

    return run_within_limits(command, broken)


if __name__ == "__main__":
    sys.exit(main())
