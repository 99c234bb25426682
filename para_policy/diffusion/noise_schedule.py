"""Noise schedule that a network is trained on: how samples are noised, and what it is to predict.

Independent of the sampler that is used later. diffusers' own `add_noise` is a method of samplers, and
that of DPM-Solver takes the levels in reverse order until `set_timesteps` is called (0.42.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from para_policy.diffusion.schedulers import build_scheduler
from para_policy.errors import InputError

Prediction: TypeAlias = Literal["epsilon", "sample", "v_prediction"]


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Levels of noise x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, eq. 4).

    Attributes:
        alpha_bar: (T,) float32, falling from almost 1 to almost 0.
        prediction: what the network predicts from x_t.
    """

    alpha_bar: Tensor
    prediction: Prediction

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """That of a diffusers scheduler's configuration.

        Raises:
            InputError: if it makes no noise schedule, or names another prediction.
        """
        scheduler = build_scheduler(config)
        prediction = scheduler.config.prediction_type
        if prediction not in get_args(Prediction):
            raise InputError(
                f"prediction_type is {prediction!r}; expected one of {', '.join(get_args(Prediction))}"
            )
        return cls(scheduler.alphas_cumprod, prediction)

    def __len__(self) -> int:
        """T, the number of levels."""
        return len(self.alpha_bar)

    def noised(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t (B, *shape) of samples and noise (B, *shape) at levels `t` (B,)."""
        signal, spread = self._parts(clean, t)
        return signal * clean + spread * noise

    def target(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should answer (B, *shape); arguments as for `noised`."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        signal, spread = self._parts(clean, t)
        return signal * noise - spread * clean  # Salimans & Ho 2022, appendix D

    def _parts(self, clean: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (B, 1, ...) of the clean sample and of the noise."""
        alpha_bar = self.alpha_bar[t].to(clean).reshape(-1, *[1] * (clean.ndim - 1))
        return torch.sqrt(alpha_bar), torch.sqrt(1 - alpha_bar)
