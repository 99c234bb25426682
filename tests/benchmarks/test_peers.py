"""diffusers' own samplers give our samples: an outside check of `sequential` and `paradigms`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMParallelScheduler, DDPMScheduler

from benchmarks import peers
from para_policy import Denoiser, Noise, load_policy, samplers
from para_policy.checkpoints.native import read_config
from para_policy.checkpoints.observations import read_observations
from para_policy.errors import InputError
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoint import save_tiny_checkpoint
from tests.problems import Mixture, Problem, network, problem, scheduler

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "pusht_state"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPolicy:
    return load_policy(save_tiny_checkpoint(tmp_path_factory.mktemp("policy") / "tiny"))


def theirs(cls: type[Any], N: int) -> Any:
    """One of diffusers' schedulers in double precision: its float32 loses 1 - alpha."""
    made = cls(100, beta_schedule="squaredcos_cap_v2")
    made.alphas_cumprod = made.alphas_cumprod.double()
    made.set_timesteps(N)
    return made


@pytest.mark.parametrize("tolerance", [0.0, 1e-2, 0.1])
@pytest.mark.parametrize("window", [1, 7, 20, None])
@pytest.mark.parametrize("N", [16, 50, 100])
def test_the_published_loop_is_our_paradigms(N: int, window: int | None, tolerance: float) -> None:
    solved = problem("ddpm", N)
    peer = peers.DiffusersParadigms(theirs(DDPMParallelScheduler, N), window, tolerance)
    ours = samplers.get("paradigms", window=window, tolerance=tolerance)
    for seed in range(3):
        noise = solved.noise(batch=1, first_seed=seed)
        expected, result = solved.solve(peer, noise), solved.solve(ours, noise)
        torch.testing.assert_close(result.sample, expected.sample, rtol=0, atol=1e-9)
        if tolerance > 0:  # at 0 rounding decides
            assert torch.equal(result.rounds, expected.rounds)
            assert torch.equal(result.evals, expected.evals)


def test_one_window_moves_for_the_whole_batch() -> None:
    solved = problem("ddpm", 100)
    peer = peers.DiffusersParadigms(theirs(DDPMParallelScheduler, 100))
    noise = solved.noise(batch=4)
    together = solved.solve(peer, noise)
    assert len(set(together.rounds.tolist())) == 1
    exact = solved.solve(samplers.get("sequential"), noise)
    torch.testing.assert_close(together.sample, exact.sample, rtol=0, atol=1e-2)


@pytest.mark.parametrize("N", [16, 50, 100])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "fixed_small_log"])
def test_steps_of_diffusers_are_our_sequential(N: int, variance: str) -> None:
    made = scheduler("ddpm", variance_type=variance)
    solved = problem("ddpm", N, variance_type=variance)
    given = theirs(DDPMScheduler, N)
    given.register_to_config(variance_type=variance)
    given.variance_type = variance
    assert made.config.variance_type == given.config.variance_type
    noise = solved.noise()
    expected = solved.solve(peers.DiffusersDdpm(given), noise)
    result = solved.solve(samplers.get("sequential"), noise)
    torch.testing.assert_close(result.trajectory, expected.trajectory, rtol=0, atol=1e-6)


def test_the_draws_of_diffusers_leave_torchs_generator_alone() -> None:
    solved = problem("ddpm", 10)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    solved.solve(peers.DiffusersDdpm(theirs(DDPMScheduler, 10)), solved.noise())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("steps", [10, 16])
def test_ddim_takes_its_own_number_of_steps(policy: DiffusionPolicy, steps: int) -> None:
    peer = peers.ddim(policy, num_steps=steps)
    net = network(Mixture(), scheduler("ddim"))
    noise = Noise.from_seeds([0, 1], (4, 2), 100)
    result = peer(Denoiser(net), problem("ddpm", 100).process, noise)
    assert result.rounds.tolist() == result.evals.tolist() == [steps, steps]
    ddim = problem("ddim", steps)
    own = Noise.from_seeds([0, 1], (4, 2), steps)
    expected = Problem(net, ddim.process).solve(samplers.get("sequential"), own)
    torch.testing.assert_close(result.sample, expected.sample, rtol=0, atol=1e-4)
    assert not peer.same_sample


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda policy: peers.paradigms(policy, window=0), "window is 0"),
        (lambda policy: peers.paradigms(policy, tolerance=-1.0), "tolerance is -1.0"),
        (lambda policy: peers.paradigms(policy, "ddim"), "solves ddpm only, not ddim"),
        (lambda policy: peers.ddpm(policy, steps=101), "num_steps is 101"),
        (lambda policy: peers.ddim(policy, num_steps=0), "num_steps is 0"),
    ],
)
def test_what_diffusers_cannot_do_is_refused(
    policy: DiffusionPolicy, make: Callable[[DiffusionPolicy], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(policy)


def test_a_spacing_that_the_published_loop_cannot_step_is_refused() -> None:
    made = DDPMParallelScheduler(100, timestep_spacing="trailing")
    made.set_timesteps(30)
    with pytest.raises(InputError, match="batch_step_no_noise steps by 3"):
        peers.DiffusersParadigms(made)


def test_the_shipped_policy_agrees_with_diffusers() -> None:
    policy = load_policy(CHECKPOINT)
    observations = read_observations(CHECKPOINT, read_config(CHECKPOINT))
    for index in range(2):
        obs = {name: values[index] for name, values in observations.items()}

        def sample(sampler: Any, obs: Any = obs, seed: int = index) -> Any:
            return policy.sample(obs, sampler=sampler, seed=seed)

        exact, steps = sample("sequential"), sample(peers.ddpm(policy))
        assert abs(exact.sample - steps.sample).max() < 1e-4
        ours, published = (
            sample(samplers.get("paradigms")),
            sample(peers.paradigms(policy)),
        )
        assert abs(ours.sample - published.sample).max() < 1e-4
        assert ours.stats.rounds == published.stats.rounds
        assert ours.stats.evals == published.stats.evals
