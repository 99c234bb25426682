"""Configurations of schedulers in full, so that two of them can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from para_policy.diffusion.schedulers import build_scheduler, class_name, own_options
from para_policy.errors import InputError


def schedule_of(scheduler: Any) -> dict[str, Any]:
    """The configuration of a diffusers scheduler as a checkpoint stores it, with every option.

    Raises:
        InputError: if it is no diffusers scheduler, or one that a step table cannot represent.
    """
    if not isinstance(getattr(scheduler, "config", None), Mapping):
        raise InputError(
            f"noise_scheduler is a {type(scheduler).__name__}; expected a diffusers scheduler"
        )
    given = own_options(scheduler)
    plain = json.loads(json.dumps(given, default=lambda value: np.asarray(value).tolist()))
    return {"_class_name": class_name(scheduler), **plain}


def same_schedule(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations say the same, where one leaves out what is the default."""
    if one == other:
        return True
    try:
        return schedule_of(build_scheduler(one)) == schedule_of(build_scheduler(other))
    except InputError:
        return False
