"""Stream of an input as it arrives, and what policy_node would make of it."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from rclpy.node import Node

from para_policy.errors import ParaPolicyError
from para_policy.execution.coordinates import Coordinates
from para_policy.planning.history import ObservationHistory
from para_policy.planning.trained import TrainedScale
from para_policy.ros.doctor.report import Finding, Level, fail, ok, warn
from para_policy.ros.graph import InputSources, publishers, qos_conflicts, type_conflicts
from para_policy.ros.messages.conversions import stamp_to_ns
from para_policy.ros.messages.input_reader import InputReader
from para_policy.ros.messages.inputs import InputMapping
from para_policy.ros.parameters.declare import value

_SLOW = 0.9
"""Of the control rate: timers and this listener jitter."""
_LEAST_WINDOWS, _FEW = 10, 0.1
"""Looks of the policy that tell of a stream, and the part of them in which a message may be lost."""
_SYNCHRONISE = "synchronise the clocks (chrony), or set use_sim_time alike on all nodes"


@dataclass(frozen=True)
class Expected:
    """Demands of policy_node on its inputs, as its parameters; a rate of None is not known."""

    control_rate_hz: float | None
    max_age_s: float
    lockstep: bool
    n_obs_steps: int = 2
    max_future_s: float = 0.005
    spacing_tolerance: float = 0.4
    rival_inputs: str = "hold"


@dataclass(frozen=True)
class _Arrival:
    """Times in nanoseconds; a stamp of None belongs to a message without header.

    Attributes:
        problem: reason why policy_node would refuse it; '': none.
        far: which of its values are far from all demonstrations; '': none.
    """

    received_ns: int
    stamp_ns: int | None
    problem: str
    far: str


class Stream:
    """Subscribes like policy_node and remembers when messages came and what is wrong with them."""

    def __init__(
        self,
        node: Node,
        name: str,
        topic: str,
        mapping: InputMapping,
        shape: tuple[int, ...],
        expected: Expected,
        trained: TrainedScale | None = None,
    ) -> None:
        self._node, self._topic, self._mapping = node, topic, mapping
        self._trained = trained
        self._name, self._shape = name, tuple(shape)
        self._expected = expected
        self._max_age_s = mapping.max_age_s or expected.max_age_s
        self._qos = mapping.qos(lockstep=expected.lockstep)
        self._arrivals: list[_Arrival] = []
        self._sources = InputSources(shared=bool(mapping.joints))
        self._passed_over: list[str] = []
        self._reader = InputReader(mapping, self._shape, self._max_age_s)
        receive = cast(Any, self._receive)  # rclpy types no callback with message info
        node.create_subscription(mapping.message, topic, receive, self._qos)

    def exists(self) -> bool:
        return self._node.count_publishers(self._topic) > 0

    def heard(self) -> int:
        """Messages so far."""
        return len(self._arrivals) + len(self._passed_over)

    def _receive(self, message: Any, info: dict[str, Any]) -> None:
        number = info.get("publication_sequence_number")
        self._sources.heard(self._mapping.parts(message), number, time.monotonic())
        now_ns = int(self._node.get_clock().now().nanoseconds)
        header = getattr(message, "header", None)
        stamp_ns = None if header is None else stamp_to_ns(header.stamp)
        judged = self._judge(message, now_ns)
        if judged is None:
            self._passed_over.append(self._reader.passed_over)
        else:
            self._arrivals.append(_Arrival(now_ns, stamp_ns, *judged))

    def _judge(self, message: Any, now_ns: int) -> tuple[str, str] | None:
        """Reason why policy_node would refuse the message, in its words, and which of its values are far
        from all demonstrations; None: it is passed over."""
        try:
            read = self._reader.read(message, now_ns)
            if read is None:
                return None
            stamp_ns, values = read
            if values.size == math.prod(self._shape):
                values = values.reshape(self._shape)
            history = ObservationHistory(
                {self._name: self._shape}, 1, dt_ns=1, max_gap_ns=1, coordinates=self._coordinates()
            )
            history.append(self._name, stamp_ns, values)
        except ParaPolicyError as error:
            return str(error), ""
        return "", "" if self._trained is None else self._trained.far(values)

    def findings(self) -> Iterator[Finding]:
        """The first fault that keeps the policy from seeing this input, or how well it does."""
        faults = list(self._faults())
        if not faults and not self._expected.lockstep:
            faults = [*(list(self._rate()) or self._spacing()), *self._stamps(), *self._scale()]
        yield from faults or [ok(self._name, self._summary())]

    def _faults(self) -> Iterator[Finding]:
        if not self.exists():
            alike = same_type(self._node, self._mapping.type)
            others = [topic for topic in alike if topic != self._topic]
            advice = "start the driver, remap it, or correct `topic` in the inputs file"
            advice += f"; topics of this type: {', '.join(others)}" if others else ""
            yield fail(self._name, f"nobody publishes {self._topic}", advice)
            return
        types = type_conflicts(self._node, {self._topic: self._mapping.type})
        for conflict in types:
            advice = "correct `type` or `topic` in the inputs file, or the publisher"
            yield fail(self._name, conflict, advice)
        if types:
            return
        conflicts = qos_conflicts(self._node, {self._topic: self._qos})
        for conflict in conflicts:
            found, _, advice = conflict.partition("; ")
            yield fail(self._name, found, advice or "let the publisher offer what is asked for")
        if conflicts:
            return
        if rivalry := self._sources.problem(self._topic, self._publishers(), time.monotonic()):
            hold = self._expected.rival_inputs == "hold"
            advice = "end all but one, or remap them" + ("; until then policy_node holds" * hold)
            yield Finding(self._name, Level.FAIL if hold else Level.WARN, rivalry, advice)
            return
        problems = [arrival.problem for arrival in self._arrivals if arrival.problem]
        if not self._arrivals and self._passed_over:
            found = f"{len(self._passed_over)} messages, all passed over: {self._passed_over[-1]}"
            yield fail(
                self._name, found, "correct `joints` in the inputs file, or start the driver"
            )
        elif not self._arrivals:
            advice = "is the publisher paused? lost images: see `reliable` in docs/ros2.md"
            yield fail(self._name, f"nothing arrived on {self._topic} from {self._names()}", advice)
        elif problems:
            found = f"{len(problems)} of {len(self._arrivals)} messages: {problems[-1]}"
            yield fail(
                self._name, found, "policy_node refuses them: mend the inputs file or sender"
            )

    def _coordinates(self) -> dict[str, Coordinates]:
        return {self._name: self._mapping.coordinates_of(self._shape)}

    def _rate(self) -> Iterator[Finding]:
        wanted_hz, gaps_s = self._expected.control_rate_hz, self._gaps_s()
        if not gaps_s:
            found = f"one message only on {self._topic}"
            yield warn(self._name, found, "listen for longer with --seconds")
            return
        rate_hz = 1 / max(statistics.median(gaps_s), 1e-6)
        if max(gaps_s) > self._max_age_s:
            found = f"silent for up to {max(gaps_s):.2f} s; policy_node holds after {self._max_age_s:g} s"
            yield warn(self._name, found, "publish steadily, or raise max_age_s in the inputs file")
        elif wanted_hz and rate_hz < _SLOW * wanted_hz:
            found = f"{rate_hz:.1f} Hz, control at {wanted_hz:g} Hz: values are seen twice"
            advice = "publish faster, or set `interpolation: linear` (and `coordinates`)"
            yield warn(self._name, found, advice)

    def _spacing(self) -> Iterator[Finding]:
        """What the policy would see after each message, where observations are not mixed."""
        rate_hz, tolerance = self._expected.control_rate_hz, self._expected.spacing_tolerance
        linear = self._mapping.interpolation == "linear"
        mixed = linear and self._coordinates()[self._name].told(math.prod(self._shape)).all()
        if not rate_hz or mixed:
            return
        dt_ns, gap_ns = round(1e9 / rate_hz), math.ceil(1e9 * self._max_age_s)
        history = ObservationHistory({self._name: ()}, self._expected.n_obs_steps, dt_ns, gap_ns)
        seen_ns: list[int] = []
        for arrival in self._arrivals:
            history.append(self._name, arrival.stamp_ns or arrival.received_ns, 0.0)
            seen_ns += history.spacing_ns(history.newest_ns()[self._name]).values()
        uneven = [gap for gap in seen_ns if abs(gap - dt_ns) > tolerance * dt_ns]
        if len(seen_ns) >= _LEAST_WINDOWS and len(uneven) > _FEW * len(seen_ns):
            found = (
                f"{len(uneven)} of {len(seen_ns)} times observations are {min(uneven) / 1e6:.0f} to "
                f"{max(uneven) / 1e6:.0f} ms apart, expected {dt_ns / 1e6:g}"
            )
            yield warn(self._name, found, "publish faster and steadily; are messages lost?")

    def _stamps(self) -> Iterator[Finding]:
        stamps = [arrival.stamp_ns for arrival in self._arrivals if arrival.stamp_ns is not None]
        if not stamps:
            return
        if not all(stamps):
            found = "stamps are zero: observations count from their arrival"
            yield warn(self._name, found, "let the driver stamp, or set latency_s for its delay")
        elif len(stamps) > 2 and len(set(stamps)) == 1:
            found = f"all {len(stamps)} messages have the same stamp: they count as one"
            yield fail(self._name, found, "let the driver stamp each message anew")
        else:
            yield from self._age(self._age_s())

    def _age(self, age_s: float) -> Iterator[Finding]:
        limit_s = self._max_age_s
        if age_s > limit_s:
            found = f"stamped {age_s:.3f} s before arrival; policy_node holds beyond {limit_s:g} s"
            yield fail(self._name, found, _SYNCHRONISE)
        elif age_s < -limit_s:
            found = f"stamped {-age_s:.3f} s ahead of this clock: policy_node holds"
            yield fail(self._name, found, _SYNCHRONISE)
        elif age_s < -self._expected.max_future_s and not self._simulated():
            found = (
                f"stamped {-age_s:.3f} s ahead of this clock, max_future_s is "
                f"{self._expected.max_future_s:g}"
            )
            yield warn(self._name, found, _SYNCHRONISE)
        elif age_s > limit_s / 2:
            found = f"stamped {age_s:.3f} s before arrival, over half of the limit of {limit_s:g} s"
            yield warn(self._name, found, "shorten the delay, or raise max_age_s")

    def _scale(self) -> Iterator[Finding]:
        far = [arrival.far for arrival in self._arrivals if arrival.far]
        if 2 * len(far) > len(self._arrivals):
            found, _, advice = far[-1].partition("; ")
            yield warn(self._name, found, advice)

    def _age_s(self) -> float:
        """Of a message when it arrives; the median."""
        latency_ns = round(1e9 * self._mapping.latency_s)
        ages = [a.received_ns - a.stamp_ns + latency_ns for a in self._arrivals if a.stamp_ns]
        return statistics.median(ages) / 1e9

    def _gaps_s(self) -> list[float]:
        times = np.diff([arrival.received_ns for arrival in self._arrivals])
        return [float(gap) / 1e9 for gap in times]

    def _simulated(self) -> bool:
        """Simulated time moves in steps of /clock, and so seems to be behind."""
        return bool(value(self._node, "use_sim_time"))

    def _publishers(self) -> list[str]:
        return publishers(self._node, self._topic)

    def _names(self) -> str:
        return ", ".join(sorted(set(self._publishers())))

    def _summary(self) -> str:
        heard = f"{self._topic} from {self._names()}: {len(self._arrivals)} messages"
        if self._expected.lockstep:
            return f"{heard}, in lockstep"
        age = "no stamps"
        if self._arrivals[0].stamp_ns:
            age = f"{1e3 * self._age_s():.1f} ms old on arrival"
        return f"{heard}, {1 / max(statistics.median(self._gaps_s()), 1e-6):.1f} Hz, {age}"


def same_type(node: Node, kind: str) -> list[str]:
    """Topics that carry messages of a type."""
    return [topic for topic, kinds in node.get_topic_names_and_types() if kind in kinds]
