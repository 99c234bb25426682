"""Soak of the ROS nodes: memory, heartbeats, gaps: `python -m benchmarks.ros.soak --help`."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.common import Document, quantiles, run_within_limits
from para_policy import comparison
from para_policy.errors import InputError
from para_policy.extras import require_ros
from para_policy.files import check_output_file, check_output_folder, write_text
from para_policy.inference.device import cpu_name
from para_policy.terminal import answers, progress_bars
from sim import plots
from sim.ros.processes import RosProcesses, start_runtime

if TYPE_CHECKING:
    from benchmarks.ros.rig import Robot

HEARTBEAT_S = 2.5
"""A node says once a second that it lives; after so long without a word one is missed."""
COMMAND_RATE_HZ = 50.0
_SETTLING_S = 5.0
_SAMPLE_S = 1.0
_PAUSES = 5
_LABELS = {
    "command_gap_ms": ("Times between two commands", "ms between two commands"),
    "chunk_gap_ms": ("Times between two chunks", "ms between two chunks"),
    "latency_ms": ("Latency of a chunk", "ms from the look at the observations to the chunk"),
}


@dataclass(frozen=True)
class Options:
    """Run policy_node and chunk_executor with a small network and watch them.

    Ends with code 1 when memory has grown by more than the limit, a heartbeat was missed, a node
    reported an error, or one died. Memory is compared after a quarter of the time, at most ten
    minutes, in which libraries allocate what they keep: the mean of the last half of what remains
    against that of its first tenth.
    """

    seconds: float = 120.0
    """How long to watch."""
    rate_hz: float = 10.0
    """Observations and actions per second; a chunk has twelve actions."""
    cell: bool = False
    """Inputs from six topics of all kinds, limits of motion, and two controllers."""
    json: Path | None = None
    """Where the numbers go."""
    plots: Path | None = None
    """Folder for the histograms and the curve of the memory."""
    domain_id: int = 79
    """ROS domain of the run; two runs at the same time need two."""
    max_growth_percent: float = 1.0
    """Most that the memory of a node may grow."""


@dataclass
class Watched:
    """What was seen. Memory in bytes, every second, by executable; load average alike."""

    at_s: list[float] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)


def soak(options: Options) -> dict[str, Any]:
    """Run and watch the nodes; everything measured, as a JSON document.

    Raises:
        ParaPolicyError: when a node cannot be started, or dies.
    """
    if options.seconds < 10 or options.rate_hz <= 0:
        raise InputError(
            f"--seconds {options.seconds:g} --rate-hz {options.rate_hz:g}: expected at least 10 s "
            "and a positive rate"
        )
    require_ros()
    from benchmarks.ros import cell, rig

    robot_type = cell.Cell if options.cell else rig.Robot
    with (
        tempfile.TemporaryDirectory(prefix="para_policy_soak_") as name,
        RosProcesses(options.domain_id, threads=1) as processes,
        robot_type(options.domain_id, processes.check) as robot,
    ):
        folder = Path(name)
        checkpoint = rig.small_checkpoint(folder / "policy")
        inputs = cell.INPUTS if options.cell else None
        policy = rig.policy_parameters(checkpoint, folder, options.rate_hz, inputs)
        rate_hz = max(COMMAND_RATE_HZ, options.rate_hz)
        executor = {"auto_enable": True, "command_rate_hz": rate_hz}
        start_runtime(processes, policy, executor | (cell.EXECUTOR if options.cell else {}))
        robot.wait(robot.connected)
        robot.observe_at(options.rate_hz)
        robot.wait(lambda: robot.chunks and robot.commands)
        robot.listen(_SETTLING_S)
        robot.forget()
        watched = _watch(options, robot, processes.pids())
        document = _document(options, robot, watched)
        document["exit_codes"] = processes.stop()
    return document


def _watch(options: Options, robot: Robot, pids: dict[str, int]) -> Watched:
    watched = Watched(memory={name: [] for name in pids})
    start = time.monotonic()
    with progress_bars() as progress:
        bar = progress.add_task("soaking, seconds", total=round(options.seconds))
        while (elapsed := time.monotonic() - start) < options.seconds:
            watched.at_s.append(elapsed)
            watched.load.append(os.getloadavg()[0])
            for name, pid in pids.items():
                watched.memory[name].append(_resident(pid))
            robot.listen(min(_SAMPLE_S, options.seconds - elapsed))
            progress.update(bar, completed=round(elapsed))
    return watched


def _resident(pid: int) -> int:
    """Memory of a process that is in RAM, bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _document(options: Options, robot: Robot, watched: Watched) -> dict[str, Any]:
    rate_hz = max(COMMAND_RATE_HZ, options.rate_hz)
    command_gaps, chunk_gaps = _gaps_ms(robot.commands), _gaps_ms(robot.chunks)
    beats = {name: _gaps_ms(times) for name, times in sorted(robot.heartbeats.items())}
    infos = robot.infos
    return {
        "seconds": options.seconds,
        "rate_hz": options.rate_hz,
        "cell": options.cell,
        "command_rate_hz": rate_hz,
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "load_average": quantiles(watched.load),
        **comparison.describe_software(),
        "memory": {name: _growth(options, watched, name) for name in watched.memory},
        "heartbeat_gap_ms": {name: quantiles(gaps) for name, gaps in beats.items()},
        "missed_heartbeats": {
            name: int((np.asarray(gaps) > 1e3 * HEARTBEAT_S).sum()) for name, gaps in beats.items()
        },
        "chunks": len(robot.chunks),
        "chunk_gap_ms": quantiles(chunk_gaps),
        "latency_ms": quantiles([float(info["latency_ms"]) for info in infos]),
        "observation_age_ms": quantiles([float(info["observation_age_ms"]) for info in infos]),
        "commands": len(robot.commands),
        "command_jitter_ms": quantiles(_jitter_ms(command_gaps, rate_hz)),
        "periods_without_command": int(
            np.maximum(np.round(np.asarray(command_gaps) * rate_hz / 1e3) - 1, 0).sum()
        ),
        "holds_reported": sum(text.startswith("holding") for _, text in robot.warnings),
        "chunk_lasts_ms": chunk_lasts_ms(options.rate_hz),
        "longest_pauses": pauses(robot, chunk_lasts_ms(options.rate_hz)),
        "last_diagnostics": robot.statuses,
        "errors": robot.errors[:20],
        "samples": {
            "at_s": [round(at, 1) for at in watched.at_s],
            "memory_bytes": watched.memory,
            "command_gap_ms": _histogram(command_gaps),
            "chunk_gap_ms": _histogram(chunk_gaps),
            "latency_ms": _histogram([float(info["latency_ms"]) for info in infos]),
        },
    }


def chunk_lasts_ms(rate_hz: float) -> float:
    """From the observation of a chunk until its last action is over, milliseconds."""
    from benchmarks.ros.rig import CHUNK_STEPS

    return 1e3 * CHUNK_STEPS / rate_hz


def pauses(heard: Robot, lasts_ms: float) -> list[dict[str, Any]]:
    """The longest times without a command, longest first, and why they were so long.

    Returns:
        for each `at_s` since the first command, its length `ms`, the number of `chunks` that came
        meanwhile, how many of them were `too_late` (older than `lasts_ms`: all of their actions were
        past, so the executor refused them), and the warnings that it `said`.
    """
    commands = np.asarray(heard.commands, dtype=np.int64)
    arrived, ages_ms = np.asarray(heard.chunks), np.asarray(heard.chunk_ages_ms)
    gaps = np.diff(commands)
    found = []
    for place in np.argsort(-gaps, kind="stable")[:_PAUSES]:
        begin, end = commands[place], commands[place + 1]
        inside = (arrived > begin) & (arrived < end)
        found.append(
            {
                "at_s": float(begin - commands[0]) / 1e9,
                "ms": float(gaps[place]) / 1e6,
                "chunks": int(inside.sum()),
                "too_late": int((ages_ms[inside] > lasts_ms).sum()),
                # Words only: each refused chunk is late by another number.
                "said": sorted(
                    {
                        re.sub(r"\d[\d.]*", "N", text)
                        for at, text in heard.warnings
                        if begin < at < end
                    }
                ),
            }
        )
    return found


def _growth(options: Options, watched: Watched, name: str) -> dict[str, float]:
    """Memory in MiB, and how much it grew, percent."""
    at, memory = np.asarray(watched.at_s), np.asarray(watched.memory[name], dtype=np.float64)
    warm_s = min(options.seconds / 4, 600.0)
    left_s = options.seconds - warm_s
    first = memory[(at >= warm_s) & (at < warm_s + 0.1 * left_s)].mean()
    last = memory[at >= warm_s + 0.5 * left_s].mean()
    return {
        "at_start_mib": float(memory[0] / 2**20),
        "first_tenth_mib": float(first / 2**20),
        "last_half_mib": float(last / 2**20),
        "at_end_mib": float(memory[-1] / 2**20),
        "growth_percent": float(100 * (last / first - 1)),
    }


def _gaps_ms(times_ns: Any) -> list[float]:
    return [float(gap) for gap in np.diff(np.asarray(times_ns, dtype=np.int64)) / 1e6]


def _jitter_ms(gaps_ms: list[float], rate_hz: float) -> NDArray[np.float64]:
    """Of the periods that had a command; a hold is no jitter."""
    late = np.asarray(gaps_ms) - 1e3 / rate_hz
    return np.asarray(np.abs(late[late < 500 / rate_hz]))


def _histogram(values: list[float]) -> dict[str, list[float]]:
    """Counts between edges, milliseconds: a hundred thousand values need no file of megabytes."""
    counts, edges = np.histogram(values, bins=200)
    return {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}


def broken_limits(max_growth_percent: float, document: Document) -> list[str]:
    """Sentences about what must not be; empty when all is well."""
    broken = [
        f"{name} grew by {memory['growth_percent']:.2f} %, the limit is {max_growth_percent:g} %"
        for name, memory in document["memory"].items()
        if memory["growth_percent"] > max_growth_percent
    ]
    broken += [
        f"{name} missed {missed} heartbeats"
        for name, missed in document["missed_heartbeats"].items()
        if missed
    ]
    if len(document["missed_heartbeats"]) < 2:
        broken.append(f"heartbeats of {list(document['missed_heartbeats'])} only")
    broken += [f"a node reported: {error}" for error in document["errors"][:3]]
    broken += [
        f"{name} ended with code {code}" for name, code in document["exit_codes"].items() if code
    ]
    return broken


def draw(document: Document, folder: Path) -> None:
    """Write memory_*.png and one histogram per measure; the rate is part of the names."""
    rate = f"{document['rate_hz']:g}hz"
    plots.save(memory, document, folder / f"soak_{rate}_memory.png")
    for name in _LABELS:
        plots.save(
            lambda shown, name=name: histogram(shown, name),  # type: ignore[misc]
            document,
            folder / f"soak_{rate}_{name.removesuffix('_ms')}.png",
        )


def memory(document: Document) -> Figure:
    """Change of the memory of each node since the start of the watch."""
    drawing, axes = plots.new_figure(f"Memory of the nodes, {_run(document)}")
    samples = document["samples"]
    minutes = np.asarray(samples["at_s"]) / 60
    for color, (name, values) in zip(plots.COLORS, samples["memory_bytes"].items(), strict=False):
        resident = np.asarray(values) / 2**20
        label = f"{name}: {resident[0]:.0f} MiB at first"
        axes.plot(minutes, resident - resident[0], color=color, label=label)
    axes.set(xlabel="minutes", ylabel="memory since the start, MiB")
    plots.legend_above(axes)
    return drawing


def histogram(document: Document, name: str) -> Figure:
    """How often; the counts are on a log scale, as it is the rare ones that matter."""
    title, label = _LABELS[name]
    drawing, axes = plots.new_figure(f"{title}, {_run(document)}")
    sample, lasts_ms = document["samples"][name], document["chunk_lasts_ms"]
    axes.stairs(sample["counts"], sample["edges"], fill=True, color=plots.COLORS[0], label=title)
    axes.axvline(lasts_ms, color="black", linewidth=1, label=f"actions of a chunk: {lasts_ms:g} ms")
    axes.set(xlabel=label, ylabel="how often", yscale="log")
    plots.legend_above(axes)
    return drawing


def _run(document: Document) -> str:
    return f"{document['rate_hz']:g} Hz for {document['seconds'] / 60:g} min"


def main(argv: list[str] | None = None) -> int:
    options = tyro.cli(Options, args=argv, prog="python -m benchmarks.ros.soak")
    broken: list[str] = []

    def command() -> None:
        if options.json is not None:
            check_output_file(options.json)
        if options.plots is not None:
            check_output_folder(options.plots)
        document = soak(options)
        broken.extend(broken_limits(options.max_growth_percent, document))
        document["broken_limits"] = broken
        shown = {key: value for key, value in document.items() if key != "samples"}
        answers().print_json(json.dumps(shown))
        if options.json is not None:
            write_text(options.json, json.dumps(document, indent=1) + "\n")
        if options.plots is not None:
            draw(document, options.plots)

    return run_within_limits(command, broken)


if __name__ == "__main__":
    sys.exit(main())
