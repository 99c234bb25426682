"""Samplers as the evaluation names them: a name, and what it takes over from the chunk before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from para_policy import samplers
from para_policy.errors import InputError
from para_policy.policies.policy import DiffusionPolicy
from para_policy.policies.sampler_spec import SamplerSpec, Value, split_samplers
from para_policy.samplers import Sampler
from sim.tasks.episode import Episode
from sim.tasks.rollout import SEQUENTIAL, Control, Start, rollout

OWN_SAMPLE = ("asd",)
"""Samplers that draw from the law of `sequential`, but another sample from the same noise."""
WITHOUT_GUESS = (SEQUENTIAL, *OWN_SAMPLE)
_STARTS: dict[str, Start] = {"": "cold", "+guess": "guess", "+guess+noise": "guess+noise"}
_STARTS_WITHOUT_GUESS: dict[str, Start] = {"": "cold", "+noise": "guess+noise"}
_REDRAWN = "+redrawn"
_PERTURBED = re.compile(r"\+perturbed([^+]*)$")


@dataclass(frozen=True)
class Variant:
    """A sampler and how each chunk of an episode starts; see `rollout` for the starts."""

    name: str
    """As on the command line and in all results."""
    sampler: str
    start: Start
    options: Mapping[str, Value] = field(default_factory=dict)
    control: Control = field(default_factory=Control)
    """What is changed on purpose, to see how much a harmless change changes."""

    @classmethod
    def parse(cls, name: str) -> Variant:
        """Read SPEC, SPEC+guess, SPEC+guess+noise, or SPEC+noise for samplers that take no guess.

        SPEC is a registered sampler with or without options, as for `SamplerSpec.parse`. At the end
        +redrawn and +perturbedSIZE make a control arm, see `Control`.

        Raises:
            InputError: for anything else; lists what is possible.
        """
        text = re.split(r"\+(?!\d)", name)[0]  # a plus before a digit belongs to a number
        suffix = name.removeprefix(text)
        if text.partition(":")[0].strip() not in samplers.names():
            raise InputError(
                f"unknown sampler {name!r}; expected one of {', '.join(samplers.names())}, "
                "with +guess or +guess+noise to start from the last chunk "
                f"(+noise for {' and '.join(WITHOUT_GUESS)})"
            )
        spec = SamplerSpec.parse(text)
        starts = _STARTS_WITHOUT_GUESS if spec.name in WITHOUT_GUESS else _STARTS
        start, control = _control(suffix, name)
        if start not in starts:
            possible = ", ".join(spec.label + known for known in starts)
            raise InputError(
                f"unknown start {start!r} in {name!r}; expected {possible}, "
                f"with {_REDRAWN} or +perturbedSIZE for a control arm"
            )
        return cls(spec.label + suffix, spec.name, starts[start], spec.options, control)

    def make(self, policy: DiffusionPolicy, scheduler: str | None, steps: int | None) -> Sampler:
        """Make the sampler; raises InputError as `DiffusionPolicy.sampler`."""
        return policy.sampler(self.sampler, scheduler=scheduler, steps=steps, **self.options)

    def play(
        self,
        policy: DiffusionPolicy,
        seeds: Sequence[int],
        scheduler: str | None,
        steps: int | None,
        **options: Any,
    ) -> list[Episode]:
        """One episode per seed; further options as for `rollout`."""
        return rollout(
            policy,
            seeds,
            sampler=self.make(policy, scheduler, steps),
            start=self.start,
            control=self.control,
            scheduler=scheduler,
            steps=steps,
            **options,
        )

    @property
    def exact(self) -> str:
        """Name of the sequential run whose chunks have the same joint law and the same noise."""
        start = "+noise" if self.start == "guess+noise" else ""
        return SEQUENTIAL + start + (_REDRAWN if self.control.redraw else "")

    @property
    def approximates(self) -> bool:
        """Whether its samples should equal those of `sequential` with the same noise."""
        return self.sampler not in WITHOUT_GUESS


def variants_of(samplers: str) -> list[Variant]:
    """The variants that `--samplers` names, separated by commas.

    Raises:
        InputError: for none, or one twice; or as `Variant.parse`.
    """
    variants = [Variant.parse(name) for name in split_samplers(samplers)]
    if not variants or len({variant.name for variant in variants}) < len(variants):
        raise InputError(f"--samplers {samplers!r} must name one or more different samplers")
    return variants


def reference_of(names: Sequence[str]) -> str:
    """The run that is compared with no other: a sequential one, or else the first."""
    present = (name for name in (SEQUENTIAL, f"{SEQUENTIAL}+noise") if name in names)
    return next(present, names[0])


def paired_with(names: Sequence[str]) -> dict[str, str]:
    """For each run besides `reference_of` the one that it is compared with.

    That is the sequential run of the same noise scheme where there is one, or else that reference.
    """
    reference = reference_of(names)
    pairs = {}
    for name in names:
        exact = Variant.parse(name).exact
        if name != reference:
            pairs[name] = exact if exact in names and exact != name else reference
    return pairs


def _control(suffix: str, name: str) -> tuple[str, Control]:
    """A suffix without its control arm, and that."""
    size = 0.0
    found = _PERTURBED.search(suffix)
    if found is not None:
        suffix = suffix[: found.start()]
        try:
            size = float(found[1])
        except ValueError:
            size = float("nan")
        if not 0 < size < float("inf"):
            raise InputError(
                f"{found[1]!r} in {name!r} must be a size above 0 in normalised action units, "
                "for example +perturbed1e-2"
            )
    redrawn = suffix.endswith(_REDRAWN)
    return suffix.removesuffix(_REDRAWN), Control(redrawn, size)
