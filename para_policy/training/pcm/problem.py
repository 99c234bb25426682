"""The solve that trajectories record, and that PCM is trained for.

Noise is drawn up front from the seed of each trajectory and frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from para_policy.calibration import Calibration
from para_policy.checkpoints.files import arrays_sha256
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers import (
    SPLITTINGS,
    FixedPoint,
    Guess,
    Prior,
    ResidualBelow,
    RoundInfo,
    Sequential,
    Splitting,
)
from para_policy.samplers.checks import check_count

_FIRST_SEED = 2**41
"""Seeds lie far from those of robots (from 0) and of calibration (from 2**40)."""

Rows = dict[str, np.ndarray]
"""What is stored of some trajectories, by array: seed, condition, solution, iterates."""


def preset_of(splitting: str) -> str:
    """Name of the sampler that solves with this splitting."""
    return {"identity": "paradigms"}.get(splitting, splitting)


@dataclass(frozen=True)
class Settings:
    """Which solve to record.

    Attributes:
        scheduler, steps: as in `DiffusionPolicy.sample`.
        splitting: of the solve, one of `samplers.SPLITTINGS`.
        rounds: K; the iterates X^0 .. X^{K-1} are stored, and the fixed point.
        count: trajectories.
    """

    scheduler: str | None = None
    steps: int | None = None
    splitting: str = "chord"
    rounds: int = 2
    count: int = 2048

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds)
        check_count("count", self.count)
        if self.splitting not in SPLITTINGS:
            raise InputError(
                f"splitting is {self.splitting!r}; expected one of {', '.join(SPLITTINGS)}"
            )


@dataclass(frozen=True)
class Batch:
    """Trajectories that are solved together.

    Attributes:
        part: which of the store.
        observations: of each, {name: (n, To, *shape)}, physical units.
    """

    part: slice
    observations: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """The solve that a store records and that PCM is trained for.

    Attributes:
        process: its step table.
        splitting: the linear part of its sweeps.
        calibration: of this process, None if there is none; its linear guess is the start.
    """

    process: Process
    splitting: Splitting
    calibration: Calibration | None

    @classmethod
    def of(
        cls, policy: DiffusionPolicy, scheduler: str | None, steps: int | None, splitting: str
    ) -> Problem:
        """Raises InputError if a calibration is needed and missing."""
        chain = policy.chain(scheduler, steps)
        made = chain.sampler(preset_of(splitting))
        assert isinstance(made, FixedPoint)
        return cls(chain.process, made.splitting, chain.calibration)

    def solve(self, policy: DiffusionPolicy, batch: Batch, rounds: int) -> Rows:
        """Raises NonFiniteError if the policy, of which this is a solve, returns NaN or infinity."""
        seeds = range(_FIRST_SEED + batch.part.start, _FIRST_SEED + batch.part.stop)
        shape = (policy.config.horizon, policy.config.action_dim)
        noise = Noise.from_seeds(seeds, shape, self.process.num_steps, device=policy.device)
        denoiser = policy.denoiser(batch.observations)
        assert denoiser.condition is not None
        rows = {
            "seed": torch.tensor(list(seeds)),
            "condition": denoiser.condition,
            "solution": Sequential()(denoiser, self.process, noise).trajectory,
            "iterates": self.iterates(denoiser, noise, rounds),
        }
        return {name: values.cpu().numpy() for name, values in rows.items()}

    def start(self, condition: Tensor) -> Guess:
        """Where the solve begins, as in `pcm`."""
        return Prior() if self.calibration is None else self.calibration.guess.given(condition)

    def iterates(self, denoiser: Denoiser, noise: Noise, rounds: int) -> Tensor:
        """(batch, rounds, N + 1, *shape): the start and the first sweeps of the base network."""
        assert denoiser.condition is not None
        guess = self.start(denoiser.condition)
        found = [guess.start(self.process.to(noise.initial.device, noise.initial.dtype), noise)[0]]

        def keep(info: RoundInfo) -> None:
            found.append(info.trajectory.clone())

        if rounds > 1:
            sweeps = FixedPoint(self.splitting, ResidualBelow(0.0), guess, max_rounds=rounds - 1)
            sweeps(denoiser, self.process, noise, callback=keep)
        found += [found[-1]] * (rounds - len(found))  # solved before
        return torch.stack(found, dim=1)

    @property
    def digest(self) -> str:
        """Of what the iterates depend on besides the weights: the calibration."""
        if self.calibration is None:
            return "none"
        matrices = self.calibration.matrices
        parts = [
            *(matrices if isinstance(matrices, tuple) else (matrices,)),
            self.calibration.guess.weight,
            self.calibration.guess.bias,
        ]
        return arrays_sha256(part.cpu().numpy() for part in parts)
