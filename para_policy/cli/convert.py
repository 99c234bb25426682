"""`para-policy convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from para_policy.errors import InputError
from para_policy.terminal import show

if TYPE_CHECKING:
    from para_policy.policies.config import PolicyConfig


@dataclass(frozen=True)
class Convert:
    """Write a checkpoint of LeRobot or of the original diffusion_policy project in native form."""

    source: Annotated[Path, tyro.conf.Positional]
    """A .ckpt file, or the directory of a LeRobot checkpoint."""
    output: Annotated[Path, tyro.conf.Positional]
    """Directory of the new checkpoint."""
    weights: Literal["auto", "live", "ema"] = "auto"
    """Weights as trained, or averaged; auto: averaged for a .ckpt that was trained so, else as trained."""
    trust_pickle: bool = False
    """Run the code that the .ckpt may contain. Only for files from people whom you trust."""
    control_hz: float | None = None
    """Actions per second, where the checkpoint does not say."""
    action_names: tuple[str, ...] = ()
    """Names of the action's coordinates, where the checkpoint does not say."""
    task: str | None = None
    """What the robot is to do, in words, for a LeRobot policy that takes a text (multi_task_dit)."""
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")
    ] = ()
    """Another value of a key of the source's configuration, such as policy.n_action_steps=8; again for
    each. Values are YAML."""
    unset: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY")] = ()
    """Take a key out of the source's configuration, so that its default holds; again for each."""

    def __call__(self) -> None:
        from para_policy.checkpoints.changes import parse
        from para_policy.checkpoints.load import read_checkpoint, resolve
        from para_policy.checkpoints.native import CONFIG_FILE, save_checkpoint
        from para_policy.checkpoints.original.read import read_original

        if (self.output / CONFIG_FILE).exists():
            raise InputError(
                f"'{self.output}' holds a checkpoint already; choose another directory"
            )
        changes = parse(self.set, self.unset)
        if self.source.is_file():
            if self.task is not None:
                raise InputError("--task is for LeRobot policies; policies in a .ckpt take no text")
            checkpoint = read_original(
                self.source,
                trust_pickle=self.trust_pickle,
                weights=None if self.weights == "auto" else self.weights,
                changes=changes,
            )
        else:
            checkpoint = read_checkpoint(
                resolve(self.source),
                weights="ema" if self.weights == "ema" else "live",
                changes=changes,
                task=self.task,
            )
            checkpoint.check_complete()
        config = self._completed(checkpoint.config)
        save_checkpoint(self.output, config, checkpoint.state, checkpoint.normalizers)
        show(checkpoint.report.text())
        show(f"checkpoint: {self.output}")

    def _completed(self, config: PolicyConfig) -> PolicyConfig:
        from pydantic import ValidationError

        from para_policy.checkpoints.files import summarise

        changes: dict[str, Any] = {}
        if self.control_hz is not None:
            changes["control_hz"] = self.control_hz
        if self.action_names:
            if len(self.action_names) != config.action_dim:
                raise InputError(
                    f"--action-names gives {len(self.action_names)} names; the policy has "
                    f"{config.action_dim} action coordinates"
                )
            changes["action_names"] = self.action_names
        try:
            return config.changed(changes)
        except ValidationError as error:
            raise InputError(summarise(error)) from error
