"""Commands about bags: record, replay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.live import Live
from rich.table import Table

from para_policy.cli.common import require_ros
from para_policy.errors import InputError
from para_policy.terminal import check_output_file, check_output_folder, write_text


@dataclass(frozen=True)
class Record:
    """Write what a policy node sees and says into a rosbag2 bag, until Ctrl-C."""

    output: Path
    """Folder of the new bag; must not exist."""
    params_file: Path | None = None
    """Parameters that the policy node was started with; its inputs_file says what to record."""
    inputs_file: Path | None = None
    """Topics of the policy's inputs. Without either file they come from the node's settings message."""
    namespace: str = "/"
    """Namespace of the nodes."""
    policy_node: str = "policy_node"
    """Name of the policy node."""
    storage: Literal["mcap", "sqlite3"] = "mcap"
    """Format of the bag."""
    seconds: float | None = None
    """Stop after so long."""

    def __call__(self) -> None:
        require_ros()
        from para_policy.ros.bags.recorder import record
        from para_policy.ros.bags.topics import RecordedNodes
        from para_policy.ros.messages.inputs import read_inputs
        from para_policy.ros.parameters.offline import inputs_of_parameters

        if self.params_file is not None and self.inputs_file is not None:
            raise InputError("--params-file and --inputs-file were given; give one of them")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"--seconds is {self.seconds:g}; expected more than 0")
        namespace = "/" + self.namespace.strip("/")
        inputs = None
        if self.inputs_file is not None:
            inputs = read_inputs(self.inputs_file)
        elif self.params_file is not None:
            inputs = inputs_of_parameters(self.params_file, namespace, self.policy_node)
        check_output_folder(self.output.parent)
        nodes = RecordedNodes(inputs, namespace, self.policy_node)
        console = Console()
        with Live(_counts({}), console=console, transient=True) as live:
            counts, problems = record(
                self.output,
                self.storage,
                nodes,
                self.seconds,
                lambda counts: live.update(_counts(counts)),
            )
        console.print(_counts(counts))
        for problem in problems.values():
            console.print(f"not recorded: {problem}")
        console.print(f"bag: {self.output}", soft_wrap=True)


@dataclass(frozen=True)
class Replay:
    """Solve the chunks of a recorded run again, offline, and compare them bit for bit.

    Exit code 0 when all comparable chunks are equal, 1 when some differ or none can be compared."""

    bag: Annotated[Path, tyro.conf.Positional]
    """Folder of the bag, or its .mcap or .db3 file."""
    checkpoint: Path | None = None
    """The policy; by default where the settings message says."""
    sampler: str | None = None
    """Run another sampler on the same observations and noise, too: NAME or NAME:OPTION=VALUE,..."""
    json: Path | None = None
    """Write the report here, too."""
    plots: Path | None = None
    """Folder that receives latency.png, seams.png and actions.png."""
    device: str | None = None
    """Where the network runs; by default as recorded."""

    def __call__(self) -> None:
        require_ros()
        from para_policy.policies.sampler_spec import Choice
        from para_policy.ros.bags.replay_bag import replay_bag
        from para_policy.ros.bags.report import table

        if self.json is not None:
            check_output_file(self.json)
        if self.plots is not None:
            check_output_folder(self.plots)
        other = None if self.sampler is None else Choice.parse(self.sampler)
        report = replay_bag(self.bag, self.checkpoint, self.device, other, self.plots)
        console = Console()
        for warning in report["warnings"]:
            console.print(f"warning: {warning}", soft_wrap=True)
        for run in report["runs"]:
            console.print(table(run))
        for path in report["plots"]:
            console.print(path, soft_wrap=True)
        if self.json is not None:
            write_text(self.json, json.dumps(report, indent=2) + "\n")
        if not report["equal"]:
            raise SystemExit(1)


def _counts(counts: Mapping[str, int]) -> Table:
    table = Table("topic", "messages", box=None)
    for topic, count in sorted(counts.items()):
        table.add_row(topic, str(count))
    table.add_row("all", str(sum(counts.values())))
    return table
