"""Configuration of a LeRobot policy, as any of its versions writes it, in our terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from para_policy.checkpoints.checkpoint import executed
from para_policy.checkpoints.files import summarise
from para_policy.checkpoints.lerobot.dit import DiTOptions
from para_policy.checkpoints.lerobot.options import (
    ACTION,
    ENVIRONMENT,
    STATE,
    Feature,
    Options2024,
    Options2025,
    Weights,
)
from para_policy.errors import CheckpointError
from para_policy.policies.config import PolicyConfig, TaskConfig

AnyOptions = Options2024 | Options2025 | DiTOptions

_UNDERSTOOD = "LeRobot from May 2024 to 0.6.1"

# Whatever these say, the actions are the same.
_NO_EFFECT = frozenset(
    {
        # Where it ran and was published; the speed of its code.
        "type",
        "device",
        "use_amp",
        "compile_model",
        "compile_mode",
        "push_to_hub",
        "repo_id",
        "private",
        "tags",
        "license",
        "pretrained_path",
        "pretrained_revision",
        # Training. At inference crops are cut from the centre, and weights come from the file.
        "crop_is_random",
        "image_crop_is_random",
        "vision_encoder_lr_multiplier",
        "timestep_sampling_strategy",
        "timestep_sampling_s",
        "timestep_sampling_alpha",
        "timestep_sampling_beta",
        # Said again in policy_preprocessor.json, which LeRobot follows.
        "tokenizer_max_length",
        "tokenizer_padding",
        "tokenizer_padding_side",
        "tokenizer_truncation",
        "pretrained_backbone_weights",
        "drop_n_last_frames",
        "gradient_checkpointing",
        "do_mask_loss_for_padding",
        "optimizer_lr",
        "optimizer_betas",
        "optimizer_eps",
        "optimizer_weight_decay",
        "scheduler_name",
        "scheduler_warmup_steps",
        "ema_update_after_step",
        "ema_min_alpha",
        "ema_max_alpha",
        "ema_inv_gamma",
        "ema_power",
    }
)
_REFUSED = {
    "use_peft": "merge the adapter into the weights and save the policy again",
    "use_ema": "its averaged weights lie in places that no later version knows; train it again",
}


@dataclass(frozen=True)
class LeRobotPolicy:
    """What config.json describes.

    Attributes:
        config: in our terms.
        inputs: in the order of the condition vector.
        options: as in the file; they know the names of the weights.
    """

    config: PolicyConfig
    inputs: tuple[Feature, ...]
    action: Feature
    options: AnyOptions


def read_policy(
    path: Path,
    content: Mapping[str, Any],
    control_hz: float | None,
    weights: Weights = dict,
    task: str | None = None,
) -> LeRobotPolicy:
    """Translate `content` of the config.json at `path`.

    Inputs that no network of this policy type takes, such as a second state, are left out.

    Args:
        weights: reads them; called where only they tell a size.
        task: text for a policy that takes one.

    Raises:
        CheckpointError: for another policy type, unknown or missing keys, wrong types, or what
            cannot work, each with its name.
    """
    layout = _layout(path, content)
    try:
        options = layout.model_validate(dict(content))
        inputs, action = _in_order(path, options)
        config = _translated(path, options, inputs, action, control_hz, weights, task)
    except ValidationError as error:
        raise CheckpointError(
            f"'{path}': {summarise(error)}; it is understood as written by {_UNDERSTOOD}. Correct "
            "it with para-policy convert --set KEY=VALUE, or --unset KEY"
        ) from error
    _check(path, options)
    return LeRobotPolicy(config, inputs, action, options)


def _layout(path: Path, content: Mapping[str, Any]) -> type[AnyOptions]:
    """How the version that wrote it arranges its keys; refuses keys that it does not have."""
    named = "input_features" in content
    kind = content.get("type", "diffusion" if not named else None)
    if kind not in ("diffusion", "multi_task_dit") or "num_train_timesteps" not in content:
        said = repr(content["type"]) if "type" in content else "that is not named"
        raise CheckpointError(
            f"'{path}' describes a policy of type {said}; only LeRobot policies of type 'diffusion' or "
            "'multi_task_dit' can be read, which have the key 'num_train_timesteps'"
        )
    layout: type[AnyOptions] = Options2025 if named else Options2024
    if kind == "multi_task_dit":
        layout = DiTOptions
    unknown = sorted(set(content) - set(layout.model_fields) - _NO_EFFECT - set(_REFUSED))
    if unknown:
        raise CheckpointError(
            f"'{path}' has unknown keys {unknown}; understood are those of {_UNDERSTOOD}. Update "
            "para_policy, or remove the keys if they do not change actions"
        )
    for key, fix in _REFUSED.items():
        if content.get(key):
            raise CheckpointError(f"'{path}' has {key}={content[key]!r}, expected false: {fix}")
    return layout


def _in_order(path: Path, options: AnyOptions) -> tuple[tuple[Feature, ...], Feature]:
    """What goes into the condition of one observation step, and the action."""
    features = options.features()
    state = [f for f in features if f.kind == "STATE" and f.name == STATE]
    cameras = [f for f in features if f.kind == "VISUAL"]
    environment = [f for f in features if f.kind == "ENV" and "ENV" in options.kinds]
    action = [f for f in features if f.kind == "ACTION" and f.name == ACTION]
    found = sorted(f.name for f in features)
    for name, kind, chosen in ((STATE, "STATE", state), (ACTION, "ACTION", action)):
        if not chosen:
            raise CheckpointError(
                f"'{path}' has no feature '{name}' of type {kind}, which every diffusion policy "
                f"of LeRobot has; its features are {found}"
            )
    for feature in environment:
        if feature.name != ENVIRONMENT:
            raise CheckpointError(
                f"'{path}': the feature of type ENV is called '{feature.name}'; LeRobot gives the "
                f"network '{ENVIRONMENT}' only, rename it"
            )
    for feature in [*state, *environment, *action]:
        if len(feature.shape) != 1:
            raise CheckpointError(
                f"'{path}': '{feature.name}' has shape {feature.shape}, expected (width,)"
            )
    for camera in cameras:
        if camera.shape != cameras[0].shape:
            raise CheckpointError(
                f"'{path}': image '{camera.name}' has shape {camera.shape} and "
                f"'{cameras[0].name}' {cameras[0].shape}; LeRobot expects one shape for all"
            )
    return (*state, *cameras, *environment), action[0]


def _translated(
    path: Path,
    options: AnyOptions,
    inputs: tuple[Feature, ...],
    action: Feature,
    control_hz: float | None,
    weights: Weights,
    task: str | None,
) -> PolicyConfig:
    cameras = [feature for feature in inputs if feature.kind == "VISUAL"]
    width = options.hidden_dim if isinstance(options, DiTOptions) else None
    return PolicyConfig(
        inputs={feature.name: feature.shape for feature in inputs},
        vision=options.vision(cameras, weights) if cameras else None,
        task=None if width is None else TaskConfig(text=task or "", width=width),
        action_names=tuple(f"action_{i}" for i in range(action.shape[0])),
        n_obs_steps=options.n_obs_steps,
        horizon=options.horizon,
        n_action_steps=executed(
            path, options.n_action_steps, options.horizon, options.n_obs_steps - 1
        ),
        control_hz=control_hz,
        network=options.network(),
        noise_scheduler=options.scheduler(),
        num_inference_steps=options.num_steps,
    )


def _check(path: Path, options: AnyOptions) -> None:
    if isinstance(options, DiTOptions) and options.flows:
        if options.integration_method != "euler":
            raise CheckpointError(
                f"'{path}' has integration_method {options.integration_method!r}, which asks the network "
                "between its steps, too; only 'euler' can be solved in parallel. Read it with "
                "para-policy convert --set integration_method=euler, and four times as many "
                "num_integration_steps for as many network calls"
            )
        return
    steps, total = options.num_inference_steps, options.num_train_timesteps
    if steps is not None and steps > total:
        raise CheckpointError(
            f"'{path}' has num_inference_steps {steps}; at most num_train_timesteps {total} exist"
        )
