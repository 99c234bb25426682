"""Calling conventions of the policy objects of other projects, recognised by their shape alone.

Read from the sources, none of which is imported: LeRobot's `DiffusionModel` (2024 to 0.6), and the
original diffusion_policy project's U-Net and transformer policies (5ba07ac).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.adapters.call import Call
from para_policy.errors import InputError

METHOD = "conditional_sample"
"""The method that both projects sample with."""


@dataclass(frozen=True)
class Convention:
    """What an object must look like, and how its sampling method is called.

    Attributes:
        title: for error messages.
        owner: attribute of the policy that owns the sampling method; "" for the policy itself.
        network: attribute of the owner, called as `network(x, t, **{condition: ...})`.
        condition: see there.
        needs: further attributes of the owner.
        required, optional: parameters of `conditional_sample`.
        entry: public method that takes one observation.
        read: turns the arguments of `conditional_sample`, after the owner, into a `Call`.
    """

    title: str
    owner: str
    network: str
    condition: str
    needs: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    entry: str
    read: Callable[..., Call]

    def find(self, policy: Any) -> Any:
        """The object that owns the sampling method.

        Raises:
            InputError: what was looked for, and what was found instead.
        """
        owner = getattr(policy, self.owner, None) if self.owner else policy
        place = f"{self.owner}." if self.owner else ""
        if owner is None:
            raise InputError(f"no attribute {self.owner}")
        method = getattr(owner, METHOD, None)
        if method is None:
            raise InputError(f"no method {place}{METHOD}")
        found = tuple(inspect.signature(method).parameters)
        if set(self.required) - set(found) or set(found) - {*self.required, *self.optional}:
            raise InputError(
                f"{place}{METHOD} takes ({', '.join(found)}), "
                f"expected ({', '.join((*self.required, *self.optional))})"
            )
        needed = (self.network, "noise_scheduler", "num_inference_steps", *self.needs)
        missing = [name for name in needed if getattr(owner, name, None) is None]
        if missing:
            raise InputError(f"no attribute {', '.join(place + name for name in missing)}")
        return owner

    def evaluate(self, owner: Any) -> Callable[..., Tensor]:
        """The network of `owner` as `network(x, t)` or `network(x, t, condition)`.

        Raises:
            InputError: if its answers are random, or depend on the rest of a batch.
        """
        network = getattr(owner, self.network)
        if getattr(network, "training", False) and any(map(_unsteady, network.modules())):
            raise InputError(
                f"{self.network} is in training mode and has dropout or batch normalisation, so that "
                "each call gives another answer; call policy.eval() first"
            )

        def predict(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            return network(x, t, **{self.condition: condition})

        return predict


def _unsteady(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _lerobot(
    owner: Any,
    batch_size: int,
    global_cond: Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Call:
    """Releases before 2025-09 have no `noise`; those before 2025-02 keep the shape elsewhere."""
    weight, config = next(iter(owner.parameters())), owner.config
    feature = getattr(config, "action_feature", None)
    width = config.output_shapes["action"][0] if feature is None else feature.shape[0]
    shape = (batch_size, config.horizon, width)
    if noise is not None and tuple(noise.shape) != shape:
        raise InputError(f"noise is {tuple(noise.shape)}; this policy needs {shape}")
    return Call(shape, weight.dtype, weight.device, global_cond, generator, noise)


def _original_unet(
    owner: Any,
    condition_data: Tensor,
    condition_mask: Tensor,
    local_cond: Tensor | None = None,
    global_cond: Tensor | None = None,
    generator: torch.Generator | None = None,
    **step_options: Any,
) -> Call:
    if local_cond is not None:
        raise InputError(
            "local_cond is given (obs_as_local_cond); parallel sampling supports policies with "
            "obs_as_global_cond only: undo it with policy.para_policy.undo()"
        )
    return _original(condition_data, condition_mask, global_cond, generator, step_options)


def _original_transformer(
    owner: Any,
    condition_data: Tensor,
    condition_mask: Tensor,
    cond: Tensor | None = None,
    generator: torch.Generator | None = None,
    **step_options: Any,
) -> Call:
    return _original(condition_data, condition_mask, cond, generator, step_options)


def _original(
    data: Tensor,
    mask: Tensor,
    condition: Tensor | None,
    generator: torch.Generator | None,
    step_options: Mapping[str, Any],
) -> Call:
    # Looked at in every call: a mask that changes must not give a wrong sample. Waiting for it costs
    # nothing, because every round of a solve waits for the device as well.
    if bool(mask.any()):
        raise InputError(
            f"condition_mask holds True at {int(mask.sum())} of {mask.numel()} places: this policy is "
            "conditioned by in-painting, which parallel sampling does not support; use one with "
            "obs_as_global_cond or obs_as_cond, or policy.para_policy.undo()"
        )
    unknown = sorted(set(step_options) - {"eta", "use_clipped_model_output"})
    if unknown:
        raise InputError(
            f"options {unknown} of scheduler.step are not supported; "
            "expected eta or use_clipped_model_output, or none"
        )
    return Call(
        tuple(data.shape), data.dtype, data.device, condition, generator, step_options=step_options
    )


CONVENTIONS: Sequence[Convention] = (
    Convention(
        "a LeRobot DiffusionPolicy",
        owner="diffusion",
        network="unet",
        condition="global_cond",
        needs=("config", "parameters"),
        required=("batch_size", "global_cond", "generator"),
        optional=("noise",),
        entry="select_action",
        read=_lerobot,
    ),
    Convention(
        "a U-Net policy of the original diffusion_policy project",
        owner="",
        network="model",
        condition="global_cond",
        needs=(),
        required=("condition_data", "condition_mask", "local_cond", "global_cond", "generator"),
        optional=("kwargs",),
        entry="predict_action",
        read=_original_unet,
    ),
    Convention(
        "a transformer policy of the original diffusion_policy project",
        owner="",
        network="model",
        condition="cond",
        needs=(),
        required=("condition_data", "condition_mask", "cond", "generator"),
        optional=("kwargs",),
        entry="predict_action",
        read=_original_transformer,
    ),
)


def recognise(policy: Any) -> tuple[Any, Convention]:
    """Return the owner of the sampling method, and the convention of its project.

    Raises:
        InputError: if `policy` is of no known kind, with all that was looked for.
    """
    reasons = []
    for convention in CONVENTIONS:
        try:
            return convention.find(policy), convention
        except InputError as error:
            reasons.append(f"no {convention.title.removeprefix('a ')} ({error})")
    kind = type(policy)
    raise InputError(
        f"cannot accelerate a {kind.__module__}.{kind.__qualname__}: it is {'; '.join(reasons)}. "
        "For a network of your own use para_policy.sample; a policy from load_policy has "
        "policy.sample(obs, sampler=...)"
    )
