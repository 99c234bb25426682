"""Inputs of one robot: what they have delivered, and whether it may be planned from."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from para_policy.execution.coordinates import UNKNOWN
from para_policy.planning.history import ObservationHistory
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.stuck import StuckWatch

if TYPE_CHECKING:
    from para_policy.policies import PolicyConfig

_LEADS = 10
"""Observations of an input of which the one farthest ahead of the clock on arrival is told."""


class RobotInputs:
    """The history of all inputs, and what is wrong with them: faulty, missing, stuck or stale.

    Not thread-safe.
    """

    def __init__(self, config: PolicyConfig, settings: PlannerSettings) -> None:
        self._shapes = settings.streams(config.inputs)
        self.history = ObservationHistory(
            self._shapes,
            config.n_obs_steps,
            settings.dt_ns,
            max_gap_ns=settings.max_age_ns,
            max_gaps_ns=settings.max_ages_ns,
            linear=settings.linear,
            coordinates=settings.coordinates,
            parts=settings.parts,
        )
        self._watches = {
            name: StuckWatch(most_s, settings.coordinates.get(name, UNKNOWN))
            for name, most_s in settings.max_unchanged_s.items()
        }
        self._faults: dict[str, str] = {}
        self._leads_ns: dict[str, deque[int]] = {n: deque(maxlen=_LEADS) for n in self._shapes}
        self._passed_over: dict[str, str] = {}

    def clear(self) -> None:
        """Forget everything, as at the start of an episode."""
        self.history.clear()
        self._faults.clear()
        for leads_ns in self._leads_ns.values():
            leads_ns.clear()
        self._passed_over.clear()
        for watch in self._watches.values():
            watch.clear()

    def observe(
        self, name: str, stamp_ns: int, values: NDArray[Any], received_ns: int | None = None
    ) -> None:
        """Add one observation of input `name`, which ends its fault; see `Planner.observe`."""
        shape = self._shapes[name]
        fits = values.size == int(np.prod(shape))
        self.history.append(name, stamp_ns, values.reshape(shape) if fits else values)
        if name in self._watches:
            self._watches[name].seen(stamp_ns, values)
        if received_ns is not None:
            self._leads_ns[name].append(stamp_ns - received_ns)
        self._faults.pop(name, None)
        self._passed_over.pop(name, None)

    def pass_over(self, name: str, reason: str) -> None:
        """A message for input `name` had nothing for it, which matters only if no other one has."""
        self._passed_over.setdefault(name, reason)

    def reject(self, name: str, reason: str) -> None:
        """Count input `name` as faulty until its next good observation."""
        self._faults[name] = reason

    def fault(self, now_ns: int, settings: PlannerSettings) -> str | None:
        """Reason why nothing can be planned from these inputs now; None when all is well."""
        if self._faults:
            return "; ".join(f"{name}: {reason}" for name, reason in sorted(self._faults.items()))
        if missing := self.history.missing():
            return f"no observation yet of {', '.join(map(self._with_reason, missing))}"
        for name, watch in self._watches.items():
            if still_s := watch.stuck_for_s():
                return (
                    f"{name} has not changed for {still_s:.3f} s, the limit is "
                    f"{settings.max_unchanged_s[name]:g} s: the sensor may be frozen"
                )
        if not settings.lockstep and (clock := self._clock_fault(now_ns, settings)):
            return clock
        return self.history.fault(min(self.history.newest_ns().values()))

    def warnings(self, settings: PlannerSettings) -> list[str]:
        """Inputs whose stamps were ahead of the clock on arrival, which no true time can be."""
        if settings.lockstep:
            return []
        leads_ns = {name: max(leads, default=0) for name, leads in self._leads_ns.items()}
        return [
            f"{name} is stamped {lead / 1e9:.3f} s ahead of the clock, max_future_s is "
            f"{settings.max_future_ns / 1e9:g}: synchronise the clocks (chrony)"
            for name, lead in leads_ns.items()
            if lead > settings.max_future_ns
        ]

    def _clock_fault(self, now_ns: int, settings: PlannerSettings) -> str | None:
        """Input whose newest observation is too old, or too far ahead of the clock."""
        for name, stamp_ns in self.history.newest_ns().items():
            limit_ns = settings.max_age_of(name)
            age, limit = (now_ns - stamp_ns) / 1e9, limit_ns / 1e9
            if now_ns - stamp_ns > limit_ns:
                return (
                    f"the newest observation of {self._with_reason(name)} is {age:.3f} s old, the "
                    f"limit is {limit:.3f} s"
                )
            if stamp_ns - now_ns > limit_ns:
                return (
                    f"the newest observation of {name} is stamped {-age:.3f} s ahead of the clock"
                )
        return None

    def _with_reason(self, name: str) -> str:
        """The name of an input, and why messages were passed over since its last observation."""
        reason = self._passed_over.get(name)
        return f"{name} ({reason})" if reason else name
