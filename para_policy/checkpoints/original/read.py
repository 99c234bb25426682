"""Reader of `.ckpt` files of the original diffusion_policy project (Chi et al. 2023).

They are pickles of `{"cfg": OmegaConf, "state_dicts": {name: weights}, "pickles": {name: bytes}}`,
written by `BaseWorkspace.save_checkpoint`. The bytes in `pickles` are never unpickled.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from para_policy.checkpoints.changes import read_changed
from para_policy.checkpoints.checkpoint import Checkpoint, match, unwrapped
from para_policy.checkpoints.original.config import convert
from para_policy.checkpoints.original.references import resolve
from para_policy.checkpoints.original.torch_archive import StoredTensor, refusing
from para_policy.checkpoints.original.unpickle import plain, read_pickle
from para_policy.checkpoints.original.vision import Observations
from para_policy.errors import CheckpointError, shown
from para_policy.extras import extra
from para_policy.policies.build import state_shapes
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer

_STATE_DICTS = {"ema": "ema_model", "live": "model"}
_NORMALIZER = "normalizer."
_POSITIONS = "model.pos_emb"
_ENCODER = r"obs_encoder\.obs_nets\.[^.]+\."
_TEMPERATURE = _ENCODER + r"nets\.1\.temperature"
_LEFT_OUT = {
    r"(.*\.)?_dummy_variable": "empty, it only tells the device",
    r"model\.(mask|memory_mask)": "computed from the configuration",
    _ENCODER + r"nets\.1\.pos_[xy]": "computed from the image size",
    _TEMPERATURE: "it is 1",
    _ENCODER + r"(backbone|pool)\..*": "second name of other weights",
}
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_original(
    path: str | Path,
    *,
    trust_pickle: bool = False,
    weights: Literal["live", "ema"] | None = None,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Checkpoint:
    """Read a `.ckpt` file. Actions are called action_0, action_1 and so on.

    Args:
        trust_pickle: unpickle with dill, which runs the code that the file may contain.
        weights: as trained ("live") or averaged ("ema"); None for those that the original project
            evaluates.
        changes: other values of keys of the configuration, such as "policy.n_action_steps", see
            `changes.read_changed`.

    Raises:
        CheckpointError: if the file is damaged, contains code, or holds another policy or one that
            cannot be converted, naming the option or weight.
        MissingPackageError: if `trust_pickle` needs packages that are not installed.

    Warns:
        UserWarning: if code in the file is run, or where results will differ from the original's.
    """
    path = Path(path)
    payload = _trusted(path) if trust_pickle else read_pickle(path)
    if not isinstance(payload, dict) or not {"cfg", "state_dicts"} <= payload.keys():
        raise CheckpointError(
            f"'{path}' is no checkpoint of diffusion_policy: expected a dictionary with 'cfg' and "
            "'state_dicts'"
        )
    config, seen, kind = read_changed(
        path, plain(path, payload["cfg"]), changes, lambda cfg: _understood(path, cfg, weights)
    )
    stored = unwrapped(path, _stored(path, payload["state_dicts"], kind))
    left_out = {name: why for name in stored if (why := why_left_out(name)) is not None}
    _check_temperatures(path, stored)
    found = {name: _read(stored[name]) for name in stored if name not in left_out}
    if _POSITIONS in found and found[_POSITIONS].ndim == 3:
        # A sample that is shorter than what the network was made for takes its first positions.
        found[_POSITIONS] = found[_POSITIONS][:, : config.horizon]
    state, report = match(
        path,
        {name: found[name] for name in found if not name.startswith(_NORMALIZER)},
        state_shapes(config),
        lambda name: _ours(name, seen.names),
    )
    report = dataclasses.replace(report, ignored=left_out)
    return Checkpoint(config, state, _normalizers(path, found, config, seen), report, path)


def _trusted(path: Path) -> Any:
    with extra("convert", "trust_pickle"):
        import dill
        from omegaconf import OmegaConf
    warnings.warn(f"code that '{path}' may contain is run", stacklevel=3)
    try:
        payload = torch.load(path, map_location="cpu", pickle_module=dill, weights_only=False)
        return {**payload, "cfg": OmegaConf.to_container(payload["cfg"], resolve=False)}
    # Unpickling runs whatever the file asks for.
    except Exception as error:
        raise CheckpointError(
            f"'{path}' cannot be unpickled ({type(error).__name__}: {error}); packages that it needs "
            "must be installed"
        ) from error


def _understood(
    path: Path, cfg: Any, weights: Literal["live", "ema"] | None
) -> tuple[PolicyConfig, Observations, str]:
    """What a configuration says: the policy, what it observes, and its weights."""
    with refusing(path):
        cfg = resolve(cfg)
    return *convert(path, cfg), weights or _evaluated(path, cfg)


def _evaluated(path: Path, cfg: Any) -> str:
    training = cfg.get("training") if isinstance(cfg, dict) else None
    use_ema = training.get("use_ema") if isinstance(training, dict) else None
    if not isinstance(use_ema, bool):
        raise CheckpointError(
            f"'{path}': training.use_ema is {use_ema!r}; expected True or False. "
            "Choose the weights with --weights"
        )
    return "ema" if use_ema else "live"


def _stored(path: Path, states: Any, kind: str) -> dict[str, StoredTensor | Tensor]:
    """The tensors of one model."""
    name = _STATE_DICTS[kind]
    if not isinstance(states, dict) or name not in states:
        there = list(states) if isinstance(states, dict) else type(states).__name__
        raise CheckpointError(
            f"'{path}' has no {kind} weights, '{name}', in its state_dicts; there: {shown(there)}"
        )
    state = states[name]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, StoredTensor | Tensor)
        for key, value in state.items()
    ):
        raise CheckpointError(f"'{path}': state_dicts['{name}'] is no dictionary of tensors")
    return state


def _read(tensor: StoredTensor | Tensor) -> Tensor:
    return tensor.read() if isinstance(tensor, StoredTensor) else tensor.detach()


def _check_temperatures(path: Path, stored: Mapping[str, StoredTensor | Tensor]) -> None:
    for name in stored:
        if re.fullmatch(_TEMPERATURE, name) and not (_read(stored[name]) == 1).all():
            raise CheckpointError(
                f"'{path}': '{name}' is not 1; a spatial softmax of another temperature cannot be "
                "converted"
            )


def _ours(name: str, prefixes: Mapping[str, str]) -> str:
    for theirs, ours in {"model.": "", **prefixes}.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def why_left_out(name: str) -> str | None:
    """Why a tensor of the original policy is no weight of our network; None if it is one."""
    return next((why for pattern, why in _LEFT_OUT.items() if re.fullmatch(pattern, name)), None)


def _normalizers(
    path: Path, found: Mapping[str, Tensor], config: PolicyConfig, seen: Observations
) -> dict[str, LinearNormalizer]:
    normalizers = {}
    for name, shape in {**config.inputs, "action": (config.action_dim,)}.items():
        camera = name in config.cameras
        scale, offset = (
            _statistic(path, found, f"{_NORMALIZER}params_dict.{name}.{key}", shape[0], camera)
            for key in ("scale", "offset")
        )
        if (scale == 0).any():
            raise CheckpointError(
                f"'{path}': the scale of {name!r} holds 0; every one needs a range"
            )
        if camera and seen.imagenet_norm:
            mean, std = torch.tensor(_IMAGENET_MEAN), torch.tensor(_IMAGENET_STD)
            scale, offset = scale / std, (offset - mean) / std
        normalizers[name] = LinearNormalizer(scale, offset)
    return normalizers


def _statistic(
    path: Path, found: Mapping[str, Tensor], name: str, width: int, camera: bool
) -> Tensor:
    """One number for each coordinate or channel."""
    if name not in found:
        raise CheckpointError(
            f"'{path}' has no '{name}'; without statistics actions are meaningless"
        )
    value = found[name].float()
    # There, several numbers would be applied along the rows of an image, not to its channels.
    allowed = {(1,)} if camera else {(1,), (width,)}
    if tuple(value.shape) not in allowed:
        raise CheckpointError(
            f"'{path}': '{name}' has shape {tuple(value.shape)}; expected one of {sorted(allowed)}"
        )
    if not torch.isfinite(value).all():
        raise CheckpointError(f"'{path}' holds NaN or infinite values in '{name}'")
    return value.expand(width).clone()
