"""DiffusionPolicy: observations in physical units to action chunks in physical units."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from para_policy import samplers
from para_policy.denoiser import Denoiser
from para_policy.errors import InputError, NonFiniteError
from para_policy.noise import Noise
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import MinMaxNormalizer
from para_policy.policies.unet1d import ConditionalUnet1D
from para_policy.process import Process
from para_policy.samplers import Callback, Sampler, Status
from para_policy.schedulers import build_scheduler

Observation = Mapping[str, Any]


@dataclass(frozen=True)
class SampleStats:
    """Cost and trust of a chunk; arrays (B,) for a batch, scalars for one observation.

    Attributes:
        rounds, evals: batched network calls, and network rows.
        residual: largest defect let pass, normalised action units.
        residuals: largest defect of each round, (R, B) or (R,).
        converged: whether the acceptance test passed.
        status: in words.
        wall_s: seconds from the observation on the host to the actions on the host, whole batch.
    """

    rounds: Any
    evals: Any
    residual: Any
    residuals: np.ndarray
    converged: Any
    status: Any
    wall_s: float


@dataclass(frozen=True)
class ActionResult:
    """A chunk of actions, or a batch of them (leading axis B).

    Attributes:
        actions: (Ta, A) float32, physical units; action 0 belongs to the newest observation's time.
        prediction: (Tp, A) float32, the whole predicted horizon, physical units.
        sample: (Tp, A) float32, the same in normalised units.
    """

    actions: np.ndarray
    prediction: np.ndarray
    sample: np.ndarray
    stats: SampleStats


def build_network(config: PolicyConfig) -> ConditionalUnet1D:
    """Make the noise predictor that `config` describes, with random weights."""
    width = sum(int(np.prod(shape)) for shape in config.inputs.values())
    return ConditionalUnet1D(
        config.action_dim, config.n_obs_steps * width, **config.network.model_dump()
    )


class DiffusionPolicy:
    """A trained diffusion policy for state observations.

    Args:
        config: shapes and schedule.
        model_state: weights of the `ConditionalUnet1D` (EMA weights, for a trained policy).
        normalizers: one for each input, and one for "action".
        device: where the network runs.

    Raises:
        InputError: if the device cannot be used.
        RuntimeError: if the weights do not fit the network.
    """

    def __init__(
        self,
        config: PolicyConfig,
        model_state: Mapping[str, Tensor],
        normalizers: Mapping[str, MinMaxNormalizer],
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.device = check_device(device)
        network = build_network(config)
        network.load_state_dict(dict(model_state))
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.normalizers = {name: n.to(self.device) for name, n in normalizers.items()}
        self._processes: dict[tuple[str | None, int | None], Process] = {}

    def process(self, scheduler: str | None = None, steps: int | None = None) -> Process:
        """Return the step table: the trained schedule, or another sampler or step count on it."""
        key = (scheduler, steps)
        if key not in self._processes:
            built = build_scheduler(self.config.noise_scheduler, scheduler)
            self._processes[key] = Process.from_scheduler(built, steps)
        return self._processes[key]

    def denoiser(self, obs: Observation) -> Denoiser:
        """Bind batched observations {name: (B, To, *shape)} to the network, once for a whole solve."""
        return Denoiser(self.network, self._condition(self._check(obs, batched=True)))

    def sample(
        self,
        obs: Observation,
        *,
        sampler: str | Sampler = "sequential",
        seed: int | Sequence[int] = 0,
        scheduler: str | None = None,
        steps: int | None = None,
        callback: Callback | None = None,
    ) -> ActionResult:
        """Predict a chunk.

        Args:
            obs: {name: (To, *shape)} in physical units, oldest first; or (B, To, *shape) for a batch.
            sampler: a name of `samplers.names()`, or a sampler.
            seed: of the chunk's noise; for a batch, one for each observation.
            scheduler: "ddpm", "ddim" or "dpmsolver++"; None for the one it was trained with.
            steps: denoising steps N; None for all.

        Raises:
            InputError: for missing, misshapen or non-finite observations, or unknown options.
            NonFiniteError: if the result holds NaN or infinity; nothing is returned to be executed.
        """
        start = time.perf_counter()
        solver = samplers.get(sampler) if isinstance(sampler, str) else sampler
        batched = isinstance(seed, (Sequence, np.ndarray))
        seeds = list(seed) if isinstance(seed, (Sequence, np.ndarray)) else [seed]
        values = self._check(obs, batched=batched)
        for name, value in values.items():
            if len(value) != len(seeds):
                raise InputError(f"{len(seeds)} seeds for {len(value)} observations {name!r}")
        process = self.process(scheduler, steps)
        shape = (self.config.horizon, self.config.action_dim)
        noise = Noise.from_seeds(seeds, shape, process.num_steps, device=self.device)
        denoiser = Denoiser(self.network, self._condition(values))
        result = solver(denoiser, process, noise, callback=callback)
        prediction = self.normalizers["action"].unnormalize(result.sample).cpu().numpy()
        if Status.NON_FINITE in result.status or not np.isfinite(prediction).all():
            raise NonFiniteError(
                f"the sampled actions hold NaN or infinity: {Status.NON_FINITE.value}"
            )
        first = self.config.n_obs_steps - 1
        actions = prediction[:, first : first + self.config.n_action_steps]
        sample = result.sample.cpu().numpy()
        stats = _stats(result, time.perf_counter() - start, batched)
        if batched:
            return ActionResult(actions, prediction, sample, stats)
        return ActionResult(actions[0], prediction[0], sample[0], stats)

    def _check(self, obs: Observation, *, batched: bool) -> dict[str, np.ndarray]:
        """Return every input as a finite float32 array (B, To, D)."""
        checked = {}
        for name, shape in self.config.inputs.items():
            if name not in obs:
                raise InputError(f"observation {name!r} is missing; got {sorted(obs)}")
            try:
                value = np.asarray(obs[name], dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise InputError(f"observation {name!r} is not numeric: {error}") from error
            expected = (self.config.n_obs_steps, *shape)
            if value.ndim != len(expected) + batched or value.shape[int(batched) :] != expected:
                form = f"(B, {', '.join(map(str, expected))})" if batched else str(expected)
                raise InputError(
                    f"observation {name!r} has shape {value.shape}; expected {form}"
                    + (", a batch because seed is a sequence" if batched else "")
                )
            if not np.isfinite(value).all():
                raise InputError(
                    f"observation {name!r} holds NaN or infinity; hold the robot and check the sensor"
                )
            checked[name] = value.reshape(
                -1 if batched else 1, self.config.n_obs_steps, int(np.prod(shape))
            )
        return checked

    def _condition(self, values: Mapping[str, np.ndarray]) -> Tensor:
        """Normalised observations side by side, flattened over time: (B, To * D)."""
        parts = [
            self.normalizers[name].normalize(torch.from_numpy(values[name]).to(self.device))
            for name in self.config.inputs
        ]
        return torch.cat(parts, dim=-1).flatten(1)


def check_device(device: torch.device | str) -> torch.device:
    """Return the device if tensors can live there.

    Raises:
        InputError: for an unknown or unreachable device.
    """
    try:
        checked = torch.device(device)
        torch.empty(1, device=checked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = "cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(device)!r} cannot be used ({reason}); available: {available}"
        ) from error
    return checked


def _stats(result: samplers.SampleResult, wall_s: float, batched: bool) -> SampleStats:
    columns: dict[str, Any] = {
        "rounds": result.rounds.numpy(),
        "evals": result.evals.numpy(),
        "residual": result.residual.numpy(),
        "converged": result.converged.numpy(),
        "status": [status.value for status in result.status],
    }
    residuals = result.residuals.numpy()
    if batched:
        return SampleStats(**columns, residuals=residuals, wall_s=wall_s)
    scalars = {
        name: values[0].item() if name != "status" else values[0]
        for name, values in columns.items()
    }
    return SampleStats(**scalars, residuals=residuals[:, 0], wall_s=wall_s)
