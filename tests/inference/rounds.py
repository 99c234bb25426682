"""Networks, samplers and recorders for tests of recorded rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Noise, Process, samplers
from para_policy.inference.graphs import Recorded, Recorder, Repeat
from para_policy.inference.graphs.recording import Work
from para_policy.inference.runtime import Runtime
from para_policy.samplers import Nodes, Sampler

SHAPE, WIDTH, STEPS = (4, 2), 3, 30


class Network:
    """A smooth random network whose rows do not depend on each other, with a condition to bind."""

    def __init__(self, seed: int = 0, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(seed)
        d = SHAPE[0] * SHAPE[1]
        self.inner = (0.4 * torch.randn(d, d, generator=generator)).to(device)
        self.outer = torch.randn(WIDTH, d, generator=generator).to(device)

    def bind(self, condition: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        seen = condition @ self.outer

        def bound(x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            # Sums along the last axis: their order does not depend on the number of rows.
            mixed = (x.flatten(1)[:, None, :] * self.inner).sum(dim=2)
            return (mixed + seen[sample] + 0.01 * t[:, None]).tanh().reshape(x.shape)

        return bound

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.bind(condition)(x, t, torch.arange(len(x), device=x.device))


class Counted(Repeat):
    """Counts what is recorded and replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, work: Work, restart: Work) -> Work:
        self.recorded += 1
        replay = super().record(work, restart)

        def counted() -> None:
            self.replayed += 1
            replay()

        return counted


class Device(Counted):
    """A device that records: a recording takes some memory, numbers are read when somebody waits.

    Attributes:
        room: bytes that the recordings of a sampler may take.
        events: launches and waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.room = 10**9
        self.events: list[str] = []

    @classmethod
    def everywhere(cls, monkeypatch: pytest.MonkeyPatch) -> Device:
        """Make every policy record its samplers on such a device."""
        device = cls()

        def recorded(_: Runtime, sampler: Sampler) -> Sampler:
            made = Recorded(device, block=2, most_bytes=device.room)
            return dataclasses.replace(sampler, recordings=made) if sampler.recordable else sampler

        monkeypatch.setattr(Runtime, "recorded", recorded)
        return device

    def record(self, work: Work, restart: Work) -> Work:
        replay = super().record(work, restart)

        def launched() -> None:
            self.events.append("launch")
            replay()

        return launched

    def watch(self, number: Tensor) -> Callable[[], int]:
        value = int(number)

        def read() -> int:
            self.events.append("wait")
            return value

        return read

    def memory_bytes(self) -> int:
        return 1000 * self.recorded


def process_of(kind: str, steps: int = STEPS) -> Process:
    config = {
        "_class_name": {
            "ddpm": "DDPMScheduler",
            "ddim": "DDIMScheduler",
            "dpmsolver++": "DPMSolverMultistepScheduler",
        }[kind],
        "num_train_timesteps": 100,
        "beta_schedule": "squaredcos_cap_v2",
    }
    return Process.from_scheduler(config, steps)


def matrices(steps: int = STEPS) -> Tensor:
    d = SHAPE[0] * SHAPE[1]
    generator = torch.Generator().manual_seed(1)
    return 0.5 * torch.eye(d) + 0.05 * torch.randn(steps, d, d, generator=generator)


def factors(steps: int = STEPS) -> tuple[Tensor, Tensor]:
    left = 0.1 * matrices(steps)[:, :, :2]
    return left, left.mT.contiguous()


def nodes(steps: int = STEPS) -> Nodes:
    """Every third step, then all; the ends first."""
    thirds = [0, steps - 1, *range(3, steps - 1, 3)]
    order = torch.tensor([*thirds, *sorted(set(range(steps)) - set(thirds))])
    error = torch.where(torch.arange(steps) < len(thirds) - 1, 1.0, 1e-3)
    return Nodes(order, error, torch.full((steps,), 0.1))


def consistency(share: float) -> Network:
    return Network() if share == 0.0 else Network(seed=5)


def recorded_by(sampler: Sampler, recorder: Recorder, **options: Any) -> Sampler:
    """The sampler with its rounds recorded."""
    return dataclasses.replace(sampler, recordings=Recorded(recorder, **options))


SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sequential": ("sequential", {}),
    "paradigms": ("paradigms", {"window": 7}),
    "parataa": ("parataa", {"order": 5, "history": 3, "window": 12}),
    "x0": ("x0", {"window": 6, "lookahead": 3}),
    "chord": ("chord", {"matrices": matrices(), "window": 9, "lookahead": 4}),
    "chord in factors": ("chord", {"matrices": factors(), "window": None}),
    "collocation": ("collocation", {"matrices": matrices(), "nodes": nodes(), "window": 9}),
    "pcm": ("pcm", {"consistency": consistency, "matrices": matrices(), "horizon": 2, "stride": 3}),
    "pcm of features": (
        "pcm",
        {"consistency": consistency, "splitting": "x0", "horizon": 3, "blend": "features"},
    ),
}


def problem(seed: int, batch: int = 2, steps: int = STEPS) -> tuple[Tensor, Noise]:
    generator = torch.Generator().manual_seed(100 + seed)
    seeds = range(10 * seed, 10 * seed + batch)
    return torch.randn(batch, WIDTH, generator=generator), Noise.from_seeds(seeds, SHAPE, steps)


def assert_same(recorded: samplers.SampleResult, usual: samplers.SampleResult) -> None:
    for name in ("trajectory", "sample", "rounds", "evals", "residual", "correction", "residuals"):
        a, b = getattr(recorded, name), getattr(usual, name)
        assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)), name
    assert recorded.status == usual.status
