"""Record of an episode, and its form in JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from sim.tasks.task import Array, SimulatedTask

_ARRAYS = ("states", "scores", "first_sample")


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
    """(horizon, action_dim) predicted actions; the first belongs to the oldest observation."""
    first_action: int
    """Index in `prediction` of the first action that was executed."""
    error: float | None = None
    """Largest coordinate difference to the sequential sample of the same observation and noise,
    normalised units; None where it was not measured."""
    encode_s: float | None = None
    """Seconds of `batch_wall_s` that the observation took, camera encoders included; None in records of
    earlier releases."""

    @classmethod
    def from_info(cls, info: Mapping[str, str], step: int, actions: Array) -> Chunk:
        """A chunk over ROS: its values in `~/chunk_info`, and its `actions` (n, action_dim)."""
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
            encode_s=float(info["encode_ms"]) / 1e3,
        )


@dataclass(frozen=True)
class Episode:
    """One closed-loop episode."""

    task: SimulatedTask
    seed: int
    states: Array
    """(steps + 1, width): `Scene.state` before the first and after each action."""
    scores: Array
    """(steps,): what the task measured after each action."""
    chunks: tuple[Chunk, ...]
    first_sample: Array
    """(horizon, action_dim) first prediction in normalised units. All samplers plan it from the
    same observation and noise, so it shows their error; later observations differ."""

    @property
    def steps(self) -> int:
        return len(self.scores)

    @property
    def rewards(self) -> Array:
        return self.task.score.rewards(self.scores)

    @property
    def max_reward(self) -> float:
        return float(self.rewards.max())

    @property
    def success(self) -> bool:
        return self.task.score.success(float(self.scores.max()))

    @property
    def final_score(self) -> float:
        return float(self.scores[-1])

    def outcome(self) -> dict[str, Any]:
        """The score, ready for JSON."""
        return {
            "max_reward": self.max_reward,
            "success": self.success,
            f"final_{self.task.score.name}": self.final_score,
            "steps": self.steps,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; `reader` restores an equal episode."""
        return {
            "seed": self.seed,
            "chunks": [
                {**asdict(chunk), "prediction": chunk.prediction.tolist()} for chunk in self.chunks
            ],
            **{name: getattr(self, name).tolist() for name in _ARRAYS},
        }

    @classmethod
    def reader(cls, task: SimulatedTask) -> Callable[[Mapping[str, Any]], Episode]:
        """Makes episodes of `task` from what `to_json` has made of them."""
        return partial(cls._from_json, task=task)

    @classmethod
    def _from_json(cls, record: Mapping[str, Any], task: SimulatedTask) -> Episode:
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
        arrays = {name: np.asarray(record[name], dtype=np.float64) for name in _ARRAYS}
        return cls(task, record["seed"], chunks=tuple(chunks), **arrays)
