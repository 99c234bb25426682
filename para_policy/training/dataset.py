"""Data set of training windows cut from demonstrations, with the original project's padding rules."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.data import Dataset

from para_policy.errors import DataError
from para_policy.policies.config import PolicyConfig
from para_policy.training.demonstrations import Demonstrations


class Columns(BaseModel):
    """A feature that is recorded as it is: some columns of an array (all by default)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    array: str
    columns: tuple[int, ...] | None = None

    def read(self, buffer: Demonstrations, steps: np.ndarray | None = None) -> np.ndarray:
        values = buffer.array(self.array)
        values = values if steps is None else values[steps]
        if values.dtype.kind not in "biuf":
            raise DataError(f"'{buffer.path}': {self.array} holds {values.dtype}; expected numbers")
        flat = values.reshape(len(values), -1).astype(np.float32)
        if self.columns is None:
            return flat
        if not self.columns or min(self.columns) < 0 or max(self.columns) >= flat.shape[1]:
            raise DataError(f"{self.array} has {flat.shape[1]} columns, asked for {self.columns}")
        return flat[:, list(self.columns)]


class RigidPoints(BaseModel):
    """Points fixed to a body, from its recorded planar pose (x, y, angle).

    PushT's published keypoints are listed in another order than the simulator lists them, so a
    policy for the simulator needs them recomputed in the simulator's own order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    array: str
    pose_columns: tuple[int, int, int]
    rigid_points: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)]

    def read(self, buffer: Demonstrations, steps: np.ndarray | None = None) -> np.ndarray:
        pose = Columns(array=self.array, columns=self.pose_columns).read(buffer, steps)
        return self.transform(pose.astype(np.float64)).astype(np.float32)

    def transform(self, pose: np.ndarray) -> np.ndarray:
        """Poses (n, 3) to flattened points (n, 2 * points), in the pose's length unit."""
        cos, sin = np.cos(pose[:, 2, None]), np.sin(pose[:, 2, None])
        px, py = np.asarray(self.rigid_points).T
        x = pose[:, 0, None] + cos * px - sin * py
        y = pose[:, 1, None] + sin * px + cos * py
        return np.stack([x, y], axis=-1).reshape(len(pose), -1)


class Images(BaseModel):
    """Frames of a camera, recorded as (steps, height, width, 3) with values from 0 to 255."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str

    def read(self, buffer: Demonstrations, steps: np.ndarray | None = None) -> np.ndarray:
        """Frames (steps, 3, height, width), uint8: a view, because they fill much memory."""
        frames = buffer.frames(self.image, steps)
        if frames.ndim != 4 or frames.shape[-1] != 3:
            raise DataError(
                f"{self.image} has shape {frames.shape}; expected (steps, height, width, 3)"
            )
        if frames.dtype != np.uint8:  # the original project stores the same numbers as floats
            with np.errstate(invalid="ignore"):
                whole = frames.astype(np.uint8)
            if not np.array_equal(whole, frames):
                raise DataError(
                    f"{self.image} holds {frames.dtype} from {frames.min():g} to "
                    f"{frames.max():g}; expected whole numbers from 0 to 255"
                )
            frames = whole
        return np.moveaxis(frames, -1, 1)


Vector = Columns | RigidPoints
Feature = Vector | Images


def own_names(config: PolicyConfig) -> dict[str, Feature]:
    """Features of a data set that calls every input of the policy by the same name."""
    return {
        name: Images(image=name) if name in config.cameras else Columns(array=name)
        for name in config.inputs
    }


def read_features(
    buffer: Demonstrations,
    observations: Mapping[str, Feature] | None,
    action: Vector,
    config: PolicyConfig,
    steps: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return every input and `action`, checked against the policy's shapes.

    They are float32 (steps, D), cameras uint8 (steps, 3, height, width).

    Args:
        observations: where each input is recorded; None for `own_names`.
        steps: which to read; None for all.

    Raises:
        DataError: if a feature is not described, or its shape differs from the configuration.
    """
    if observations is None:
        observations = own_names(config)
    if set(observations) != set(config.inputs):
        raise DataError(
            f"data.observations describes {sorted(observations)}, "
            f"but policy.inputs are {sorted(config.inputs)}"
        )
    images = {name for name, feature in observations.items() if isinstance(feature, Images)}
    if images != set(config.cameras):
        raise DataError(
            f"data.observations describes {sorted(images)} as images, "
            f"but policy.vision.cameras are {sorted(config.cameras)}"
        )
    features = {name: feature.read(buffer, steps) for name, feature in observations.items()}
    features["action"] = action.read(buffer, steps)
    for name, shape in {**config.inputs, "action": (config.action_dim,)}.items():
        found = features[name].shape[1:]
        if name in images and found != shape:
            raise DataError(f"{name} is {found} in the data, the policy has {shape}")
        if name not in images and found[0] != np.prod(shape):
            raise DataError(
                f"{name} has {found[0]} columns in the data, the policy has {np.prod(shape)}"
            )
    return features


def content_sha256(
    features: Mapping[str, np.ndarray], episode_ends: np.ndarray, cameras: Collection[str]
) -> str:
    """Of demonstrations: where episodes end, and all numbers of `read_features`, wherever they are stored.

    Frames of cameras count by their number and size alone: there may be very many, and decoders of videos
    differ by a little.
    """
    found = hashlib.sha256(episode_ends.tobytes())
    for name in sorted(features):
        values = features[name]
        found.update(f"{name} {values.shape} ".encode())
        if name not in cameras:
            found.update(values.tobytes())
    return found.hexdigest()


def window_starts(lengths: np.ndarray, horizon: int, pad_before: int, pad_after: int) -> np.ndarray:
    """All windows of `horizon` steps: (windows, 2) of episode index and start relative to the episode.

    A window may begin `pad_before` steps before its episode and end `pad_after` steps after it.
    """
    rows = [
        (episode, start)
        for episode, length in enumerate(lengths)
        for start in range(-pad_before, int(length) - horizon + pad_after + 1)
    ]
    return np.asarray(rows, dtype=np.int64).reshape(-1, 2)


def observation_windows(
    buffer: Demonstrations,
    observations: Mapping[str, Feature] | None,
    action: Vector,
    config: PolicyConfig,
    count: int,
    part: tuple[float, float] = (0.0, 1.0),
) -> dict[str, np.ndarray]:
    """Observations {name: (n, To, *shape)} at up to `count` evenly spaced steps.

    Physical units; images uint8.

    Args:
        observations: as `read_features`.
        part: of the steps, where it begins and ends.

    Raises:
        DataError: as `read_features`.
    """
    ends = buffer.episode_ends
    begins = np.concatenate([[0], ends[:-1]])
    begin, end = (int(share * ends[-1]) for share in part)
    most = min(count, max(end - begin, 1))
    now = np.unique(np.linspace(begin, max(begin, end - 1), most).astype(np.int64))
    first = begins[np.searchsorted(ends, now, side="right")]
    past = now[:, None] + np.arange(1 - config.n_obs_steps, 1)
    read, steps = np.unique(np.maximum(past, first[:, None]), return_inverse=True)
    steps = steps.reshape(past.shape)
    features = read_features(buffer, observations, action, config, read)
    return {
        name: features[name][steps].reshape(*steps.shape, *shape)
        for name, shape in config.inputs.items()
    }


class ChunkDataset(Dataset[dict[str, Tensor]]):
    """Windows of every input (To, ...) and `action` (Tp, A).

    Steps outside the episode repeat its first or last step.

    Args:
        features: inputs (steps, ...) by name, and `action` (steps, A), as the training wants them.
        episode_ends: (episodes,) exclusive ends.
        episodes: which episodes to use.
    """

    def __init__(
        self,
        features: dict[str, Tensor],
        episode_ends: np.ndarray,
        episodes: np.ndarray,
        config: PolicyConfig,
    ) -> None:
        begins = np.concatenate([[0], episode_ends[:-1]])[episodes]
        ends = episode_ends[episodes]
        windows = window_starts(
            ends - begins, config.horizon, config.n_obs_steps - 1, config.n_action_steps - 1
        )
        steps = begins[windows[:, :1]] + windows[:, 1:] + np.arange(config.horizon)
        low, high = begins[windows[:, :1]], ends[windows[:, :1]] - 1
        self._steps = torch.from_numpy(np.clip(steps, low, high))
        self._features = features
        self._n_obs_steps = config.n_obs_steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.batch(torch.tensor([index])).items()}

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """Gather many windows at once (B, To, ...) and (B, Tp, A): far faster than one by one."""
        steps = self._steps[indices]
        observed = steps[:, : self._n_obs_steps]
        return {
            name: values[steps if name == "action" else observed]
            for name, values in self._features.items()
        }
