"""Writer of docs/ros_results.md and its plots, from the JSON files of the ROS experiments."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from benchmarks import pages
from benchmarks.ros import fleet, overhead
from para_policy.files import replace, write_text
from sim.evaluation import tables
from sim.plots import Document
from sim.ros.latency import report
from sim.ros.latency.conditions import OFFSET_OF

HEADER = """# ROS 2 results

Written from the JSON files of the commands below, which anyone can rerun, by
`python -m benchmarks.ros.results outputs/results docs/ros_results.md`. What has not been measured yet
is left out.
"""

LATENCY = """## Latency

`{command}`

PushT in real time at 10 Hz over DDS: simulator, policy_node and chunk_executor are processes, commands
go out at 50 Hz. Each chunk is held back by the added latency; what it took in all is in the last
column. All conditions play the start states {first} to {last}; the reference is the in-process
evaluation of the same sampler (`{sampler}`, {steps} {scheduler} steps), which has no latency at all.
*Uncompensated*: a chunk starts when it arrives. *Compensated*: actions keep their times, late ones are
dropped; they are played half a period late (`latency_offset_s: 0.05`), as the simulator takes the
command that is in force at the end of each period. *Chunking*: that, and real-time chunking. *Seam*:
mean jump of the commanded velocity (px/s) and acceleration (px/s²) where one chunk follows another, in
brackets inside the chunks. *Holds*: control periods per episode in which nothing new was due.
Intervals are 95 %. {jobs} pipelines ran at the same time beside other work: the load average of the
machine ({cores}) was {load} (5th to 95th
percentile), which makes all chunks later than they would be on an idle one.
"""

DISTURBED = """## Disturbed observations

`python -m sim.ros.disturbed --json outputs/results/ros_disturbed.json --scheduler {scheduler} --steps {steps}
--episodes {episodes} --jobs {jobs}`

The same loop, start states {first} to {last}, with observations as real sensors, clocks and networks bring
them, against the loop that is clean, both over ROS in real time. *Jitter*: each stamp up to 5 ms off,
either way. *Network*: 5 % of the messages are lost, 5 % come twice, 5 % after the next. *Ahead*, *behind*:
the sensors' clock differs by 20 ms. *All*: jitter, network and ahead. At 20 and 30 Hz the observations
between two steps of the simulator are interpolated. `{sampler}`, {steps} {scheduler} steps; intervals are
95 %. On a machine that does other work, too, the pipelines need real-time priority (`chrt -r 5`, as here):
without it chunks took half a second, and mean rewards were 0.54 to 0.87, clean or disturbed.
"""

UNTOLD = """
In these runs only chunk_executor had `latency_offset_s`: policy_node planned half a period earlier than it
had to, and real-time chunking committed up to one action more. The present command tells both.
"""

SOAK = """## Soak

`python -m benchmarks.ros.soak --seconds {seconds:g} --rate-hz RATE`; *cell*: with `--cell`, inputs from
six topics of all kinds, limits of motion and two controllers.

policy_node and chunk_executor with a small network. Memory is that in RAM; its growth compares the mean of
the last half with the first tenth, after a warm-up. A heartbeat is missed when `/diagnostics` says
nothing for 2.5 s. Jitter is that of the arrival of commands at a listener, command rate {rate:g} Hz.

A *pause* is the longest time without a command, in brackets the chunks that came meanwhile and how many of
them were too late. At 50 Hz the twelve actions of a chunk are over 240 ms after its observation. Where the
machine is so busy that chunks take longer for a while, each arrives when all of its actions are past; the
executor refuses it and the robot [holds](faults.md) until one comes in time, as it must. Both nodes live on
meanwhile: their heartbeats say so. In five minutes at 50 Hz with a load of 6 to 14 on two cores the longest
pauses were 60.5 and 59.3 s, in which 154 chunks came, 153 of them too late. So on a robot p99 of latency
and age together must stay below the duration of a chunk: more actions in a chunk, a lower rate or a faster
engine (see [tuning](ros2.md#tuning)). `longest_pauses` in the JSON file has the same for every run.
"""

OVERHEAD = """## Overhead of the node

`python -m benchmarks.ros.overhead --json outputs/results/ros_overhead.json`

From the last observation message of a robot to the chunk in its hands, with a small network, {chunks} chunks,
load average {load} at the start. Subtracted is the wall time of the call of the policy.

The goal is a p99 of 3 ms. What is above it goes into rclpy, not into the node's own code. Medians on the
main thread, one by one, on a busy machine: reading an observation and keeping it 0.03 ms; making a chunk's
message 0.08 ms; but in rclpy 0.15 ms to deserialise 16 poses, 0.2 ms to publish a chunk, and 0.25 to 0.45
ms for each wait of the executor, which collects everything it waits for anew each time (30 things, and
half of the time goes into 14 events of quality of service). An observation of two messages is two waits.
The garbage collector is not it: one young collection in 240 chunks, no old one. The heartbeat on
`/diagnostics` takes 1 ms once a second, and whatever comes at that moment waits for it.
"""

FLEET = """## Several robots in one batch

`python -m benchmarks.ros.fleet --json outputs/results/ros_fleet.json`

Robots that want a chunk at the same moment: `{sampler}`, {threads} thread(s). The latency of a chunk counts
from that moment.
"""


def page(folder: Path, images: Path) -> str:
    """The whole page; saves the plots in `images`."""
    parts = [HEADER]
    for name, write in (
        ("ros_latency", _latency),
        ("ros_disturbed", _disturbed),
        ("ros_overhead", _overhead),
        ("ros_fleet", _fleet),
    ):
        path = folder / f"{name}.json"
        if path.exists():
            parts.append(write(json.loads(path.read_text(encoding="utf-8")), images))
    soaks = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("soak_*hz.json"))
    ]
    if soaks:
        parts.insert(2 if len(parts) > 1 else 1, _soak(soaks, folder, images))
    return "\n".join(parts)


def _latency(document: Document, images: Path) -> str:
    arguments, load = document["arguments"], sorted(document["load_average"]) or [0.0]
    command = "python -m sim.ros.latency --json outputs/results/ros_latency.json"
    for option in ("scheduler", "steps", "episodes", "jobs"):
        if arguments[option] != "None":
            command += f" --{option} {arguments[option]}"
    text = LATENCY.format(
        command=command,
        first=document["seed"],
        last=document["seed"] + document["episodes"] - 1,
        sampler=document["sampler"],
        steps=document["steps"],
        scheduler=document["scheduler"],
        jobs=document["jobs"],
        cores=document["machine"],
        load=f"{load[len(load) // 20]:.1f} to {load[-1 - len(load) // 20]:.1f}",
    )
    picture = pages.picture(report.figure, document, images, "ros_latency")
    return "\n".join((text + _untold(document), report.table(document), picture, ""))


def _disturbed(document: Document, _: Path) -> str:
    last = document["seed"] + document["episodes"] - 1
    text = DISTURBED.format(first=document["seed"], last=last, **document)
    return "\n".join((text + _untold(document), report.table(document), ""))


def _untold(document: Document) -> str:
    """What is to be said of runs in which the nodes did not agree on when actions are played."""
    return "" if set(OFFSET_OF) <= set(document) else UNTOLD


def _soak(soaks: list[Document], folder: Path, images: Path) -> str:
    columns = (
        *("rate", "chunks", "memory MiB, policy / executor", "growth %, policy / executor"),
        *("longest heartbeat gap s", "missed", "latency ms p50 / p99", "jitter ms p50 / p99"),
        "longest pause s (chunks, too late)",
    )
    rows, pictures = [], []
    for soak in soaks:
        memory = [soak["memory"][name] for name in ("policy_node", "chunk_executor")]
        latency, jitter = soak["latency_ms"], soak["command_jitter_ms"]
        rows.append(
            [
                f"{soak['rate_hz']:g} Hz, {soak['seconds'] / 60:g} min"
                + (", cell" if soak.get("cell") else ""),
                str(soak["chunks"]),
                " / ".join(f"{values['at_end_mib']:.0f}" for values in memory),
                " / ".join(f"{values['growth_percent']:+.3f}" for values in memory),
                f"{max(gap['p100'] for gap in soak['heartbeat_gap_ms'].values()) / 1e3:.2f}",
                str(sum(soak["missed_heartbeats"].values())),
                f"{latency['p50']:.0f} / {latency['p99']:.0f}",
                f"{jitter['p50']:.1f} / {jitter['p99']:.1f}",
                _longest_pause(soak),
            ]
        )
        for measure in ("memory", "latency", "command_gap"):
            name = f"soak_{soak['rate_hz']:g}hz_{measure}.png"
            picture = (folder / name).read_bytes()
            replace(images / name, partial(Path.write_bytes, data=picture))
            pictures.append(f"![{measure} at {soak['rate_hz']:g} Hz](images/{name})")
    text = SOAK.format(seconds=soaks[0]["seconds"], rate=soaks[0]["command_rate_hz"])
    load = ", ".join(f"{soak['load_average']['p50']:.1f}" for soak in soaks)
    note = f"Median load average of {soaks[0]['machine']}: {load}.\n"
    return "\n".join((text, note, tables.markdown(columns, rows), "", *pictures, ""))


def _longest_pause(soak: Document) -> str:
    """Seconds, and the chunks of that time, which soaks before 2026-11-29 did not record."""
    if "longest_pauses" not in soak:
        return f"{soak['samples']['command_gap_ms']['edges'][-1] / 1e3:.2f} (not recorded)"
    pause = soak["longest_pauses"][0]
    return f"{pause['ms'] / 1e3:.2f} ({pause['chunks']}, {pause['too_late']})"


def _overhead(document: Document, _: Path) -> str:
    load = f"{document['load_average_before'][0]:.1f}"
    return "\n".join(
        (OVERHEAD.format(chunks=document["chunks"], load=load), overhead.table(document))
    )


def _fleet(document: Document, images: Path) -> str:
    picture = pages.picture(fleet.figure, document, images, "ros_fleet")
    rows = tables.markdown(fleet.COLUMNS, fleet.rows(document))
    return "\n".join((FLEET.format(**document), rows, "", picture, ""))


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    write_text(target, page(source, pages.images_beside(target)))
    print(f"page: {target}")
