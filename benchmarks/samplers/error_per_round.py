"""Error that is left after each round: `python -m benchmarks.samplers.error_per_round --help`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common import (
    Common,
    Document,
    circumstances,
    colors_of,
    load,
    main,
    take_consistency,
)
from para_policy import Noise
from para_policy.errors import InputError
from para_policy.policies.chain import Chain
from para_policy.policies.policy import DiffusionPolicy
from para_policy.policies.sampler_spec import SamplerSpec, split_samplers
from para_policy.samplers import RoundInfo, Sampler, Sequential
from para_policy.terminal import progress_bars
from sim import plots
from sim.evaluation import tables
from sim.evaluation.statistics import mean_interval

NEAR = 1e-2
"""Normalised action units: the error for which rounds are counted, whatever a sampler accepts."""
ROUNDS = 12
"""Rounds in the table."""
_BATCH = 16


@dataclass(frozen=True)
class Options(Common):
    """Error of the present clean sample after 1, 2, 3 ... rounds, and rounds until acceptance."""

    samplers: str = "paradigms,x0,chord,chord:window=none,lookahead=none"
    """As for `para-policy bench`."""
    models: str = ""
    """PCM weights, as LABEL=DIRECTORY, separated by commas; by default those of the checkpoint."""
    options: str = ""
    """Options to run each of them with, besides none: "blend=weights;blend=features,stiffness=2"."""
    scheduler: str | None = None
    """ddpm, ddim or dpmsolver++; by default the one the policy was trained with."""
    steps: int | None = None
    """Denoising steps; by default all training steps."""
    observations: int = 48
    """Observations per sampler; observation i has noise seed i."""


def measure(options: Options) -> dict[str, Any]:
    """Errors (rounds x observations, summarised), rounds, evals and final errors by sampler."""
    subject = load(options)
    policy, process = subject.policy, subject.policy.process(options.scheduler, options.steps)
    observations = subject.some(0, options.observations)
    batches: list[tuple[dict[str, np.ndarray], Noise, Tensor]] = []
    shape = (policy.config.horizon, policy.config.action_dim)
    for part in np.array_split(np.arange(options.observations), -(-options.observations // _BATCH)):
        obs = {name: values[part] for name, values in observations.items()}
        noise = Noise.from_seeds(part.tolist(), shape, process.num_steps, device=policy.device)
        exact = Sequential()(policy.denoiser(obs), process, noise).sample
        batches.append((obs, noise, exact))
    chain, entries = policy.chain(options.scheduler, options.steps), {}
    runs = list(_runs(options, policy))
    with progress_bars() as progress:
        bar = progress.add_task("error per round", total=len(runs) * len(batches))
        for label, sampler in runs:
            solved = []
            for obs, noise, exact in batches:
                solved.append(_solve(chain, sampler, obs, noise, exact))
                progress.update(bar, advance=1, description=label)
            entries[label] = _summarise(solved)
    kind, steps = chain.key
    return {
        **circumstances(options, policy),
        "scheduler": kind,
        "steps": steps,
        "observations": options.observations,
        "samplers": entries,
    }


def _runs(options: Options, policy: DiffusionPolicy) -> Iterator[tuple[str, Sampler]]:
    """Labels and samplers."""
    for text in split_samplers(options.samplers):
        yield text, SamplerSpec.parse(text).make(policy, options.scheduler, options.steps)
    key = policy.chain(options.scheduler, options.steps).key
    for label, directory in _models(options.models):
        if directory is not None:
            take_consistency(policy, options, directory)
        splittings = [name for *process, name in policy.consistency_models if (*process,) == key]
        variants = ["", *filter(None, options.options.split(";"))]
        for splitting, more in itertools.product(splittings, variants):
            text = ",".join(filter(None, (f"splitting={splitting}", more)))
            spec = SamplerSpec.parse(f"pcm:{text}")
            made = spec.make(policy, options.scheduler, options.steps)
            yield " ".join(filter(None, ("pcm", label, splitting, more))), made


def _models(text: str) -> list[tuple[str, Path | None]]:
    if not text:
        return [("", None)]
    models: list[tuple[str, Path | None]] = []
    for part in text.split(","):
        label, equals, directory = part.partition("=")
        if not (label and equals and Path(directory).is_dir()):
            raise InputError(f"--models has {part!r}; expected LABEL=DIRECTORY of PCM weights")
        models.append((label, Path(directory)))
    return models


def _solve(
    chain: Chain, sampler: Sampler, obs: dict[str, np.ndarray], noise: Noise, exact: Tensor
) -> dict[str, Tensor]:
    """Errors after each round (rounds, batch), rounds, evals and final errors (batch,)."""
    errors: list[Tensor] = []

    def keep(info: RoundInfo) -> None:
        errors.append(_error(info.trajectory[:, -1], exact))

    result = sampler(chain.denoiser(obs), chain.process, noise, callback=keep)
    return {
        "errors": torch.stack(errors),
        "rounds": result.rounds,
        "evals": result.evals,
        "final": _error(result.sample, exact),
        "converged": result.converged,
    }


def _error(sample: Tensor, exact: Tensor) -> Tensor:
    """(batch,) largest coordinate difference, normalised action units."""
    return (sample - exact).flatten(1).abs().amax(dim=1).cpu()


def _summarise(solved: list[dict[str, Tensor]]) -> dict[str, Any]:
    length = max(len(one["errors"]) for one in solved)
    # A batch that is done stays as it is.
    errors = torch.cat(
        [
            torch.cat([e, e[-1:].expand(length - len(e), -1)])
            for e in (one["errors"] for one in solved)
        ],
        dim=1,
    ).double()
    rounds, evals, final, converged = (
        torch.cat([one[key] for one in solved]).double()
        for key in ("rounds", "evals", "final", "converged")
    )
    # Rounds until the error is small and stays so; one that never does has all rounds, and one more.
    far = (errors > NEAR).flip(0).long().cummax(dim=0).values.sum(dim=0).double()
    return {
        "error": {f"p{q}": errors.quantile(q / 100, dim=1).tolist() for q in (50, 95)}
        | {"mean": errors.mean(dim=1).tolist()},
        "rounds_mean": float(rounds.mean()),
        "rounds_ci95": mean_interval(rounds.numpy()),
        "rounds_to_near_mean": float(far.mean() + 1),
        "rounds_to_near_ci95": mean_interval((far + 1).numpy()),
        "rounds_p95": float(rounds.quantile(0.95)),
        "evals_mean": float(evals.mean()),
        "final_p95": float(final.quantile(0.95)),
        "final_max": float(final.max()),
        "converged_rate": float(converged.mean()),
    }


COLUMNS = (
    "sampler",
    *(f"{k}" for k in range(1, 7)),
    f"rounds to {NEAR:g}",
    "rounds (95 %)",
    "evals",
    "final p95 / max",
)


def rows(document: Document) -> list[list[str]]:
    """A row of COLUMNS per sampler: median error after each round, then the whole solve."""
    found = []
    for label, entry in document["samplers"].items():
        median = entry["error"]["p50"]
        after = [f"{median[k]:.2g}" if k < len(median) else "" for k in range(6)]
        near = entry.get("rounds_to_near_mean")  # earlier files do not say
        low, high = entry["rounds_ci95"]
        found.append(
            [
                label,
                *after,
                "" if near is None else f"{near:.1f}",
                f"{entry['rounds_mean']:.1f} [{low:.1f}, {high:.1f}]",
                f"{entry['evals_mean']:.0f}",
                f"{entry['final_p95']:.1e} / {entry['final_max']:.1e}",
            ]
        )
    return found


def figure(document: Document) -> Figure:
    """Median error after each round, one line per sampler; of `pcm` only without options."""
    process = f"{document['scheduler'].upper()}, {document['steps']} steps"
    drawing, axes = plots.new_figure(f"Error after each round, {process}", height=3.6)
    shown = [name for name in document["samplers"] if not (name.startswith("pcm") and "=" in name)]
    colors = colors_of(shown)
    for label in shown:
        median = np.maximum(document["samplers"][label]["error"]["p50"][:ROUNDS], 1e-7)
        axes.plot(
            np.arange(1, len(median) + 1),
            median,
            "o-",
            color=colors[label],
            label=label,
            markersize=3,
        )
    axes.axhline(1e-2, color="0.6", linewidth=0.8)
    axes.set(xlabel="round (batched network call)", yscale="log")
    axes.set_ylabel("error to sequential, median,\nnormalised units")
    plots.legend_above(axes)
    return drawing


def measured(options: Options) -> dict[str, Any]:
    """`measure`, with the table on the terminal."""
    document = measure(options)
    print(tables.markdown(COLUMNS, rows(document)))
    return document


if __name__ == "__main__":
    main(Options, measured, figure)
