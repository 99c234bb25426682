"""Measurement of a calibration: Jacobians, the linear guess, samplers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from rich.progress import Progress, TaskID
from rich.table import Table
from torch import Tensor

from para_policy.calibration.calibration import Calibration
from para_policy.calibration.jacobian import chord_matrices
from para_policy.calibration.linear_guess import fit_linear_guess
from para_policy.calibration.nodes import fit_nodes
from para_policy.calibration.profile import Variant, Watch, assess
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.memory import check_memory
from para_policy.samplers import Sampler, SampleResult, Sequential
from para_policy.samplers.checks import check_count, check_number
from para_policy.samplers.deadline import LatencyTable
from para_policy.terminal import progress_bars

_BATCH = 64


@dataclass(frozen=True)
class Settings:
    """Sizes of a calibration.

    Attributes:
        tolerance: of `x0`, `chord` and `collocation`, normalised action units.
        jacobians: observations that the mean Jacobian is taken over; more than a dozen gain nothing.
        cases: samples that errors are measured on; a bound holds with probability
            cases / (cases + 1) for each new sample.
    """

    tolerance: float = 1e-2
    jacobians: int = 12
    cases: int = 256

    def __post_init__(self) -> None:
        for name in ("jacobians", "cases"):
            check_count(name, getattr(self, name))
        check_number("tolerance", self.tolerance, zero_allowed=False)


class Measurable(Protocol):
    """One process of one policy; see `policies.chain.Chain`.

    Attributes:
        process: its step table.
        shape: (horizon, action_dim) of a sample.
        device: where the network runs.
    """

    @property
    def process(self) -> Process: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def device(self) -> torch.device: ...

    def denoiser(self, obs: Mapping[str, np.ndarray]) -> Denoiser:
        """The network bound to batched observations {name: (B, To, *shape)}."""
        ...


def calibrate(
    chain: Measurable,
    observations: Mapping[str, np.ndarray],
    settings: Settings,
    *,
    begun: Calibration | None = None,
    keep: Callable[[Calibration], None] | None = None,
) -> Calibration:
    """Measure; minutes on a CPU.

    Args:
        observations: {name: (n, To, *shape)}, physical units, at least one; with fewer than
            `settings.cases`, each is used with several noises.
        begun: what was kept of the same measurement, which goes on from there.
        keep: called after each sampler with what is measured so far.

    Raises:
        InputError: if there are no observations, or more cases than the memory holds.
    """
    count = len(next(iter(observations.values())))
    if count == 0:
        raise InputError("there are no observations to calibrate with; expected at least one")
    states = (chain.process.num_steps + 1) * math.prod(chain.shape)
    # The noise of each case, its exact solution, and that of the sampler that is measured.
    check_memory(f"a calibration with {settings.cases} cases", 3 * 4 * states * settings.cases)
    index = np.arange(settings.cases) % count
    batches: list[tuple[Denoiser, Noise]] = []
    for part in np.array_split(index, -(-settings.cases // _BATCH)):
        denoiser = chain.denoiser({name: values[part] for name, values in observations.items()})
        first = sum(noise.batch for _, noise in batches)
        # Seeds of calibration lie far from those that benchmarks and robots count from 0.
        seeds = range(2**40 + first, 2**40 + first + len(part))
        steps = chain.process.num_steps
        noise = Noise.from_seeds(seeds, chain.shape, steps, device=chain.device)
        batches.append((denoiser, noise))
    with progress_bars() as progress:
        measurement = _Measurement(chain.process, batches, settings, progress)
        return measurement.run(begun, keep or (lambda calibration: None))


def table(calibration: Calibration, latency: LatencyTable) -> Table:
    """What was measured, as a table for the terminal."""
    best = calibration.fastest(latency)
    view = Table(
        title=f"{calibration.scheduler}, {calibration.steps} steps, {calibration.cases} samples",
        caption="error: largest coordinate difference to sequential, normalised action units; "
        "ms: expected from the latency of the network on this device; *: chosen by auto",
    )
    for column in ("sampler", "rounds", "evals", "error p95 / max", "amplification", "ms"):
        view.add_column(column, justify="left" if column == "sampler" else "right")
    for variant in calibration.variants:
        options = ", ".join(f"{name}={value}" for name, value in variant.options.items())
        view.add_row(
            f"{variant.sampler} {options}{' *' if variant == best else ''}",
            f"{variant.rounds:.1f}",
            f"{variant.evals:.0f}",
            f"{variant.error_p95:.1e} / {variant.error_max:.1e}",
            f"{variant.amplification:.2g}",
            f"{1e3 * variant.seconds(latency):.0f}",
        )
    return view


class _Measurement:
    """One calibration in progress."""

    def __init__(
        self,
        process: Process,
        batches: list[tuple[Denoiser, Noise]],
        settings: Settings,
        progress: Progress,
    ) -> None:
        self.process, self.batches, self.settings = process, batches, settings
        self.progress = progress

    def run(self, begun: Calibration | None, keep: Callable[[Calibration], None]) -> Calibration:
        references = self._solve(Sequential(), "sequential")
        found = self._basis(references) if begun is None else begun.to(self._device)
        keep(found)
        # Samplers are measured as they are without bounds, in whatever order.
        basis = replace(found, variants=found.variants[:1])
        for name, options in candidates(self.process.num_steps, self.settings.tolerance):
            if all((name, options) != (v.sampler, v.options) for v in found.variants):
                variant = self._variant(basis, name, options, references)
                found = replace(found, variants=(*found.variants, variant))
                keep(found)
        return found.to("cpu")

    @property
    def _device(self) -> torch.device:
        return self.batches[0][1].initial.device

    def _basis(self, references: list[SampleResult]) -> Calibration:
        """All but the samplers."""
        matrices, spread = self._jacobian(references)
        condition = torch.cat([_condition(denoiser) for denoiser, _ in self.batches])
        guess = fit_linear_guess(condition, torch.cat([result.sample for result in references]))
        nodes = fit_nodes(
            self.process,
            [noise for _, noise in self.batches],
            [result.trajectory for result in references],
            guess(condition),
            matrices,
            spread,
        )
        return Calibration(
            scheduler=self.process.kind,
            steps=self.process.num_steps,
            tolerance=self.settings.tolerance,
            cases=self.settings.cases,
            matrices=matrices,
            guess=guess,
            variants=(assess("sequential", {}, references, references),),
            nodes=nodes,
            fingerprint=self.process.fingerprint,
        )

    def _jacobian(
        self, references: list[SampleResult]
    ) -> tuple[Tensor | tuple[Tensor, Tensor], Tensor]:
        (denoiser, noise), trajectory = self.batches[0], references[0].trajectory
        n, d = min(self.settings.jacobians, noise.batch), noise.initial[0].numel()
        bar = self.progress.add_task("Jacobians", total=d)
        return chord_matrices(
            denoiser,
            self.process,
            noise.select(range(n)),
            trajectory[:n],
            lambda done: self.progress.advance(bar, done),
        )

    def _variant(
        self,
        measured: Calibration,
        name: str,
        options: dict[str, Any],
        references: list[SampleResult],
    ) -> Variant:
        label = f"{name} {options}" if options else name
        watched = [Watch(exact.sample) for exact in references]
        results = self._solve(measured.sampler(name, options), label, watched)
        return assess(name, options, results, references, watched)

    def _solve(
        self, sampler: Sampler, label: str, watched: Sequence[Watch | None] | None = None
    ) -> list[SampleResult]:
        bar: TaskID = self.progress.add_task(label, total=len(self.batches))
        results = []
        callbacks = watched or [None] * len(self.batches)
        for (denoiser, noise), callback in zip(self.batches, callbacks, strict=True):
            results.append(sampler(denoiser, self.process, noise, callback=callback))
            self.progress.advance(bar)
        return results


def candidates(num_steps: int, tolerance: float) -> list[tuple[str, dict[str, Any]]]:
    """Samplers and options that are worth measuring for a process of `num_steps` steps."""
    ours: list[dict[str, Any]] = [{"window": None, "lookahead": None}]
    if num_steps >= 50:
        ours += [
            {"window": round(share * num_steps), "lookahead": max(2, num_steps // 25)}
            for share in (0.6, 0.4)
        ]
    return [
        ("paradigms", {}),
        ("parataa", {}),
        *(
            (name, {"tolerance": tolerance, **options})
            for name in ("x0", "chord")
            for options in ours
        ),
        ("collocation", {"tolerance": tolerance}),
    ]


def _condition(denoiser: Denoiser) -> Tensor:
    assert denoiser.condition is not None
    return denoiser.condition
