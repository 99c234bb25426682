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
    figure.suptitle("Loss of a training run", x=0.01, ha="left")
    axes = figure.subplots()
    # One point is no line.
    marker = "o" if len(steps) == 1 else None
    for key, color, label in (
        ("loss", "tab:gray", "training batches"),
        ("ema_loss", "tab:blue", evaluation_name),
    ):
        losses = [record[key] for record in records]
        axes.plot(steps, losses, marker=marker, color=color, label=label)
    axes.set(xlabel="optimiser step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
    replace(output, lambda unfinished: figure.savefig(unfinished, format="png", dpi=130))
