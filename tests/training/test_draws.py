"""Levels of noise that are drawn for training."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from para_policy.diffusion.noise_schedule import DiscreteSchedule, FlowSchedule
from para_policy.training.config import Beta, Uniform
from para_policy.training.draws import noise_levels

SETTINGS = [
    Uniform(),
    Beta(distribution="beta"),
    Beta(distribution="beta", alpha=0.5, beta=3.0, s=0.8),
]


@pytest.mark.parametrize("distribution", SETTINGS)
def test_levels_of_a_flow_have_the_distribution_that_was_asked_for(
    distribution: Uniform | Beta,
) -> None:
    random = torch.Generator().manual_seed(0)
    sigma = noise_levels(FlowSchedule(), distribution, 4000, random).double().numpy()
    assert sigma.min() > 0
    assert sigma.max() <= 1
    if isinstance(distribution, Beta):
        u = 1 - (1 - sigma) / distribution.s
        expected = stats.beta(distribution.alpha, distribution.beta)
    else:
        u, expected = sigma, stats.uniform()
    assert stats.kstest(u, expected.cdf).pvalue > 0.01


def test_levels_depend_on_the_generator_alone() -> None:
    for distribution in SETTINGS:
        drawn = [
            noise_levels(FlowSchedule(), distribution, 5, torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        ]
        assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()


def test_levels_of_a_diffusion_are_all_of_its_whole_numbers() -> None:
    schedule = DiscreteSchedule(torch.linspace(0.9, 0.1, 10), "epsilon")
    drawn = noise_levels(schedule, Uniform(), 500, torch.Generator().manual_seed(0))
    assert sorted(set(drawn.tolist())) == list(range(10))
