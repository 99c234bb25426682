"""Flow matching as a scheduler of diffusers' kind, for projects that take its steps by hand."""

from __future__ import annotations

import torch
from diffusers import SchedulerMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor

from para_policy.diffusion.flow import Velocity, checked_flow


class FlowMatching(SchedulerMixin, ConfigMixin):
    """Euler steps along a flow, from noise at sigma = 1 over evenly spaced levels to sigma = 0.

    What LeRobot's `multi_task_dit` and openpi do. `FlowMatchEulerDiscreteScheduler` has other levels, the
    last but one being 1 / num_train_timesteps, and other times.

    Args:
        num_train_timesteps: most steps; levels are continuous in training.
        velocity, sigma_min: as in `Process.from_flow`.
        times: what the network is told at sigma = 0 and at sigma = 1, linear in between: (1, 0) for
            `multi_task_dit`, (0, 1) for openpi.

    Raises:
        InputError: as `Process.from_flow`.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        velocity: Velocity = "noise-data",
        sigma_min: float = 0.0,
        times: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        checked_flow([1.0, 0.0], None, velocity, sigma_min)
        self.num_inference_steps: int | None = None
        self.sigmas: Tensor
        self.timesteps: Tensor

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Levels (N + 1,) in `sigmas` and times (N,) in `timesteps` of N steps, float64."""
        self.num_inference_steps = num_inference_steps
        self.sigmas = torch.linspace(1, 0, num_inference_steps + 1, dtype=torch.float64)
        clean, noise = self.config.times
        self.timesteps = clean + (noise - clean) * self.sigmas[:-1]
