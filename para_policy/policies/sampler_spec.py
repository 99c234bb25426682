"""Samplers as command lines name them: `NAME` or `NAME:OPTION=VALUE,OPTION=VALUE`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from benchmarks import peers
from para_policy import samplers
from para_policy.errors import InputError
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers import Sampler

AUTO = "auto"
ANOTHER_SAMPLE = {
    "asd": "another sample: the law of sequential, but another draw from the same noise",
    **peers.ANOTHER_SAMPLE,
}
"""Samplers that do not solve for the sample of `sequential`, and why."""

# Options that a command line cannot spell: tensors, networks, and what belongs to them. The first two
# come from calibration and training; the other options do not depend on them.
_MEASURED = {"matrices": torch.zeros(1, 1, 1), "consistency": lambda share: None}
_NOT_TEXT = (*_MEASURED, "trajectory", "solve_last")

Value = float | int | str | bool | None


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler with options, as it is written: `NAME` or `NAME:OPTION=VALUE,OPTION=VALUE`.

    Values are numbers, true, false or none.

    >>> SamplerSpec.parse("x0:tolerance=3e-3,window=none").options
    {'tolerance': 0.003, 'window': None}
    """

    label: str
    """As written; its name in the report."""
    name: str
    options: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> SamplerSpec:
        """Read one spec and check everything that can be checked without a policy.

        Raises:
            InputError: for unknown samplers or options, malformed options, or values out of range.
        """
        label = "".join(text.split())
        name, colon, rest = label.partition(":")
        known = (*samplers.names(), AUTO, *peers.names())
        if name not in known:
            raise InputError(f"unknown sampler {name!r}; expected one of {', '.join(known)}")
        options: dict[str, Value] = {}
        for part in rest.split(",") if colon else ():
            key, equals, value = part.partition("=")
            if not (key and equals and value):
                raise InputError(
                    f"sampler {label!r} has {part!r} where OPTION=VALUE was expected, "
                    "as in paradigms:window=10,tolerance=0.05"
                )
            if key in options:
                raise InputError(f"sampler {label!r} has option {key!r} twice; give it once")
            options[key] = _value(value)
        spec = cls(label, name, options)
        spec._check()
        return spec

    @property
    def note(self) -> str | None:
        """Why its difference to the reference is no error, or None where it is one."""
        return ANOTHER_SAMPLE.get(self.name)

    def make(self, policy: DiffusionPolicy, scheduler: str | None, steps: int | None) -> Sampler:
        """Make the sampler, with what the policy's calibration has measured.

        Raises:
            InputError: if it does not fit the process, or a calibration is missing.
        """
        if self.name in peers.names():
            num_steps = policy.process(scheduler, steps).num_steps
            config = policy.config.noise_scheduler
            return peers.get(self.name, config, num_steps, scheduler, **self.options)
        return policy.sampler(self.name, scheduler=scheduler, steps=steps, **self.options)

    def _check(self) -> None:
        allowed = self._allowed()
        unknown = sorted(set(self.options) - set(allowed))
        if unknown:
            raise InputError(
                f"sampler {self.name!r} has no option {unknown}; it takes {list(allowed) or 'none'}"
            )
        if self.name in samplers.names():
            taken = samplers.options(self.name)
            measured = {key: value for key, value in _MEASURED.items() if key in taken}
            samplers.get(self.name, **self.options, **measured)

    def _allowed(self) -> tuple[str, ...]:
        if self.name == AUTO:
            return ()
        if self.name in peers.names():
            return peers.options(self.name)
        return tuple(name for name in samplers.options(self.name) if name not in _NOT_TEXT)


def split_samplers(text: str) -> tuple[str, ...]:
    """Split a list of specs at its commas. A part with `=` belongs to the options before it.

    >>> split_samplers("sequential, chord:tolerance=3e-3,window=none, x0")
    ('sequential', 'chord:tolerance=3e-3,window=none', 'x0')
    """
    parts: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if "=" in part and ":" not in part and parts:
            parts[-1] += f",{part}"
        elif part:
            parts.append(part)
    return tuple(parts)


def _value(text: str) -> Value:
    words: dict[str, Value] = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
