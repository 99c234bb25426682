"""Record of an episode, and its form in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.pusht.env import SUCCESS_COVERAGE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Chunk:
    """One call of the policy, seen from one episode."""

    step: int
    """Number of actions executed before it."""
    rounds: int
    evals: int
    """Network rows spent on this episode's sample."""
    residual: float | None
    """Residual at the end; None where the sampler has none."""
    converged: bool
    residuals: tuple[float, ...]
    """Residual after each round, while the sample was in flight."""
    batch_size: int
    """Episodes that shared the call."""
    batch_wall_s: float
    """Wall time of the shared call; the latency of one robot only where batch_size is 1."""
    prediction: Array
    """(horizon, 2) predicted actions, pixels; the first belongs to the oldest observation."""
    first_action: int
    """Index in `prediction` of the first action that was executed."""
    error: float | None = None
    """Largest coordinate difference to the sequential sample of the same observation and noise,
    normalised units; None where it was not measured."""

    @classmethod
    def from_info(cls, info: Mapping[str, str], step: int, actions: Array) -> Chunk:
        """A chunk over ROS: its values in `~/chunk_info`, and its `actions` (n, 2), pixels."""
        return cls(
            step=step,
            rounds=int(info["rounds"]),
            evals=int(info["evals"]),
            residual=float(info["residual"]),
            converged=info["converged"] == "true",
            residuals=(),
            batch_size=1,
            batch_wall_s=float(info["latency_ms"]) / 1e3,
            prediction=actions,
            first_action=0,
        )


@dataclass(frozen=True)
class Episode:
    """One closed-loop episode."""

    seed: int
    states: Array
    """(steps + 1, 5): agent x, y, block x, y, angle before the first and after each action."""
    coverage: Array
    """(steps,): share of the goal covered after each action."""
    chunks: tuple[Chunk, ...]
    first_sample: Array
    """(horizon, 2) first prediction in normalised units. All samplers plan it from the same
    observation and noise, so it shows their error; later observations differ."""

    @property
    def steps(self) -> int:
        return len(self.coverage)

    @property
    def rewards(self) -> Array:
        return np.asarray(np.clip(self.coverage / SUCCESS_COVERAGE, 0.0, 1.0))

    @property
    def max_reward(self) -> float:
        return float(self.rewards.max())

    @property
    def success(self) -> bool:
        return bool(self.coverage.max() > SUCCESS_COVERAGE)

    @property
    def final_coverage(self) -> float:
        return float(self.coverage[-1])

    def outcome(self) -> dict[str, Any]:
        """The score, ready for JSON."""
        return {
            "max_reward": self.max_reward,
            "success": self.success,
            "final_coverage": self.final_coverage,
            "steps": self.steps,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; `from_json` restores an equal episode."""
        record = asdict(self)
        for name in ("states", "coverage", "first_sample"):
            record[name] = record[name].tolist()
        for chunk in record["chunks"]:
            chunk["prediction"] = chunk["prediction"].tolist()
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Episode:
        chunks = (
            Chunk(
                **{
                    **chunk,
                    "residuals": tuple(chunk["residuals"]),
                    "prediction": np.asarray(chunk["prediction"], dtype=np.float64),
                }
            )
            for chunk in record["chunks"]
        )
        arrays = {
            name: np.asarray(record[name], dtype=np.float64)
            for name in ("states", "coverage", "first_sample")
        }
        return cls(seed=record["seed"], chunks=tuple(chunks), **arrays)
