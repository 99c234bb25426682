"""`Process.from_flow` against Euler loops as other projects write them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.errors import InputError


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """Smooth, nonlinear and dependent on time."""
    return torch.tanh(x - t.to(x.dtype).reshape(-1, 1, 1)) + 0.3 * torch.cos(5 * x)


def lerobot(x: Tensor, N: int, sigma_min: float) -> tuple[Tensor, Process]:
    """multi_task_dit: data time 1 - sigma from 0 to 1 in float32, velocity from noise to data."""
    grid = torch.linspace(0, 1, N + 1)
    for now, after in itertools.pairwise(grid):
        x = x + (after - now).item() * velocity(x, torch.full((len(x),), now.item()))
    sigmas = 1 - grid.double()
    process = Process.from_flow(
        sigmas, timesteps=grid[:-1], velocity="data-noise", sigma_min=sigma_min
    )
    return x, process


def openpi(x: Tensor, N: int) -> tuple[Tensor, Process]:
    """pi0 and its relatives: time is sigma, in float32 for the network only."""
    dt = -1.0 / N
    for step in range(N):
        time = torch.tensor(1.0 + step * dt, dtype=torch.float32)
        x = x + dt * velocity(x, time.expand(len(x)))
    sigmas = 1.0 - np.arange(N + 1) / N
    return x, Process.from_flow(sigmas, timesteps=sigmas[:-1].astype(np.float32))


@pytest.mark.parametrize("N", [1, 10, 100])
@pytest.mark.parametrize(
    ("loop", "options"),
    [(lerobot, (0.0,)), (lerobot, (1e-3,)), (openpi, ())],
    ids=["lerobot", "lerobot with sigma_min", "openpi"],
)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 3e-6)])
def test_a_table_of_a_grid_samples_as_the_loop_of_its_project(
    loop: Any, options: tuple[float, ...], N: int, dtype: torch.dtype, bound: float
) -> None:
    noise = Noise.from_seeds([0, 1], (4, 2), N, dtype=dtype)
    expected, process = loop(noise.initial, N, *options)
    result = samplers.get("sequential")(Denoiser(velocity), process, noise)
    assert (result.sample - expected).abs().max() < bound


@pytest.mark.parametrize(
    ("sigmas", "options", "said"),
    [
        ("fast", {}, "sigmas is 'fast'; expected a list of numbers"),
        ([1.0], {}, "1 values"),
        ([[1.0, 0.0]], {}, "list of finite numbers"),
        ([1.0, float("nan"), 0.0], {}, "list of finite numbers"),
        ([1.5, 0.0], {}, "from 1.5 to 0; expected noise levels"),
        ([1.0, 0.5, -0.1], {}, "from 1 to -0.1"),
        ([1.0, 0.0, 0.0], {}, "only the last may be 0"),
        ([0.5, 0.7, 0.0], {}, "rise from 0.5 to 0.7 at step 0"),
        ([1.0, 0.0], {"timesteps": [1.0, 0.5]}, "2 timesteps for 1 steps"),
        ([1.0, 0.0], {"velocity": "noise"}, "velocity is 'noise'; expected one of noise-data"),
        ([1.0, 0.0], {"sigma_min": 1.0}, "sigma_min is 1.0; expected"),
    ],
)
def test_a_grid_that_is_none_is_refused_in_words(
    sigmas: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Process.from_flow(sigmas, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_grid_may_be_a_tensor_of_any_kind(dtype: torch.dtype) -> None:
    sigmas = torch.tensor([1.0, 0.5, 0.0], dtype=dtype, requires_grad=True)
    process = Process.from_flow(sigmas, timesteps=sigmas[:-1])
    assert process.timesteps.tolist() == process.spread[:-1].tolist() == [1.0, 0.5]


def test_times_keep_single_precision_and_repeated_levels_do_nothing() -> None:
    process = Process.from_flow([1.0, 1.0, 0.999, 0.0])
    assert process.to("cpu", torch.bfloat16).timesteps.dtype == torch.float32
    assert process.to("cpu", torch.float64).timesteps.dtype == torch.float64
    assert (process.B[0], process.A[0], process.sigma[0]) == (1, 0, 0)
    assert all(getattr(process, name).isfinite().all() for name in ("sigma", "signal", "spread"))
