"""Observations that a policy saw, from the messages of a bag: the node's pipeline, run again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from para_policy.errors import ParaPolicyError
from para_policy.planning.history import ObservationHistory, observation_digest
from para_policy.ros.bags.reader import Recorded
from para_policy.ros.bags.records import ChunkRecord
from para_policy.ros.messages.conversions import stamp_to_ns
from para_policy.ros.messages.input_files import PolicyInputs
from para_policy.ros.messages.input_reader import InputReader

Observation = dict[str, NDArray[Any]]
MakeHistory = Callable[[ChunkRecord], ObservationHistory]
"""An empty history under the settings of a chunk."""

_SLACK_NS = 500_000_000
"""The recorder receives messages of different topics in another order than the node did, and by so
much earlier or later at most."""
_STAMPLESS_NS = 50_000_000
"""The same for the time of receipt, which counts for messages without a stamp."""
_RECENT_NS = 3_000_000_000
"""Time before the first chunk of an episode at which its history may begin."""


@dataclass(frozen=True)
class Found:
    """An observation for a chunk.

    Attributes:
        observation: {name: (To, *shape)}; None where the bag has none.
        equal: true where it is what the policy saw, to the bit.
        reason: for which it may be different.
    """

    observation: Observation | None
    equal: bool
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Sample:
    name: str
    stamp_ns: int
    received_ns: int
    value: NDArray[Any]
    late: bool
    stampless: bool


@dataclass
class Observations:
    """The observation of each chunk of one robot, found among the messages of a bag.

    The bag does not say when a chunk was planned, nor when an episode began, at which the node forgets
    what it saw. But each chunk has the digest of its observation: from the first moment on at which
    it can have been planned, the rebuilt one is compared after every message. For the first chunk of
    an episode all moments are tried at which the history may have begun.

    Args:
        topics: full name of the topic of each of `inputs`.
        max_age_s: of observations, where an input gives none.
    """

    inputs: PolicyInputs
    topics: Mapping[str, str]
    max_age_s: float
    make_history: MakeHistory
    _history: ObservationHistory | None = None
    _recent: deque[_Sample] = field(default_factory=deque)
    _newest: dict[str, int] = field(default_factory=dict)
    _readers: dict[str, InputReader] = field(default_factory=dict)
    _found: dict[ChunkRecord, Found] = field(default_factory=dict)

    def find(
        self, messages: Iterable[Recorded], chunks: Sequence[ChunkRecord]
    ) -> Iterator[tuple[ChunkRecord, Found]]:
        """Each of `chunks`, in order, with its observation; memory does not grow with the bag."""
        waiting = deque(chunks)
        for recorded in messages:
            now_ns = recorded.time_ns
            while waiting and self._is_decided(waiting[0], now_ns):
                yield waiting[0], self._answer(waiting.popleft())
            if not waiting:
                return
            self._take(recorded, waiting[0])
            for chunk in waiting:
                if now_ns < chunk.received_ns - round(1e6 * chunk.latency_ms) - _SLACK_NS:
                    break
                self._look(chunk)
        for chunk in waiting:
            yield chunk, self._answer(chunk)

    def _is_decided(self, chunk: ChunkRecord, now_ns: int) -> bool:
        found = self._found.get(chunk)
        return (found is not None and found.equal) or now_ns > chunk.received_ns + _SLACK_NS

    def _answer(self, chunk: ChunkRecord) -> Found:
        """The answer for a chunk that no later message can help."""
        found = self._found.pop(chunk, None)
        if found is not None and found.equal:
            return found
        if chunk.index == 0:
            self._history = next(self._histories(chunk), self._history)
            found = self._found_in(self._history, chunk) or found
        if found is None:
            return Found(None, False, "the bag holds none of its observations")
        return found

    def _take(self, recorded: Recorded, chunk: ChunkRecord) -> None:
        """Do as the node does with a message; `chunk` is the next one."""
        for name, topic in self.topics.items():
            if topic != recorded.topic:
                continue
            shape = self.inputs.shapes[name]
            if name not in self._readers:
                self._readers[name] = InputReader(self.inputs[name], shape, self.max_age_s)
            try:
                read = self._readers[name].read(recorded.message, recorded.time_ns)
                if read is None:
                    continue  # the node passed it over, too
                stamp_ns, value = read
                history = self._history or self.make_history(chunk)
                if history.is_straggler(name, stamp_ns, recorded.time_ns):
                    continue
                history.append(name, stamp_ns, value.reshape(shape))
            except (ParaPolicyError, ValueError):
                continue  # the node refused it, too
            self._history = history
            late = stamp_ns < self._newest.get(name, stamp_ns)
            self._newest[name] = stamp_ns
            header = getattr(recorded.message, "header", None)
            stampless = header is None or not stamp_to_ns(header.stamp)
            received_ns, value = recorded.time_ns, value.reshape(shape)
            self._recent.append(_Sample(name, stamp_ns, received_ns, value, late, stampless))
        while self._recent and self._recent[0].received_ns < recorded.time_ns - _RECENT_NS:
            self._recent.popleft()

    def _look(self, chunk: ChunkRecord) -> None:
        """Compare the observation of `chunk` as it can be made of what was received so far."""
        before = self._found.get(chunk)
        if before is not None and before.equal:
            return
        for history in self._histories(chunk) if chunk.index == 0 else [self._history]:
            found = self._found_in(history, chunk)
            if found is not None:
                self._found[chunk] = found
                if found.equal:
                    self._history = history
                    return

    def _histories(self, chunk: ChunkRecord) -> Iterator[ObservationHistory]:
        """Histories from each message on, the shortest that have all inputs first."""
        samples = list(self._recent)
        for first in reversed(range(len(samples))):
            if {sample.name for sample in samples[first:]} != set(self.inputs):
                continue
            history = self.make_history(chunk)
            for sample in samples[first:]:
                history.append(sample.name, sample.stamp_ns, sample.value)
            yield history

    def _found_in(self, history: ObservationHistory | None, chunk: ChunkRecord) -> Found | None:
        """The observation of `chunk` in a history; None before all inputs have reached its time.

        Without stamps the time to look at is the recorder's time of receipt that was nearest to
        the node's.
        """
        newest_ns = None if history is None else history.newest_common_ns()
        if history is None or newest_ns is None:
            return None
        time_ns = chunk.stamp_ns
        stampless = any(sample.stampless for sample in self._recent)
        if stampless and abs(newest_ns - time_ns) < _STAMPLESS_NS:
            time_ns = newest_ns
        if newest_ns < time_ns:
            return None
        try:
            seen = history.sample(time_ns)
        except ParaPolicyError:
            return None
        if observation_digest(seen) == chunk.observation:
            return Found(seen, equal=True)
        reason = "the bag's messages are not those that the policy saw"
        if stampless:
            reason = "messages have no stamp, and the node received them at another time"
        elif any(sample.late for sample in self._recent):
            reason = "an observation arrived late, and it is not known whether before the planning"
        return Found(seen, equal=False, reason=reason)
