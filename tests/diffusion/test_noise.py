"""All randomness belongs to a sample's own seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from para_policy import Noise
from para_policy.errors import InputError

SEEDS = st.integers(0, 2**63 - 1)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(SEEDS, min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 20),
)
def test_a_sample_depends_on_its_seed_alone(
    seeds: list[int], shape: list[int], num_steps: int
) -> None:
    together = Noise.from_seeds(seeds, shape, num_steps)
    assert together.initial.shape == (len(seeds), *shape)
    assert together.steps.shape == (len(seeds), num_steps, *shape)
    assert (together.batch, together.num_steps) == (len(seeds), num_steps)
    for i, seed in enumerate(seeds):
        alone = Noise.from_seeds([seed], shape, num_steps)
        assert torch.equal(alone.initial[0], together.initial[i])
        assert torch.equal(alone.steps[0], together.steps[i])


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 30), st.integers(1, 30))
def test_the_initial_state_does_not_depend_on_the_number_of_steps(
    seed: int, few: int, many: int
) -> None:
    a, b = (Noise.from_seeds([seed], (16, 2), n) for n in (few, many))
    assert torch.equal(a.initial, b.initial)


def test_every_dtype_sees_the_same_numbers_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    single = Noise.from_seeds([1, 2], (16, 2), 10)
    double = Noise.from_seeds([1, 2], (16, 2), 10, dtype=torch.float64)
    assert double.steps.dtype == torch.float64
    assert torch.equal(single.steps.double(), double.steps)
    assert torch.equal(single.initial.double(), double.initial)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_standard_normal_and_uncorrelated_between_seeds_and_steps() -> None:
    noise = Noise.from_seeds(range(500), (4, 2), 20)
    values = torch.cat([noise.initial[:, None], noise.steps], dim=1).flatten(1)
    assert values.mean().abs() < 0.02
    assert abs(values.std() - 1) < 0.02
    correlation = torch.corrcoef(values.T[:40])
    assert (correlation - torch.eye(40)).abs().max() < 0.25  # 5 sigma of 1 / sqrt(500)
    assert torch.corrcoef(values[:40]).fill_diagonal_(0).abs().max() < 0.45


def test_uniforms_are_drawn_last_and_independent_of_the_rest() -> None:
    generator = torch.Generator().manual_seed(3)
    noise = Noise.from_seeds([3], (4, 2), 5)
    assert torch.equal(noise.initial, torch.randn(1, 4, 2, generator=generator))
    assert torch.equal(noise.steps[0], torch.randn(5, 4, 2, generator=generator))
    assert torch.equal(noise.uniforms, torch.rand(5, generator=generator)[None])
    many = Noise.from_seeds(range(2000), (4, 2), 5)
    assert many.uniforms.shape == (2000, 5)
    assert many.uniforms.min() >= 0
    assert many.uniforms.max() < 1
    assert abs(many.uniforms.mean() - 0.5) < 0.015  # 5 sigma
    values = torch.cat([many.uniforms, many.initial.flatten(1), many.steps.flatten(1)], dim=1)
    correlation = torch.corrcoef(values.T)[:5].fill_diagonal_(0)
    assert correlation.abs().max() < 0.12  # 5 sigma of 1 / sqrt(2000)


def test_selected_samples_keep_their_noise() -> None:
    noise = Noise.from_seeds([5, 6, 7], (2, 2), 3)
    chosen = noise.select([2, 0])
    assert torch.equal(chosen.uniforms, Noise.from_seeds([7, 5], (2, 2), 3).uniforms)
    assert Noise(noise.initial, noise.steps).select([1]).uniforms is None
    assert torch.equal(noise.select([2, 0]).steps, Noise.from_seeds([7, 5], (2, 2), 3).steps)
    assert torch.equal(noise.select(torch.tensor([1])).initial, noise.initial[1:2])


@pytest.mark.parametrize("steps", [(3, 10, 4, 2), (2, 10, 4, 3), (2, 4, 2), (2, 10, 4)])
def test_steps_that_do_not_fit_the_initial_state_are_refused(steps: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"steps must be \(2, N, \*\[4, 2\]\)"):
        Noise(initial=torch.zeros(2, 4, 2), steps=torch.zeros(steps))


@pytest.mark.parametrize("uniforms", [(2, 9), (3, 10), (2, 10, 1)])
def test_uniforms_that_do_not_fit_the_steps_are_refused(uniforms: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"uniforms must be \(2, 10\)"):
        Noise(torch.zeros(2, 4, 2), torch.zeros(2, 10, 4, 2), torch.zeros(uniforms))


@pytest.mark.parametrize("seeds", [[], [2**64], [-(2**63) - 1], [0.5], ["abc"], [None]])
def test_seeds_that_are_no_seeds_are_refused(seeds: list[object]) -> None:
    with pytest.raises(InputError, match="seed"):
        Noise.from_seeds(seeds, (4, 2), 3)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.integers(1, 6), SEEDS)
def test_shifted_noise_is_the_old_noise_and_then_new(count: int, horizon: int, seed: int) -> None:
    old, fresh = (Noise.from_seeds([s, s + 1], (horizon, 2), 3) for s in (seed, seed // 2))
    if count > horizon:
        with pytest.raises(InputError, match=f"shift of 0 to {horizon}"):
            old.shifted(count, fresh)
        return
    before = (old.steps.clone(), fresh.steps.clone())
    new = old.shifted(count, fresh)
    for moved, first, second in (
        (new.initial, old.initial, fresh.initial),
        (new.steps.flatten(0, 1), old.steps.flatten(0, 1), fresh.steps.flatten(0, 1)),
    ):
        expected = torch.cat([first[:, count:], second[:, horizon - count :]], dim=1)
        assert torch.equal(moved, expected)
    assert torch.equal(new.uniforms, fresh.uniforms)
    assert torch.equal(old.steps, before[0])
    assert torch.equal(fresh.steps, before[1])


@pytest.mark.parametrize(
    ("other", "count"),
    [((1, (4, 2), 3), 1), ((2, (5, 2), 3), 1), ((2, (4, 2), 4), 1), ((2, (4, 2), 3), -1)],
)
def test_noise_of_another_kind_cannot_be_shifted_in(
    other: tuple[int, tuple[int, ...], int], count: int
) -> None:
    batch, shape, num_steps = other
    fresh = Noise.from_seeds(range(batch), shape, num_steps)
    with pytest.raises(InputError, match="cannot shift noise"):
        Noise.from_seeds([8, 9], (4, 2), 3).shifted(count, fresh)


def test_a_chunk_of_shifted_noise_is_as_random_as_any() -> None:
    old = Noise.from_seeds(range(2000), (4, 2), 2)
    for k in range(1, 6):
        old = old.shifted(3, Noise.from_seeds(range(2000 * k, 2000 * k + 2000), (4, 2), 2))
    values = torch.cat([old.initial.flatten(1), old.steps.flatten(1)], dim=1)
    assert values.mean(dim=0).abs().max() < 0.12  # 5 sigma of 1 / sqrt(2000)
    assert (torch.corrcoef(values.T) - torch.eye(24)).abs().max() < 0.12
    assert (values.std(dim=0) - 1).abs().max() < 0.08
