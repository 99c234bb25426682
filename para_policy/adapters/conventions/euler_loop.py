"""LeRobot's vision-language-action policies that share `euler_integrate` (0.6.1): pi0, pi0.5, SmolVLA, EO-1.

Their `sample_actions` encodes the observation into a cache of keys and values, and hands a velocity
function that reads it to `euler_integrate`, a name of its module. Here a copy of `sample_actions`
finds another function under that name: nothing of LeRobot is changed, and other policies of the
process keep their loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions.closures import global_of, inner_captures, with_globals
from para_policy.adapters.conventions.flow_head import FlowHead, call_of
from para_policy.adapters.conventions.velocity import Velocity
from para_policy.diffusion.process import Process
from para_policy.errors import InputError

_LOOP = "euler_integrate"


class EulerLoop(FlowHead):
    """A policy whose model hands its velocity function to `euler_integrate`.

    Attributes:
        steps: field of the configuration with the number of steps.
        axes: see `Velocity`.
        shared: what else the velocity function captures, the same for all samples.
    """

    entry = "select_action"
    place = "model"
    method = "sample_actions"
    needs = ("config",)
    steps: ClassVar[str]
    axes: ClassVar[Mapping[str, int]]
    shared: ClassVar[frozenset[str]] = frozenset({"self"})

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        captures = self.shared | set(self.axes)
        if (
            global_of(self._sampling, _LOOP) is None
            or captures not in inner_captures(self._sampling)
            or not hasattr(self.owner.config, self.steps)
        ):
            raise InputError(
                f"{self.place}.{self.method} does not call {_LOOP} with a function of "
                f"{', '.join(sorted(captures))}, as in 0.6.1"
            )
        if getattr(self.owner.config, "compile_model", False):
            raise InputError("its loop is compiled as one; make it with compile_model=False")

    @property
    def own_steps(self) -> int:
        return int(getattr(self.owner.config, self.steps))

    def grid(self, steps: int) -> Process:
        times = [1.0 + step * (-1.0 / steps) for step in range(steps)]  # rounded as they round
        return Process.from_flow([*times, 0.0], timesteps=times)

    def sample(
        self,
        solve: Callable[[Call], Tensor],
        original: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As `Convention.sample`; guidance and tracking take part in each step, and get the loop."""
        loop = self._loop(*args, **kwargs)
        if loop.watched:
            integrate = global_of(self._sampling, _LOOP)
            return integrate(loop.velocity, loop.noise, loop.num_steps, **loop.options)
        return solve(self._call(loop))

    def read(self, *args: Any, **kwargs: Any) -> Call:
        return self._call(self._loop(*args, **kwargs))

    @property
    def _sampling(self) -> Callable[..., Any]:
        """Not what was put over it in this object."""
        return type(self.owner).sample_actions

    def _loop(self, *args: Any, **kwargs: Any) -> _Loop:
        """Encode the observation, up to the loop."""
        encode = with_globals(self._sampling, **{_LOOP: _Loop.of})
        loop: _Loop = encode(self.owner, *args, **kwargs)
        return loop

    def _call(self, loop: _Loop) -> Call:
        velocity = Velocity(loop.velocity, self.axes)
        return call_of(
            lambda x, t, which: velocity(x, t.to(torch.float32), which),
            loop.noise,
            num_steps=loop.num_steps,
        )


class Pi0(EulerLoop):
    title = "a LeRobot PI0Policy"
    required = ("images", "img_masks", "lang_tokens", "lang_masks", "state", "noise", "num_steps")
    optional = ("kwargs",)
    steps = "num_inference_steps"
    axes: ClassVar = {"state": 0, "prefix_pad_masks": 0, "past_key_values": 0}


class Pi05(EulerLoop):
    title = "a LeRobot PI05Policy"
    required = ("images", "img_masks", "tokens", "masks", "noise", "num_steps")
    optional = ("kwargs",)
    steps = "num_inference_steps"
    axes: ClassVar = {"prefix_pad_masks": 0, "past_key_values": 0}


class SmolVLA(EulerLoop):
    """After each step it crops the cache: a copy, made for the call."""

    title = "a LeRobot SmolVLAPolicy"
    required = ("images", "img_masks", "lang_tokens", "lang_masks", "state", "noise")
    optional = ("kwargs",)
    steps = "num_steps"
    axes: ClassVar = {"prefix_pad_masks": 0, "past_key_values": 0}


class EO1(EulerLoop):
    """Before each step it crops the cache and writes into `inputs_embeds`: copies, made for the call."""

    title = "a LeRobot EO1Policy"
    required = (
        *("input_ids", "attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids"),
        *("states", "state_token_id", "action_token_id"),
    )
    optional = ("kwargs",)
    steps = "num_denoise_steps"
    axes: ClassVar = {
        "inputs_embeds": 0,
        "attention_mask": 0,
        "position_ids": 1,
        "past_key_values": 0,
    }
    shared = frozenset({"self", "act_slice", "act_start", "act_end", "chunk_size"})


@dataclass(frozen=True, eq=False)
class _Loop:
    """Arguments of `euler_integrate`."""

    velocity: Callable[[Tensor, Tensor], Tensor]
    noise: Tensor
    num_steps: int
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        denoise_fn: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        num_steps: int,
        **options: Any,
    ) -> _Loop:
        """In place of `euler_integrate`, with its parameters."""
        return cls(denoise_fn, noise, num_steps, options)

    @property
    def watched(self) -> bool:
        """Guidance towards the last chunk, or a tracker of all steps, is on."""
        processor = self.options.get("rtc_processor")
        tracked = processor is not None and bool(processor.is_debug_enabled())
        return tracked or bool(self.options.get("rtc_enabled"))
