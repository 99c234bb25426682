"""Policies of the original diffusion_policy project (5ba07ac)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions.convention import Named, as_ours, layout_of, steady
from para_policy.adapters.conventions.scheduled import Scheduled
from para_policy.checkpoints.original.read import why_left_out
from para_policy.errors import InputError


class _Original(Scheduled):
    """What the policies of the project share."""

    entry = "predict_action"
    needs = ("model", "noise_scheduler", "num_inference_steps")

    def layout(self) -> tuple[int, int] | None:
        told = layout_of(self.policy)
        if told is None:
            return None
        # Only some of the policies say these.
        if getattr(self.policy, "pred_action_steps_only", False):
            return told[0], 0
        return told[0], told[1] + (not getattr(self.policy, "oa_step_convention", True))

    def weights(self) -> dict[str, Tensor]:
        """Those of camera encoders keep the project's names."""

        def left_out(name: str) -> bool:
            return name.startswith("normalizer.") or why_left_out(name) is not None

        return as_ours(self.owner.state_dict(), lambda name: name.removeprefix("model."), left_out)


class OriginalUnet(_Original):
    """The low-dimensional and image policies with a U-Net, with global conditioning."""

    title = "a U-Net policy of the original diffusion_policy project"
    required = ("condition_data", "condition_mask", "local_cond", "global_cond", "generator")
    optional = ("kwargs",)

    def read(
        self,
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
        return _read(condition_data, condition_mask, global_cond, generator, step_options)

    def network(self) -> Callable[..., Tensor]:
        return Named(steady(self.owner.model, "model"), "global_cond")


class OriginalTransformer(_Original):
    """The transformer policies with `obs_as_cond`."""

    title = "a transformer policy of the original diffusion_policy project"
    required = ("condition_data", "condition_mask", "cond", "generator")
    optional = ("kwargs",)

    def read(
        self,
        condition_data: Tensor,
        condition_mask: Tensor,
        cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        **step_options: Any,
    ) -> Call:
        return _read(condition_data, condition_mask, cond, generator, step_options)

    def network(self) -> Callable[..., Tensor]:
        return Named(steady(self.owner.model, "model"), "cond")


def _read(
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
        tuple(data.shape), data.dtype, data.device, condition, generator, loop_options=step_options
    )
