"""Curves of a training run, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from para_policy.extras import extra
from para_policy.files import replace

with extra("train", "training"):
    from matplotlib.figure import Figure


def plot_curves(records: Sequence[Mapping[str, float]], output: Path, evaluation_name: str) -> None:
    """Draw training and evaluation loss over steps, if anything was recorded."""
    if not records:
        return
    steps = [record["step"] for record in records]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        steps, [r["loss"] for r in records], color="tab:gray", alpha=0.6, label="training batches"
    )
    axes.plot(steps, [r["ema_loss"] for r in records], color="tab:blue", label=evaluation_name)
    axes.set(xlabel="optimiser step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
    replace(output, lambda unfinished: figure.savefig(unfinished, format="png", dpi=130))
