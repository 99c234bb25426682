"""What one row could know of what a sweep lacks: `python -m benchmarks.samplers.pcm_oracle --help`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.common import Common, Document, circumstances, load, main
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.errors import InputError
from para_policy.policies.policy import DiffusionPolicy
from para_policy.terminal import progress_bars
from para_policy.training.pcm.problem import Problem
from para_policy.training.pcm.sweep import ideal_residual, sweep
from para_policy.training.pcm.trajectories import Trajectories
from sim import plots

_BATCH, _ROWS, _HIDDEN, _EVERY = 32, 13, 256, 100


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """Small networks learn what the residuals of the first sweep lack to land on the solution, from what
    PCM's network sees of a row, and from what other rows know besides. Told is the share of the squared
    error that is left on trajectories which they were not trained on: 1 where they have learnt nothing.
    Every trajectory counts the same.
    """

    data: Path
    """Store that `para-policy trajectories` has made: half of it to learn from, a quarter to tell when to
    stop, a quarter held out, each of demonstrations of its own."""
    updates: int = 3000
    """Steps of Adam, with batches of 256 trajectories."""
    fewer: tuple[int, ...] = ()
    """Also told is what is left, in the mean, when only so many of that half are learnt from."""


def measure(options: Options) -> dict[str, Any]:
    """Share of the squared error left, held out, for each set of inputs and each row."""
    trajectories, policy = Trajectories(options.data), load(options).policy
    if len(trajectories) < 8:
        raise InputError(
            f"'{options.data}' has {len(trajectories)} trajectories; expected at least 8"
        )
    if trajectories.observed < len(trajectories):
        raise InputError(
            f"'{options.data}' has {len(trajectories)} trajectories from {trajectories.observed} "
            "observations; expected each to start from its own: make them with --data"
        )
    facts = trajectories.facts
    problem = trajectories.problem(policy, checkpoint_hash(options.directory))
    known, lacking, at = _data(policy, problem, trajectories)
    sets = {
        "the row": ("row",),
        "the row, its neighbours": ("row", "neighbours"),
        "the row, what all rows say of its error": ("row", "error"),
        "all of these": tuple(known),
    }
    half = len(trajectories) // 2
    for count in options.fewer:
        if not 1 <= count <= half:
            raise InputError(f"--fewer is {count}; half of the trajectories are {half}")
    inputs = {
        label: torch.cat([known[name] for name in names], dim=2) for label, names in sets.items()
    }
    left = {label: _left(options, x, lacking, half).tolist() for label, x in inputs.items()}
    fewer = {
        str(count): {
            label: float(_left(options, x, lacking, count).mean()) for label, x in inputs.items()
        }
        for count in options.fewer
    }
    shown = {key: facts[key] for key in ("scheduler", "steps", "splitting")}
    shown |= {"trajectories": len(trajectories), "updates": options.updates}
    return {
        **circumstances(options, policy),
        **shown,
        "rows": at.tolist(),
        "left": left,
        "fewer": fewer,
    }


@torch.no_grad()
def _data(
    policy: DiffusionPolicy, problem: Problem, trajectories: Trajectories
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Inputs by name (n, rows, width), what the residuals there lack (n, rows, d), and the rows."""
    shape = (policy.config.horizon, policy.config.action_dim)
    process = problem.process.to("cpu", torch.float32)
    # The first row lacks nothing: its state is given.
    at = torch.linspace(1, process.num_steps - 1, _ROWS).round().long().unique()
    propagate = problem.splitting.bind(process, shape)
    found: dict[str, list[Tensor]] = {"row": [], "neighbours": [], "error": [], "lacking": []}
    with progress_bars() as progress:
        parts = torch.arange(len(trajectories)).split(_BATCH)
        for part in progress.track(parts, description="sweeps"):
            noise, condition, iterates, solution = trajectories.batch(part)
            X = iterates[:, 0]
            swept = sweep(policy.network, process, propagate, noise, condition, X, 1)
            residual, E = swept.residual.flatten(2), (swept.X - X).flatten(2)
            ideal = ideal_residual(problem.splitting, process, X, solution).flatten(2)
            states = X.flatten(2)
            # The step without its noise says what the prediction was.
            mean = residual + states[:, 1:] - process.c[:, None] * noise.steps.flatten(2)
            step = torch.eye(len(at)).expand(len(part), -1, -1)
            observed = condition[:, None].expand(-1, len(at), -1)
            around = (residual[:, (at + j).clamp(0, process.num_steps - 1)] for j in (-1, 1))
            found["row"].append(torch.cat([states[:, at], mean[:, at], step, observed], dim=2))
            found["neighbours"].append(torch.cat([*around, residual[:, at]], dim=2))
            found["error"].append(E[:, at])
            found["lacking"].append((ideal - residual)[:, at])
    data = {name: torch.cat(values) for name, values in found.items()}
    return data, data.pop("lacking"), at


def _left(options: Options, inputs: Tensor, lacking: Tensor, count: int) -> Tensor:
    """(rows,) share of the squared error that a network leaves on the held-out quarter, having learnt
    from `count` of the first half, evenly spaced."""
    half, quarter = len(inputs) // 2, len(inputs) // 4
    spread = lacking[:half].square().mean(dim=(0, 2), keepdim=True).sqrt().clamp(min=1e-12)
    wanted = lacking / spread
    # A few trajectories at decisions lack a hundred times as much as the others.
    weight = 1 / wanted.square().mean(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    x = (inputs - inputs[:half].mean(dim=0)) / inputs[:half].std(dim=0).clamp(min=1e-6)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(x.shape[2], _HIDDEN),
        nn.Mish(),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.Mish(),
        nn.Linear(_HIDDEN, wanted.shape[2]),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.updates)

    def error(of: Tensor | slice) -> Tensor:
        return (network(x[of]) - wanted[of]).square() * weight[of]

    least, left = torch.inf, torch.ones(x.shape[1])
    for update in range(options.updates):
        if update % _EVERY == 0:
            with torch.no_grad():
                found = error(slice(half, None)).sum(dim=2)
            if float(found[:quarter].sum()) < least:
                least, left = float(found[:quarter].sum()), found[quarter:].sum(dim=0)
        drawn = torch.randint(count, (min(256, count),))
        loss = error(drawn * half // count).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    held_out = wanted[half + quarter :].square() * weight[half + quarter :]
    return left / held_out.sum(dim=(0, 2))


def figure(document: Document) -> Figure:
    """Share left at each row, a line per set of inputs."""
    drawing, axes = plots.new_figure("What the first sweep lacks, and could be known", height=3.6)
    for label, left in document["left"].items():
        axes.plot(document["rows"], left, "o-", label=label, markersize=3)
    axes.set(xlabel="row", ylabel="share of the squared error left", ylim=(0, None))
    plots.legend_above(axes)
    return drawing


if __name__ == "__main__":
    main(Options, measure, figure)
