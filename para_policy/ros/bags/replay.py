"""Replay of a run: its chunks from what the policy saw, with the noise that it had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from para_policy.errors import DataError, InputError
from para_policy.planning.history import ObservationHistory
from para_policy.planning.settings import PlannerSettings
from para_policy.policies.sampler_spec import SamplerSpec
from para_policy.ros.bags.observations import Found, Observations
from para_policy.ros.bags.reader import Bag
from para_policy.ros.bags.records import ChunkRecord, Run
from para_policy.ros.bags.rerun import Rerun, Solved
from para_policy.ros.bags.topics import namespace_of
from para_policy.ros.graph import absolute
from para_policy.ros.messages.input_files import PolicyInputs, policy_inputs
from para_policy.ros.messages.settings import RecordedSettings
from para_policy.ros.parameters.policy import PARAMETERS, sampler_options
from para_policy.ros.serving.loading import LoadedPolicy
from para_policy.ros.serving.planner_settings import make_settings

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy


@dataclass(frozen=True)
class Replayed:
    """A recorded chunk, its observation, and what came out this time.

    Attributes:
        again: with the recorded sampler.
        other: with another one; None where none was asked for.
    """

    record: ChunkRecord
    found: Found
    again: Solved
    other: Solved | None


@dataclass
class Replay:
    """Replays the runs of a bag.

    Args:
        settings: all that the bag holds, by id.
        other: a sampler to run beside the recorded one.
    """

    bag: Bag
    settings: Mapping[str, RecordedSettings]
    policy: DiffusionPolicy
    weights_sha256: str
    other: SamplerSpec | None = None
    _planner_settings: dict[str, PlannerSettings] = field(default_factory=dict)

    def chunks(self, run: Run) -> Iterator[Replayed]:
        """Every chunk of a run in its order; streams through the bag.

        Raises:
            DataError: when the inputs of the bag are not those of the policy, or a topic is absent.
        """
        if not run.chunks:
            return
        recorded = self._of(run.chunks[0])
        rerun = Rerun(self.policy)
        other_rerun = None if self.other is None else Rerun(self.policy, self.other)
        topics = self._topics(run, recorded)
        max_age_s = self.planner_settings(run.chunks[0]).max_age_ns / 1e9
        inputs = self._inputs(recorded)
        observations = Observations(inputs, topics, max_age_s, self._history)
        messages = self.bag.messages({topic: inputs[name].type for name, topic in topics.items()})
        for record, found in observations.find(messages, run.chunks):
            if found.observation is None:
                rerun.skip()
                yield Replayed(record, found, Solved(None, reason=found.reason), None)
                continue
            settings = self.planner_settings(record)
            again = rerun.solve(record, settings, found.observation)
            other = other_rerun.solve(record, settings, found.observation) if other_rerun else None
            yield Replayed(record, found, again, other)

    def planner_settings(self, record: ChunkRecord) -> PlannerSettings:
        """The settings in force when a chunk was planned."""
        if record.settings not in self._planner_settings:
            recorded = self._of(record)
            values = {p.name: p.default for p in PARAMETERS} | recorded.values
            loaded = LoadedPolicy(self.policy, self.weights_sha256, self._inputs(recorded))
            made = make_settings(loaded, _resolved(self.policy, values, recorded))
            self._planner_settings[record.settings] = made
        return self._planner_settings[record.settings]

    def _of(self, record: ChunkRecord) -> RecordedSettings:
        if record.settings not in self.settings:
            raise DataError(
                f"chunk {record.index} was made under settings {record.settings}, which the bag "
                f"lacks (there: {', '.join(self.settings)}); record ~/settings from the start"
            )
        return self.settings[record.settings]

    def _inputs(self, recorded: RecordedSettings) -> PolicyInputs:
        try:
            return policy_inputs(recorded.inputs, self.policy.config.inputs)
        except InputError as error:
            raise DataError(f"the bag {error}; give the checkpoint that was recorded") from error

    def _topics(self, run: Run, recorded: RecordedSettings) -> dict[str, str]:
        namespace = namespace_of(run.node)
        topics = recorded.topics.get(namespace) or {
            name: absolute(namespace, mapping.topic)
            for name, mapping in self._inputs(recorded).items()
        }
        kinds = {topic: self._inputs(recorded)[name].type for name, topic in topics.items()}
        absent = [
            f"{topic} ({kind})"
            for topic, kind in sorted(kinds.items())
            if kind not in self.bag.topics.get(topic, ())
        ]
        if absent:
            raise DataError(f"the bag lacks {', '.join(absent)}, which the policy saw")
        return topics

    def _history(self, record: ChunkRecord) -> ObservationHistory:
        settings = self.planner_settings(record)
        return ObservationHistory(
            settings.streams(self.policy.config.inputs),
            self.policy.config.n_obs_steps,
            settings.dt_ns,
            max_gap_ns=settings.max_age_ns,
            max_gaps_ns=settings.max_ages_ns,
            linear=settings.linear,
            coordinates=settings.coordinates,
            parts=settings.parts,
        )


def _resolved(
    policy: DiffusionPolicy, values: Mapping[str, Any], recorded: RecordedSettings
) -> dict[str, Any]:
    """Sampler "auto" stands for what it was on the machine of the recording."""
    if not recorded.auto:
        return dict(values)
    name, options = recorded.auto["sampler"], recorded.auto["options"]
    calibration = policy.chain(values["scheduler"] or None, values["steps"] or None).calibration
    if calibration is not None:  # without one the sampler is refused, whatever it is given
        options = {**options, **calibration.understood(name, sampler_options(values))}
    text = yaml.dump(options)
    return {**values, "sampler": name, "sampler_options": text, "tolerance": 0.0}
