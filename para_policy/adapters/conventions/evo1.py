"""LeRobot's EVO1 policy (0.6.1): Euler steps of a flow-matching head on fused tokens, 32 by default.

The loop stands in `get_action`, as does its velocity function, which leaves the method in one place
only: on the way to the guidance of real-time chunking. So the method is run with a "guidance" that takes
the function and ends the call there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions.closures import captured, inner_captures
from para_policy.adapters.conventions.flow_head import FlowHead, call_of
from para_policy.adapters.conventions.velocity import Velocity
from para_policy.diffusion.process import Process
from para_policy.errors import InputError

_TIMES = 1000
"""Entries of the head's table of times."""


class EVO1(FlowHead):
    """`FlowmatchingActionHead` of an `Evo1Policy`."""

    title = "a LeRobot Evo1Policy"
    entry = "select_action"
    place = "model.action_head"
    method = "get_action"
    required = (
        *("fused_tokens", "state", "embodiment_id", "action_mask", "context_mask"),
        *("inference_delay", "prev_chunk_left_over", "execution_horizon", "rtc_processor"),
    )
    needs = ("num_inference_timesteps", "time_pos_enc", "dtype")
    axes: ClassVar = dict.fromkeys(
        ("context_tokens", "key_padding_mask", "embodiment_id", "action_mask"), 0
    )
    shared: ClassVar = frozenset({"self", "batch_size", "per_action_dim", "target_dtype"})

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        captures = self.shared | set(self.axes)
        if captures not in inner_captures(type(self.owner).get_action):
            raise InputError(
                f"{self.place}.{self.method} has no function of {', '.join(sorted(captures))}, as in 0.6.1"
            )

    @property
    def own_steps(self) -> int:
        return int(self.owner.num_inference_timesteps)

    def grid(self, steps: int) -> Process:
        times = [step / steps for step in range(steps)]
        return Process.from_flow(
            [*(1.0 - time for time in times), 0.0],
            timesteps=[int(time * (_TIMES - 1)) for time in times],
            velocity="data-noise",
        )

    def sample(
        self,
        solve: Callable[[Call], Tensor],
        original: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As `Convention.sample`; guidance takes part in each step, and gets the loop."""
        given = self._arguments(*args, **kwargs)
        told = [given.get(name) is not None for name in ("inference_delay", "prev_chunk_left_over")]
        if given.get("rtc_processor") is not None and any(told):
            return original(*args, **kwargs)
        return solve(self.read(*args, **kwargs)).flatten(1)

    def read(self, *args: Any, **kwargs: Any) -> Call:
        given = self._arguments(*args, **kwargs)
        try:
            self._sampling(**given | {"rtc_processor": _Taking(), "inference_delay": 0})
        except _Taken as taken:
            velocity = Velocity(taken.velocity, self.axes, counts=("batch_size",))
            times = self.owner.time_pos_enc(_TIMES)[0].to(taken.noise.device, self.owner.dtype)
            return call_of(lambda x, t, which: velocity(x, times[t.long()], which), taken.noise)
        raise InputError(
            f"{self.place}.{self.method} did not ask its guidance, as it does in 0.6.1"
        )

    @property
    def _sampling(self) -> Callable[..., Any]:
        """Not what was put over it in this object."""
        return type(self.owner).get_action

    def _arguments(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return inspect.signature(self._sampling).bind(self.owner, *args, **kwargs).arguments


class _Taken(Exception):
    """The velocity function and the noise of a call, on their way out of its loop."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor) -> None:
        super().__init__()
        self.velocity, self.noise = velocity, noise


class _Taking:
    """In place of LeRobot's `RTCProcessor`."""

    def denoise_step(
        self, x_t: Tensor, original_denoise_step_partial: Callable[..., Tensor], **_: Any
    ) -> NoReturn:
        raise _Taken(captured(original_denoise_step_partial)["predict_velocity"], x_t)
