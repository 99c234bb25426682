"""Closed-loop episodes: batching, noise, history, records."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from para_policy import load_policy, samplers
from para_policy.errors import InputError
from para_policy.planning.seeding import chunk_seed
from para_policy.policies import DiffusionPolicy
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.training.behaviour_cloning import IMAGES, ObservedNetwork
from sim.pusht.env import PushT, legacy_start_state
from sim.pusht.task import PUSHT
from sim.tasks.episode import Episode
from sim.tasks.rollout import STARTS, Control, Start, rollout
from tests.checkpoint import save_tiny_checkpoint, tiny_config

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
        np.testing.assert_allclose(alone.scores, batched.scores, atol=1e-3)


def test_first_chunk_is_that_of_the_policy(policy: DiffusionPolicy) -> None:
    """The first observation is repeated, and the noise is that of chunk 0 of the episode."""
    (episode,) = rollout(policy, [100000], max_steps=8)
    first = PushT().reset(legacy_start_state(100000))
    observation = {name: np.stack([[value, value]]) for name, value in first.items()}
    result = policy.sample(observation, seed=[chunk_seed(100000, 0)])
    np.testing.assert_array_equal(episode.chunks[0].prediction, result.prediction[0])
    np.testing.assert_array_equal(episode.first_sample, result.sample[0])
    executed = episode.chunks[0].prediction[episode.chunks[0].first_action :][:8]
    np.testing.assert_array_equal(executed, result.actions[0])


def observed(states: np.ndarray, step: int) -> dict[str, np.ndarray]:
    """What a batch of one robot observes before action `step`."""
    board = PushT()
    seen = [board.place(states[max(at, 0)]) for at in (step - 1, step)]
    return {name: np.array([[moment[name] for moment in seen]]) for name in seen[0]}


@pytest.mark.parametrize("start", ["cold", "guess", "guess+noise"])
@pytest.mark.parametrize("sampler", ["sequential", "x0"])
def test_what_a_chunk_takes_over_from_the_one_before(
    policy: DiffusionPolicy, sampler: str, start: Start
) -> None:
    (episode,) = rollout(policy, [100000], sampler=sampler, start=start, max_steps=24)
    previous = None
    for index, chunk in enumerate(episode.chunks):
        result = policy.sample(
            observed(episode.states, chunk.step),
            sampler=sampler,
            seed=[chunk_seed(100000, index)],
            previous=None if start == "cold" else previous,
            shift_noise=start == "guess+noise" and index > 0,
        )
        np.testing.assert_allclose(chunk.prediction, result.prediction[0], atol=1e-2)
        assert chunk.rounds == result.stats.rounds[0]
        if start == "guess+noise" and previous is not None:
            kept = result.noise.steps.shape[2] - policy.config.n_action_steps
            new, old = result.noise.steps[:, :, :kept], previous.noise.steps[:, :, -kept:]
            np.testing.assert_array_equal(new, old)
        previous = result


def test_a_guess_does_not_change_the_answer_and_shifted_noise_does(
    policy: DiffusionPolicy,
) -> None:
    sampler = samplers.get("x0", tolerance=1e-5)
    cold, guess, noise = (
        rollout(policy, SEEDS, sampler=sampler, start=start, max_steps=24) for start in STARTS
    )
    for a, b, c in zip(cold, guess, noise, strict=True):
        np.testing.assert_allclose(a.states, b.states, atol=0.02)
        np.testing.assert_array_equal(a.first_sample, b.first_sample)
        np.testing.assert_array_equal(a.first_sample, c.first_sample)
        assert np.abs(a.chunks[1].prediction - c.chunks[1].prediction).max() > 10


@pytest.mark.parametrize("start", ["cold", "guess", "guess+noise"])
def test_errors_are_those_to_the_sequential_sample_of_the_same_noise(
    policy: DiffusionPolicy, start: Start
) -> None:
    loose, tight, exact = (
        rollout(policy, SEEDS[:2], sampler=solver, start=start, max_steps=24, check_errors=True)
        for solver in (
            samplers.get("x0", max_rounds=2),
            samplers.get("x0", tolerance=3e-2),  # loose enough to stop before the error is 0
            "sequential",
        )
    )
    assert min(_errors(loose)) > 1e-2  # two of eight rounds are too few
    assert 0 < max(_errors(tight)) < 2e-2
    assert max(_errors(exact)) == 0
    (unchecked,) = rollout(policy, SEEDS[:1], sampler="x0", start=start, max_steps=8)
    assert unchecked.chunks[0].error is None
    if start == "cold":
        found = np.abs(loose[0].first_sample - exact[0].first_sample).max()
        assert loose[0].chunks[0].error == pytest.approx(found)


def _errors(episodes: list[Episode]) -> list[float]:
    found = [chunk.error for episode in episodes for chunk in episode.chunks]
    assert len(found) == 3 * len(episodes)
    return [error for error in found if error is not None]


def test_control_arms_change_the_chunks_and_not_the_start(policy: DiffusionPolicy) -> None:
    plain, redrawn, moved, again = (
        rollout(policy, [3, 4], max_steps=16, control=control)
        for control in (
            Control(),
            Control(redraw=True),
            Control(perturb=1e-2),
            Control(perturb=1e-2),
        )
    )
    for a, b, c, d in zip(plain, redrawn, moved, again, strict=True):
        assert np.array_equal(a.states[0], b.states[0])
        assert np.array_equal(a.states[0], c.states[0])
        assert np.abs(a.first_sample - b.first_sample).max() > 1e-2
        assert np.abs(a.first_sample - c.first_sample).max() == pytest.approx(1e-2, rel=1e-4)
        assert not np.array_equal(a.states[1], c.states[1])
        assert np.array_equal(c.states, d.states)
    assert not np.array_equal(
        moved[0].first_sample - plain[0].first_sample, moved[1].first_sample - plain[1].first_sample
    )


def test_unknown_start(policy: DiffusionPolicy) -> None:
    with pytest.raises(InputError, match="expected one of cold, guess, guess"):
        rollout(policy, [0], start="warm")  # type: ignore[arg-type]


def test_record(policy: DiffusionPolicy) -> None:
    (episode,) = rollout(policy, [100000], sampler="paradigms", max_steps=20)
    assert episode.steps == 20
    assert [chunk.step for chunk in episode.chunks] == [0, 8, 16]
    assert episode.states.shape == (21, 5)
    np.testing.assert_array_equal(episode.states[0, :2], legacy_start_state(100000)[:2])
    assert episode.max_reward == episode.rewards.max()
    assert episode.final_score == episode.scores[-1]
    for chunk in episode.chunks:
        assert len(chunk.residuals) == chunk.rounds <= 8
        assert chunk.converged
        assert chunk.batch_size == 1


@pytest.mark.parametrize("start", ["cold", "guess+noise"])
def test_success_ends_an_episode_and_the_others_go_on(
    policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    at_goal = np.array([60.0, 60.0, 256.0, 256.0, np.pi / 4])

    class SolvedBoard(PushT):
        def reset(self, state: np.ndarray) -> dict[str, np.ndarray]:
            observation = super().reset(state)
            return self.place(at_goal) if state[0] == 365 else observation

    monkeypatch.setattr("sim.pusht.task.PushT", SolvedBoard)
    counted: list[int] = []
    episodes = rollout(policy, SEEDS, start=start, max_steps=20, on_progress=counted.append)
    assert [episode.success for episode in episodes] == [False, True, False]
    assert [episode.steps for episode in episodes] == [20, 1, 20]
    assert [chunk.batch_size for chunk in episodes[0].chunks] == [3, 2, 2]
    assert sum(counted) == 3 * 20
    (alone,) = rollout(policy, SEEDS[2:], start=start, max_steps=20)
    np.testing.assert_allclose(alone.states, episodes[2].states, atol=0.02)


def test_json_restores_an_equal_episode(policy: DiffusionPolicy) -> None:
    (episode,) = rollout(policy, [7], sampler="paradigms", max_steps=16, check_errors=True)
    text = json.dumps(episode.to_json(), allow_nan=False)
    restored = Episode.reader(PUSHT)(json.loads(text))
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
    policy.config = policy.config.model_copy(
        update={"control_hz": None, "action_names": ("x", "y", "grip")}
    )
    with pytest.raises(InputError, match=r"3 actions \(x, y, grip\)"):
        rollout(policy, [0])


def test_a_checkpoint_that_does_not_say_its_rate_plays(tmp_path: Path) -> None:
    policy = load_policy(save_tiny_checkpoint(tmp_path, 8))
    (expected,) = rollout(policy, [0], max_steps=8)
    policy.config = policy.config.model_copy(update={"control_hz": None})
    (episode,) = rollout(policy, [0], max_steps=8)
    np.testing.assert_array_equal(episode.states, expected.states)


def make_policy(config: PolicyConfig) -> DiffusionPolicy:
    """Random weights; every coordinate of the board is scaled alike."""
    torch.manual_seed(0)
    state = ObservedNetwork(config).weights()
    widths = {name: math.prod(shape) for name, shape in config.inputs.items()}
    widths |= dict.fromkeys(config.cameras, 3) | {"action": config.action_dim}
    normalizers = {
        name: LinearNormalizer(torch.full((width,), 2 / 512), torch.full((width,), -1.0))
        for name, width in widths.items()
    }
    normalizers |= dict.fromkeys(config.cameras, IMAGES)
    return DiffusionPolicy(config, state, normalizers)


@pytest.fixture(scope="module")
def image_policy() -> DiffusionPolicy:
    """Sees the board with a camera, and has LeRobot's names."""
    changes = {
        "inputs": {"observation.state": (2,), "observation.image": (3, 48, 64)},
        "vision": {"cameras": ["observation.image"], "crop": [40, 40], "num_keypoints": 4},
    }
    return make_policy(PolicyConfig.model_validate({**tiny_config(8).model_dump(), **changes}))


def test_an_image_policy_plays(image_policy: DiffusionPolicy) -> None:
    """Each chunk comes from what the board looked like at the last two steps, alone or in a batch."""
    episodes = rollout(image_policy, SEEDS[:2], max_steps=16)
    board = PushT(image_policy.config.inputs)
    for seed, episode in zip(SEEDS, episodes, strict=False):
        assert episode.steps == 16
        for index, chunk in enumerate(episode.chunks):
            seen = [board.place(episode.states[max(at, 0)]) for at in (chunk.step - 1, chunk.step)]
            observation = {name: np.array([[s[name] for s in seen]]) for name in seen[0]}
            assert observation["observation.image"].shape == (1, 2, 3, 48, 64)
            assert observation["observation.image"].dtype == np.uint8
            result = image_policy.sample(observation, seed=[chunk_seed(seed, index)])
            np.testing.assert_allclose(chunk.prediction, result.prediction[0], atol=1e-2)


def test_an_image_policy_is_moved_by_what_it_sees(
    image_policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (episode,) = rollout(image_policy, SEEDS[:1], max_steps=8)
    monkeypatch.setattr(PushT, "image", lambda self, *size: np.zeros((*size, 3), np.uint8))
    (blind,) = rollout(image_policy, SEEDS[:1], max_steps=8)
    assert np.abs(episode.first_sample - blind.first_sample).max() > 1e-4


def test_a_policy_with_the_originals_keypoints_plays() -> None:
    config = tiny_config(8).model_dump() | {"inputs": {"obs": (20,)}}
    policy = make_policy(PolicyConfig.model_validate(config))
    (episode,) = rollout(policy, SEEDS[:1], max_steps=8)
    first = PushT({"obs": (20,)}).reset(legacy_start_state(SEEDS[0]))["obs"]
    result = policy.sample({"obs": np.array([[first, first]])}, seed=[chunk_seed(SEEDS[0], 0)])
    np.testing.assert_array_equal(episode.first_sample, result.sample[0])


def test_the_first_action_is_that_of_the_checkpoint() -> None:
    """Checkpoints without `oa_step_convention` begin with the action of the oldest observation."""
    config = tiny_config(8).model_copy(update={"first_action": 0})
    (episode,) = rollout(make_policy(config), SEEDS[:1], max_steps=8)
    (chunk,) = episode.chunks
    assert chunk.first_action == 0
    board = PushT()
    board.reset(legacy_start_state(SEEDS[0]))
    for action, state in zip(chunk.prediction[:8], episode.states[1:], strict=True):
        board.step(action)
        np.testing.assert_allclose(board.state(), state, atol=1e-3)
