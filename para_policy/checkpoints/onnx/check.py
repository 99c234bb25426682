"""Check that an exported network computes what the policy's network computes (extra `export`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.errors import CheckpointError
from para_policy.extras import extra
from para_policy.policies.policy import DiffusionPolicy

with extra("export", "exporting to ONNX"):
    import onnxruntime

BATCHES = (1, 2, 7, 64)
"""Rows of the calls that are compared, at random timesteps; every timestep follows (of continuous
times, as many)."""

TOLERANCE = 2e-5
"""Largest difference, as a share of the largest output; rounding of float32 makes about 5e-7,
and a trained U-Net hardly notices damage in its deepest layers."""


@dataclass(frozen=True)
class Agreement:
    """How well two networks agree.

    Attributes:
        difference: largest difference of a coordinate.
        largest: largest output, for scale.
    """

    difference: float
    largest: float


@torch.no_grad()
def compare(model: bytes, policy: DiffusionPolicy) -> Agreement:
    """Run an ONNX model beside the policy's network on random inputs.

    Args:
        model: as `export_onnx` makes it.
        policy: on the CPU.

    Raises:
        CheckpointError: if they differ by more than rounding does.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    difference = largest = torch.zeros(())
    for x, t, condition in _inputs(policy):
        expected = policy.network(x, t, condition)
        inputs = {"x": x.numpy(), "timestep": t.numpy(), "condition": condition.numpy()}
        found = torch.from_numpy(session.run(["prediction"], inputs)[0])
        # torch.maximum keeps NaN, which no bound lets pass.
        difference = torch.maximum(difference, (found - expected).abs().max())
        largest = torch.maximum(largest, expected.abs().max())
    if not difference <= TOLERANCE * largest:
        raise CheckpointError(
            f"the exported network differs from torch by {difference:.2g} for outputs up to "
            f"{largest:.2g}; expected at most {TOLERANCE * largest:.2g}. Nothing was written; try "
            "another --opset"
        )
    return Agreement(float(difference), float(largest))


def _inputs(policy: DiffusionPolicy) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    config, count = policy.config, policy.num_train_timesteps
    generator = torch.Generator().manual_seed(0)
    times = policy.runtime.shapes.spaced_times(count)
    some = (times[torch.randint(count, (rows,), generator=generator)] for rows in BATCHES)
    for t in (*some, *times.split(max(BATCHES))):
        x = torch.randn(len(t), config.horizon, config.action_dim, generator=generator)
        yield x, t, torch.randn(len(t), config.condition_dim, generator=generator)
