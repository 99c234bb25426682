"""Rounds against the number of denoising steps: `python -m benchmarks.samplers.rounds_vs_steps --help`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common import Common, Document, Subject, circumstances, colors_of, load, main
from para_policy import Noise, Process, samplers
from para_policy.calibration import fit_linear_guess, fit_nodes, jacobians
from para_policy.diffusion.schedulers import build_scheduler, scheduler_kind
from para_policy.errors import InputError
from para_policy.samplers import Sampler
from para_policy.terminal import progress_bars
from sim import plots

FINE = 10
"""How many times finer than the training schedule the schedule for N > training steps is."""
_FEWEST_FITTED = 8
_JACOBIAN_SEED = 2**41  # far from the seeds of the observations, which count from 0


@dataclass(frozen=True)
class Options(Common):
    """Rounds of each sampler from 25 to 1000 DDPM steps; 2 to 3 minutes on two cores.

    The network was trained on 100 timesteps. For more steps the same cosine schedule is cut ten
    times finer, and timestep t' of the fine schedule is fed to the network as (t' + 1) / 10 - 1,
    which has the same noise level. The network has never seen such fractions, nor levels below its
    first. This shows how solvers scale; it says nothing about the quality of the actions.

    All samplers keep all steps in flight, besides `paradigms` with its published window of 20.
    Chord matrices come from one measurement of the network's mean Jacobian at 109 noise levels,
    combined with the coefficients of each schedule, levels between interpolated. Nodes of collocation
    are fitted on sequential solutions with that many steps, of other observations.
    """

    steps: tuple[int, ...] = (25, 50, 100, 250, 500, 1000)
    """Numbers of steps N."""
    observations: int = 16
    """Observations for up to 100 steps; above, as many as keep the same number of rows, at least 2."""
    few: int = 2
    """Observations of the samplers that take the most rows: parataa, and paradigms with window N."""
    tolerance: float = 1e-3
    """Of x0, chord and collocation. Not their default 1e-2: with 1e-3 their errors are about those of
    paradigms and parataa with their defaults, so that rounds compare like with like."""
    jacobians: int = 4
    """Observations that the mean Jacobian is taken over."""
    fitted: int = 64
    """Observations that nodes are fitted on for up to 100 steps; above, as many as keep the same number
    of rows, at least 8."""


SAMPLERS: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
    ("paradigms, window 20", "paradigms", {}, False),
    ("paradigms, window N", "paradigms", {"window": None}, True),
    ("parataa, window N", "parataa", {}, True),
    ("x0, window N", "x0", {"window": None, "lookahead": None}, False),
    ("chord, window N", "chord", {"window": None, "lookahead": None}, False),
    ("collocation", "collocation", {"window": None}, False),
)
"""Label, name, options, and whether only a few observations are affordable."""


def measure(options: Options) -> dict[str, Any]:
    """Solve batches with every sampler and number of steps, and compare with `sequential`."""
    for name in ("observations", "few", "jacobians", "fitted"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}; expected at least 1")
    subject = load(options)
    schedule = Schedule.of(subject)
    processes = {N: schedule.process(N) for N in options.steps}
    subject.some(0, options.observations)
    print(f"rounds for {', '.join(map(str, options.steps))} steps; Jacobians first")
    jacobian = MeanJacobian.measure(subject, schedule, options.jacobians)
    points = []
    with progress_bars() as progress:
        bar = progress.add_task("steps", total=len(processes) * (1 + len(SAMPLERS)))
        for N, process in processes.items():
            count = _affordable(options.observations, N)
            denoiser = subject.policy.denoiser(subject.some(0, count))
            noise = _noise(subject, range(count), N)
            progress.update(bar, description=f"{N} steps, sequential")
            exact = samplers.get("sequential")(denoiser, process, noise)
            progress.advance(bar)
            progress.update(bar, description=f"{N} steps, nodes")
            fitted = min(options.fitted, max(_FEWEST_FITTED, options.fitted * 100 // N))
            parts = jacobian.parts(subject, schedule, process, fitted)
            for label, name, chosen, expensive in SAMPLERS:
                progress.update(bar, description=f"{N} steps, {label}")
                n = min(count, options.few) if expensive else count
                denoiser = subject.policy.denoiser(subject.some(0, n))
                sampler = _make(name, chosen, options.tolerance, parts)
                result = sampler(denoiser, process, noise.select(range(n)))
                error = (result.sample - exact.sample[:n]).flatten(1).abs().amax(dim=1)
                points.append(
                    {
                        "sampler": label,
                        "steps": N,
                        "observations": n,
                        "rounds_mean": float(result.rounds.double().mean()),
                        "rounds_min": int(result.rounds.min()),
                        "rounds_max": int(result.rounds.max()),
                        "evals_mean": float(result.evals.double().mean()),
                        "error_median": float(error.median()),
                        "error_max": float(error.max()),
                        "converged": bool(result.converged.all()),
                    }
                )
                progress.advance(bar)
    return {
        **circumstances(options, subject.policy),
        "scheduler": "ddpm",
        "jacobian_observations": options.jacobians,
        "tolerance": options.tolerance,
        "points": points,
    }


@dataclass(frozen=True)
class Schedule:
    """The trained schedule, and the same one cut `FINE` times finer."""

    config: dict[str, Any]
    trained: int

    @classmethod
    def of(cls, subject: Subject) -> Schedule:
        config = dict(subject.policy.config.noise_scheduler)
        if scheduler_kind(config) != "ddpm" or config.get("beta_schedule") != "squaredcos_cap_v2":
            raise InputError(
                "this benchmark refines the schedule squaredcos_cap_v2 of a DDPM policy; "
                f"the checkpoint has {config}"
            )
        return cls(config, int(config["num_train_timesteps"]))

    def process(self, N: int) -> Process:
        """N steps; beyond the trained number on the fine schedule, with fractional timesteps."""
        if self.trained >= N:
            return Process.from_scheduler(build_scheduler(self.config), N)
        fine = {**self.config, "num_train_timesteps": FINE * self.trained}
        process = Process.from_scheduler(build_scheduler(fine), N)
        timesteps = (process.timesteps.to(torch.float32) + 1) / FINE - 1
        return dataclasses.replace(process, timesteps=timesteps)

    def fine_timesteps(self, process: Process) -> Tensor:
        """(N,) int64, position of each step on the fine schedule."""
        return (FINE * (process.timesteps.double() + 1) - 1).round().long()


@dataclass(frozen=True)
class MeanJacobian:
    """Mean d x0hat / dx at some noise levels: (L, d, d), the spread around it (L,), and their fine
    timesteps (L,) ascending."""

    values: Tensor
    spread: Tensor
    levels: Tensor

    @classmethod
    def measure(cls, subject: Subject, schedule: Schedule, count: int) -> MeanJacobian:
        """Measure at the trained levels and all fine ones below them."""
        N = FINE * schedule.trained
        process = schedule.process(N)
        # Of the second half of the observations, as in calibration; the first is measured on.
        denoiser = subject.policy.denoiser(subject.some(subject.available // 2, count))
        noise = _noise(subject, range(_JACOBIAN_SEED, _JACOBIAN_SEED + count), N)
        exact = samplers.get("sequential")(denoiser, process, noise)
        t = schedule.fine_timesteps(process)
        kept = ((t < FINE) | ((t + 1) % FINE == 0)).nonzero()[:, 0]
        states = torch.cat([kept, torch.tensor([N])])
        some = _rows(process, kept, states)
        phi, spread = jacobians(denoiser, some, noise, exact.trajectory[:, states])
        phi, spread = phi.double().cpu(), spread.double().cpu() / some.A
        identity = torch.eye(phi.shape[1], dtype=torch.float64)
        values = (phi - some.B[:, None, None] * identity) / some.A[:, None, None]
        return cls(values.flip(0), spread.flip(0), t[kept].flip(0))

    def at(self, schedule: Schedule, process: Process) -> tuple[Tensor, Tensor]:
        """(N, d, d) mean dS_s/dx of a process and (N,) its spread, between the measured levels
        interpolated."""
        t = schedule.fine_timesteps(process).clamp(int(self.levels[0]), int(self.levels[-1]))
        above = torch.searchsorted(self.levels, t).clamp(min=1)
        low, high = self.levels[above - 1], self.levels[above]
        share = (t - low).double() / (high - low)
        J = torch.lerp(self.values[above - 1], self.values[above], share[:, None, None])
        spread = torch.lerp(self.spread[above - 1], self.spread[above], share)
        identity = torch.eye(J.shape[1], dtype=torch.float64)
        phi = process.B[:, None, None] * identity + process.A[:, None, None] * J
        return phi, process.A * spread

    def parts(
        self, subject: Subject, schedule: Schedule, process: Process, fitted: int
    ) -> dict[str, Any]:
        """Matrices and nodes for a process, the nodes from `fitted` sequential solutions."""
        matrices, spread = self.at(schedule, process)
        denoiser = subject.policy.denoiser(subject.some(subject.available // 2, fitted))
        first = _JACOBIAN_SEED + process.num_steps
        noise = _noise(subject, range(first, first + fitted), process.num_steps)
        exact = samplers.get("sequential")(denoiser, process, noise)
        condition = denoiser.condition
        assert condition is not None
        clean = fit_linear_guess(condition, exact.sample)(condition)
        nodes = fit_nodes(process, [noise], [exact.trajectory], clean, matrices, spread)
        return {"matrices": matrices, "nodes": nodes}


def figure(document: Document) -> Figure:
    """Mean rounds against steps, with the range over the observations."""
    drawing, axes = plots.new_figure("Rounds against denoising steps", height=4.0)
    points = document["points"]
    colors = colors_of(["sequential", *(point["sampler"] for point in points)])
    steps = sorted({point["steps"] for point in points})
    axes.plot(
        *(steps, steps, "o--"),
        color=colors["sequential"],
        linewidth=1,
        markersize=3,
        label="sequential",
    )
    for label in dict.fromkeys(point["sampler"] for point in points):
        own = [point for point in points if point["sampler"] == label]
        at = [point["steps"] for point in own]
        axes.plot(
            at,
            [point["rounds_mean"] for point in own],
            "o-",
            color=colors[label],
            label=label,
            markersize=4,
        )
        low, high = ([point[key] for point in own] for key in ("rounds_min", "rounds_max"))
        axes.fill_between(at, low, high, color=colors[label], alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="denoising steps N", ylabel="rounds")
    axes.set_xticks(steps, [str(N) for N in steps])
    axes.set_yticks([3, 10, 30, 100, 300, 1000], ["3", "10", "30", "100", "300", "1000"])
    axes.minorticks_off()
    plots.legend_above(axes)
    return drawing


COLUMNS = ("sampler", "steps", "observations", "rounds mean (max)", "evals", "error median / max")


def rows(document: Document) -> list[list[str]]:
    """One row of COLUMNS per sampler and number of steps."""
    return [
        [
            point["sampler"],
            str(point["steps"]),
            str(point["observations"]),
            f"{point['rounds_mean']:.1f} ({point['rounds_max']})",
            f"{point['evals_mean']:.0f}",
            f"{point['error_median']:.1e} / {point['error_max']:.1e}"
            + ("" if point["converged"] else " (not converged)"),
        ]
        for point in document["points"]
    ]


def _make(name: str, options: dict[str, Any], tolerance: float, parts: dict[str, Any]) -> Sampler:
    known = samplers.options(name)
    extra = {part: value for part, value in parts.items() if part in known}
    if name in ("x0", "chord", "collocation"):
        extra["tolerance"] = tolerance
    return samplers.get(name, **options, **extra)


def _affordable(observations: int, N: int) -> int:
    return min(observations, max(2, observations * 100 // N))


def _noise(subject: Subject, seeds: range, N: int) -> Noise:
    config = subject.policy.config
    shape = (config.horizon, config.action_dim)
    return Noise.from_seeds(seeds, shape, N, device=subject.policy.device)


def _rows(process: Process, steps: Tensor, states: Tensor) -> Process:
    """Some steps of a process; each is a step formula of its own."""
    of_states = ("sigma", "signal", "spread")
    picked = {
        field.name: getattr(process, field.name)[states if field.name in of_states else steps]
        for field in dataclasses.fields(process)
        if isinstance(getattr(process, field.name), Tensor)
    }
    return dataclasses.replace(process, **picked)


if __name__ == "__main__":
    main(Options, measure, figure)
