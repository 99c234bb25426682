"""Autospeculative decoding draws from the law of `sequential`; its samples are others.

A trajectory has the right law for any network if and only if the noises that it implies,
(X_{s+1} - S_s(X_s)) / c_s, are independent and standard normal given all states before them. So the
tests of the law need no exact solution, and are sharp: they look in the direction in which
proposals are wrong. Thresholds are those of the test statistic at a chance of 1e-6 of failing for
another choice of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.errors import InputError
from para_policy.samplers import RoundInfo, SampleResult, Status, asd
from para_policy.samplers.asd import Asd
from para_policy.samplers.deadline import Deadline
from tests.problems import (
    Gaussian,
    Hashed,
    Mixture,
    Network,
    Problem,
    Sawtooth,
    Threshold,
    problem,
    row_by_row,
    scheduler,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SEQUENTIAL = samplers.get("sequential")
N = 20
STOCHASTIC = {
    "ddpm": {"kind": "ddpm"},
    "fixed_large": {"kind": "ddpm", "variance_type": "fixed_large"},
    "unclipped": {"kind": "ddpm", "clip_sample": False},
    "ddim eta 1": {"kind": "ddim", "eta": 1.0},
    "ddim eta 0.5": {"kind": "ddim", "eta": 0.5},
}


@dataclass(frozen=True)
class Waves:
    """A smooth random network: every output mixes all coordinates and the time."""

    seed: int = 0
    frequency: float = 2.0
    size: int = 8

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(2, 32, self.size, generator=generator, dtype=torch.float64).to(x.dtype)
        phase = self.frequency * x.flatten(1) @ drawn[0].T / self.size**0.5 + t[:, None] / 20
        return (phase.sin() @ drawn[1] / 8).reshape(x.shape)


def with_network(net: Network, num_steps: int = N, **options: object) -> Problem:
    made = scheduler("ddpm", prediction_type="sample", **options)
    return Problem(net, Process.from_scheduler(made, num_steps))


def implied_noise(solved: Problem, trajectory: Tensor) -> tuple[Tensor, Tensor]:
    """Return the noises (batch, N - 1, d) that the trajectory implies, and predictions x0.

    The last step, which adds no noise, is compared with the step formula.
    """
    process, states = solved.process, trajectory.flatten(0, 1)
    s = torch.arange(process.num_steps + 1).clamp(max=process.num_steps - 1).repeat(len(trajectory))
    x0 = process.predict_clean(states, solved.network(states, process.timesteps[s]), s)
    mean = process.mean(states, x0, torch.zeros_like(x0), s).reshape(trajectory.shape)[:, :-1]
    step = (trajectory[:, 1:] - mean).flatten(2)
    assert step[:, -1].abs().max() < 1e-12
    return step[:, :-1] / process.c[:-1, None], x0.reshape(trajectory.shape)[:, :-1].flatten(2)


def kolmogorov(values: Tensor, cdf: Tensor) -> float:
    """sqrt(n) times the largest gap between the empirical and the given distribution function."""
    order = values.flatten().argsort()
    n = len(order)
    levels = torch.arange(n + 1, dtype=torch.float64) / n
    gap = torch.maximum(
        levels[1:] - cdf.flatten()[order], cdf.flatten()[order] - levels[:-1]
    ).amax()
    return float(n**0.5 * gap)


KOLMOGOROV = math.sqrt(math.log(2 / 1e-6) / 2)  # P(sqrt(n) D > x) = 2 exp(-2 x^2)


def largest_normal(count: int) -> float:
    """What the largest of `count` standard normal values exceeds with a chance of 1e-6."""
    return math.sqrt(2 * math.log(count / 1e-6))


def departure(solved: Problem, trajectory: Tensor) -> dict[str, float]:
    """Return test statistics over their thresholds: all below 1 if the law is right."""
    noise, x0 = implied_noise(solved, trajectory)
    n, _, size = noise.shape
    length = noise.square().sum(dim=2)
    # Proposals are wrong by the change of the prediction, known before the noise.
    change = x0[:, 1:-1] - x0[:, :-2]
    if solved.process.clip is not None:
        clip = solved.process.clip
        change = x0[:, 1:-1].clamp(-clip, clip) - x0[:, :-2].clamp(-clip, clip)
    wrong = change.square().sum(dim=2) > 1e-16
    direction = change[wrong] / change[wrong].norm(dim=1, keepdim=True)
    along = (noise[:, 1:][wrong] * direction).sum(dim=1)
    flat, states = noise.flatten(1), trajectory[:, :-2].flatten(1)
    states = (states - states.mean(dim=0)) / states.std(dim=0)
    between = (flat.T @ flat / n**0.5).fill_diagonal_(0).abs().max()
    own = noise[:, :, :, None] * states.reshape(noise.shape)[:, :, None]  # with the state before
    found = {
        "mean": (flat.mean(dim=0).abs().max() * n**0.5) / largest_normal(2 * flat.shape[1]),
        "marginal": kolmogorov(flat, torch.special.ndtr(flat)) / KOLMOGOROV,
        "length": kolmogorov(
            length, torch.special.gammainc(torch.tensor(size / 2.0).double(), length / 2)
        )
        / KOLMOGOROV,
        "between steps": between / largest_normal(flat.shape[1] ** 2),
        "with the state": own.mean(dim=0).abs().max() * n**0.5 / largest_normal(2 * own[0].numel()),
    }
    if len(along):
        found["along the error"] = kolmogorov(along, torch.special.ndtr(along)) / KOLMOGOROV
    return {name: float(value) for name, value in found.items()}


def assert_law(solved: Problem, result: SampleResult) -> None:
    assert set(result.status) == {Status.CONVERGED}
    found = departure(solved, result.trajectory)
    assert max(found.values()) < 1, found


@pytest.mark.parametrize("options", STOCHASTIC.values(), ids=STOCHASTIC)
@pytest.mark.parametrize("window", [4, None])
def test_the_law_is_that_of_the_process(window: int | None, options: dict[str, object]) -> None:
    solved = problem(num_steps=N, **options)
    result = solved.solve(Asd(window), solved.noise(batch=4000))
    assert_law(solved, result)
    assert result.rounds.double().mean() < 0.8 * N  # or else there was nothing to test


@pytest.mark.parametrize(
    "net",
    [Waves(0), Waves(1, 6.0), Waves(2, 20.0), Threshold(), Sawtooth(), Sawtooth(3.0), Hashed()],
    ids=str,
)
def test_the_law_holds_for_networks_that_are_hard_to_predict(net: Network) -> None:
    solved = with_network(net, clip_sample=False)
    result = solved.solve(Asd(8), solved.noise(batch=4000))
    assert_law(solved, result)
    assert (result.rounds <= N).all()


@pytest.mark.parametrize("gain", [3.0, 50.0, -50.0])
def test_the_law_holds_with_a_saturated_clip(gain: float) -> None:
    solved = with_network(lambda x, t: gain * Waves()(x, t))
    result = solved.solve(Asd(8), solved.noise(batch=4000))
    assert_law(solved, result)


def test_the_test_of_the_law_passes_the_sequential_sampler_and_notices_louder_noise() -> None:
    solved = with_network(Waves(), clip_sample=False)
    noise = solved.noise(batch=4000)
    assert_law(solved, solved.solve(SEQUENTIAL, noise))
    louder = Problem(solved.network, replace(solved.process, c=1.03 * solved.process.c))
    assert max(departure(solved, louder.solve(Asd(8), noise).trajectory).values()) > 1


def always_kept(noise: Noise) -> Noise:
    return replace(noise, uniforms=torch.zeros_like(noise.steps[:, :, 0, 0]))


def kept_at_even_odds(noise: Noise) -> Noise:
    return replace(noise, uniforms=torch.full_like(noise.steps[:, :, 0, 0], 0.5))


@pytest.mark.parametrize("wrong", [always_kept, kept_at_even_odds])
def test_the_test_of_the_law_notices_wrong_decisions(wrong: Callable[[Noise], Noise]) -> None:
    solved = with_network(Waves(), clip_sample=False)
    result = solved.solve(Asd(8), wrong(solved.noise(batch=4000)))
    assert max(departure(solved, result.trajectory).values()) > 1


def test_the_test_of_the_law_notices_a_missing_reflection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asd, "_reflect", lambda xi, d: xi)
    solved = with_network(Waves(), clip_sample=False)
    result = solved.solve(Asd(8), solved.noise(batch=4000))
    assert max(departure(solved, result.trajectory).values()) > 1


@pytest.mark.parametrize("options", STOCHASTIC.values(), ids=STOCHASTIC)
def test_gaussian_data_has_the_closed_form_mean_and_covariance(options: dict[str, object]) -> None:
    solved = problem(num_steps=N, data=Gaussian(0.3, 0.25), **(options | {"clip_sample": False}))
    n, size = 8000, 8
    result = solved.solve(Asd(6), solved.noise(batch=n))
    process = solved.process
    mean, variance = 0.0, 1.0
    for s in torch.arange(N):  # each step is affine, the same in every coordinate
        x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        at = s.repeat(2)
        x0 = process.predict_clean(x, solved.network(x, process.timesteps[at]), at)
        offset, end = process.mean(x, x0, torch.zeros_like(x), at).flatten().tolist()
        mean = offset + (end - offset) * mean
        variance = (end - offset) ** 2 * variance + float(process.c[s]) ** 2
    sample = result.sample.flatten(1) - mean
    assert sample.mean(dim=0).abs().max() < (variance / n) ** 0.5 * largest_normal(2 * size)
    error = sample.T @ sample / n - variance * torch.eye(size)
    deviation = variance * (1 + torch.eye(size)).div(n).sqrt()
    assert (error / deviation).abs().max() < largest_normal(size * (size + 1))


def test_a_mixture_has_the_modes_and_moments_of_sequential_samples() -> None:
    solved = problem("ddpm", 30)
    n = 4000
    drawn = solved.solve(Asd(10), solved.noise(batch=n)).sample
    expected = solved.solve(SEQUENTIAL, solved.noise(batch=n, first_seed=n)).sample
    generator = torch.Generator().manual_seed(0)
    centres = 1.6 * torch.rand(4, 4, 2, generator=generator, dtype=torch.float64) - 0.8
    modes = [
        (x[:, None] - centres).square().sum(dim=(2, 3)).argmin(dim=1).bincount(minlength=4) / n
        for x in (drawn, expected)
    ]
    assert (modes[1] > 0.1).all()
    deviation = (modes[1] * (1 - modes[1]) * 2 / n).sqrt()
    assert ((modes[0] - modes[1]).abs() < largest_normal(8) * deviation).all()
    a, b = drawn.flatten(1), expected.flatten(1)
    size = a.shape[1]
    deviation = ((a.var(dim=0) + b.var(dim=0)) / n).sqrt()
    assert ((a.mean(dim=0) - b.mean(dim=0)).abs() < largest_normal(2 * size) * deviation).all()
    a, b = ((x[:, :, None] * x[:, None]).flatten(1) for x in (a, b))  # second moments
    deviation = ((a.var(dim=0) + b.var(dim=0)) / n).sqrt()
    assert ((a.mean(dim=0) - b.mean(dim=0)).abs() < largest_normal(size**2) * deviation).all()


def test_the_energy_distance_to_sequential_samples_is_that_of_equal_laws() -> None:
    solved = problem("ddpm", 30)
    n = 800
    drawn = solved.solve(Asd(10), solved.noise(batch=n)).sample.flatten(1)
    expected = solved.solve(SEQUENTIAL, solved.noise(batch=n, first_seed=n)).sample.flatten(1)
    pooled = torch.cat([drawn, expected])
    distance = torch.cdist(pooled, pooled)

    def energy(sign: Tensor) -> float:
        return float(-(sign @ distance @ sign) / n**2)

    sign = torch.ones(2 * n, dtype=torch.float64)
    sign[n:] = -1
    generator = torch.Generator().manual_seed(0)
    shuffled = [energy(sign[torch.randperm(2 * n, generator=generator)]) for _ in range(400)]
    assert energy(sign) < max(shuffled)  # fails for 1 of 400 choices of seeds
    # The same test notices samples that are off by the width of a mode.
    pooled = torch.cat([drawn + 0.1, expected])
    distance = torch.cdist(pooled, pooled)
    assert energy(sign) > max(shuffled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", STOCHASTIC.values(), ids=STOCHASTIC)
def test_window_one_is_the_sequential_sampler_to_the_bit(
    options: dict[str, object], dtype: torch.dtype
) -> None:
    made = problem(num_steps=N, **options)
    solved = Problem(row_by_row(made.network), made.process)
    noise = solved.noise(dtype=dtype)
    result = solved.solve(Asd(1), noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert result.rounds.tolist() == result.evals.tolist() == [N] * 3


def test_the_first_step_is_that_of_the_sequential_sampler() -> None:
    made = problem("ddpm", N)
    solved = Problem(row_by_row(made.network), made.process)
    noise = solved.noise(batch=50)
    seen: list[RoundInfo] = []
    result = solved.solve(Asd(), noise, callback=seen.append)
    assert seen[0].accepted.tolist() == [1] * 50
    expected = solved.solve(SEQUENTIAL, noise)
    assert torch.equal(result.trajectory[:, :2], expected.trajectory[:, :2])
    assert not torch.allclose(result.sample, expected.sample)


@pytest.mark.parametrize("window", [2, 7, N, None])
def test_right_proposals_are_always_kept(window: int | None) -> None:
    """A constant prediction makes every proposal right: one round for the first step, then W each."""
    solved = with_network(lambda x, t: torch.full_like(x, 0.3))
    noise = solved.noise(batch=50)
    result = solved.solve(Asd(window), noise)
    rounds = 1 + math.ceil((N - 1) / min(window or N, N))
    assert result.rounds.tolist() == [rounds] * 50
    assert result.evals.tolist() == [N] * 50
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-12)


def test_proposals_that_cannot_be_right_are_never_kept() -> None:
    solved = with_network(Hashed(gain=1e6), clip_sample=False)
    result = solved.solve(Asd(5), solved.noise(batch=20))
    assert result.rounds.tolist() == [N] * 20
    assert set(result.status) == {Status.CONVERGED}


@pytest.mark.parametrize("net", [Waves(0), Threshold(), Hashed(), Mixture], ids=str)
@pytest.mark.parametrize("window", [1, 2, 5, None])
def test_every_round_makes_a_step_and_never_takes_one_back(
    window: int | None, net: Network | type[Mixture]
) -> None:
    solved = problem("ddpm", N) if net is Mixture else with_network(net)
    noise, width = solved.noise(batch=30), min(window or N, N)
    states, frozen, rounds = noise.initial[:, None], torch.zeros(30, dtype=torch.int64), 0

    def check(info: RoundInfo) -> None:
        nonlocal states, frozen, rounds
        rounds += 1
        assert info.round == rounds
        made = info.accepted - frozen
        assert ((made >= 1) | (frozen == N)).all()
        assert (made <= (width if rounds > 1 else 1)).all()
        assert torch.equal(info.residual.isnan(), frozen == N)
        for i, last in enumerate(frozen.tolist()):
            assert torch.equal(info.trajectory[i, : last + 1], states[i, : last + 1])
        states, frozen = info.trajectory.clone(), info.accepted

    result = solved.solve(Asd(window), noise, callback=check)
    assert frozen.tolist() == [N] * 30
    assert torch.equal(result.trajectory, states)
    assert torch.equal(result.sample, states[:, -1])
    assert torch.equal(result.trajectory[:, 0], noise.initial)
    assert int(result.rounds.max()) == rounds <= N
    assert (result.evals >= N).all()
    assert (result.evals <= 1 + (result.rounds - 1) * width).all()
    assert (result.residual == 0).all()
    assert (result.correction == 0).all()
    assert result.residuals.shape == (rounds, 30)
    for i, count in enumerate(result.rounds.tolist()):
        assert (result.residuals[:count, i] == 0).all()
        assert result.residuals[count:, i].isnan().all()


def test_calls_and_rows_are_counted_as_they_were_made() -> None:
    solved = problem("ddpm", N)
    denoiser = Denoiser(solved.network)
    result = Asd(6)(denoiser, solved.process, solved.noise(batch=7))
    assert denoiser.rounds == result.rounds.max()
    assert denoiser.evals == result.evals.sum()


@pytest.mark.parametrize("num_steps", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 20, None])
def test_few_steps(num_steps: int, window: int | None) -> None:
    solved = problem("ddpm", num_steps)
    result = solved.solve(Asd(window), solved.noise(batch=20))
    assert set(result.status) == {Status.CONVERGED}
    assert (result.rounds <= num_steps).all()
    assert (result.evals >= num_steps).all()


def test_samples_are_independent_of_each_other() -> None:
    made = problem("ddpm", N)
    solved = Problem(row_by_row(made.network), made.process)
    noise = solved.noise(batch=12)
    together = solved.solve(Asd(6), noise)
    order = [7, 0, 11, 3]
    some = solved.solve(Asd(6), noise.select(order))
    assert torch.equal(some.trajectory, together.trajectory[order])
    assert torch.equal(some.rounds, together.rounds[order])
    assert torch.equal(some.evals, together.evals[order])
    assert len(together.rounds.unique()) > 1  # samples leave the batch at different times


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("below", [101, 50, 1])
def test_a_network_that_breaks_for_one_sample_leaves_the_others_alone(
    bad: float, below: int
) -> None:
    base = problem("ddpm", 100)

    def net(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        late = (t < below)[:, None, None]
        return row_by_row(base.network)(x, t) + torch.where(late, condition[:, None, None], 0.0)

    noise = base.noise()
    denoiser = Denoiser(net, torch.tensor([0.0, bad, 0.0]))
    result = Asd()(denoiser, base.process, noise, partial=True)
    assert result.status == (Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED)
    alone = Asd()(Denoiser(row_by_row(base.network)), base.process, noise.select([0, 2]))
    assert torch.equal(result.sample[[0, 2]], alone.sample)


def test_proposals_that_overflow_do_not_end_a_solve_that_is_finite() -> None:
    """A proposal far from the true mean is refused, be it infinite."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((t > 70)[:, None, None], 3e38, 0.1 * x)

    solved = with_network(net, clip_sample=False)
    # Its huge predictions count only where a later step takes them for a proposal.
    process = replace(solved.process, A=torch.where(solved.process.timesteps > 70, 0.0, 1.0))
    noise = solved.noise(batch=20, dtype=torch.float32)
    for sampler in (SEQUENTIAL, Asd(8)):
        result = replace(solved, process=process).solve(sampler, noise)
        assert set(result.status) == {Status.CONVERGED}


@pytest.mark.parametrize(
    "options",
    [{"kind": "ddim"}, {"kind": "dpmsolver++"}, {"kind": "dpmsolver++", "solver_order": 1}],
)
def test_a_deterministic_process_is_refused(options: dict[str, object]) -> None:
    solved = problem(num_steps=N, **options)
    with pytest.raises(InputError, match=r"deterministic.*use DDPM"):
        solved.solve(Asd(), solved.noise())


def test_noise_that_does_not_fit_is_refused() -> None:
    solved = problem("ddpm", N)
    noise = solved.noise()
    with pytest.raises(InputError, match=r"no uniforms.*from_seeds"):
        solved.solve(Asd(), Noise(noise.initial, noise.steps))
    with pytest.raises(InputError, match="19 steps, the process 20"):
        solved.solve(Asd(), Noise.from_seeds([0], (4, 2), N - 1))
    with pytest.raises(InputError, match="float32 or float64"):
        solved.solve(Asd(), Noise(noise.initial.long(), noise.steps.long(), noise.uniforms))


def test_a_deadline_is_refused() -> None:
    solved = problem("ddpm", N)
    with pytest.raises(InputError, match="no deadline"):
        solved.solve(Asd(), solved.noise(), deadline=Deadline.after(1.0))


@pytest.mark.parametrize("window", [0, -1, 2.5, "20", True])
def test_a_wrong_window_is_refused(window: object) -> None:
    with pytest.raises(InputError, match="window is"):
        Asd(window)  # type: ignore[arg-type]
