"""`para-policy info`."""

from __future__ import annotations

from dataclasses import dataclass

from para_policy.cli.common import EngineOptions, Weights
from para_policy.cli.inputs import OfCheckpoint
from para_policy.terminal import show


@dataclass(frozen=True, kw_only=True)
class Info(EngineOptions, OfCheckpoint):
    """Say in words what a checkpoint holds."""

    weights: Weights = "live"
    """Weights of a LeRobot checkpoint: as trained, or averaged."""

    def __call__(self) -> None:
        from para_policy.checkpoints.describe import describe

        facts = describe(self.named(), self.weights, self.engine, self.precision)
        width = max(map(len, facts))
        for name, text in facts.items():
            show(f"{name:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))
