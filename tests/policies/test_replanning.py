"""Each chunk may start from the last one: it moves the start, not the answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import DiffusionPolicy, Noise, samplers
from para_policy.errors import InputError
from para_policy.policies.policy import ActionResult
from para_policy.samplers import SampleResult
from tests.checkpoint import random_observations

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PARALLEL = ["paradigms", "parataa", "x0", "chord"]
BATCH = 3
SEEDS = list(range(20, 20 + BATCH))


def drifting(step: int) -> dict[str, np.ndarray]:
    """A scene that changes by half a percent of the board from one chunk to the next."""
    return {name: start + 2.5 * step for name, start in random_observations(BATCH, seed=5).items()}


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpmsolver++"])
@pytest.mark.parametrize("name", PARALLEL)
def test_the_previous_chunk_moves_the_start_and_not_the_answer(
    policy: DiffusionPolicy, name: str, scheduler: str
) -> None:
    options: dict[str, Any] = {"scheduler": scheduler, "steps": 8, "seed": SEEDS}
    exact = policy.sample(drifting(1), **options)
    tight: dict[str, Any] = {"tolerance": 1e-6}
    if name == "parataa":
        tight["relative_tolerance"] = 0.0
    sampler = policy.sampler(name, scheduler=scheduler, steps=8, **tight)
    options["sampler"] = sampler
    previous = policy.sample(drifting(0), **options)
    for executed in (0, 3, 16, 100):
        warm = policy.sample(drifting(1), previous=previous, executed=executed, **options)
        np.testing.assert_allclose(warm.sample, exact.sample, atol=1e-4)
        assert torch.equal(warm.noise.steps, exact.noise.steps)
        assert warm.stats.converged.all()


class Spy:
    """A sampler that remembers the guess and the noise."""

    def __init__(self) -> None:
        self.inner = samplers.get("sequential")
        self.guess: Any = None
        self.noise: Any = None

    def __call__(
        self, denoiser: Any, process: Any, noise: Noise, *, guess: Any = None, **options: Any
    ) -> SampleResult:
        self.guess, self.noise = guess, noise
        return self.inner(denoiser, process, noise)


@pytest.mark.parametrize(
    ("executed", "expected"),
    [
        (0, list(range(16))),
        (1, [*range(1, 16), 15]),
        (None, [*range(8, 16), *[15] * 8]),
        (15, [15] * 16),
        (16, [15] * 16),
        (1000, [15] * 16),
    ],
)
def test_the_guess_is_the_last_sample_at_the_present_time(
    policy: DiffusionPolicy, executed: int | None, expected: list[int]
) -> None:
    previous = policy.sample(drifting(0), steps=4, scheduler="ddim", seed=SEEDS)
    spy = Spy()
    options: dict[str, Any] = {"steps": 4, "scheduler": "ddim", "seed": SEEDS, "sampler": spy}
    policy.sample(drifting(1), previous=previous, executed=executed, **options)
    np.testing.assert_array_equal(spy.guess.sample.numpy(), previous.sample[:, expected])
    policy.sample(drifting(1), **options)
    assert spy.guess is None


def test_one_observation_starts_from_one_chunk(policy: DiffusionPolicy) -> None:
    obs = {name: values[0] for name, values in drifting(0).items()}
    spy = Spy()
    previous = policy.sample(obs, scheduler="ddim", steps=4)
    policy.sample(obs, scheduler="ddim", steps=4, sampler=spy, previous=previous, executed=0)
    np.testing.assert_array_equal(spy.guess.sample.numpy(), previous.sample[None])


@pytest.mark.parametrize("name", ["x0", "chord"])
def test_in_a_scene_that_hardly_changes_it_saves_rounds(policy: DiffusionPolicy, name: str) -> None:
    """The same noise and almost the same observation: the last answer is almost the next one."""
    options: dict[str, Any] = {"sampler": name, "seed": SEEDS}
    previous = policy.sample(drifting(0), **options)
    cold = policy.sample(drifting(1), **options).stats
    warm = policy.sample(drifting(1), previous=previous, executed=0, **options).stats
    assert warm.rounds.sum() <= cold.rounds.sum()
    assert warm.evals.sum() <= 1.05 * cold.evals.sum()
    # From the exact answer the first round moves less than from any guess.
    assert (warm.residuals[0] < cold.residuals[0]).all()


def test_a_previous_batch_of_another_size_is_refused(policy: DiffusionPolicy) -> None:
    options: dict[str, Any] = {"scheduler": "ddim", "steps": 4, "sampler": "x0"}
    previous = policy.sample(drifting(0), seed=SEEDS, **options)
    one = {name: values[0] for name, values in drifting(1).items()}
    with pytest.raises(
        InputError, match=r"previous holds chunks \(3, 16, 2\).*ActionResult.select"
    ):
        policy.sample(one, previous=previous, **options)
    chosen = policy.sample(one, seed=SEEDS[1], previous=previous.select([1]), **options)
    assert chosen.actions.shape == (8, 2)


@pytest.mark.parametrize("shape", [(16, 3), (12, 2), (32, 2)], ids=str)
def test_a_previous_chunk_of_another_policy_is_refused(
    policy: DiffusionPolicy, shape: tuple[int, ...]
) -> None:
    options: dict[str, Any] = {"scheduler": "ddim", "steps": 4, "sampler": "x0"}
    one = {name: values[0] for name, values in drifting(0).items()}
    other = dataclasses.replace(policy.sample(one, **options), sample=np.zeros(shape, np.float32))
    with pytest.raises(InputError):
        policy.sample(one, previous=other, **options)


@pytest.mark.parametrize("executed", [-1, True, 1.5, "3"])
def test_executed_must_be_a_number_of_steps(policy: DiffusionPolicy, executed: Any) -> None:
    options: dict[str, Any] = {"scheduler": "ddim", "steps": 4, "seed": SEEDS}
    previous = policy.sample(drifting(0), **options)
    with pytest.raises(InputError, match=r"executed is .*expected a number of time steps"):
        policy.sample(drifting(1), previous=previous, executed=executed, **options)


def test_the_noise_moves_with_the_horizon(policy: DiffusionPolicy) -> None:
    options: dict[str, Any] = {"scheduler": "ddpm", "steps": 4}
    previous = policy.sample(drifting(0), seed=SEEDS, **options)
    fresh = Noise.from_seeds([7, 8, 9], (16, 2), 4)
    for executed, count in ((0, 0), (3, 3), (None, 8), (16, 16), (40, 16)):
        result = policy.sample(
            drifting(1),
            seed=[7, 8, 9],
            previous=previous,
            executed=executed,
            shift_noise=True,
            **options,
        )
        noise, old, kept = result.noise, previous.noise, 16 - count
        assert torch.equal(noise.initial[:, :kept], old.initial[:, count:])
        assert torch.equal(noise.steps[:, :, :kept], old.steps[:, :, count:])
        assert torch.equal(noise.initial[:, kept:], fresh.initial[:, kept:])
        assert torch.equal(noise.steps[:, :, kept:], fresh.steps[:, :, kept:])
        assert noise.uniforms is not None
        assert torch.equal(noise.uniforms, fresh.uniforms)
    assert torch.equal(previous.noise.steps, Noise.from_seeds(SEEDS, (16, 2), 4).steps)


def test_noise_stays_fresh_unless_it_is_to_be_shifted(policy: DiffusionPolicy) -> None:
    options: dict[str, Any] = {"scheduler": "ddim", "steps": 4, "sampler": "x0"}
    previous = policy.sample(drifting(0), seed=SEEDS, **options)
    result = policy.sample(drifting(1), seed=[7, 8, 9], previous=previous, **options)
    assert torch.equal(result.noise.initial, Noise.from_seeds([7, 8, 9], (16, 2), 4).initial)


def test_an_episode_with_shifted_noise_is_the_same_for_every_sampler(
    policy: DiffusionPolicy,
) -> None:
    """The noise of chunk k depends on the seeds alone, so both samplers solve the same chunks."""
    tight = policy.sampler("chord", steps=8, tolerance=1e-6)
    chunks: dict[str, list[ActionResult]] = {}
    for name, sampler in (("sequential", "sequential"), ("chord", tight)):
        previous, chunks[name] = None, []
        for k in range(4):
            previous = policy.sample(
                drifting(k),
                seed=[100 * k + i for i in range(BATCH)],
                steps=8,
                sampler=sampler,
                previous=previous,
                executed=5,
                shift_noise=True,
            )
            chunks[name].append(previous)
    for a, b in zip(*chunks.values(), strict=True):
        assert torch.equal(a.noise.steps, b.noise.steps)
        np.testing.assert_allclose(b.sample, a.sample, atol=1e-4)


def test_noise_of_another_step_count_cannot_be_shifted(policy: DiffusionPolicy) -> None:
    """As a start the chunk still serves: it is a clean sample."""
    previous = policy.sample(drifting(0), scheduler="ddim", steps=4, seed=SEEDS)
    options: dict[str, Any] = {"steps": 8, "sampler": "x0", "seed": SEEDS, "previous": previous}
    assert policy.sample(drifting(1), **options).stats.converged.all()
    with pytest.raises(InputError, match="cannot shift noise"):
        policy.sample(drifting(1), shift_noise=True, **options)


@pytest.mark.parametrize("index", [[0], [2, 0], [1, 1], [], np.array([2, 1])], ids=repr)
def test_selected_chunks_are_the_rows_of_the_batch(policy: DiffusionPolicy, index: Any) -> None:
    result = policy.sample(drifting(0), sampler="x0", seed=SEEDS)
    chosen = result.select(index)
    rows = list(index)
    for name in ("actions", "prediction", "sample"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(result, name)[rows])
    assert torch.equal(chosen.noise.steps, result.noise.steps[rows])
    for name in ("rounds", "evals", "residual", "correction", "error_bound", "converged"):
        np.testing.assert_array_equal(
            getattr(chosen.stats, name), getattr(result.stats, name)[rows]
        )
    np.testing.assert_array_equal(chosen.stats.residuals, result.stats.residuals[:, rows])
    assert chosen.stats.status == [result.stats.status[row] for row in rows]
    assert chosen.stats.wall_s == result.stats.wall_s


def test_one_chunk_holds_no_rows_to_select(policy: DiffusionPolicy) -> None:
    one = {name: values[0] for name, values in drifting(0).items()}
    with pytest.raises(InputError, match="batch"):
        policy.sample(one, scheduler="ddim", steps=4).select([0])
