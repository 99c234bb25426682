"""Sampler specifications: samplers as command lines name them.

`NAME` or `NAME:OPTION=VALUE,...` is one of ours; `MODULE:FUNCTION` or `MODULE:FUNCTION:OPTION=VALUE,...`
is made by a function of the user, which is called like `DiffusionPolicy.sampler`:

    def mine(policy: DiffusionPolicy, scheduler: str | None, steps: int | None, **options) -> Sampler
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from para_policy import samplers
from para_policy.arguments import check_kind
from para_policy.errors import InputError
from para_policy.policies.policy import DiffusionPolicy
from para_policy.policies.solvers import AUTO as AUTO
from para_policy.samplers import Nodes, Sampler, as_sampler

ANOTHER_SAMPLE = "another sample: not the one that sequential makes of the same noise"
"""Why the difference to `sequential` is no error of a sampler that has `same_sample = False`."""

# Options that a command line cannot spell: tensors, networks, and what belongs to them. The first three
# come from calibration and training; the other options do not depend on them.
_MEASURED = {
    "matrices": torch.zeros(1, 1, 1),
    "nodes": Nodes(torch.zeros(1, dtype=torch.int64), torch.zeros(1), torch.zeros(1)),
    "consistency": lambda share: None,
}
_NOT_TEXT = (*_MEASURED, "trajectory", "solve_last")

_GIVEN = 3  # arguments of a function besides its options: policy, scheduler, steps
_PEERS = "benchmarks.peers"
_FORMER_NAMES = {
    "diffusers-paradigms": f"{_PEERS}:paradigms",
    "diffusers-ddpm": f"{_PEERS}:ddpm",
    "diffusers-ddim10": f"{_PEERS}:ddim:num_steps=10",
    "diffusers-ddim16": f"{_PEERS}:ddim:num_steps=16",
}

Value = float | int | str | bool | None


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler with options, as it is written: `NAME:OPTION=VALUE,OPTION=VALUE`.

    Values are numbers, true, false or none.

    >>> SamplerSpec.parse("x0:tolerance=3e-3,window=none").options
    {'tolerance': 0.003, 'window': None}
    """

    label: str
    """As written; its name in the report."""
    name: str
    """Of a registered sampler, "auto", or MODULE:FUNCTION."""
    options: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> SamplerSpec:
        """Read a specification and check everything that can be checked without a policy.

        A module is imported; it may be in the working directory, as with `python -m`.

        Raises:
            InputError: for unknown samplers, modules, functions or options, malformed options, or
                values out of range.
        """
        check_kind("sampler", text, str)
        label = "".join(text.split())
        name, rest = _head(_renamed(label))
        spec = cls(label, name, {} if rest is None else parse_options(rest, f"sampler {label!r}"))
        spec._check()
        return spec

    def make(self, policy: DiffusionPolicy, scheduler: str | None, steps: int | None) -> Sampler:
        """Make the sampler, with what the policy's calibration has measured.

        Raises:
            InputError: if it does not fit the process, a calibration is missing, or a function
                returns something else than a sampler.
        """
        if not _is_function(self.name):
            return policy.sampler(self.name, scheduler=scheduler, steps=steps, **self.options)
        made = _function(self.name)(policy, scheduler, steps, **self.options)
        if not callable(made):
            raise InputError(
                f"{self.name} returned an object of type {type(made).__name__}; expected a sampler, "
                "or what is called like one: see docs/extending.md"
            )
        return replace(as_sampler(made), name=self.name)

    def _check(self) -> None:
        if _is_function(self.name):
            _check_call(self.name, self.options)
            return
        taken = () if self.name == AUTO else samplers.options(self.name)
        allowed = [option for option in taken if option not in _NOT_TEXT]
        unknown = sorted(set(self.options) - set(allowed))
        if unknown:
            raise InputError(
                f"sampler {self.name!r} has no option {unknown}; it takes {allowed or 'none'}"
            )
        if self.name != AUTO:
            measured = {key: value for key, value in _MEASURED.items() if key in taken}
            samplers.get(self.name, **self.options, **measured)


def parse_options(text: str, of: str) -> dict[str, Value]:
    """Read `OPTION=VALUE,OPTION=VALUE`; `of` says in errors whose options they are.

    >>> parse_options("window=none,name=top", "sampler 'x'")
    {'window': None, 'name': 'top'}
    """
    options: dict[str, Value] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise InputError(
                f"{of} has {part!r} where OPTION=VALUE was expected, "
                "as in paradigms:window=10,tolerance=0.05"
            )
        if key in options:
            raise InputError(f"{of} has option {key!r} twice; give it once")
        options[key] = _value(value)
    return options


def split_samplers(text: str) -> tuple[str, ...]:
    """Split a list of specifications at its commas. A part with `=` belongs to the options before it.

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


def _renamed(text: str) -> str:
    """`text` with the present name of a sampler that had another one."""
    name, colon, rest = text.partition(":")
    if name not in _FORMER_NAMES:
        return text
    now = _FORMER_NAMES[name]
    warnings.warn(f"sampler {name!r} is now {now!r}", FutureWarning, stacklevel=4)
    return now + (("," if "=" in now else ":") + rest if colon else "")


def _head(text: str) -> tuple[str, str | None]:
    """The name of a sampler, or MODULE:FUNCTION, and what follows its colon."""
    known = (*samplers.names(), AUTO)
    name, colon, rest = text.partition(":")
    if name not in known:
        function, colon, rest = rest.partition(":")
        if not all(part.isidentifier() for part in (*name.split("."), function)):
            raise InputError(
                f"unknown sampler {name!r}; expected one of {', '.join(known)}, or MODULE:FUNCTION"
            )
        name = f"{name}:{function}"
    return name, rest if colon else None


def _is_function(name: str) -> bool:
    return ":" in name


def _function(name: str) -> Callable[..., Sampler]:
    """The function that MODULE:FUNCTION names."""
    module, _, function = name.partition(":")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise InputError(
            f"sampler {name!r}: no module {error.name!r} is installed or in {os.getcwd()}"
            + ("; run in a checkout of para_policy" if module == _PEERS else "")
        ) from error
    if not callable(found):
        raise InputError(f"sampler {name!r}: module {module!r} has no function {function!r}")
    return found


def _check_call(name: str, options: Mapping[str, Value]) -> None:
    signature = inspect.signature(_function(name))
    try:
        signature.bind(*[None] * _GIVEN, **options)
    except TypeError as error:
        known = list(signature.parameters)[_GIVEN:]
        raise InputError(f"sampler {name!r}: {error}; it takes {known or 'none'}") from error


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
