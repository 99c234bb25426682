"""Samplers that are replayed wherever that is possible."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

from para_policy.calibration import CalibratedSampler
from para_policy.inference.graphs.recording import Recorder
from para_policy.inference.graphs.replayed import Replayed
from para_policy.samplers import FixedPoint, Sampler, Sequential

_KEPT = 4


class Replays:
    """Turns samplers into replayed ones, the same one each time: recordings last.

    Args:
        recorder: of all of them.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        # The sampler itself is kept, so that no other one gets its id.
        self._made: OrderedDict[int, tuple[Sampler, Sampler]] = OrderedDict()

    def __call__(self, sampler: Sampler) -> Sampler:
        """The sampler, replayed; others than fixed-point ones and `sequential` stay as they are."""
        if id(sampler) not in self._made:
            if len(self._made) == _KEPT:
                self._made.popitem(last=False)
            self._made[id(sampler)] = sampler, self._make(sampler)
        self._made.move_to_end(id(sampler))
        return self._made[id(sampler)][1]

    def _make(self, sampler: Sampler) -> Sampler:
        if isinstance(sampler, CalibratedSampler):
            return dataclasses.replace(sampler, sampler=self._make(sampler.sampler))
        if isinstance(sampler, (FixedPoint, Sequential)):
            return Replayed(sampler, self._recorder)
        return sampler
