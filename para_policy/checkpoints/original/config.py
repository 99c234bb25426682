"""Configuration of an original diffusion_policy checkpoint, in our terms.

The classes have the arguments and defaults of the classes in real-stanford/diffusion_policy
(commit 5ba07ac) that hydra builds from `cfg.policy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveInt, ValidationError, model_validator

from para_policy.checkpoints.checkpoint import executed
from para_policy.checkpoints.files import wrong_keys
from para_policy.checkpoints.original.networks import (
    TransformerModel,
    TransformerSize,
    UnetModel,
    UnetSize,
    scheduler,
)
from para_policy.checkpoints.original.options import Options, only
from para_policy.checkpoints.original.vision import (
    HybridOptions,
    ImageOptions,
    LowdimOptions,
    Observations,
)
from para_policy.errors import CheckpointError, shown
from para_policy.networks.config import TransformerConfig, UnetConfig
from para_policy.policies.config import PolicyConfig

_FIX = ". Correct it with para-policy convert --set policy.KEY=VALUE, or --unset policy.KEY"

# `fps` in a configuration is that of the rendered videos, not the rate of control.
_CONTROL_HZ = {
    "PushTImageRunner": 10.0,
    "PushTKeypointsRunner": 10.0,
    "BlockPushLowdimRunner": 10.0,
    "KitchenLowdimRunner": 12.5,
    "RobomimicImageRunner": 20.0,
    "RobomimicLowdimRunner": 20.0,
}


_Conditioned = Annotated[
    bool,
    Field(validate_default=True),
    only(True, "policies that in-paint observations into the sample cannot be converted"),
]


class _Policy(Options):
    """Arguments of any policy; `eta` and what follows are passed to the scheduler's `step`."""

    target: str = Field(alias="_target_")
    noise_scheduler: Annotated[dict[str, Any], AfterValidator(scheduler)]
    horizon: PositiveInt
    n_action_steps: PositiveInt
    n_obs_steps: PositiveInt
    num_inference_steps: PositiveInt | None = None
    eta: Annotated[float, only(0.0, "noise in DDIM is not supported")] = 0.0
    use_clipped_model_output: Annotated[bool, only(False, "it is not supported")] = False

    def observations(self) -> Observations:
        raise NotImplementedError

    def network(self) -> UnetConfig | TransformerConfig:
        raise NotImplementedError

    def chunk(self) -> tuple[int, int]:
        """Actions of a sample, and which of them is the first that is executed."""
        return self.horizon, self.n_obs_steps - 1


class _ChunkPolicy(_Policy):
    """Of the policies that can be trained on no more than the actions that are executed."""

    pred_action_steps_only: bool = False

    def chunk(self) -> tuple[int, int]:
        return (self.n_action_steps, 0) if self.pred_action_steps_only else super().chunk()


class _UnetLowdim(LowdimOptions, _ChunkPolicy):
    model: UnetModel
    obs_as_local_cond: Annotated[bool, only(False, "it is not supported")] = False
    obs_as_global_cond: _Conditioned = False
    oa_step_convention: bool = False

    def network(self) -> UnetConfig:
        return self.model.network()

    def chunk(self) -> tuple[int, int]:
        horizon, first = super().chunk()
        late = not (self.oa_step_convention or self.pred_action_steps_only)
        return horizon, first + late


class _UnetHybridImage(UnetSize, HybridOptions, _Policy):
    obs_as_global_cond: _Conditioned = True


class _UnetImage(UnetSize, ImageOptions, _Policy):
    obs_as_global_cond: _Conditioned = True


class _TransformerLowdim(LowdimOptions, _ChunkPolicy):
    model: TransformerModel
    obs_as_cond: _Conditioned = False

    @model_validator(mode="after")
    def _positions(self) -> _TransformerLowdim:
        steps = self.model.horizon if self.model.n_obs_steps is None else self.model.n_obs_steps
        if steps != self.n_obs_steps:
            raise ValueError(f"model.n_obs_steps {steps} is not n_obs_steps {self.n_obs_steps}")
        _check_positions(self.model.horizon, self.chunk()[0], self.model.causal_attn)
        return self

    def network(self) -> TransformerConfig:
        return self.model.network()


class _TransformerHybridImage(TransformerSize, HybridOptions, _ChunkPolicy):
    obs_as_cond: _Conditioned = True

    @model_validator(mode="after")
    def _positions(self) -> _TransformerHybridImage:
        _check_positions(self.horizon, self.chunk()[0], self.causal_attn)
        return self


def _check_positions(trained: int, horizon: int, causal: bool) -> None:
    """A sample may use the first positions of the network; its causal mask fits all of them only."""
    if trained < horizon or (causal and trained > horizon):
        raise ValueError(
            f"the network has {trained} positions{' and a causal mask' if causal else ''}; a sample "
            f"has {horizon}"
        )


_POLICIES: dict[str, type[_Policy]] = {
    f"diffusion_policy.policy.diffusion_{module}_policy.Diffusion{name}Policy": policy
    for module, name, policy in (
        ("unet_lowdim", "UnetLowdim", _UnetLowdim),
        ("unet_hybrid_image", "UnetHybridImage", _UnetHybridImage),
        ("unet_image", "UnetImage", _UnetImage),
        ("transformer_lowdim", "TransformerLowdim", _TransformerLowdim),
        ("transformer_hybrid_image", "TransformerHybridImage", _TransformerHybridImage),
    )
}


def convert(source: Path, cfg: Any) -> tuple[PolicyConfig, Observations]:
    """Translate a workspace configuration, as plain dictionaries.

    Raises:
        CheckpointError: naming each option that is unknown, contradictory, or cannot be converted.
    """
    options = _at(cfg, "policy")
    target = _at(options, "_target_")
    if target not in _POLICIES:
        raise CheckpointError(
            f"'{source}' holds the policy {target!r}; known are {', '.join(_POLICIES)}"
        )
    try:
        policy = _POLICIES[target].model_validate(options)
        seen = policy.observations()
        return _policy_config(source, policy, seen, _control_hz(cfg)), seen
    except ValidationError as error:
        raise CheckpointError(f"'{source}', policy: {_explain(error)}{_FIX}") from error
    except ValueError as error:
        raise CheckpointError(f"'{source}', policy: {error}{_FIX}") from error


def _policy_config(
    source: Path, policy: _Policy, seen: Observations, control_hz: float | None
) -> PolicyConfig:
    horizon, first = policy.chunk()
    return PolicyConfig(
        inputs=seen.inputs,
        vision=seen.vision,
        action_names=tuple(f"action_{i}" for i in range(seen.action_dim)),
        n_obs_steps=policy.n_obs_steps,
        horizon=horizon,
        n_action_steps=executed(source, policy.n_action_steps, horizon, first),
        first_action=first,
        control_hz=control_hz,
        network=policy.network(),
        noise_scheduler=policy.noise_scheduler,
        num_inference_steps=policy.num_inference_steps,
    )


def _control_hz(cfg: Any) -> float | None:
    runner = str(_at(_at(_at(cfg, "task"), "env_runner"), "_target_"))
    return _CONTROL_HZ.get(runner.rpartition(".")[2])


def _at(options: Any, key: str) -> Any:
    return options.get(key) if isinstance(options, dict) else None


def _explain(error: ValidationError) -> str:
    """One line that names every wrong option and its value."""
    lines = []
    for item in wrong_keys(error):
        name = ".".join(map(str, item["loc"]))
        wrong = (
            f"{name} is {shown(item['input'])}: "
            if item["type"] not in ("missing", "value_error") or name
            else ""
        )
        lines.append(wrong + item["msg"])
    return "; ".join(lines)
