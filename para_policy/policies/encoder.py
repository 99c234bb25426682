"""Encoder: observations in physical units to the condition of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from para_policy.arguments import check_kind
from para_policy.errors import InputError
from para_policy.inference.device import check_weights
from para_policy.networks.vision import VisionEncoder
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer

Observation = Mapping[str, Any]
"""{name: (To, *shape)}, oldest first, or (B, To, *shape). Vectors in physical units; images with
channels first, uint8 or float in [0, 1]."""

_ROUNDING = 1e-3
"""By which floats of pixels may leave [0, 1]: torch scales white to 1.0000004 (`antialias=True`)."""


class Encoder:
    """Checks observations, normalises them and encodes images.

    Args:
        config: which inputs there are.
        normalizers: one for each input.
        vision: encoders of the cameras; None if there are none.
        task: features of the text (width,) that every observation step has at its end; None if there
            is none.

    Attributes:
        config, task: as given.
    """

    def __init__(
        self,
        config: PolicyConfig,
        normalizers: Mapping[str, LinearNormalizer],
        vision: VisionEncoder | None,
        task: Tensor | None = None,
    ) -> None:
        self.config, self._normalizers, self._vision = config, normalizers, vision
        self.task = task
        self._cameras = frozenset(config.cameras)

    @property
    def has_cameras(self) -> bool:
        """Some inputs are images."""
        return self._vision is not None

    def check(self, obs: Observation, *, batched: bool) -> dict[str, np.ndarray]:
        """Return every input as a finite array (B, To, *shape), float32, or uint8 for images.

        Raises:
            InputError: naming the input, what it is and what was expected.
        """
        check_kind("observation", obs, Mapping)
        return {name: self._checked(name, obs, batched) for name in self.config.inputs}

    def _checked(self, name: str, obs: Observation, batched: bool) -> np.ndarray:
        if name not in obs:
            raise InputError(f"observation {name!r} is missing; got {sorted(map(str, obs))}")
        value = _numeric(name, obs[name])
        expected = (self.config.n_obs_steps, *self.config.inputs[name])
        if value.ndim != len(expected) + batched or value.shape[int(batched) :] != expected:
            form = f"(B, {', '.join(map(str, expected))})" if batched else str(expected)
            raise InputError(
                f"observation {name!r} has shape {value.shape}; expected {form}"
                + (", a batch because seed is a sequence" if batched else "")
                + (", channels first" if name in self._cameras else "")
            )
        if name in self._cameras and value.dtype == np.uint8:
            return value if batched else value[None]
        value = value.astype(np.float32, copy=False)
        if not np.isfinite(value).all():
            raise InputError(
                f"observation {name!r} holds NaN or infinity; hold the robot and check the sensor"
            )
        low, high = -_ROUNDING, 1 + _ROUNDING
        if name in self._cameras and value.size and not low <= value.min() <= value.max() <= high:
            raise InputError(
                f"image {name!r} holds values from {value.min():g} to {value.max():g}; expected "
                "uint8, or float in [0, 1]"
            )
        return value if batched else value[None]

    def encode(self, values: Mapping[str, np.ndarray], device: torch.device) -> Tensor:
        """Features of all inputs side by side, observation steps one after another: (B, To * D)."""
        arrays = {name: torch.from_numpy(value).to(device) for name, value in values.items()}
        features = {
            name: self._normalizers[name].normalize(value.flatten(2))
            for name, value in arrays.items()
            if name not in self._cameras
        }
        if self._vision is not None:
            check_weights(self._vision, device)
            batch = next(iter(arrays.values())).shape[:2]
            images = {name: self._pixels(name, arrays[name]) for name in self._cameras}
            with torch.no_grad():
                encoded = self._vision(images)
            features |= {name: value.unflatten(0, batch) for name, value in encoded.items()}
        parts = [features[name] for name in self.config.inputs]
        if self.task is not None:
            parts.append(self.task.expand(*parts[0].shape[:2], -1))
        return torch.cat(parts, dim=-1).flatten(1)

    def _pixels(self, name: str, image: Tensor) -> Tensor:
        image = image.flatten(0, 1)
        unit = image.float() / 255 if image.dtype == torch.uint8 else image
        return self._normalizers[name].normalize_images(unit)


def _numeric(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        # One memory layout: kernels round differently for another one.
        return np.ascontiguousarray(array, array.dtype if array.dtype == np.uint8 else np.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"observation {name!r} is not numeric: {error}") from error
