"""Noise schedule that a network is trained on: how samples are noised, and what it is to predict.

Independent of the sampler that is used later. diffusers' own `add_noise` is a method of samplers, and
that of DPM-Solver takes the levels in reverse order until `set_timesteps` is called (0.42.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from para_policy.diffusion.flow import Velocity
from para_policy.diffusion.schedulers import build_scheduler, flow_times
from para_policy.errors import InputError

Prediction: TypeAlias = Literal["epsilon", "sample", "v_prediction"]


class NoiseSchedule(ABC):
    """Levels of noise on a path x = signal x_0 + spread eps from clean samples to noise."""

    @abstractmethod
    def timestep(self, level: Tensor) -> Tensor:
        """What the network is told of levels (B,)."""

    @abstractmethod
    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """What the network should answer (B, *shape); arguments as for `noised`."""

    @abstractmethod
    def path(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and spread (B,) of levels (B,)."""

    def noised(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """x (B, *shape) of samples and noise (B, *shape) at `level` (B,)."""
        signal, spread = self._factors(clean, level)
        return signal * clean + spread * noise

    def _factors(self, clean: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """`path` in shapes (B, 1, ...) that fit the samples."""
        shape = (-1, *[1] * (clean.ndim - 1))
        signal, spread = self.path(level)
        return signal.to(clean).reshape(shape), spread.to(clean).reshape(shape)


@dataclass(frozen=True, eq=False)
class DiscreteSchedule(NoiseSchedule):
    """Levels t = 0 .. T-1 of x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, eq. 4).

    Attributes:
        alpha_bar: (T,) float32, falling from almost 1 to almost 0.
        prediction: what the network predicts from x_t.
    """

    alpha_bar: Tensor
    prediction: Prediction

    def __len__(self) -> int:
        """T, the number of levels."""
        return len(self.alpha_bar)

    def timestep(self, level: Tensor) -> Tensor:
        return level

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        signal, spread = self._factors(clean, level)
        return signal * noise - spread * clean  # Salimans & Ho 2022, appendix D

    def path(self, level: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alpha_bar[level]
        return torch.sqrt(alpha_bar), torch.sqrt(1 - alpha_bar)


@dataclass(frozen=True)
class FlowSchedule(NoiseSchedule):
    """Levels sigma in [0, 1] of x = (1 - sigma) x_0 + (sigma + sigma_min (1 - sigma)) eps.

    Lipman et al. 2023 (arXiv 2210.02747), eq. 20 with t = 1 - sigma.

    Attributes:
        velocity: direction of what the network predicts, the derivative of x along the path.
        sigma_min: noise that is left at sigma = 0.
        times: what the network is told at sigma = 0 and at 1; linear in between.
    """

    velocity: Velocity = "noise-data"
    sigma_min: float = 0.0
    times: tuple[float, float] = (0.0, 1.0)

    def timestep(self, level: Tensor) -> Tensor:
        clean, noise = self.times
        return clean + (noise - clean) * level

    def target(self, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        to_noise = (1 - self.sigma_min) * noise - clean
        return to_noise if self.velocity == "noise-data" else -to_noise

    def path(self, level: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - level, level + self.sigma_min * (1 - level)


def noise_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """That of a noise scheduler's configuration.

    Raises:
        InputError: if it makes no noise schedule, or names another prediction.
    """
    scheduler = build_scheduler(config)
    times = flow_times(config)
    if times is not None:
        return _flow_schedule(scheduler.config, times)
    prediction = scheduler.config.prediction_type
    if prediction not in get_args(Prediction):
        raise InputError(
            f"prediction_type is {prediction!r}; expected one of {', '.join(get_args(Prediction))}"
        )
    return DiscreteSchedule(scheduler.alphas_cumprod, prediction)


def _flow_schedule(options: Mapping[str, Any], times: tuple[float, float]) -> FlowSchedule:
    if "velocity" in options:
        return FlowSchedule(options["velocity"], options["sigma_min"], times)
    prediction = options.get("prediction_type", "flow_prediction")
    if prediction != "flow_prediction":
        raise InputError(
            f"prediction_type is {prediction!r}; expected flow_prediction with flow matching"
        )
    return FlowSchedule("data-noise" if options.get("invert_sigmas") else "noise-data", times=times)
