"""The scheduler of flows that projects integrate by hand: its steps, its options, its refusals."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from para_policy.diffusion.flow_matching import FlowMatching
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import build_scheduler, scheduler_kind
from para_policy.errors import InputError

MULTI_TASK_DIT = {"_class_name": "FlowMatching", "velocity": "data-noise", "times": [1.0, 0.0]}
OPENPI = {"_class_name": "FlowMatching"}


@pytest.mark.parametrize("N", [1, 3, 100])
@pytest.mark.parametrize("sigma_min", [0.0, 0.01])
@pytest.mark.parametrize(("config", "sign"), [(MULTI_TASK_DIT, 1), (OPENPI, -1)])
def test_its_steps_are_those_of_a_loop_by_hand(
    config: dict[str, Any], sign: int, sigma_min: float, N: int
) -> None:
    process = Process.from_scheduler({**config, "sigma_min": sigma_min}, N)
    random = torch.Generator().manual_seed(0)
    x, unused = torch.randn(2, 1, 4, 2, generator=random, dtype=torch.float64)
    by_hand = x
    grid = torch.linspace(0, 1, N + 1, dtype=torch.float64)  # time of the data is 1
    for s, (now, after) in enumerate(itertools.pairwise(grid)):
        told = now if sign == 1 else 1 - now
        torch.testing.assert_close(process.timesteps[s], told)
        by_hand = by_hand + (after - now) * sign * _network(by_hand, told)
        step = torch.tensor([s])
        clean = process.predict_clean(x, _network(x, told), step)
        x = process.step(x, clean, unused, unused, step)
        torch.testing.assert_close(x, by_hand, atol=1e-10, rtol=1e-10)


def _network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x + t) * (1 + x.flip(1))


def test_a_scheduler_that_is_given_is_left_alone() -> None:
    scheduler = FlowMatching(velocity="data-noise")
    assert Process.from_scheduler(scheduler, 7).num_steps == 7
    assert scheduler.num_inference_steps is None
    assert Process.from_scheduler(scheduler).num_steps == 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"velocity": "up"}, "velocity is 'up'; expected noise-data or data-noise"),
        ({"velocity": ["up"]}, "velocity is"),
        ({"sigma_min": 1.0}, "sigma_min is 1.0; expected a number of at least 0 and below 1"),
        ({"sigma_min": "none"}, "sigma_min is 'none'"),
        ({"sigma_min": None}, "sigma_min is None; expected a number"),
        ({"times": [0.0]}, "times is .*; expected two numbers"),
        ({"times": [0.0, float("nan")]}, "times is .*; expected two numbers"),
        ({"times": 3}, "times is 3; expected two numbers"),
        ({"beta_schedule": "linear"}, "FlowMatching has no option"),
        ({"num_train_timesteps": 0}, "num_train_timesteps is 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_scheduler({**OPENPI, **options})


def test_a_flow_and_a_diffusion_are_not_taken_for_each_other() -> None:
    ddpm = {"_class_name": "DDPMScheduler"}
    for config, kind in ((OPENPI, "ddim"), (ddpm, "flow_match_euler")):
        with pytest.raises(InputError, match="different paths"):
            build_scheduler(config, kind)
    assert isinstance(build_scheduler(OPENPI, scheduler_kind(OPENPI)), FlowMatching)
    with pytest.raises(InputError, match="eta"):
        Process.from_scheduler(OPENPI, 4, eta=0.5)
