"""Reward of samplers that are cut short: `python -m benchmarks.samplers.reward_per_round --help`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common import Common, Document, circumstances, colors_of, main, take_consistency
from para_policy import Noise
from para_policy.checkpoints.observations import read_observations
from para_policy.errors import InputError
from para_policy.files import check_distinct, check_output_file
from para_policy.inference.device import set_threads
from para_policy.lock import sole_writer
from para_policy.policies.policy import DiffusionPolicy
from para_policy.policies.sampler_spec import split_samplers
from para_policy.samplers import RoundInfo, Sequential
from para_policy.terminal import progress_bars
from sim import plots
from sim.evaluation.batches import Sampling, make_tasks
from sim.evaluation.partial import PartialResults, partial_path
from sim.evaluation.provenance import sampling_identity
from sim.evaluation.statistics import compare_paired, mean_interval, success_interval
from sim.evaluation.variants import Variant
from sim.tasks.episode import Episode
from sim.tasks.rollout import SEQUENTIAL

MARGIN = 0.02
"""Of the mean max reward, for the paired comparison."""
FEWER_STEPS = "sequential DDIM"


@dataclass(frozen=True)
class Options(Common):
    """Mean max reward and success of every sampler, cut after so many rounds, and the error beside it.

    A round is one batched network call. `sequential` is cut by taking so many DDIM steps instead, which
    is another sample, so that it has no error. An episode in which no chunk was cut is not played again
    with more rounds: it would be the same up to the rounding of other batches. An interrupted run goes
    on when the same command is given again, also with fewer episodes; with `--outcomes`, a finished one
    goes on with more.
    """

    samplers: str = "paradigms,parataa,pcm,x0,chord,collocation"
    """As for `para-policy bench`."""
    rounds: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 25)
    """Rounds after which each is cut."""
    scheduler: str | None = None
    """ddpm, ddim or dpmsolver++ (default: the checkpoint's)."""
    steps: int | None = None
    """Sampling steps (default: the checkpoint's)."""
    episodes: int = 200
    """Per point; episode i has seed + i for its start state and noise at every point."""
    seed: int = 100000
    """Of the first episode."""
    batch: int = 50
    """Episodes that share each call of the network."""
    consistency: Path | None = None
    """PCM weights: directory, by default that beside the checkpoint."""
    engine: str = "openvino"
    """How the network runs."""
    observations: int = 64
    """That the error is measured on, with noise seed i for observation i."""
    outcomes: Path | None = None
    """Keeps what every episode came to, a line for each batch of a point. What it holds already is not
    played again (default: beside the numbers until they are there)."""


@dataclass(frozen=True)
class Outcome:
    """What an episode came to, and what its chunks cost."""

    seed: int
    max_reward: float
    success: bool
    chunks: int
    converged: int
    """Chunks that were not cut."""
    rounds: int
    evals: int
    """Network rows of all chunks together."""

    @classmethod
    def of(cls, episode: Episode) -> Outcome:
        chunks = episode.chunks
        return cls(
            seed=episode.seed,
            max_reward=episode.max_reward,
            success=episode.success,
            chunks=len(chunks),
            converged=sum(chunk.converged for chunk in chunks),
            rounds=sum(chunk.rounds for chunk in chunks),
            evals=sum(chunk.evals for chunk in chunks),
        )

    def to_json(self) -> list[Any]:
        """The values in the order of the fields."""
        return list(astuple(self))


@dataclass(frozen=True)
class Point:
    """A sampler that is cut after so many rounds.

    Attributes:
        method: name of its curve.
        rounds: None for one that is not cut.
        sampler: name of a `Variant`.
        scheduler, steps: None for those of the checkpoint.
        same: it solves for the sample of the whole loop.
    """

    method: str
    rounds: int | None
    sampler: str
    scheduler: str | None
    steps: int | None
    same: bool = True

    @property
    def label(self) -> str:
        return self.method if self.rounds is None else f"{self.method} after {self.rounds}"

    def play(
        self, policy: DiffusionPolicy, seeds: Sequence[int], shorter: Sequence[Outcome]
    ) -> list[Outcome]:
        """Outcomes of `seeds`; `shorter`: those of the same curve with fewer rounds, if there are any."""
        same = {e.seed: e for e in shorter if self.same and e.converged == e.chunks}
        others = [seed for seed in seeds if seed not in same]
        if others:
            variant = Variant.parse(self.sampler)
            played = variant.play(policy, others, self.scheduler, self.steps)
            same |= {episode.seed: Outcome.of(episode) for episode in played}
        return [same[seed] for seed in seeds]


def points(options: Options) -> list[Point]:
    """The whole loop, then curve after curve."""
    process, rounds = (options.scheduler, options.steps), sorted(set(options.rounds))
    found = [Point(SEQUENTIAL, None, SEQUENTIAL, *process)]
    found += [Point(FEWER_STEPS, k, SEQUENTIAL, "ddim", k, same=False) for k in rounds]
    for text in split_samplers(options.samplers):
        joint = "," if ":" in text else ":"
        found += [Point(text, k, f"{text}{joint}max_rounds={k}", *process) for k in rounds]
    return found


def measure(options: Options) -> dict[str, Any]:
    """Play all points batch by batch, so that a stopped run is paired, too."""
    for name in ("episodes", "batch", "observations"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}; expected at least 1")
    if not options.rounds or min(options.rounds) < 1:
        raise InputError(f"--rounds is {options.rounds}; expected numbers of at least 1")
    check_distinct(options.json, options.plot, options.outcomes)
    if options.outcomes is not None:
        check_output_file(options.outcomes)
    set_threads(options.threads)
    with sole_writer(options.json):
        return _measure(options)


def _measure(options: Options) -> dict[str, Any]:
    sampling = Sampling(options.directory, options.device, options.engine)
    policy, all_points = sampling.load(), points(options)
    if options.consistency is not None:
        take_consistency(policy, options, options.consistency)
    identities = {point.label: _identity(policy, sampling, point) for point in all_points}
    by_label = {point.label: point for point in all_points}
    tasks = make_tasks(list(by_label), options.seed, options.episodes, options.batch)
    kept = options.outcomes or partial_path(options.json)
    partial = PartialResults(kept, lambda values: Outcome(*values), identities, set(tasks))
    finished, runs = partial.load(), {label: list[Outcome]() for label in by_label}
    shorter = dict[tuple[str, tuple[int, ...]], Sequence[Outcome]]()
    with progress_bars() as progress:
        bar = progress.add_task("playing", total=len(tasks))
        for task in tasks:
            point = by_label[task.sampler]
            progress.update(bar, description=f"{point.label}, seeds from {task.seeds[0]}")
            if task not in finished:
                before = shorter.get((point.method, task.seeds), ())
                finished[task] = point.play(policy, task.seeds, before)
                partial.add(task, finished[task])
            runs[point.label] += finished[task]
            shorter[point.method, task.seeds] = finished[task]
            progress.advance(bar)
    errors = _errors(options, policy, all_points)
    reference = runs[SEQUENTIAL]
    document = {
        **circumstances(options, policy),
        "engine": options.engine,
        "episodes": options.episodes,
        "seed": options.seed,
        "observations": options.observations,
        "margin": MARGIN,
        "points": [
            {
                "method": point.method,
                "rounds": point.rounds,
                **_statistics(reference, runs[point.label]),
                "error": errors.get(point.label),
            }
            for point in all_points
        ],
    }
    if options.outcomes is None:
        partial.remove()
    return document


def _identity(policy: DiffusionPolicy, sampling: Sampling, point: Point) -> dict[str, Any]:
    """Everything that its episodes depend on besides the seed; how rows are shared among calls and
    threads, which another machine does otherwise, decides about last bits only."""
    sampling = replace(sampling, scheduler=point.scheduler, steps=point.steps)
    sampler = Variant.parse(point.sampler).make(policy, point.scheduler, point.steps)
    identity = sampling_identity(policy, sampling) | {"engine": sampling.engine}
    return {**identity, "sampler": repr(sampler)}


def _statistics(reference: Sequence[Outcome], episodes: Sequence[Outcome]) -> dict[str, Any]:
    rewards = [episode.max_reward for episode in episodes]
    successes = sum(episode.success for episode in episodes)
    chunks = sum(episode.chunks for episode in episodes)
    paired = compare_paired([episode.max_reward for episode in reference], rewards, MARGIN)
    return {
        "mean_max_reward": float(np.mean(rewards)),
        "mean_max_reward_ci95": mean_interval(rewards),
        "difference": paired.difference,
        "difference_ci95": paired.ci95,
        "success_rate": successes / len(episodes),
        "success_rate_ci95": success_interval(successes, len(episodes)),
        "rounds_mean": sum(episode.rounds for episode in episodes) / chunks,
        "evals_mean": sum(episode.evals for episode in episodes) / chunks,
        "converged_rate": sum(episode.converged for episode in episodes) / chunks,
    }


def _errors(
    options: Options, policy: DiffusionPolicy, all_points: Sequence[Point]
) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of the largest coordinate difference to the whole loop with the same
    noise, normalised action units, of every point that approximates it."""
    every = read_observations(options.directory, policy.config)
    count = min(options.observations, len(next(iter(every.values()))))
    chain = policy.chain(options.scheduler, options.steps)
    shape = (policy.config.horizon, policy.config.action_dim)
    denoiser = chain.denoiser({name: values[:count] for name, values in every.items()})
    noise = Noise.from_seeds(range(count), shape, chain.process.num_steps, device=policy.device)
    exact = Sequential()(denoiser, chain.process, noise).sample
    errors = {}
    cut = [point for point in all_points if point.same and point.rounds is not None]
    for method in dict.fromkeys(point.method for point in cut):
        found: list[Tensor] = []

        def keep(info: RoundInfo, found: list[Tensor] = found) -> None:
            off = info.trajectory[:, -1] - exact
            found.append(off.flatten(1).abs().amax(dim=1))

        sampler = Variant.parse(method).make(policy, options.scheduler, options.steps)
        sampler(denoiser, chain.process, noise, callback=keep)
        for point in cut:
            if point.method == method:
                # One that is done before stays as it is.
                error = found[min(point.rounds or 0, len(found)) - 1].double()
                errors[point.label] = {
                    "median": float(error.median()),
                    "p95": float(error.quantile(0.95)),
                }
    return errors


COLUMNS = (
    "sampler",
    "rounds",
    "rows",
    "error median / p95",
    "mean max reward",
    "minus sequential, paired",
    "success",
)


def rows(document: Document) -> list[list[str]]:
    """A row of COLUMNS per point."""
    return [
        [
            point["method"],
            f"{point['rounds_mean']:.1f}",
            f"{point['evals_mean']:.0f}",
            _error_text(point["error"]),
            _with_interval(point["mean_max_reward"], point["mean_max_reward_ci95"], "{:.3f}"),
            _with_interval(point["difference"], point["difference_ci95"], "{:+.3f}"),
            _with_interval(point["success_rate"], point["success_rate_ci95"], "{:.0%}"),
        ]
        for point in document["points"]
    ]


def _with_interval(value: float, interval: Sequence[float], form: str) -> str:
    return f"{form.format(value)} [{form.format(interval[0])}, {form.format(interval[1])}]"


def _error_text(error: Mapping[str, float] | None) -> str:
    return "" if error is None else f"{error['median']:.1e} / {error['p95']:.1e}"


def figure(document: Document) -> Figure:
    """Reward and success, against rounds and against rows."""
    title = "Samplers that are cut short: reward and success"
    drawn, grid = plots.new_panels(title, 2, 2, 9, 6.6, sharey="row")
    found = document["points"]
    colors = colors_of(point["method"] for point in found)
    whole = next(point for point in found if point["rounds"] is None)
    for row, (value, label) in enumerate(
        (("mean_max_reward", "mean max reward"), ("success_rate", "success, share of episodes"))
    ):
        for column, effort in enumerate(("rounds_mean", "evals_mean")):
            axes = grid[row][column]
            axes.axhline(whole[value], color="#9aa1a9", linewidth=1)
            axes.axhspan(*whole[f"{value}_ci95"], color="#eef0f2")
            for method in dict.fromkeys(p["method"] for p in found if p is not whole):
                curve = [point for point in found if point["method"] == method]
                low, high = np.transpose([point[f"{value}_ci95"] for point in curve])
                middle = np.array([point[value] for point in curve])
                axes.errorbar(
                    [point[effort] for point in curve],
                    middle,
                    yerr=(np.maximum(middle - low, 0), np.maximum(high - middle, 0)),
                    fmt="o-",
                    markersize=3,
                    linewidth=1.3,
                    elinewidth=0.6,
                    color=colors[method],
                    label=method,
                )
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set(ylabel=label if column == 0 else "", ylim=(0, 1.02))
            if row:
                axes.set(xlabel=("rounds a chunk", "network rows a chunk")[column])
    lines, labels = grid[0][0].get_legend_handles_labels()
    drawn.legend(lines, labels, loc="outside lower center", ncols=7)
    return drawn


if __name__ == "__main__":
    main(Options, measure, figure)
