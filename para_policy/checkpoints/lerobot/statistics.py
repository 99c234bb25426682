"""Statistics of a LeRobot policy: two formulas, two places, one pair of scale and offset.

Since LeRobot 0.4 they lie in files beside the weights, which `policy_preprocessor.json` and
`policy_postprocessor.json` name; before, in buffers among the weights.
Source: `lerobot/processor/normalize_processor.py`, and `lerobot/policies/normalize.py` before 0.4.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from para_policy.checkpoints.files import read_json, read_tensors, summarise
from para_policy.checkpoints.lerobot.config import LeRobotPolicy
from para_policy.checkpoints.lerobot.options import (
    Feature,
    FeatureModel,
    Mode,
    Pipeline,
    StrictModel,
)
from para_policy.errors import CheckpointError
from para_policy.policies.normalizer import LinearNormalizer

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
BUFFERS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")

_OLD_EPS = 1e-8
_NAMES: dict[Mode, tuple[str, str]] = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
# Names and devices are the caller's matter here, batches are always there, and a text has no statistics.
_HARMLESS_STEPS = (
    "rename_observations_processor",
    "to_batch_processor",
    "device_processor",
    "tokenizer_processor",
)
_FILE_NAME = re.compile(r"[\w-][\w.-]{0,200}", re.ASCII)
_FIX = "save the policy again with the statistics of the data set that it was trained on"


class _Normalization(StrictModel):
    eps: float = Field(1e-8, ge=1e-12, le=1)
    features: dict[str, FeatureModel]
    norm_map: dict[str, Mode]
    normalize_observation_keys: list[str] | None = None


@dataclass(frozen=True)
class _Source:
    """Where statistics are, and how they were meant.

    Attributes:
        path: of the file, for messages.
        name: of feature and statistic in the file.
        eps: what LeRobot adds to a standard deviation, and has instead of an empty range.
        widened: ranges of inputs are larger by `eps` (before 0.4).
    """

    path: Path
    tensors: Mapping[str, Tensor]
    name: Callable[[str, str], str]
    eps: float
    widened: bool

    def normalizer(self, feature: Feature) -> LinearNormalizer:
        """Scale and offset, (D,) or for images (3,); exact to float32.

        An input that never changed in training is only shifted, to the value that the network
        always saw. LeRobot divides the difference by `eps`: any other value would become huge.
        """
        if feature.mode == "IDENTITY":
            width = feature.shape[0]
            return LinearNormalizer(torch.ones(width), torch.zeros(width))
        first, second = (self._values(feature, name) for name in _NAMES[feature.mode])
        ranged = feature.mode != "MEAN_STD"
        spread = (second - first) / 2 if ranged else second
        if (spread < 0).any():
            raise CheckpointError(
                f"'{self.path}': {_NAMES[feature.mode]} of '{feature.name}' are {first.tolist()} "
                f"and {second.tolist()}; expected a range or deviation of 0 or more: {_FIX}"
            )
        floor = self.eps / 2 if ranged else self.eps
        if feature.kind == "ACTION":
            spread = spread.clamp(min=floor)
        else:
            added = floor if self.widened or not ranged else 0.0
            unresolved = torch.finfo(torch.float32).eps * first.abs()
            constant = (spread == 0) | (spread + added <= unresolved)
            self._check_constant(feature, spread == 0)
            spread = torch.where(constant, 1.0, spread + added)
        scale, offset = (1 / spread).float(), (-first / spread - float(ranged)).float()
        if not (scale.isfinite() & offset.isfinite() & (scale > 0)).all():
            raise CheckpointError(
                f"'{self.path}': statistics of '{feature.name}' are beyond float32: {_FIX}"
            )
        return LinearNormalizer(scale, offset)

    def _check_constant(self, feature: Feature, constant: Tensor) -> None:
        """Raise CheckpointError if the data changed where its deviation or quantiles say otherwise."""
        ends = [self.tensors.get(self.name(feature.name, end)) for end in ("min", "max")]
        if any(end is None or end.numel() != len(constant) for end in ends):
            return  # before 0.4 a file holds what its mode needs
        low, high = (end.double().reshape(-1) for end in ends if end is not None)
        if (wrong := constant & (low < high)).any():
            place = int(wrong.nonzero()[0])
            raise CheckpointError(
                f"'{self.path}': {' and '.join(_NAMES[feature.mode])} of '{feature.name}' say that "
                f"number {place} never changed, min and max that it went from {low[place]:g} to "
                f"{high[place]:g}; LeRobot has trained on it divided by {self.eps:g}, which is noise. Its "
                "float32 loses deviations that are small beside the mean: correct them and train again"
            )

    def _values(self, feature: Feature, statistic: str) -> Tensor:
        """A statistic as float64, (D,), or (3,) for images."""
        key = self.name(feature.name, statistic)
        if key not in self.tensors:
            raise CheckpointError(
                f"'{self.path}' has no '{key}', which '{feature.name}' with mode {feature.mode} "
                f"needs; without statistics actions are meaningless: {_FIX}"
            )
        value, width = self.tensors[key], feature.shape[0]
        shapes = {(width,), (width, 1, 1)} if feature.kind == "VISUAL" else {(width,)}
        if tuple(value.shape) not in shapes:
            raise CheckpointError(
                f"'{self.path}': '{key}' has shape {tuple(value.shape)}, expected {max(shapes)} "
                f"because '{feature.name}' has shape {feature.shape}: {_FIX}"
            )
        if not value.is_floating_point():
            raise CheckpointError(
                f"'{self.path}': '{key}' is {value.dtype}, expected float32; LeRobot cuts statistics to "
                f"whole numbers when an integer passes the processor: {_FIX}"
            )
        value = value.double().reshape(-1)
        if not value.isfinite().all():
            raise CheckpointError(
                f"'{self.path}': '{key}' is {value.tolist()}, expected finite numbers; LeRobot "
                f"leaves infinity where statistics were never filled in: {_FIX}"
            )
        return value


def read_normalizers(
    directory: Path, model: Path, tensors: Mapping[str, Tensor], policy: LeRobotPolicy
) -> dict[str, LinearNormalizer]:
    """Read the normalizers of all inputs and of the action.

    Args:
        model, tensors: the file of weights and what is in it, for the place before 0.4.

    Raises:
        CheckpointError: if statistics are missing, misshapen, not finite, or for another feature,
            or the files say that something else happens to observations or actions.
    """
    features = (*policy.inputs, policy.action)
    if any((directory / name).is_file() for name in (PREPROCESSOR, POSTPROCESSOR)):
        before = _processor(directory / PREPROCESSOR, "normalizer_processor", policy.inputs)
        after = _processor(directory / POSTPROCESSOR, "unnormalizer_processor", (policy.action,))
    elif any(name.startswith(BUFFERS) for name in tensors):
        before = _Source(model, tensors, _buffer("normalize_inputs"), _OLD_EPS, widened=True)
        after = _Source(model, tensors, _buffer("unnormalize_outputs"), _OLD_EPS, widened=True)
    else:
        raise CheckpointError(
            f"'{directory}' has no statistics: neither {PREPROCESSOR} and {POSTPROCESSOR}, nor "
            f"'{BUFFERS[0]}...' in '{model.name}'; {_FIX}"
        )
    return {
        feature.name: (after if feature.kind == "ACTION" else before).normalizer(feature)
        for feature in features
    }


def _buffer(module: str) -> Callable[[str, str], str]:
    # Dots in names of features became underscores, so that names cannot be taken apart again.
    return lambda feature, statistic: f"{module}.buffer_{feature.replace('.', '_')}.{statistic}"


def _processor(path: Path, kind: str, features: tuple[Feature, ...]) -> _Source:
    """The normalisation step of a pipeline, which must be its only one that changes values."""
    content = read_json(path)
    try:
        steps = [step for step in Pipeline.model_validate(content).steps if step.is_on]
        others = [str(step.registry_name) for step in steps if step.registry_name != kind]
        strange = [name for name in others if name not in _HARMLESS_STEPS]
        chosen = [step for step in steps if step.registry_name == kind]
        if strange or len(chosen) != 1:
            raise CheckpointError(
                f"'{path}' has {len(chosen)} steps '{kind}' and the steps {others}; expected one, "
                f"and else only {list(_HARMLESS_STEPS)}, which leave values as they are"
            )
        settings = _Normalization.model_validate(chosen[0].config)
    except ValidationError as error:
        raise CheckpointError(f"'{path}': {summarise(error)}; copy the checkpoint again") from error
    for feature in features:
        _check_agreement(path, settings, feature)
    name = chosen[0].state_file
    if name is None:
        raise CheckpointError(f"'{path}': step '{kind}' names no state_file: {_FIX}")
    if not _FILE_NAME.fullmatch(name):
        raise CheckpointError(
            f"'{path}' names the state file '{name}'; expected the name of a file beside it"
        )
    state = path.with_name(name)
    tensors = read_tensors(state, finite=False)  # unused ones may be infinite
    rounded = {value.dtype for value in tensors.values()} & {torch.bfloat16, torch.float16}
    if rounded:
        warnings.warn(
            f"'{state}' holds statistics in {rounded.pop()}: LeRobot rounds them when a value of that "
            "kind passes the processor, and then saves them so. They may be 0.4 % off those of the "
            "training: save the policy again with the statistics of the data set",
            stacklevel=3,
        )
    return _Source(state, tensors, lambda f, s: f"{f}.{s}", settings.eps, widened=False)


def _check_agreement(path: Path, settings: _Normalization, feature: Feature) -> None:
    """LeRobot follows the pipeline's own settings, which config.json must not contradict."""
    given = settings.features.get(feature.name)
    if given is None or (given.type, tuple(given.shape)) != (feature.kind, feature.shape):
        said = "nothing" if given is None else f"{given.type} {tuple(given.shape)}"
        raise CheckpointError(
            f"'{path}' says {said} of '{feature.name}', config.json {feature.kind} "
            f"{feature.shape}; they belong to different policies: copy the checkpoint again"
        )
    chosen, keys = (
        settings.norm_map.get(feature.kind, "IDENTITY"),
        settings.normalize_observation_keys,
    )
    if keys is not None and feature.kind != "ACTION" and feature.name not in keys:
        chosen = "IDENTITY"
    if chosen != feature.mode:
        raise CheckpointError(
            f"'{path}' normalises '{feature.name}' with {chosen}, config.json says {feature.mode}; "
            "make both say how the policy was trained"
        )
