"""The sampling process: a diffusers scheduler as one affine recurrence.

In sampling order s = 0 .. N-1, X_0 being Gaussian noise and X_N the sample,

    X_{s+1} = B_s X_s + A_s x0hat_s + R_s x0raw_s + H_s x0hat_{s-1} + c_s xi_s

where x0raw_s is the clean sample that the network predicts from X_s, x0hat_s its clipped value
and xi_s standard normal noise. The network sits only inside x0raw, everything else is linear.

- DDPM: R = H = 0 (Ho et al. 2020, eq. 7).
- DDIM: R carries the direction term, which diffusers builds from the *unclipped* prediction
  (Song et al. 2021, eq. 12); c > 0 for eta > 0.
- DPM-Solver++(2M): H carries the multistep history (Lu et al. 2022, alg. 2). Because the history
  is part of the recurrence, solving it in parallel gives the sequential multistep solution.
- UniPC-1: H carries the correction of the step before (Zhao et al. 2023); DEIS-1 is DDIM on its own
  noise levels. See `para_policy.diffusion.exponential`.
- Euler steps of flow matching: R = H = c = 0 (Lipman et al. 2023). Heun's rule: every other step is a
  correction, B = 1 and H = -A. See `para_policy.diffusion.flow`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from para_policy.diffusion.flow import Velocity, checked_flow, flow_columns

if TYPE_CHECKING:
    from para_policy.diffusion.schedulers import Scheduler

_ALIKE = 1e-5
"""Relative difference of two fingerprints that rounding on another machine can make."""

_FINGERPRINTED = ("timesteps", *"BARHc", "sigma", "signal", "x0_from_x", "x0_from_output")


@dataclass(frozen=True, eq=False)
class Process:
    """The step table of a sampler, float64 on the CPU until `to` moves it.

    Attributes:
        timesteps: (N,) int64, or floating point where time is continuous: what the network is told
            of every step.
        B, A, R, H, c: (N,) coefficients of the recurrence above.
        sigma: (N + 1,) noise std of the stochastic (eta = 1) step that *leaves* each state, the
            yardstick of ParaDiGMS; 0 for the finished sample.
        signal, spread: (N + 1,) how much of the clean sample and of standard normal noise is in each
            state, X_s = signal_s x0 + spread_s e: sqrt(alpha_bar) and sqrt(1 - alpha_bar) of a
            variance-preserving path, 1 - sigma and sigma of flow matching.
        x0_from_x, x0_from_output: (N,), x0raw = x0_from_x * x + x0_from_output * network output.
        clip: bound on |x0hat|, or None.
        kind: of the scheduler, such as "ddpm" or "flow_match_euler"; for messages.
        fingerprint: a few sums over the table. What was measured for one process holds for another
            only where these agree, see `agrees_with`. Not a hash: tables that were computed on two
            machines may differ in their last digits.
    """

    timesteps: Tensor
    B: Tensor
    A: Tensor
    R: Tensor
    H: Tensor
    c: Tensor
    sigma: Tensor
    signal: Tensor
    spread: Tensor
    x0_from_x: Tensor
    x0_from_output: Tensor
    clip: float | None
    kind: str = "process"
    fingerprint: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", _fingerprint(self))

    def __str__(self) -> str:
        return f"{self.kind} with {self.num_steps} steps"

    def agrees_with(self, fingerprint: tuple[float, ...]) -> bool:
        """Whether a process with this fingerprint takes the same steps, up to rounding."""
        return self.fingerprint == fingerprint or (
            len(self.fingerprint) == len(fingerprint)
            and all(
                math.isclose(one, other, rel_tol=_ALIKE, abs_tol=_ALIKE)
                for one, other in zip(self.fingerprint, fingerprint, strict=True)
            )
        )

    @property
    def num_steps(self) -> int:
        """N, the number of steps and of sequential network calls."""
        return len(self.timesteps)

    @cached_property
    def multistep(self) -> bool:
        """Steps look at the prediction before theirs."""
        return bool((self.H != 0).any())

    @cached_property
    def _moved(self) -> dict[tuple[torch.device, torch.dtype], Process]:
        """Of `to`: every chunk asks for it, and each column that is copied makes a GPU wait."""
        return {}

    @cached_property
    def _table(self) -> Tensor:
        """(N, 7) the coefficients side by side, so that a call looks up all that it needs at once."""
        return torch.stack([getattr(self, name) for name in _Coefficients._fields], dim=1)

    @property
    def clean_weight(self) -> Tensor:
        """(N,) how much of a constant clean sample each step adds: X_{s+1} = B_s X_s + weight x0."""
        return self.A + self.R + self.H

    @classmethod
    def from_scheduler(
        cls,
        scheduler: Scheduler | Mapping[str, Any],
        num_steps: int | None = None,
        *,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
    ) -> Process:
        """Build the table of a diffusers scheduler; the scheduler itself is left unchanged.

        Args:
            scheduler: `DDPMScheduler`, `DDIMScheduler`, `DPMSolverMultistepScheduler` (dpmsolver++,
                order 1 or 2), `UniPCMultistepScheduler` and `DEISMultistepScheduler` (order 1),
                `FlowMatchEulerDiscreteScheduler`, `FlowMatchHeunDiscreteScheduler`, our
                `FlowMatching`, or a configuration of one of them with its `_class_name`.
            num_steps: N, network calls: odd for Heun's rule. None keeps the timesteps that are set,
                or uses every training step.
            eta: DDIM noise level in [0, 1]; 0 is deterministic, 1 as noisy as DDPM.
            use_clipped_model_output: DDIM only, derive the direction from the clipped prediction.

        Raises:
            InputError: for a scheduler or option that this recurrence cannot represent.

        >>> from diffusers import DDPMScheduler
        >>> process = Process.from_scheduler(DDPMScheduler(100, beta_schedule="squaredcos_cap_v2"), 100)
        >>> process.num_steps, int(process.timesteps[0]), float(process.A[-1]), float(process.c[-1])
        (100, 99, 1.0, 0.0)
        """
        # Here, not above: samplers, which need this class, load without diffusers.
        from para_policy.diffusion.step_table import step_table

        made = step_table(scheduler, num_steps, eta, use_clipped_model_output)
        return cls._from_arrays(made.columns, made.timesteps, clip=made.clip, kind=made.kind)

    @classmethod
    def from_flow(
        cls,
        sigmas: Sequence[float] | Tensor | NDArray[np.float64],
        *,
        timesteps: Sequence[float] | Tensor | NDArray[np.float64] | None = None,
        velocity: Velocity = "noise-data",
        sigma_min: float = 0.0,
        kind: str = "flow_match_euler",
    ) -> Process:
        """Build the table of Euler steps of flow matching on any grid.

        Args:
            sigmas: (N + 1,) noise levels of x = (1 - sigma) x0 + (sigma + sigma_min (1 - sigma)) e,
                falling from 1 (pure noise) to 0.
            timesteps: (N,) what the network is told of each step; None for sigmas[:-1]. LeRobot's
                multi_task_dit is told 1 - sigma.
            velocity: what the network predicts: "noise-data", (1 - sigma_min) e - x0, or
                "data-noise", the negative of it.
            sigma_min: in [0, 1), noise that the path leaves on a sample (Lipman et al. 2023, eq. 20).
            kind: for messages, and the key of what is measured for this process.

        Raises:
            InputError: for anything else.

        >>> process = Process.from_flow([1.0, 0.5, 0.0])
        >>> process.timesteps.tolist(), process.B.tolist(), process.A.tolist()
        ([1.0, 0.5], [0.5, 0.0], [0.5, 1.0])
        """
        levels, told = checked_flow(sigmas, timesteps, velocity, sigma_min)
        return cls._from_arrays(flow_columns(levels, velocity, sigma_min), told, kind=kind)

    @classmethod
    def _from_arrays(
        cls,
        columns: Mapping[str, NDArray[np.float64]],
        timesteps: NDArray[Any],
        *,
        kind: str,
        clip: float | None = None,
    ) -> Process:
        tensors: dict[str, Any] = {
            name: torch.from_numpy(values) for name, values in columns.items()
        }
        return cls(timesteps=torch.from_numpy(timesteps), clip=clip, kind=kind, **tensors)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Process:
        """The same with all coefficients on `device` in `dtype`, copied there once.

        Timesteps keep at least single precision: half precision does not tell 999 from 1000.
        """
        key = torch.device(device), dtype
        if key not in self._moved:
            # Whoever asks for it first may be in inference mode, and the next one train with it.
            with torch.inference_mode(mode=False):
                self._moved[key] = self._to(*key)
        return self._moved[key]

    def _to(self, device: torch.device, dtype: torch.dtype) -> Process:
        timesteps = self.timesteps.to(device)
        if timesteps.is_floating_point():
            timesteps = timesteps.to(torch.promote_types(dtype, torch.float32))
        moved: dict[str, Any] = {"timesteps": timesteps}
        for column in dataclasses.fields(self):
            value = getattr(self, column.name)
            if column.name != "timesteps" and isinstance(value, Tensor):
                moved[column.name] = value.to(device=device, dtype=dtype)
        other = dataclasses.replace(self, **moved)
        # Here they need not be waited for.
        other.__dict__["multistep"] = self.multistep
        other.__dict__["_table"] = other._table
        return other

    def predict_clean(self, x: Tensor, output: Tensor, s: Tensor) -> Tensor:
        """Unclipped clean-sample prediction x0raw (M, ...) at steps `s` (M,)."""
        at = self._at(s, x)
        return at.x0_from_x * x + at.x0_from_output * output

    def mean(self, x: Tensor, x0: Tensor, x0_previous: Tensor, s: Tensor) -> Tensor:
        """Everything but the noise of step `s`: the S_s(X_s) of the parallel methods.

        Args:
            x, x0, x0_previous: (M, ...) states, unclipped predictions at these states, and at the
                states one step noisier (ignored where s = 0).
            s: (M,) steps.
        """
        return self._mean(x, x0, x0_previous, self._at(s, x))

    def noise(self, xi: Tensor, s: Tensor) -> Tensor:
        """The noise c_s xi_s (M, ...) that step `s` adds."""
        return self._at(s, xi).c * xi

    def step(self, x: Tensor, x0: Tensor, x0_previous: Tensor, xi: Tensor, s: Tensor) -> Tensor:
        """X_{s+1} (M, ...): `mean` and `noise` of step `s`."""
        at = self._at(s, x)
        return self._mean(x, x0, x0_previous, at) + at.c * xi

    def _mean(self, x: Tensor, x0: Tensor, x0_previous: Tensor, at: _Coefficients) -> Tensor:
        total = at.B * x + at.A * self._clipped(x0) + at.R * x0
        return total + at.H * self._clipped(x0_previous) if self.multistep else total

    def _clipped(self, x0: Tensor) -> Tensor:
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)

    def _at(self, s: Tensor, like: Tensor) -> _Coefficients:
        """Coefficients of steps `s` (M,), in shapes that fit `like` (M, ...)."""
        found = self._table[s].reshape(*s.shape, *(1,) * (like.ndim - s.ndim), -1)
        return _Coefficients(*found.unbind(-1))


class _Coefficients(NamedTuple):
    """Of some steps, see `Process`."""

    x0_from_x: Tensor
    x0_from_output: Tensor
    B: Tensor
    A: Tensor
    R: Tensor
    H: Tensor
    c: Tensor


def _fingerprint(process: Process) -> tuple[float, ...]:
    """N, the clip bound (-1: none), and two sums over each column: no change of a step leaves them
    all as they were."""
    clip = -1.0 if process.clip is None else process.clip
    sums = [float(process.num_steps), clip]
    for name in _FINGERPRINTED:
        values = getattr(process, name).double().cpu()
        if name == "signal":  # files hold what alpha_bar gives
            values = values.square()
        place = torch.arange(1, len(values) + 1, dtype=torch.float64) / len(values)
        sums += [float(values.mean()), float((values * place).mean())]
    return tuple(sums)
