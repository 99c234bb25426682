"""Plan of a benchmark: how long each part may take, and how often each case is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch

DEAR_S = 0.5
"""A chunk that takes longer is measured only as often as the time allows."""


class Clock:
    """Seconds that count down: nothing new is begun when they are over.

    Args:
        seconds: from now on; none or less are over at once.
        now: the time, in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._end = now, now() + seconds

    @property
    def left(self) -> float:
        """Seconds, at least 0."""
        return max(self._end - self._now(), 0.0)


class Budget:
    """Seconds, shared out by weight over the parts that are still to come.

    What a part does not use, the later ones have.

    Args:
        seconds: for everything, from now on.
        weights: of the parts; each takes its share once.
        now: the time, in seconds.
    """

    def __init__(
        self,
        seconds: float,
        weights: Mapping[str, float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._weights, self._now = dict(weights), now
        self._clock = Clock(seconds, now)

    def share(self, part: str) -> Clock:
        """The time of this part, which begins now."""
        whole = sum(self._weights.values())
        return Clock(self._clock.left * self._weights.pop(part) / whole, self._now)


def counts(costs: Sequence[float], seconds: float, most: int, least: int = 3) -> list[int]:
    """How often to measure cases of which one measurement takes `costs` seconds.

    Cheap cases come first: all of them equally often, at most `most` times. What they leave is shared
    by the dear ones. Nothing is measured less than `least` times, or less than once where the time
    does not suffice for that.

    >>> counts([0.1, 2.0], seconds=60, most=200)
    [200, 20]
    """
    cheap = [cost for cost in costs if cost <= DEAR_S]
    dear = [cost for cost in costs if cost > DEAR_S]
    least = min(least, most) if least * sum(costs) <= seconds else 1

    def often(group: Sequence[float], time_left: float) -> int:
        return min(max(int(time_left / sum(group)), least), most) if sum(group) else most

    of_cheap = often(cheap, seconds - least * sum(dear))
    of_dear = often(dear, seconds - of_cheap * sum(cheap))
    return [of_cheap if cost <= DEAR_S else min(of_dear, of_cheap) for cost in costs]


def takes_part(count: int, turn: int, turns: int) -> bool:
    """Whether a case that is measured in `count` of `turns` turns, evenly spread, is in this one.

    >>> [takes_part(2, turn, 6) for turn in range(6)]
    [False, False, True, False, False, True]
    """
    return (turn + 1) * count // turns > turn * count // turns


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds from an idle device to an idle device: the one clock of all these measurements."""
    _finish(device)
    start = time.perf_counter()
    call()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
