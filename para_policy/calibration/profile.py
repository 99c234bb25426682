"""Profile of a sampler: its work and its errors on the observations of a calibration."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from para_policy.errors import InputError
from para_policy.samplers import ERROR_FLOOR, RoundInfo, SampleResult
from para_policy.samplers.deadline import LatencyTable


@dataclass(frozen=True)
class AfterRound:
    """One round of a sampler, over the samples of a calibration.

    Attributes:
        evals: mean rows of a sample that is still in flight.
        error_p95: of the iterates after it, which a deadline would return; normalised units.
    """

    evals: float
    error_p95: float


@dataclass(frozen=True)
class Variant:
    """A sampler with its options, and what it does on the calibration's observations.

    Attributes:
        sampler, options: as for `samplers.get`.
        rounds, evals: means per sample.
        amplification: error of a sample is at most this times its last correction (or
            `ERROR_FLOOR`): the largest ratio found, so that the bound holds for a new sample of the
            same kind with probability cases / (cases + 1).
        error_p95, error_max: largest coordinate difference to `sequential`, normalised units.
        course: round after round, until every sample was accepted; empty if it was not followed.
    """

    sampler: str
    options: Mapping[str, float | int | None] = field(default_factory=dict)
    rounds: float = 0.0
    evals: float = 0.0
    amplification: float = float("nan")
    error_p95: float = float("nan")
    error_max: float = float("nan")
    course: tuple[AfterRound, ...] = ()

    def seconds(self, latency: LatencyTable) -> float:
        """Expected time of one sample in network calls."""
        return self.rounds * latency.predict(self.evals / self.rounds)

    def recorded(self, sizes: Sequence[int]) -> Variant:
        """The same with the rows of recorded rounds, for what they cost.

        A round was followed with the rows that it asked for, not with its size: that is reckoned to be
        the smallest that no round so far has asked more than, as samples never go back to fewer nodes.

        Args:
            sizes: of a recorded round, increasing; see `Sampler.round_sizes`.
        """
        asked = [after.evals for after in self.course] or [self.evals / self.rounds]
        most = itertools.accumulate(asked, max)
        rows = [next((size for size in sizes if size >= one), sizes[-1]) for one in most]
        mean = float(np.mean(rows[: max(round(self.rounds), 1)]))
        course = [
            replace(after, evals=float(one)) for after, one in zip(self.course, rows, strict=False)
        ]
        return replace(self, evals=self.rounds * mean, course=tuple(course))

    def error_within(self, seconds: float, latency: LatencyTable) -> float:
        """What 95 % of samples are off by at most when they are cut off after so many seconds of
        network calls; infinity where only the end is known, and it comes later."""
        if not self.course:
            return self.error_p95 if self.seconds(latency) <= seconds else float("inf")
        spent, error = 0.0, self.course[0].error_p95  # the first round is always waited for
        for after in self.course:
            spent += latency.predict(after.evals)
            if spent > seconds:
                break
            error = after.error_p95
        return error


class Watch:
    """A callback that follows one batch from round to round.

    Args:
        exact: (batch, *shape) what it should come to.
    """

    def __init__(self, exact: Tensor) -> None:
        self._exact = exact
        self.errors: list[Tensor] = []
        self.evals: list[Tensor] = []

    def __call__(self, info: RoundInfo) -> None:
        self.errors.append(_distance(info.trajectory[:, -1], self._exact))
        self.evals.append(info.evals.cpu())


def assess(
    sampler: str,
    options: Mapping[str, float | int | None],
    results: list[SampleResult],
    references: list[SampleResult],
    watched: Sequence[Watch] = (),
) -> Variant:
    """Summarise what a sampler did on batches that `references` solved sequentially.

    Args:
        watched: callbacks of the solves, for the course.
    """
    if not results:
        raise InputError("no results to assess")
    error = torch.cat(
        [
            _distance(result.sample, exact.sample)
            for result, exact in zip(results, references, strict=True)
        ]
    )
    correction = torch.cat([result.correction.cpu() for result in results])
    rounds = torch.cat([result.rounds for result in results]).double()
    evals = torch.cat([result.evals for result in results]).double()
    return Variant(
        sampler=sampler,
        options=dict(options),
        rounds=float(rounds.mean()),
        evals=float(evals.mean()),
        amplification=float((error / correction.clamp(min=ERROR_FLOOR)).max()),
        error_p95=float(error.quantile(0.95)),
        error_max=float(error.max()),
        course=_course(watched),
    )


def _course(watched: Sequence[Watch]) -> tuple[AfterRound, ...]:
    if not watched:
        return ()
    rounds = max(len(watch.errors) for watch in watched)
    error = torch.cat([_up_to(rounds, watch.errors) for watch in watched], dim=1)
    total = torch.cat([_up_to(rounds, watch.evals) for watch in watched], dim=1).double()
    rows = total.diff(dim=0, prepend=torch.zeros_like(total[:1]))
    in_flight = (rows > 0).sum(dim=1).clamp(min=1)
    evals = rows.sum(dim=1) / in_flight
    return tuple(
        AfterRound(mean, high)
        for mean, high in zip(evals.tolist(), error.quantile(0.95, dim=1).tolist(), strict=True)
    )


def _up_to(rounds: int, values: Sequence[Tensor]) -> Tensor:
    """(rounds, batch): what a batch that ended earlier came to stays."""
    return torch.stack([*values, *[values[-1]] * (rounds - len(values))])


def _distance(sample: Tensor, exact: Tensor) -> Tensor:
    """(batch,) largest coordinate difference."""
    return (sample - exact).flatten(1).abs().amax(dim=1).cpu()
