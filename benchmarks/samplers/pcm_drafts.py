"""What a drafted round can be worth: `python -m benchmarks.samplers.pcm_drafts --help`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common import Common, Document, circumstances, main
from para_policy import DiffusionPolicy, Noise
from para_policy.checkpoints.observations import read_observations
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.inference.device import set_threads
from para_policy.samplers import FixedPoint, Guess, Prior, Sequential
from para_policy.samplers.fixed_point import FixedPointSolve
from para_policy.samplers.sampler import Launch
from para_policy.terminal import progress_bars
from para_policy.training.pcm.problem import Problem, preset_of
from para_policy.training.pcm.sweep import ideal_residual, sweep
from sim import plots
from sim.evaluation.batches import Sampling
from sim.evaluation.statistics import mean_interval, ratio_interval

SPLITTINGS = ("identity", "chord")
NODES = "collocation"
SHARES = (0.3, 0.1, 0.03, 0.01)
START, SWEPT, BEST = "the start", "a sweep of the base network", "a sweep that knows one row"
_APART = 1_000_000
"""Between the seeds of two draws; more than there are observations."""


@dataclass(frozen=True)
class Options(Common):
    """Rounds and rows that an exact solve takes from the start of `pcm`, after one sweep of the base
    network, after a sweep whose residuals are the best guess from one row each, and from trajectories that
    are nearer and nearer to the solution. `collocation` has its own start, and its sweep is its first
    round, at a few nodes.

    The best guess, in squares: the start is affine in the noise, so the noise is drawn again as it is
    distributed where the observation and the state of that row are as they were, and solved; guessed is the
    mean of the residuals with which these sweeps would land. No network that is shown one row and is
    trained row by row can expect a smaller squared error, but for what the number of draws adds, one
    part in `draws` of it. Where steps are without noise (DDIM) a row shows all noise there is, and
    this sweep lands.
    """

    scheduler: str = "ddpm"
    """ddpm or ddim; the checkpoint must be calibrated for it."""
    steps: int = 100
    """Sampling steps."""
    observations: int = 48
    """Of the checkpoint, from the first on, with noise seed i for observation i."""
    draws: int = 8
    """Noises with the same row, for each row; at least 2."""
    engine: str = "openvino"
    """How the network of the solves runs."""


@dataclass(frozen=True, eq=False)
class Drafted(Guess):
    """Given states in place of those that a drafted round would make, at no cost.

    A `Trajectory` would not do: `collocation` takes only the clean sample of what it starts from.

    Attributes:
        states: (batch, N + 1, *shape).
        begin: where the round would start.
    """

    states: Tensor
    begin: Guess

    rounds = 1

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        return self.begin.start(process, noise)

    def given(self, condition: Tensor | None) -> Drafted:
        return replace(self, begin=self.begin.given(condition))

    def launch(self, k: int, solve: FixedPointSolve, denoiser: Denoiser, *, static: bool) -> Launch:
        return Launch(1, 1, partial(self._put, solve))

    def _put(self, solve: FixedPointSolve) -> None:
        solve.X.copy_(self.states)


@dataclass(frozen=True)
class Drafts:
    """Solves of one policy and process, with splittings that share their start.

    Attributes:
        options, policy: as given.
    """

    options: Options
    policy: DiffusionPolicy

    @cached_property
    def problems(self) -> dict[str, Problem]:
        how = (self.options.scheduler, self.options.steps)
        return {name: Problem.of(self.policy, *how, name) for name in SPLITTINGS}

    @cached_property
    def solvers(self) -> dict[str, FixedPoint]:
        """Of `pcm` after its drafts, over all states; and `collocation`."""
        chain = self.policy.chain(self.options.scheduler, self.options.steps)
        made = {name: chain.sampler(preset_of(name), window=None) for name in SPLITTINGS}
        made[NODES] = chain.sampler(NODES)
        return {name: solver for name, solver in made.items() if isinstance(solver, FixedPoint)}

    @cached_property
    def process(self) -> Process:
        return self.problems["chord"].process.to("cpu", torch.float32)

    @cached_property
    def noisy(self) -> bool:
        """Whether a row leaves anything unknown."""
        return bool((self.process.c != 0).any())

    @torch.no_grad()
    def of(self, index: int, observation: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
        """By splitting, and for `collocation`: of each draft the error of its last state, and rounds and
        rows of the solve after it; by splitting, under "unknown", the squared error (rows, 2) that one
        row leaves, and that there is."""
        shape = (self.policy.config.horizon, self.policy.config.action_dim)
        N, draws = self.process.num_steps, self.options.draws if self.noisy else 0
        seeds = iter(range(index, index + (1 + N * draws) * _APART, _APART))

        def fresh(count: int) -> Tensor:
            drawn = [next(seeds) for _ in range(count)]
            noise = Noise.from_seeds(drawn, shape, N, dtype=torch.float64)
            return torch.cat([noise.initial[:, None], noise.steps], dim=1).flatten(2)

        known, start = fresh(1), start_by_source(self.process)
        again = [redrawn(start[s], known, fresh(draws)) for s in range(N) if draws]
        sources = torch.cat([known, *again]).float().unflatten(2, shape)
        noise = Noise(sources[:, 0], sources[:, 1:])
        denoiser = self.policy.denoiser(
            {n: v.repeat(len(sources), 0) for n, v in observation.items()}
        )
        condition = denoiser.condition
        assert condition is not None
        solution = Sequential()(denoiser, self.process, noise).trajectory
        X, _ = self.problems["chord"].start(condition).start(self.process, noise)
        one, first = self.policy.denoiser(observation), noise.select([0])
        for name, problem in self.problems.items():
            propagate = problem.splitting.bind(self.process, shape)
            swept = sweep(
                self.policy.network, self.process, propagate, first, condition[:1], X[:1], 1
            )
            drafts = {START: X[:1], SWEPT: swept.X}
            if draws:
                ideal = ideal_residual(problem.splitting, self.process, X, solution)
                # (N, draws, *shape): of each row those with its own noises.
                same_row = (
                    ideal[1:].unflatten(0, (N, draws)).diagonal(dim1=0, dim2=2).movedim(-1, 0)
                )
                best = same_row.mean(dim=1)[None]
                change = best + propagate(best, torch.arange(N)[None])
                drafts[BEST] = torch.cat([X[:1, :1], X[:1, 1:] + change], dim=1)
                unknown = same_row.var(dim=1)
                lacking = (ideal[0] - swept.residual[0]).square()
                squares = torch.stack([unknown, lacking], dim=1).flatten(2).mean(dim=2)
                yield name, "unknown", squares.double().numpy()
            yield from self.solved(name, drafts, one, first, solution[:1])
        nodes = self.solvers[NODES]
        begun = nodes.begin(one, self.process, first, None)
        assert isinstance(begun, FixedPointSolve)
        swept_nodes = nodes.limited(1)(one, self.process, first).trajectory
        drafts = {START: begun.X, SWEPT: swept_nodes}
        yield from self.solved(NODES, drafts, one, first, solution[:1])

    def solved(
        self,
        name: str,
        drafts: dict[str, Tensor],
        denoiser: Denoiser,
        noise: Noise,
        solution: Tensor,
    ) -> Iterator[tuple[str, str, tuple[float, int, int]]]:
        """Solves after `drafts`, and after some that have a share of the error of the one that is swept."""
        solver, off = self.solvers[name], drafts[SWEPT] - solution
        nearer = {f"{share:g} of its error": solution + share * off for share in SHARES}
        for draft, states in {**drafts, **nearer}.items():
            solve = replace(solver, guess=Drafted(states, solver.guess))
            error = (states - solution)[:, -1].abs().max()
            result = solve(denoiser, self.process, noise)
            yield name, draft, (float(error), int(result.rounds), int(result.evals))


def start_by_source(process: Process) -> Tensor:
    """(N + 1, N + 1) float64: how much of each source of noise (that of the initial state, then of each
    step) is in each state of the start."""
    sources = torch.eye(process.num_steps + 1, dtype=torch.float64)[..., None]
    noise = Noise(sources[:, 0], sources[:, 1:])
    return Prior().start(process.to("cpu", torch.float64), noise)[0][..., 0].T


def redrawn(shown: Tensor, known: Tensor, fresh: Tensor) -> Tensor:
    """`fresh` noise, moved so that the state that is the sum of its sources by weights `shown` (N + 1,) is
    that of the `known` noise.

    If both are standard normal, so is the result, given that state.

    Args:
        known, fresh: (n or 1, N + 1, d) by source, float64.
    """
    missing = torch.einsum("s,nsd->nd", shown, known - fresh) / shown.square().sum()
    return fresh + shown[:, None] * missing[:, None]


def measure(options: Options) -> dict[str, Any]:
    """Errors and rounds by splitting and draft."""
    for name, least in (("observations", 2), ("draws", 2)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}; expected at least {least}")
    set_threads(options.threads)
    drafts = Drafts(options, Sampling(options.directory, options.device, options.engine).load())
    observations = read_observations(options.directory, drafts.policy.config)
    count = min(options.observations, len(next(iter(observations.values()))))
    found: dict[str, dict[str, list[Any]]] = {name: defaultdict(list) for name in drafts.solvers}
    with progress_bars() as progress:
        for i in progress.track(range(count), description="solves"):
            observation = {name: values[i : i + 1] for name, values in observations.items()}
            for splitting, draft, values in drafts.of(i, observation):
                found[splitting][draft].append(values)
    return {
        **circumstances(options, drafts.policy),
        "scheduler": options.scheduler,
        "steps": options.steps,
        "engine": options.engine,
        "observations": count,
        "draws": options.draws if drafts.noisy else None,
        "unknown": {name: _unknown(found[name].pop("unknown", None)) for name in SPLITTINGS},
        "drafts": {
            solver: {draft: _summary(values, each[START]) for draft, values in each.items()}
            for solver, each in found.items()
        },
    }


def _unknown(errors: list[Any] | None) -> dict[str, Any] | None:
    """Share of the squared error that one row leaves unknown, summed over the rows."""
    if errors is None:
        return None
    unknown, lacking = np.sum(errors, axis=1).T
    share = float(unknown.sum() / lacking.sum())
    return {"share": share, "share_ci95": list(ratio_interval(unknown, lacking))}


def _summary(
    values: list[tuple[float, int, int]], start: list[tuple[float, int, int]]
) -> dict[str, Any]:
    """With what the draft saves of the rounds and rows after the start, observation by observation."""
    errors, *counts = np.transpose(values)
    before = np.transpose(start)[1:]
    summary: dict[str, Any] = {
        "error_median": float(np.median(errors)),
        "error_p95": float(np.quantile(errors, 0.95)),
    }
    for name, count, without in zip(("rounds", "rows"), counts, before, strict=True):
        summary |= {
            f"{name}_mean": float(np.mean(count)),
            f"{name}_ci95": list(mean_interval(count)),
            f"{name}_saved_mean": float(np.mean(without - count)),
            f"{name}_saved_ci95": list(mean_interval(without - count)),
            name: count.astype(int).tolist(),
        }
    return summary


def figure(document: Document) -> Figure:
    """Rounds of the exact solve against the error of the draft that it begins with."""
    drawing, axes = plots.new_figure("What a draft is worth", height=3.6)
    colors = plots.colors(list(document["drafts"]))
    alone = {START: "s", BEST: "*"}
    for splitting, drafts in document["drafts"].items():
        color, curve = colors[splitting], [draft for draft in drafts if draft not in alone]
        at = {name: (draft["error_median"], draft["rounds_mean"]) for name, draft in drafts.items()}
        axes.plot(*np.transpose([at[draft] for draft in curve]), "o-", color=color, label=splitting)
        for draft, marker in alone.items():
            if draft in at:
                axes.plot(*at[draft], marker, color=color, markersize=9)
    for draft, marker in alone.items():
        axes.plot([], [], marker, color="#6b7280", label=draft, markersize=9)
    axes.set(
        xscale="log", xlabel="error of the draft, median", ylabel="rounds after it", ylim=(0, None)
    )
    plots.legend_above(axes)
    return drawing


if __name__ == "__main__":
    main(Options, measure, figure)
