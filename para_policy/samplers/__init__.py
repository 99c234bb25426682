"""Samplers: `sequential`, and parallel solvers of the same recurrence built from small parts."""

from para_policy.samplers.base import Callback as Callback
from para_policy.samplers.base import RoundInfo as RoundInfo
from para_policy.samplers.base import Sampler as Sampler
from para_policy.samplers.base import SampleResult as SampleResult
from para_policy.samplers.base import Status as Status
from para_policy.samplers.fixed_point import FixedPoint as FixedPoint
from para_policy.samplers.presets import get as get
from para_policy.samplers.presets import names as names
from para_policy.samplers.sequential import Sequential as Sequential
