"""What a sweep leaves undone, as a weighted sum of parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from para_policy.diffusion.process import Process
from para_policy.samplers import Splitting
from para_policy.training.pcm.sweep import Swept, ideal_residual

Weight = Annotated[float, Field(ge=0, le=1e6)]

NEARLY_SOLVED = 0.02
"""Distances below this, normalised action units, are not worth the network's capacity."""


class Weights(BaseModel):
    """Of the parts of a loss; a part without weight is not computed.

    Attributes:
        trajectory: squared distance of the states to the solution.
        rows: squared error of the residuals that the network found, against those with which the sweep
            would have landed on the solution. Each row is judged by itself; how their errors add up along
            the trajectory is left out.
        neighbours: squared change of that error from one row that the network sees to the next one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    trajectory: Weight = 1.0
    rows: Weight = 0.0
    neighbours: Weight = 0.0

    @model_validator(mode="after")
    def _some(self) -> Weights:
        if not (self.trajectory or self.rows or self.neighbours):
            raise ValueError("all parts of the loss have weight 0; expected at least one above it")
        return self


@dataclass(frozen=True)
class Losses:
    """The loss on one process. Its parts are in the order of `Weights`, each a mean square."""

    weights: Weights
    process: Process
    splitting: Splitting

    def before(self, X: Tensor, solution: Tensor) -> Tensor:
        """(3, batch) what a sweep that changes nothing would leave of an iterate (batch, N + 1, *shape);
        of the neighbours as much as of the rows."""
        distance = mean_square(solution - X)
        lacking = 0 * distance
        if self._by_row:
            lacking = mean_square(ideal_residual(self.splitting, self.process, X, solution))
        return torch.stack([distance, lacking, lacking])

    def after(self, X: Tensor, swept: Swept, solution: Tensor) -> Tensor:
        """(3, batch) what the sweep from `X` has left."""
        distance = mean_square(solution - swept.X)
        rows = neighbours = 0 * distance
        if self._by_row:
            ideal = ideal_residual(self.splitting, self.process, X, solution)
            error = swept.residual - ideal[:, swept.rows]
            rows, neighbours = mean_square(error), mean_square(error.diff(dim=1))
        return torch.stack([distance, rows, neighbours])

    def weighted(self, left: Tensor, scale: Tensor) -> Tensor:
        """(batch,) sum of the parts (3, batch), each divided by its scale (3, ...)."""
        parts = self.weights.trajectory, self.weights.rows, self.weights.neighbours
        return torch.tensor(parts).to(left) @ (left / scale)

    @cached_property
    def least(self) -> Tensor:
        """(3, 1) what is left of each part where it is nearly solved: errors of N rows add up."""
        rows = NEARLY_SOLVED**2 / self.process.num_steps
        return torch.tensor([[NEARLY_SOLVED**2], [rows], [rows]])

    @property
    def _by_row(self) -> bool:
        return bool(self.weights.rows or self.weights.neighbours)


def mean_square(value: Tensor) -> Tensor:
    """(batch,) of a tensor (batch, ...); 0 where it is empty."""
    squared = value.square().flatten(1)
    return squared.sum(dim=1) / max(squared.shape[1], 1)
