"""Roofline: the least time of a network call, from its work and what the device was seen to do.

After Williams, Waterman and Patterson, "Roofline" (2009): a call takes at least the time of its
arithmetic at the rate of a large matrix product, and at least the time of its memory traffic at the
bandwidth of a large copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Document
from benchmarks.engine.plan import seconds_of
from para_policy.inference import EngineConfig
from para_policy.inference.config import Precision
from para_policy.inference.precision import tensor_cores
from para_policy.inference.runtime import EngineNetwork
from para_policy.policies.build import build_network
from para_policy.policies.config import PolicyConfig
from sim import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DTYPES: Mapping[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_LAYERS = (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)
_COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
_MATRIX = {"cpu": 1024, "cuda": 8192}
_REPEATS = 7


@dataclass(frozen=True)
class Work:
    """What a call has to do at least.

    Attributes:
        flops: additions and multiplications of convolutions and matrix products.
        values: numbers that move: each weight that is used is read once, and each convolution or
            linear layer reads its input and writes its output once. What is between them
            (normalisation, activation, FiLM) is counted as fused, biases as nothing.
    """

    flops: float
    values: float

    def bytes(self, precision: Precision) -> float:
        return self.values * DTYPES[precision].itemsize

    def intensity(self, precision: Precision) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes(precision)


@dataclass(frozen=True)
class Roof:
    """What a device was seen to do.

    Attributes:
        bytes_per_s: of a large copy, reading and writing counted.
        flops_per_s: of a large matrix product, by precision.

    >>> Roof(1e9, {"float32": 1e12}).seconds(Work(2e9, 1e6), "float32")
    0.004
    """

    bytes_per_s: float
    flops_per_s: Mapping[str, float]

    def seconds(self, work: Work, precision: Precision) -> float:
        """The least time of a call: its arithmetic or its traffic, whichever takes longer."""
        return max(
            work.flops / self.flops_per_s[precision], work.bytes(precision) / self.bytes_per_s
        )


def measure_roof(device: torch.device, precisions: Sequence[Precision]) -> Roof:
    """Copy and multiply; a few seconds."""
    rates: dict[str, float] = {name: _matrix_rate(device, name) for name in precisions}
    return Roof(_bandwidth(device), rates)


def _bandwidth(device: torch.device) -> float:
    source = torch.zeros(_COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _best(lambda: target.copy_(source), device)


def _matrix_rate(device: torch.device, precision: Precision) -> float:
    n = _MATRIX[device.type]
    a, b = torch.randn(2, n, n, device=device).to(DTYPES[precision])
    out = torch.empty_like(a)
    with tensor_cores(precision):
        return 2 * n**3 / _best(lambda: torch.mm(a, b, out=out), device)


def _best(call: Any, device: torch.device) -> float:
    """Seconds of the fastest call: a roof is what is possible."""
    call()
    return min(seconds_of(call, device) for _ in range(_REPEATS))


@torch.no_grad()
def work_of(config: PolicyConfig, rows: int) -> Work:
    """Count what one call with so many rows of one observation does, as policies make it.

    The weights do not matter; the network is built anew, with random ones.
    """
    network = build_network(config).eval().requires_grad_(False)
    x = torch.zeros(rows, config.horizon, config.action_dim)
    index = torch.zeros(rows, dtype=torch.int64)
    bound = EngineNetwork(network, 1).bind(x.new_zeros(1, config.condition_dim))
    values = 0
    used: set[Tensor] = set()

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        values += inputs[0].numel() + output.numel()
        used.add(layer.get_parameter("weight"))

    handles = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, _LAYERS)
    ]
    with FlopCounterMode(display=False) as counter:
        bound(x, index, index)
    for handle in handles:
        handle.remove()
    return Work(float(counter.get_total_flops()), float(values + sum(w.numel() for w in used)))


def point(
    network: str, entry: Document, precision: Precision, work: Work, roof: Roof
) -> dict[str, Any]:
    """A measured call (see `measure_calls`) against the roof."""
    seconds = entry["ms"]["p50"] / 1e3
    return {
        "network": network,
        "engine": entry["engine"],
        "precision": precision,
        "rows": entry["rows"],
        "gflop": work.flops / 1e9,
        "mib": work.bytes(precision) / 2**20,
        "intensity": work.intensity(precision),
        "gflop_per_s": work.flops / seconds / 1e9,
        "times_roof": seconds / roof.seconds(work, precision),
    }


def points(
    network: str,
    config: PolicyConfig,
    calls: Sequence[Document],
    engines: Mapping[str, EngineConfig],
    roof: Roof,
) -> list[dict[str, Any]]:
    """Every measured call against the roof of its precision."""
    measured = [entry for entry in calls if "ms" in entry]
    work = {size: work_of(config, size) for size in {e["rows"] for e in measured}}
    return [
        point(network, e, engines[e["engine"]].precision, work[e["rows"]], roof) for e in measured
    ]


COLUMNS = (
    *("network", "engine", "rows", "GFLOP", "MiB", "FLOP per byte", "GFLOP/s", "times the roof"),
)


def points_of(document: Document) -> list[Document]:
    """Those of the shipped network, then those of the large ones."""
    large = (at for network in document["large"] for at in network["points"])
    return [*document["roofline"]["points"], *large]


def rows(document: Document) -> list[list[str]]:
    """One row of COLUMNS per point."""
    return [
        [
            at["network"],
            at["engine"],
            str(at["rows"]),
            f"{at['gflop']:.3g}",
            f"{at['mib']:.3g}",
            f"{at['intensity']:.3g}",
            f"{at['gflop_per_s']:.3g}",
            f"{at['times_roof']:.2f}",
        ]
        for at in points_of(document)
    ]


_ROOFS = (("#000000", "-"), ("#404040", "--"), ("#707070", ":"), ("#a0a0a0", "-."))


def figure(document: Document) -> Figure:
    """Rate against arithmetic intensity, under the roof of each precision."""
    found, measured = document["roofline"], points_of(document)
    drawing, axes = plots.new_figure("Network calls under the roofline of the device", height=4.0)
    intensities = [at["intensity"] for at in measured] or [1.0]
    ends = math.log10(min(intensities) / 3), math.log10(max(intensities) * 3)
    x = np.logspace(*ends, 200)
    for (color, style), (precision, rate) in zip(
        _ROOFS, found["gflop_per_s"].items(), strict=False
    ):
        roof = np.minimum(x * found["gb_per_s"], rate)
        axes.plot(x, roof, style, color=color, label=f"roof, {precision}", linewidth=1.5)
    labels = [f"{at['network']}, {at['engine']}" for at in measured]
    for label, color in plots.colors(labels).items():
        points = [
            (at["intensity"], at["gflop_per_s"])
            for at, other in zip(measured, labels, strict=True)
            if other == label
        ]
        axes.plot(*zip(*points, strict=True), "o-", color=color, label=label, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s")
    plots.legend_above(axes)
    return drawing
