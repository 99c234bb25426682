"""Flow-matching heads of large models, which sample with Euler steps on an encoded observation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, NoReturn

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions.convention import Convention
from para_policy.adapters.plan import Plan, Settings
from para_policy.arguments import check_kind
from para_policy.diffusion.process import Process
from para_policy.errors import InputError

_MOST_STEPS = 10_000


class FlowHead(Convention):
    """A convention whose calls bring their velocity function, made inside of the sampling method."""

    calibrates = False  # chunks are large, and conditions are whole caches

    @property
    @abstractmethod
    def own_steps(self) -> int:
        """Number of steps that the policy is set to."""

    @abstractmethod
    def grid(self, steps: int) -> Process:
        """The policy's Euler steps."""

    def network(self) -> NoReturn:
        raise NotImplementedError("each call brings its own")

    def plan(self, settings: Settings, loop_options: Mapping[str, Any]) -> Plan:
        """As `Convention.plan`.

        Args:
            loop_options: `num_steps` where the call says it.
        """
        if settings.scheduler is not None:
            raise InputError(
                f"scheduler is {settings.scheduler!r}; {self.title} has the Euler steps of flow "
                "matching alone: leave it out"
            )
        own = loop_options.get("num_steps", self.own_steps)
        process = self.grid(_checked(own if settings.steps is None else settings.steps))
        schedule = {"_class_name": process.kind}
        return Plan(self.source(loop_options), schedule, process.kind, process, 0.0)

    def source(self, loop_options: Mapping[str, Any]) -> tuple[Any, ...]:
        return self.own_steps, *sorted(loop_options.items())


def _checked(steps: Any) -> int:
    check_kind("steps", steps, Integral)
    if not 1 <= steps <= _MOST_STEPS:
        raise InputError(f"steps is {steps}; expected 1 to {_MOST_STEPS}")
    return int(steps)


def call_of(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor], noise: Tensor, **loop_options: Any
) -> Call:
    """A call with its network, `velocity(x, t, which)` for rows of samples `which`."""
    samples = torch.arange(len(noise), device=noise.device)[:, None]  # as conditions are
    return Call(
        tuple(noise.shape),
        noise.dtype,
        noise.device,
        samples,
        noise=noise,
        loop_options=loop_options,
        network=lambda x, t, rows: velocity(x, t, rows[:, 0]),
    )
