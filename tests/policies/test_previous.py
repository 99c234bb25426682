"""Real-time chunking: a chunk that begins with actions that are decided already."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import DiffusionPolicy, load_policy
from para_policy.errors import InputError
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.policies.previous import PreviousChunk
from tests.checkpoint import random_observations, save_tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SEEDS = [5, 6, 7]
STEPS: dict[str, Any] = {"scheduler": "ddim", "steps": 8}


def observations(i: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    obs = random_observations(len(SEEDS), seed)
    return obs if i is None else {name: value[i] for name, value in obs.items()}


@pytest.mark.parametrize("sampler", ["sequential", "x0", "paradigms"])
@pytest.mark.parametrize("overlap", ["hard", "soft"])
def test_frozen_actions_are_those_of_the_chunk_before(
    policy: DiffusionPolicy, sampler: str, overlap: Any
) -> None:
    before = policy.sample(observations(0), seed=1, **STEPS)
    options: dict[str, Any] = {"previous": before, "executed": 5, "frozen": 3, "overlap": overlap}
    chosen = policy.sampler(
        sampler, **STEPS, **({} if sampler == "sequential" else {"tolerance": 1e-7})
    )
    after = policy.sample(observations(0, seed=1), seed=2, sampler=chosen, **options, **STEPS)
    exact = policy.sample(observations(0, seed=1), seed=2, **options, **STEPS)
    first = policy.config.first_action
    np.testing.assert_allclose(
        after.prediction[: first + 3], before.prediction[5 : 8 + first], atol=1e-4
    )
    np.testing.assert_allclose(after.actions[:3], before.actions[5:8], atol=1e-4)
    np.testing.assert_allclose(after.sample, exact.sample, atol=1e-4)
    free = policy.sample(observations(0, seed=1), seed=2, **STEPS)
    assert np.abs(after.sample[first + 3 :] - free.sample[first + 3 :]).max() > 1e-3


def test_chunks_of_other_numbers_of_steps_are_no_batch(policy: DiffusionPolicy) -> None:
    first = policy.sample(observations(0), seed=1, **STEPS)
    other = policy.sample(observations(1), seed=2, scheduler="ddim", steps=3)
    two = {name: value[:2] for name, value in observations().items()}
    with pytest.raises(InputError, match="cannot be one batch; expected the same of all"):
        policy.sample(two, seed=[1, 2], previous=[first, other], **STEPS)


OTHER: dict[str, tuple[dict[str, Any], float, str]] = {
    "names": ({"action_names": ("x", "y")}, 1.0, "action_names"),
    "a rate": ({"control_hz": 20.0}, 1.0, "control_hz"),
    "a history": ({"first_action": 2}, 1.0, "first_action"),
    "statistics": ({}, 2.0, "scale"),
}


@pytest.mark.parametrize(("changes", "factor", "told"), OTHER.values(), ids=OTHER)
def test_a_chunk_whose_numbers_mean_other_actions_is_refused(
    policy: DiffusionPolicy, changes: dict[str, Any], factor: float, told: str
) -> None:
    """Of the same shape: it was taken over, and frozen actions were not those of the chunk before."""
    chain = policy.chain(**STEPS)
    normalizer = LinearNormalizer(factor * chain.normalizer.scale, chain.normalizer.offset)
    config = policy.config.model_copy(update=changes)
    other = dataclasses.replace(chain, config=config, normalizer=normalizer)
    before = dataclasses.replace(
        policy.sample(observations(0), seed=1, **STEPS), meaning=other.meaning
    )
    for options in ({}, {"frozen": 1}):
        with pytest.raises(InputError, match=f"of a policy with other {told}: .* begin without"):
            policy.sample(observations(0), previous=before, **options, **STEPS)


def test_a_policy_goes_on_from_the_chunk_of_one_that_was_tuned_further(
    policy: DiffusionPolicy, tmp_path: Path
) -> None:
    """Whatever the weights and the process: the actions are the same."""
    tuned = load_policy(save_tiny_checkpoint(tmp_path, 20, seed=1))
    before = policy.sample(observations(0), seed=1, **STEPS)
    after = tuned.sample(observations(0), seed=2, previous=before, executed=5, frozen=3)
    np.testing.assert_allclose(after.actions[:3], before.actions[5:], atol=1e-4)


@pytest.mark.parametrize("index", [[True, False, False], [3], [-4], [1.0], ["0"]])
def test_chunks_are_selected_by_number(policy: DiffusionPolicy, index: Any) -> None:
    """A mask selected the arrays of one chunk, with the words of as many as it was long."""
    batch = policy.sample(observations(), seed=SEEDS, **STEPS)
    with pytest.raises(InputError, match="expected numbers of the 3 chunks in the batch, from 0"):
        batch.select(index)
    kept = batch.select(np.array([2, 0]))
    assert np.array_equal(kept.sample, batch.sample[[2, 0]])
    assert len(kept.stats.status) == len(kept.actions) == kept.noise.batch == 2


def test_a_soft_overlap_stays_closer_to_the_old_chunk(policy: DiffusionPolicy) -> None:
    before = policy.sample(observations(0), seed=1, **STEPS)
    moved = before.sample[5:]
    far = [
        np.abs(
            policy.sample(
                observations(0, seed=1),
                seed=2,
                previous=before,
                executed=5,
                frozen=2,
                overlap=overlap,
                **STEPS,
            ).sample[: len(moved)]
            - moved
        )
        for overlap in ("hard", "soft")
    ]
    assert far[1].mean() < 0.7 * far[0].mean()
    assert far[1][4].max() < 0.5 * far[0][4].max()  # the next but one after the frozen ones


def test_coordinates_that_are_not_pulled_are_as_with_a_hard_overlap(
    policy: DiffusionPolicy,
) -> None:
    """Of the same network call: how the known sample is put into its prediction."""
    result = policy.sample(observations(0), seed=1, **STEPS)
    before = PreviousChunk.of(result, 5, policy.config, 1, result.meaning)
    hard, soft, both = (
        before.known(2, overlap, policy.config, policy.device, pulled).weight[0]
        for overlap, pulled in (("hard", None), ("soft", None), ("soft", [True, False]))
    )
    assert torch.equal(both[:, 0], soft[:, 0])
    assert torch.equal(both[:, 1], hard[:, 1])
    assert not torch.equal(soft, hard)
    with pytest.raises(InputError, match="for each of the 2 action coord"):
        before.known(2, "soft", policy.config, policy.device, [True, False, True])


def test_every_robot_of_a_batch_has_its_own_past(policy: DiffusionPolicy) -> None:
    before = [policy.sample(observations(i), seed=SEEDS[i], **STEPS) for i in range(3)]
    executed, frozen = [2, 5, 9], [1, 3, 0]
    batch = policy.sample(
        observations(seed=1),
        seed=SEEDS,
        previous=before,
        executed=executed,
        frozen=frozen,
        overlap="soft",
        shift_noise=True,
        **STEPS,
    )
    for i in range(3):
        alone = policy.sample(
            observations(i, seed=1),
            seed=SEEDS[i],
            previous=before[i],
            executed=executed[i],
            frozen=frozen[i],
            overlap="soft",
            shift_noise=True,
            **STEPS,
        )
        row = batch.one(i)
        assert torch.equal(row.noise.steps, alone.noise.steps)
        np.testing.assert_allclose(row.sample, alone.sample, atol=1e-5)
        np.testing.assert_allclose(row.actions, alone.actions, atol=1e-3)
        assert row.stats.rounds == alone.stats.rounds
        assert isinstance(row.stats.status, str)
        assert row.stats.error_bound.shape == alone.stats.error_bound.shape
        np.testing.assert_allclose(
            row.sample[: 1 + frozen[i]], before[i].sample[executed[i] :][: 1 + frozen[i]], atol=1e-6
        )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"frozen": 11, "executed": 5}, "only 10 of its actions are left"),
        ({"frozen": 1, "executed": 16}, "only 0 of its actions are left"),
        ({"frozen": -1}, "frozen is -1; expected a number of time steps"),
        ({"frozen": 1.5}, "frozen is 1.5"),
        ({"frozen": True}, "frozen is True"),
        ({"frozen": [1, 2]}, r"frozen is \[1, 2\]"),
        ({"frozen": 1, "overlap": "medium"}, "overlap is 'medium'; expected 'hard' or 'soft'"),
        ({"executed": [1, 2]}, r"executed is \[1, 2\]"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(
    policy: DiffusionPolicy, options: dict[str, Any], problem: str
) -> None:
    before = policy.sample(observations(0), seed=1, **STEPS)
    with pytest.raises(InputError, match=problem):
        policy.sample(observations(0), previous=before, **options, **STEPS)


def test_frozen_actions_need_a_chunk_before(policy: DiffusionPolicy) -> None:
    with pytest.raises(InputError, match="frozen is 2 without a previous chunk"):
        policy.sample(observations(0), frozen=2, **STEPS)
    several = [policy.sample(observations(0), seed=1, **STEPS)] * 2
    with pytest.raises(InputError, match=r"previous holds chunks \(1, 16, 2\), \(1, 16, 2\)"):
        policy.sample(observations(0), previous=several, **STEPS)
