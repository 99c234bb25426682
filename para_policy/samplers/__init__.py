"""Samplers: `sequential`, and parallel solvers of the same recurrence built from small parts."""

from __future__ import annotations

import warnings
from typing import Any

from para_policy.samplers.acceptance import Acceptance as Acceptance
from para_policy.samplers.acceptance import CorrectionBelowNoise as CorrectionBelowNoise
from para_policy.samplers.acceptance import ResidualBelow as ResidualBelow
from para_policy.samplers.acceptance import ResidualBelowEither as ResidualBelowEither
from para_policy.samplers.anderson import TriangularAnderson as TriangularAnderson
from para_policy.samplers.asd import Asd as Asd
from para_policy.samplers.certificate import ERROR_FLOOR as ERROR_FLOOR
from para_policy.samplers.certificate import Certificate as Certificate
from para_policy.samplers.collocation import Collocation as Collocation
from para_policy.samplers.deadline import Deadline as Deadline
from para_policy.samplers.deadline import LatencyTable as LatencyTable
from para_policy.samplers.draft import Consistency as Consistency
from para_policy.samplers.draft import Draft as Draft
from para_policy.samplers.fixed_point import FixedPoint as FixedPoint
from para_policy.samplers.foreign import as_sampler as as_sampler
from para_policy.samplers.guess import Copy as Copy
from para_policy.samplers.guess import FromCleanSample as FromCleanSample
from para_policy.samplers.guess import Guess as Guess
from para_policy.samplers.guess import LinearGuess as LinearGuess
from para_policy.samplers.guess import Prior as Prior
from para_policy.samplers.guess import Trajectory as Trajectory
from para_policy.samplers.nodes import Nodes as Nodes
from para_policy.samplers.registry import SPLITTINGS as SPLITTINGS
from para_policy.samplers.registry import SplittingName as SplittingName
from para_policy.samplers.registry import get as get
from para_policy.samplers.registry import names as names
from para_policy.samplers.registry import options as options
from para_policy.samplers.result import Callback as Callback
from para_policy.samplers.result import Poll as Poll
from para_policy.samplers.result import RoundInfo as RoundInfo
from para_policy.samplers.result import SampleResult as SampleResult
from para_policy.samplers.result import Status as Status
from para_policy.samplers.sampler import Sampler as Sampler
from para_policy.samplers.sequential import Sequential as Sequential
from para_policy.samplers.splitting import Chord as Chord
from para_policy.samplers.splitting import LowRankChord as LowRankChord
from para_policy.samplers.splitting import Propagate as Propagate
from para_policy.samplers.splitting import Scalar as Scalar
from para_policy.samplers.splitting import Splitting as Splitting

_FORMER = {
    "ChangeBelowNoise": "CorrectionBelowNoise",
    "DefectBelow": "ResidualBelow",
    "DefectBelowEither": "ResidualBelowEither",
}


def __getattr__(name: str) -> Any:
    """Names of earlier releases, with a warning."""
    if name == "CleanSample":
        warnings.warn(
            "samplers.CleanSample is now Prior() or FromCleanSample(sample)",
            DeprecationWarning,
            stacklevel=2,
        )
        return lambda sample=None: Prior() if sample is None else FromCleanSample(sample)
    if name in _FORMER:
        warnings.warn(f"samplers.{name} is now {_FORMER[name]}", DeprecationWarning, stacklevel=2)
        return globals()[_FORMER[name]]
    raise AttributeError(f"module 'para_policy.samplers' has no attribute {name!r}")
