"""Whether a robot gives what a policy takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from lerobot.async_inference import helpers

from para_policy.errors import InputError, NonFiniteError


def check_features(specs: Any, config: Any) -> list[str]:
    """What is to be said of the inputs of a robot, in lines.

    Args:
        specs: of the robot, LeRobot's `RemotePolicyConfig`.
        config: of the policy.

    Raises:
        InputError: if inputs are missing, cameras too many, or sizes others. LeRobot would broadcast
            some of these.
    """
    given = {specs.rename_map.get(n, n): feature for n, feature in specs.lerobot_features.items()}
    needed = config.input_features
    missing = sorted(set(needed) - set(given))
    strange = sorted(name for name in set(given) - set(needed) if helpers.is_image_key(name))
    if missing or strange:
        raise InputError(
            f"the robot gives {sorted(given)}, the policy takes {sorted(needed)}: "
            f"{missing or strange} are {'missing' if missing else 'too many'}; give the robot the "
            "cameras that the policy was trained with, under the same names"
        )
    pads = hasattr(config, "max_state_dim")  # fills up whatever is shorter
    return [
        line
        for name, feature in needed.items()
        if helpers.is_image_key(name) or not pads
        for line in _check_shape(name, list(given[name]["shape"]), list(feature.shape))
    ]


def check_finite(raw: Mapping[str, Any]) -> None:
    """Refuse an observation with NaN or infinity: those after it would see it, too.

    Raises:
        NonFiniteError: with the name of the value.
    """
    for name, value in raw.items():
        given = np.asarray(value)
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise NonFiniteError(
                f"the observation {name!r} holds NaN or infinity; check that sensor of the robot"
            )


def _check_shape(name: str, has: list[int], takes: list[int]) -> Iterator[str]:
    """Of one input; images come as height, width and channels, and the policy has channels first."""
    is_image = helpers.is_image_key(name)
    if (has[2:] != takes[:1]) if is_image else (has != takes):
        raise InputError(
            f"the robot gives {name} of shape {has}, the policy takes {takes}; run a checkpoint that was "
            "trained with this robot"
        )
    if is_image and has[0] * takes[2] != has[1] * takes[1]:
        yield (
            f"{name} has {has[0]} x {has[1]} pixels, and is stretched to the {takes[1]} x {takes[2]} of the "
            "policy, as by LeRobot's own server; let the camera give what was recorded"
        )
