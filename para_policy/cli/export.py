"""`para-policy export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from para_policy.cli.common import Weights
from para_policy.cli.inputs import OfCheckpoint
from para_policy.errors import InputError
from para_policy.files import check_output_file
from para_policy.terminal import show, stage


@dataclass(frozen=True, kw_only=True)
class Export(OfCheckpoint):
    """Write the network of a policy for other runtimes, checked against torch; see docs/export.md."""

    output: Path
    """File to write."""
    format: Literal["onnx"] = "onnx"
    """ONNX: one network call; rounds, noise and normalisation stay outside."""
    weights: Weights = "live"
    """Weights of a LeRobot checkpoint: as trained, or averaged."""
    opset: Annotated[int, tyro.conf.arg(metavar="N")] = 20
    """Version of the ONNX operators; 20 is the newest that TensorRT 10.0 reads."""
    force: bool = False
    """Replace a file that is there."""

    def __call__(self) -> None:
        from para_policy.checkpoints.load import make_policy, read_checkpoint
        from para_policy.checkpoints.onnx.check import BATCHES
        from para_policy.checkpoints.onnx.export import export_onnx

        if self.output.exists() and not self.force:
            raise InputError(f"'{self.output}' is there already; --force replaces it")
        check_output_file(self.output)
        directory = self.directory()
        checkpoint = read_checkpoint(directory, weights=self.weights)
        policy = make_policy(checkpoint, directory, calibrated=False)
        stage("exporting, and comparing with torch")
        agreement = export_onnx(policy, checkpoint.sha256, self.output, opset=self.opset)
        show(
            f"largest difference to torch: {agreement.difference:.1e}, outputs up to "
            f"{agreement.largest:.2g}; batches of {', '.join(map(str, BATCHES))}, all "
            f"{policy.num_train_timesteps} timesteps"
        )
        if policy.config.cameras:
            show(
                f"not exported: the encoder of {', '.join(policy.config.cameras)}; the network's "
                "'condition' has its output, see docs/export.md"
            )
        show(f"exported: {self.output}")
