"""Solve with the noise, dtype and autocast of the loop that it replaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser, answered
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.samplers import Sampler, SampleResult

_PAD = 8


@dataclass(frozen=True, eq=False)
class Mixed:
    """A network in its caller's dtype and autocast, for a solve in float32 or better.

    Solving in half precision would cost more rounds than it saves, and autocast would put the
    solver's own matrix products into half precision.

    Attributes:
        network: `network(x, t)` or `network(x, t, condition)`.
        dtype: of its input.
        device: "cpu", "cuda" and so on.
        autocast: dtype of the caller's autocast; None where there is none.
    """

    network: Callable[..., Tensor]
    dtype: torch.dtype
    device: str
    autocast: torch.dtype | None

    @classmethod
    def here(
        cls, network: Callable[..., Tensor], dtype: torch.dtype, device: torch.device
    ) -> Mixed:
        """As the caller of this function would call `network`."""
        enabled = torch.is_autocast_enabled(device.type)
        autocast = torch.get_autocast_dtype(device.type) if enabled else None
        return cls(network, dtype, device.type, autocast)

    @property
    def solve_dtype(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)

    def __call__(self, x: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        return answered(self.output(x, t, *condition), x).to(self.solve_dtype)

    def step_noise_dtype(
        self, process: Process, x: Tensor, condition: Tensor | None
    ) -> torch.dtype:
        """Dtype that the caller's loop draws the noise of its steps in: that of what the network returns.

        Costs a call of one row under autocast and in half precision, which a network may leave.
        Stochastic flow matching draws in float32, whatever it is given.
        """
        if process.kind not in ("ddpm", "ddim"):
            return torch.float32
        if self.autocast is None and self.dtype in (torch.float32, torch.float64):
            return self.dtype
        given = () if condition is None else (condition[:1],)
        t = process.timesteps[:1].to(x.device)
        return answered(self.output(x[:1], t, *given), x[:1]).dtype

    def output(self, x: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        """What the caller would get."""
        with torch.autocast(self.device, dtype=self.autocast, enabled=self.autocast is not None):
            return self.network(x.to(self.dtype), t, *condition)


def draw_steps(
    process: Process,
    initial: Tensor,
    dtype: torch.dtype,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(batch, N, *shape) noise of all steps, drawn in the order of a loop over `scheduler.step`.

    DDPM draws for every timestep above 0, DDIM for every step if eta > 0, flow matching for every
    step if its sampling is stochastic, and the others never; so the generator is afterwards where the
    loop would have left it.

    Args:
        dtype: see `Mixed.step_noise_dtype`. From one seed torch draws other numbers in half precision
            than in float32: all of them, or the last few, depending on its release.
    """
    ddpm = process.kind == "ddpm"
    every = eta > 0 or bool((process.c > 0).any())
    zeros = torch.zeros_like(initial, dtype=dtype)
    steps = [
        randn_tensor(initial.shape, generator=generator, device=initial.device, dtype=dtype)
        if (t > 0 if ddpm else every)
        else zeros
        for t in process.timesteps.tolist()
    ]
    return torch.stack(steps, dim=1)


def gather(
    sampler: Sampler,
    network: Mixed,
    initial: Tensor,
    steps: Tensor,
    generator: torch.Generator | None = None,
) -> Noise:
    """All randomness of a solve in `network.solve_dtype`.

    Args:
        initial, steps: X_0 and the noise of every step.
        generator: where `asd` takes its coins from.
    """
    uniforms: Any = None
    if sampler.uses_uniforms:
        home = initial.device if generator is None else generator.device
        uniforms = torch.rand(steps.shape[:2], device=home, generator=generator).to(initial.device)
    dtype = network.solve_dtype
    return Noise(initial.to(dtype), steps.to(dtype), uniforms)


@torch.no_grad()
def solve(
    sampler: Sampler,
    network: Mixed,
    condition: Tensor | None,
    process: Process,
    noise: Noise,
    *,
    partial: bool = False,
) -> SampleResult:
    """Run a sampler outside of autocast.

    Args:
        noise: from `gather`.
        partial: see `SampleResult.checked`.

    Raises:
        InputError, NonFiniteError: as the sampler.
    """
    with torch.autocast(network.device, enabled=False):
        # Kernels are prepared for each batch size anew; a few sizes are prepared once.
        denoiser = Denoiser(network, condition, pad_to=_PAD, pad_from=_PAD + 1)
        return sampler(denoiser, process, noise, partial=partial)
