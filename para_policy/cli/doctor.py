"""`para-policy doctor`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from para_policy.cli.inputs import OfCheckpoint
from para_policy.files import check_distinct, check_output_file, write_text
from para_policy.terminal import answers, stage


@dataclass(frozen=True, kw_only=True)
class Doctor(OfCheckpoint):
    """Check ROS 2, device, checkpoint, parameter files and a running graph; say what to mend.

    The checkpoint is by default the one in --params-file.
    Exit code 0 when nothing failed, 1 when something did, 2 for wrong options."""

    params_file: Path | None = None
    """Parameters of the nodes, as for `ros2 launch para_policy policy.launch.py`."""
    inputs_file: Path | None = None
    """Topics of the policy's inputs; by default as in --params-file."""
    device: str | None = None
    """Where the network runs: cpu, cuda, cuda:1; by default as in --params-file."""
    namespace: str = ""
    """Namespace of the nodes."""
    control_rate_hz: float | None = None
    """Actions per second; by default as in --params-file or the checkpoint."""
    seconds: float = 3.0
    """How long to listen to a running graph."""
    json: Path | None = None
    """Write the findings here, too."""

    def __call__(self) -> None:
        from para_policy.ros.doctor.case import Request
        from para_policy.ros.doctor.examine import examine

        if self.json is not None:
            check_output_file(self.json)
        check_distinct(self.params_file, self.json)
        request = Request(
            params_file=self.params_file,
            checkpoint=self.given(),
            inputs_file=self.inputs_file,
            device=self.device,
            namespace=self.namespace,
            control_rate_hz=self.control_rate_hz,
            seconds=self.seconds,
        )
        report = examine(request, lambda section: stage(f"checking: {section}"))
        console = answers()
        console.print(report.table())
        console.print(f"\n{report.summary()}")
        if self.json is not None:
            write_text(self.json, json.dumps(report.document(), indent=2) + "\n")
        if report.failed:
            raise SystemExit(1)
