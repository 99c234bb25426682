"""Whether a robot gives what a policy takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from lerobot.async_inference import helpers
from lerobot.configs.types import FeatureType, PolicyFeature

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
    cameras = {name for name in given if helpers.is_image_key(name)}
    missing = set(needed) - set(given)
    spared = (
        set(filter(helpers.is_image_key, missing)) if cameras and fits_images(config) else set()
    )
    missing, strange = missing - spared, cameras - set(needed)
    if missing or strange:
        raise InputError(
            f"the robot gives {sorted(given)}, the policy takes {sorted(needed)}: "
            f"{sorted(missing or strange)} are {'missing' if missing else 'too many'}; give the robot the "
            "cameras that the policy was trained with, under the same names"
        )
    lines = [f"no camera gives {name}; the policy goes without" for name in sorted(spared)]
    for name, feature in needed.items():
        if name not in spared:
            has, takes = list(given[name]["shape"]), list(feature.shape)
            lines += _check_shape(name, has, takes, config)
    return lines


def fits_images(config: Any) -> bool:
    """Whether a policy brings images to the size of its network itself, as they come.

    So do LeRobot's SmolVLA and the family of pi0: with bars, so that nothing is stretched, and with
    nothing in place of cameras that are not there. The sizes that they declare were those of a data set.
    """
    return hasattr(config, "resize_imgs_with_padding") or hasattr(config, "image_resolution")


def image_sizes(robot: Mapping[str, Any], config: Any) -> dict[str, PolicyFeature]:
    """Sizes (channels, height, width) that images are scaled to before the policy gets them.

    Args:
        robot: its features, LeRobot's `lerobot_features`.
        config: of the policy.
    """
    if not fits_images(config):
        return dict(config.image_features)
    return {
        name: PolicyFeature(FeatureType.VISUAL, (channels, height, width))
        for name in filter(helpers.is_image_key, robot)
        for height, width, channels in [robot[name]["shape"]]
    }


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


def _check_shape(name: str, has: list[int], takes: list[int], config: Any) -> Iterator[str]:
    """Of one input; images come as height, width and channels, and the policy has channels first."""
    is_image = helpers.is_image_key(name)
    if not is_image and hasattr(config, "max_state_dim"):  # fills up whatever is shorter
        return
    if (has[2:] != takes[:1]) if is_image else (has != takes):
        raise InputError(
            f"the robot gives {name} of shape {has}, the policy takes {takes}; run a checkpoint that was "
            "trained with this robot"
        )
    if is_image and not fits_images(config) and has[0] * takes[2] != has[1] * takes[1]:
        yield (
            f"{name} has {has[0]} x {has[1]} pixels, and is stretched to the {takes[1]} x {takes[2]} of the "
            "policy, as by LeRobot's own server; let the camera give what was recorded"
        )
