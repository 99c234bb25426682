"""Closed-loop episodes: batching, noise, history, records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from para_policy import load_policy
from para_policy.control.seeding import chunk_seed
from para_policy.errors import InputError
from para_policy.policies import DiffusionPolicy
from sim.env import legacy_start_state
from sim.episode import Episode
from sim.rollout import rollout
from tests.fixtures_checkpoint import save_tiny_checkpoint

SEEDS = (100000, 100001, 100002)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPolicy:
    return load_policy(save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), 8))


@pytest.mark.parametrize("sampler", ["sequential", "paradigms"])
def test_batch_equals_one_by_one(policy: DiffusionPolicy, sampler: str) -> None:
    together = rollout(policy, SEEDS, sampler=sampler, max_steps=40)
    for seed, batched in zip(SEEDS, together, strict=True):
        (alone,) = rollout(policy, [seed], sampler=sampler, max_steps=40)
        assert alone.seed == batched.seed == seed
        assert [chunk.rounds for chunk in alone.chunks] == [c.rounds for c in batched.chunks]
        np.testing.assert_allclose(alone.states, batched.states, atol=0.02)
        np.testing.assert_allclose(alone.coverage, batched.coverage, atol=1e-3)


def test_first_chunk_is_that_of_the_policy(policy: DiffusionPolicy) -> None:
    """The first observation is repeated, and the noise is that of chunk 0 of the episode."""
    from sim.env import PushT

    (episode,) = rollout(policy, [100000], max_steps=8)
    first = PushT().reset(legacy_start_state(100000))
    observation = {name: np.stack([[value, value]]) for name, value in first.items()}
    result = policy.sample(observation, seed=[chunk_seed(100000, 0)])
    np.testing.assert_array_equal(episode.chunks[0].prediction, result.prediction[0])
    np.testing.assert_array_equal(episode.first_sample, result.sample[0])
    executed = episode.chunks[0].prediction[episode.chunks[0].first_action :][:8]
    np.testing.assert_array_equal(executed, result.actions[0])


def test_record(policy: DiffusionPolicy) -> None:
    (episode,) = rollout(policy, [100000], sampler="paradigms", max_steps=20)
    assert episode.steps == 20
    assert [chunk.step for chunk in episode.chunks] == [0, 8, 16]
    assert episode.states.shape == (21, 5)
    np.testing.assert_array_equal(episode.states[0, :2], legacy_start_state(100000)[:2])
    assert episode.max_reward == episode.rewards.max()
    assert episode.final_coverage == episode.coverage[-1]
    for chunk in episode.chunks:
        assert len(chunk.residuals) == chunk.rounds <= 8
        assert chunk.converged
        assert chunk.batch_size == 1


def test_success_ends_an_episode_and_the_others_go_on(
    policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_goal = np.array([60.0, 60.0, 256.0, 256.0, np.pi / 4])

    class SolvedBoard(rollout.__globals__["PushT"]):  # type: ignore[misc, name-defined]
        def reset(self, state: np.ndarray) -> dict[str, np.ndarray]:
            observation = super().reset(state)
            return self.place(at_goal) if state[0] == 365 else observation

    monkeypatch.setattr("sim.rollout.PushT", SolvedBoard)
    counted: list[int] = []
    episodes = rollout(policy, SEEDS, max_steps=20, on_progress=counted.append)
    assert [episode.success for episode in episodes] == [False, True, False]
    assert [episode.steps for episode in episodes] == [20, 1, 20]
    assert [chunk.batch_size for chunk in episodes[0].chunks] == [3, 2, 2]
    assert sum(counted) == 3 * 20


def test_json_restores_an_equal_episode(policy: DiffusionPolicy) -> None:
    (episode,) = rollout(policy, [7], sampler="paradigms", max_steps=16)
    text = json.dumps(episode.to_json(), allow_nan=False)
    restored = Episode.from_json(json.loads(text))
    assert restored.to_json() == episode.to_json()
    np.testing.assert_array_equal(restored.states, episode.states)


def test_checkpoint_of_another_robot(tmp_path: Path) -> None:
    policy = load_policy(save_tiny_checkpoint(tmp_path, 8))
    policy.config = policy.config.model_copy(update={"inputs": {"joints": (7,)}})
    with pytest.raises(InputError, match="joints"):
        rollout(policy, [0])
    policy.config = policy.config.model_copy(
        update={"inputs": {"environment_state": (16,), "agent_pos": (2,)}, "control_hz": 50.0}
    )
    with pytest.raises(InputError, match=r"50\.0 Hz"):
        rollout(policy, [0])
