"""Whether the messages of a topic can ever be what an input of a policy needs."""

from __future__ import annotations

import math

from para_policy.errors import InputError
from para_policy.ros.messages.conversions import POSE_AXES, joint_fields
from para_policy.ros.messages.inputs import IMAGE_TYPES, InputMapping

_CAMERA = "(3, height, width)"


def check_shape(mapping: InputMapping, shape: tuple[int, ...]) -> None:
    """Refuse a mapping that can never feed an input, or a part of one, of this shape.

    Raises:
        InputError: with what it gives and what such an input needs.
    """
    camera, crop = len(shape) == 3 and shape[0] == 3, mapping.crop
    if mapping.converter.is_image and not camera:
        raise InputError(f"{mapping.type}; images feed inputs of shape {_CAMERA}")
    if camera and not mapping.converter.is_image:
        kinds = " or ".join(IMAGE_TYPES)
        raise InputError(f"{mapping.type}; an input of shape {_CAMERA} expects {kinds}")
    if camera and crop and not mapping.resize and crop[2:] != shape[1:]:
        raise InputError(
            f"crop {list(crop)}, which leaves {crop[2]} x {crop[3]} pixels (height x width); "
            f"expected {shape[1]} x {shape[2]}, or `resize: true`"
        )
    expected = math.prod(shape)
    _check_width(mapping, expected)
    _ = mapping.message  # a type whose package is not installed
    for name in ("scale", "offset"):
        numbers = getattr(mapping, name)
        if isinstance(numbers, tuple) and len(numbers) != expected:
            raise InputError(
                f"{len(numbers)} numbers in {name}; expected one number, or {expected}"
            )
    _ = mapping.coordinates_of(shape)  # refuses places that are none


def _check_width(mapping: InputMapping, expected: int) -> None:
    """Refuse another number of values than an input has."""
    given = mapping.width
    if given is not None and given != expected:
        raise InputError(f"{given} values ({_content(mapping)}); expected {expected}")
    if "axes" in mapping.converter.options and expected % len(POSE_AXES[mapping.axes]):
        raise InputError(
            f"{len(POSE_AXES[mapping.axes])} values for each pose (axes: {mapping.axes}); expected "
            f"{expected} in all"
        )


def _content(mapping: InputMapping) -> str:
    """What the values are, in words."""
    if mapping.joints:
        return f"{', '.join(joint_fields(mapping.options))} of {len(mapping.joints)} joints"
    if "axes" in mapping.converter.options:
        return f"axes: {mapping.axes}"
    if "fields" in mapping.converter.options:
        return f"fields: {', '.join(mapping.fields) or 'all'}"
    return mapping.type
