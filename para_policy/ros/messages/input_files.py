"""Mapping of topics to all inputs of a policy: the YAML file behind `inputs_file`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from para_policy.checkpoints.files import summarise
from para_policy.errors import InputError
from para_policy.ros.messages.fitting import check_shape
from para_policy.ros.messages.inputs import InputMapping
from para_policy.strict_yaml import read_yaml

Shape = tuple[int, ...]
Parts = Annotated[tuple[InputMapping, ...], Field(min_length=1)]
InputForm = Annotated[
    # The usual form has no name, so that errors name the place in the file and nothing else.
    Annotated[InputMapping, Tag("")] | Annotated[Parts, Tag("parts")],
    Discriminator(lambda given: "parts" if isinstance(given, list | tuple) else ""),
]
"""One input as it stands in the file: a topic, or a list of topics whose values follow each other."""
InputForms = Mapping[str, InputMapping | tuple[InputMapping, ...]]


class _InputsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: dict[str, InputForm] = Field(min_length=1)


@dataclass(frozen=True)
class PolicyInputs(Mapping[str, InputMapping]):
    """Topics that feed a policy, by the name of the input, or "NAME[0]", "NAME[1]" ... for its parts.

    Attributes:
        forms: as they stand in the file.
        mappings: what this mapping holds.
        shapes: of what each topic gives.
        parts: names of the parts, in order, of each input that is put together from several topics.
    """

    forms: InputForms = field(default_factory=dict)
    mappings: Mapping[str, InputMapping] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> InputMapping:
        return self.mappings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.mappings)

    def __len__(self) -> int:
        return len(self.mappings)


def topics_of(forms: InputForms) -> dict[str, InputMapping]:
    """The topics of all inputs and parts, by the names that `PolicyInputs` has for them."""
    return {
        name: mapping
        for whole, form in forms.items()
        for name, mapping in zip(_names(whole, form), _parts(form), strict=True)
    }


def read_inputs(path: str | Path) -> dict[str, InputMapping | tuple[InputMapping, ...]]:
    """Read a file, without a policy to check it against.

    Raises:
        InputError: when the file is missing or not valid.
    """
    try:
        content = read_yaml(Path(path).read_text())
        return dict(_InputsFile.model_validate(content).inputs)
    except OSError as error:
        raise InputError(f"cannot read inputs_file '{path}': {error.strerror}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"inputs_file '{path}' is not valid YAML: {reason}") from error
    except ValidationError as error:
        raise InputError(f"inputs_file '{path}': {summarise(error, 'file')}") from error


def load_inputs(path: str | Path, shapes: Mapping[str, Shape]) -> PolicyInputs:
    """Read the file and check that it feeds exactly the policy's inputs, as far as it tells.

    Args:
        shapes: the inputs of the policy.
    Raises:
        InputError: when the file is missing or not valid, its inputs are not the policy's, or a
            topic can never give what an input needs.
    """
    forms = read_inputs(path)
    try:
        return policy_inputs(forms, shapes)
    except InputError as error:
        raise InputError(f"inputs_file '{path}' {error}") from error


def policy_inputs(forms: InputForms, shapes: Mapping[str, Shape]) -> PolicyInputs:
    """What feeds a policy whose inputs have these shapes.

    Raises:
        InputError: when `forms` are not the policy's inputs, or can never give what they need.
    """
    if set(forms) != set(shapes):
        raise InputError(f"maps {sorted(forms)}; the policy needs {sorted(shapes)}")
    _check_types(forms)
    found: dict[str, Shape] = {}
    for name, form in forms.items():
        whole = tuple(shapes[name])
        mappings, names = _parts(form), _names(name, form)
        try:
            of_parts = [whole] if isinstance(form, InputMapping) else _shapes(mappings, whole)
            for part, mapping, shape in zip(names, mappings, of_parts, strict=True):
                place = "" if part == name else f"{part}: "
                _check(mapping, shape, place)
                found[part] = shape
        except InputError as error:
            raise InputError(f"feeds {name!r} of shape {whole} with {error}") from error
    parts = {n: _names(n, form) for n, form in forms.items() if not isinstance(form, InputMapping)}
    return PolicyInputs(forms, topics_of(forms), found, parts)


def _check_types(forms: InputForms) -> None:
    """A topic has one type: with another one nothing would ever arrive."""
    types: dict[str, str] = {}
    for name, mapping in topics_of(forms).items():
        known = types.setdefault(mapping.topic, mapping.type)
        if known != mapping.type:
            raise InputError(
                f"expects {mapping.type} for {name!r} on topic {mapping.topic}, from which another "
                f"input takes {known}; expected one type for each topic"
            )


def _check(mapping: InputMapping, shape: Shape, place: str) -> None:
    try:
        check_shape(mapping, shape)
    except InputError as error:
        raise InputError(f"{place}{error}") from error


def _parts(form: InputMapping | tuple[InputMapping, ...]) -> tuple[InputMapping, ...]:
    return (form,) if isinstance(form, InputMapping) else form


def _names(name: str, form: InputMapping | tuple[InputMapping, ...]) -> tuple[str, ...]:
    if isinstance(form, InputMapping):
        return (name,)
    return tuple(f"{name}[{index}]" for index in range(len(form)))


def _shapes(mappings: tuple[InputMapping, ...], whole: Shape) -> list[Shape]:
    """Shapes of the parts of an input; one whose messages alone tell their size gets the rest."""
    if len(whole) != 1 or any(mapping.converter.is_image for mapping in mappings):
        raise InputError("several topics; expected one topic, as only flat vectors have parts")
    seen: set[tuple[str, str, str]] = set()
    for mapping in mappings:
        fields = mapping.fields or ("position",)
        values = {(mapping.topic, joint, field) for joint in mapping.joints for field in fields}
        if twice := sorted(seen & values):
            topic, joint, field = twice[0]
            raise InputError(f"{field} of {joint} of {topic} more than once; expected it once")
        seen |= values
    expected, widths = math.prod(whole), [mapping.width for mapping in mappings]
    unknown = [index for index, width in enumerate(widths) if width is None]
    if len(unknown) > 1:
        raise InputError(
            f"several topics; parts {unknown} do not tell their size: give them `size`"
        )
    rest = expected - sum(width or 0 for width in widths)
    if rest <= 0 if unknown else rest:
        found = " + ".join("?" if width is None else str(width) for width in widths)
        raise InputError(f"{found} values of {len(widths)} topics; expected {expected}")
    return [(rest if width is None else width,) for width in widths]
