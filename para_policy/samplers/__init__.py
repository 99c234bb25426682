"""Samplers: `sequential`, and parallel solvers of the same recurrence built from small parts."""

from para_policy.samplers.acceptance import Acceptance as Acceptance
from para_policy.samplers.acceptance import ChangeBelowNoise as ChangeBelowNoise
from para_policy.samplers.acceptance import DefectBelow as DefectBelow
from para_policy.samplers.acceptance import DefectBelowEither as DefectBelowEither
from para_policy.samplers.anderson import TriangularAnderson as TriangularAnderson
from para_policy.samplers.asd import Asd as Asd
from para_policy.samplers.base import Callback as Callback
from para_policy.samplers.base import RoundInfo as RoundInfo
from para_policy.samplers.base import Sampler as Sampler
from para_policy.samplers.base import SampleResult as SampleResult
from para_policy.samplers.base import Status as Status
from para_policy.samplers.fixed_point import FixedPoint as FixedPoint
from para_policy.samplers.guess import CleanSample as CleanSample
from para_policy.samplers.guess import Copy as Copy
from para_policy.samplers.guess import Guess as Guess
from para_policy.samplers.guess import Trajectory as Trajectory
from para_policy.samplers.presets import get as get
from para_policy.samplers.presets import names as names
from para_policy.samplers.presets import options as options
from para_policy.samplers.sequential import Sequential as Sequential
from para_policy.samplers.splitting import Chord as Chord
from para_policy.samplers.splitting import LowRankChord as LowRankChord
from para_policy.samplers.splitting import Propagate as Propagate
from para_policy.samplers.splitting import Scalar as Scalar
from para_policy.samplers.splitting import Splitting as Splitting
