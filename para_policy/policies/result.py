"""Results of a policy: chunks of actions with their cost and trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from para_policy.diffusion.noise import Noise
from para_policy.errors import InputError
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.samplers import SampleResult


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a normalised sample mean, whatever weights made them: equal for policies that
    can go on from each other's chunks.

    Attributes:
        action_names, control_hz, first_action: of the policy's configuration.
        scale, offset: of its actions, one for each coordinate.
    """

    action_names: tuple[str, ...]
    control_hz: float | None
    first_action: int
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def of(cls, config: PolicyConfig, normalizer: LinearNormalizer) -> Meaning:
        """That of a policy; `normalizer`: of its actions."""
        scale, offset = normalizer.on_host.scale.tolist(), normalizer.on_host.offset.tolist()
        return cls(
            config.action_names, config.control_hz, config.first_action, tuple(scale), tuple(offset)
        )

    def differs_in(self, other: Meaning) -> list[str]:
        """Names of what is not alike."""
        mine, others = vars(self), vars(other)
        return [part.name for part in fields(self) if mine[part.name] != others[part.name]]


@dataclass(frozen=True)
class SampleStats:
    """Cost and trust of a chunk; arrays (B,) for a batch, scalars for one observation.

    Attributes:
        rounds, evals: batched network calls, and network rows.
        residual: largest residual let pass, normalised action units.
        residuals: largest residual of each round, (R, B) or (R,).
        correction: largest last update of an accepted state, normalised action units.
        error_bound: (A,) or (B, A), physical units, what no coordinate of the chunk differs by from
            the sequential answer, with the confidence of the calibration; NaN where there is none.
        converged: whether the acceptance test passed.
        status: in words.
        encode_s: seconds of `wall_s` that the observation took, camera encoders included.
        wall_s: seconds from the observation on the host to the actions on the host, whole batch.
    """

    rounds: Any
    evals: Any
    residual: Any
    residuals: np.ndarray
    correction: Any
    error_bound: np.ndarray
    converged: Any
    status: Any
    encode_s: float
    wall_s: float


@dataclass(frozen=True)
class ActionResult:
    """A chunk of actions, or a batch of them (leading axis B).

    Attributes:
        actions: (Ta, A) float32, physical units; action 0 belongs to the newest observation's time.
        prediction: (Tp, A) float32, the whole predicted horizon, physical units.
        sample: (Tp, A) float32, the same in normalised units.
        noise: what it was made from, always a batch.
        meaning: of the numbers in `sample`.
    """

    actions: np.ndarray
    prediction: np.ndarray
    sample: np.ndarray
    noise: Noise
    stats: SampleStats
    meaning: Meaning

    def select(self, index: Sequence[int]) -> ActionResult:
        """Some chunks of a batch.

        Args:
            index: of the chunks, from 0; no mask.

        Raises:
            InputError: for a single chunk, or for what is no number of a chunk in the batch.
        """
        if self.sample.ndim != 3:
            raise InputError("this is a single chunk, not a batch to select from")
        rows, batch = list(index), len(self.sample)
        for row in rows:
            whole = isinstance(row, Integral) and not isinstance(row, bool)
            if not whole or not -batch <= row < batch:
                raise InputError(
                    f"index holds {row!r}; expected numbers of the {batch} chunks in the batch, from 0"
                )
        stats = {
            name: value if name in ("residuals", "status", "encode_s", "wall_s") else value[rows]
            for name, value in vars(self.stats).items()
        }
        stats["residuals"] = self.stats.residuals[:, rows]
        stats["status"] = [self.stats.status[row] for row in rows]
        return replace(
            self,
            actions=self.actions[rows],
            prediction=self.prediction[rows],
            sample=self.sample[rows],
            noise=self.noise.select(rows),
            stats=SampleStats(**stats),
        )

    def one(self, row: int) -> ActionResult:
        """One chunk of a batch, as if it had been sampled alone."""
        kept = self.select([row])
        stats = {
            name: value if name in ("encode_s", "wall_s") else _scalar(value, 0)
            for name, value in vars(kept.stats).items()
        }
        stats["residuals"] = kept.stats.residuals[:, 0]
        return replace(
            kept,
            actions=kept.actions[0],
            prediction=kept.prediction[0],
            sample=kept.sample[0],
            stats=SampleStats(**stats),
        )


def _scalar(values: Any, row: int) -> Any:
    value = values[row]
    return value.item() if isinstance(value, np.generic) else value


def statistics(
    result: SampleResult, unit: Tensor, encode_s: float, wall_s: float, batched: bool
) -> SampleStats:
    """Numbers of a solve on the host; `unit` (A,) is the size of a normalised action unit."""
    bound = result.error_bound
    if bound is None:
        bound = torch.full_like(result.correction, torch.nan)
    columns: dict[str, Any] = {
        "correction": result.correction.numpy(),
        "error_bound": (bound.cpu()[:, None] * unit).numpy(),
        "rounds": result.rounds.numpy(),
        "evals": result.evals.numpy(),
        "residual": result.residual.numpy(),
        "converged": result.converged.numpy(),
        "status": [status.value for status in result.status],
    }
    residuals = result.residuals.numpy()
    if batched:
        return SampleStats(**columns, residuals=residuals, encode_s=encode_s, wall_s=wall_s)
    scalars = {
        name: values[0] if name in ("status", "error_bound") else values[0].item()
        for name, values in columns.items()
    }
    return SampleStats(**scalars, residuals=residuals[:, 0], encode_s=encode_s, wall_s=wall_s)
