"""`para-policy replay`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from para_policy.extras import require_ros
from para_policy.files import check_output_file, check_output_folder, write_text
from para_policy.terminal import answers


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
        from para_policy.policies.sampler_spec import SamplerSpec
        from para_policy.ros.bags.replay_bag import replay_bag
        from para_policy.ros.bags.report import table

        if self.json is not None:
            check_output_file(self.json)
        if self.plots is not None:
            import para_policy.ros.bags.plots  # noqa: F401  says what is missing before the long work

            check_output_folder(self.plots)
        other = None if self.sampler is None else SamplerSpec.parse(self.sampler)
        console = answers()
        report = replay_bag(
            self.bag,
            self.checkpoint,
            self.device,
            other,
            self.plots,
            on_run=lambda run: console.print(table(run)),
        )
        for warning in report["warnings"]:
            console.print(f"warning: {warning}", soft_wrap=True)
        for path in report["plots"]:
            console.print(path, soft_wrap=True)
        if self.json is not None:
            write_text(self.json, json.dumps(report, indent=2) + "\n")
        if not report["equal"]:
            raise SystemExit(1)
