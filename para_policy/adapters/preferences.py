"""Preferences of a user for policies that accelerate by themselves: from the environment, or from
beside the weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from para_policy import samplers
from para_policy.checkpoints.files import read_json, summarise
from para_policy.errors import InputError
from para_policy.files import write_text
from para_policy.inference.config import Precision

VARIABLE = "PARA_POLICY"
FILE = "para_policy.json"

_OFF = {"off", "0", "no", "false"}
_ON = {"", "on", "1", "yes", "true"}


class Preferences(BaseModel):
    """How a policy is accelerated.

    Attributes:
        sampler: a name from `samplers.names()`, or "auto".
        tolerance: of the sampler, normalised action units.
        engine, precision, deadline_s: as for `accelerate`.
        record: file that the record of the run is written to; None for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: str = "auto"
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    engine: str = "eager"
    precision: Precision = "float32"
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    record: Path | None = None

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        known = ["auto", *samplers.names()]
        if name not in known:
            raise ValueError(f"expected one of {', '.join(known)}")
        return name

    @property
    def allowed(self) -> float:
        """Largest error that the first call may show: the tolerance bounds residuals, not errors."""
        return 3 * self.tolerance


def is_off() -> bool:
    """Whether the environment says that policies are left as they are."""
    return os.environ.get(VARIABLE, "").strip().lower() in _OFF


def preferences(directory: Path | None) -> Preferences:
    """What the environment says, before what `para_policy.json` in `directory` says.

    Raises:
        InputError: for settings that there are not, or values that they cannot have.
        CheckpointError: for a file that is no JSON.
    """
    path = None if directory is None else directory / FILE
    in_file = read_json(path) if path is not None and path.is_file() else {}
    _check(in_file, f"'{path}'")
    return _check({**in_file, **_from_environment()}, VARIABLE)


def _from_environment() -> dict[str, Any]:
    text = os.environ.get(VARIABLE, "").strip()
    if text.lower() in _OFF | _ON:
        return {}
    pairs = [entry.partition("=") for entry in text.split(",")]
    wrong = [key for key, sign, _ in pairs if not sign]
    if wrong:
        raise InputError(
            f"{VARIABLE}={text!r}: {wrong[0]!r} sets nothing; expected off, or "
            "NAME=VALUE,..., such as sampler=chord,tolerance=1e-3"
        )
    return {key.strip(): value.strip() for key, _, value in pairs}


def _check(given: Any, where: str) -> Preferences:
    try:
        return Preferences.model_validate(given)
    except ValidationError as error:
        names = ", ".join(Preferences.model_fields)
        raise InputError(f"{where}: {summarise(error)}; settings are {names}") from error


def remember(directory: Path, tolerance: float) -> Path:
    """Note beside the weights that they are calibrated; what else the file says stays. Its path.

    Raises:
        CheckpointError: for a file that is no JSON.
    """
    path = directory / FILE
    said = read_json(path) if path.is_file() else {}
    chosen = {"sampler": "auto", **said, "tolerance": tolerance}
    write_text(path, json.dumps(chosen, indent=2) + "\n")
    return path
