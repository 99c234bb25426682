"""What is measured once: Jacobians, a first guess, the cost of samplers and a bound on their error."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.calibration import (
    ERROR_FLOOR,
    AfterRound,
    Calibration,
    LinearGuess,
    Variant,
    Watch,
    assess,
    fit_linear_guess,
    mean_jacobian,
)
from para_policy.errors import InputError
from para_policy.samplers import (
    Certificate,
    FixedPoint,
    FromCleanSample,
    Guess,
    Prior,
    ResidualBelow,
    Sampler,
    SampleResult,
    Scalar,
    Status,
)
from para_policy.samplers.deadline import LatencyTable
from tests.problems import Linear, Mixture, Problem, problem, scheduler

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (4, 2)
D = 8


@dataclass(frozen=True)
class Smooth:
    """Nonlinear and coupled, differentiable everywhere; its Jacobian depends on state and time."""

    gain: float = 0.5

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        time = t.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)) / 20
        return self.gain * torch.sin(0.7 * x + 0.4 * x.flip(1).roll(1, dims=2) + time)


def exact_jacobian(made: Problem, trajectory: Tensor) -> Tensor:
    """The mean over samples of dS_s/dx by automatic differentiation, (N, d, d)."""
    process = made.process.to("cpu", trajectory.dtype)

    def step(x: Tensor, s: Tensor, previous: Tensor) -> Tensor:
        x0 = process.predict_clean(x[None], made.network(x[None], process.timesteps[s]), s)
        return process.mean(x[None], x0, previous[None], s).flatten()

    means = []
    for k in range(process.num_steps):
        s, rows = torch.tensor([k]), []
        for states in trajectory:
            before, t = states[max(k - 1, 0)][None], torch.tensor([max(k - 1, 0)])
            history = made.network(before, process.timesteps[t])
            previous = process.predict_clean(before, history, t)[0]
            jacobian = torch.func.jacrev(step)(states[k], s, previous)
            rows.append(jacobian.reshape(D, D))
        means.append(torch.stack(rows).mean(dim=0))
    return torch.stack(means)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_the_measured_jacobian_is_the_derivative(kind: str, clip: bool, prediction: str) -> None:
    options = {} if kind == "dpmsolver++" else {"clip_sample": clip}
    made = scheduler(kind, prediction_type=prediction, **options)
    solved = Problem(Smooth(), Process.from_scheduler(made, 10))
    assert (solved.process.clip is not None) == (clip and kind != "dpmsolver++")
    noise = solved.noise(batch=20 if clip else 3, shape=SHAPE)
    trajectory = solved.solve(samplers.get("sequential"), noise).trajectory
    measured = mean_jacobian(Denoiser(solved.network), solved.process, noise, trajectory)
    exact = exact_jacobian(solved, trajectory)
    assert measured.shape == (10, D, D)
    # A difference errs by half its step times the curvature. A sample beside the kink of a clipping
    # may be counted on the wrong side of it, and is one of 20.
    error = (measured - exact).abs()
    assert error.max() < (0.1 if clip else 0.02)
    assert error.mean(dim=(1, 2)).max() < 0.005


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_the_jacobian_knows_which_coordinates_are_clipped(kind: str) -> None:
    """States far from every kink: coordinates 0.1 are free, coordinates 0.9 are clipped at 1."""
    made = scheduler(kind, prediction_type="sample", clip_sample=True)
    process = Process.from_scheduler(made, 6)
    solved = Problem(lambda x, t: 3 * x, process)
    states = torch.full((2, 7, *SHAPE), 0.1, dtype=torch.float64)
    states[:, :, 0, 1] = 0.9
    measured = mean_jacobian(Denoiser(solved.network), process, solved.noise(2, SHAPE), states)
    unclipped = torch.ones(D, dtype=torch.float64)
    unclipped[1] = 0
    expected = process.B[:, None] + 3 * (process.A[:, None] * unclipped + process.R[:, None])
    torch.testing.assert_close(measured, torch.diag_embed(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_a_linear_network_has_its_own_matrix(kind: str, dtype: torch.dtype) -> None:
    """Coefficients times the network's matrix, which is unsymmetric: rows are not columns."""
    options = {} if kind == "dpmsolver++" else {"clip_sample": False}
    made = scheduler(kind, prediction_type="sample", **options)
    solved = Problem(Linear(D), Process.from_scheduler(made, 12))
    process, noise = solved.process, solved.noise(2, SHAPE, dtype)
    trajectory = solved.solve(samplers.get("sequential"), noise).trajectory
    denoiser, done = Denoiser(solved.network), []
    measured = mean_jacobian(denoiser, process, noise, trajectory, done.append)
    eye = torch.eye(D, dtype=torch.float64)
    expected = (
        process.B[:, None, None] * eye + (process.A + process.R)[:, None, None] * Linear(D).matrix
    )
    assert measured.dtype == dtype
    torch.testing.assert_close(
        measured.double(), expected, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-3
    )
    assert done == [1] * D
    assert (denoiser.rounds, denoiser.evals) == (1 + D, (1 + D) * 2 * 12)


def test_a_calibrated_chord_solves_a_linear_problem_at_once() -> None:
    """With the exact Jacobian Newton's method takes one round, and one that confirms."""
    made = scheduler("ddim", prediction_type="sample", clip_sample=False)
    solved = Problem(Linear(D), Process.from_scheduler(made, 20))
    noise = solved.noise(3, SHAPE)
    exact = solved.solve(samplers.get("sequential"), noise)
    matrices = mean_jacobian(
        Denoiser(solved.network), solved.process, noise.select([0]), exact.trajectory[:1]
    )
    chord = samplers.get("chord", matrices=matrices, window=None, lookahead=None, tolerance=1e-6)
    result = solved.solve(chord, noise)
    assert result.rounds.tolist() == [2, 2, 2]
    torch.testing.assert_close(result.sample, exact.sample, rtol=0, atol=1e-7)


def test_the_linear_guess_recovers_an_affine_map() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, D, generator=generator)
    bias = torch.randn(D, generator=generator)
    condition = 10 * torch.randn(300, 5, generator=generator) + 3
    sample = (condition @ weight + bias).reshape(300, *SHAPE)
    guess = fit_linear_guess(condition, sample)
    torch.testing.assert_close(guess.weight, weight, rtol=0, atol=1e-2)
    torch.testing.assert_close(guess.bias, bias, rtol=0, atol=1e-2)
    fresh = 10 * torch.randn(4, 5, generator=generator)
    torch.testing.assert_close(guess(fresh), fresh @ weight + bias, rtol=0, atol=0.1)
    assert guess(fresh).dtype == sample.dtype


@pytest.mark.parametrize("cases", [1, 3, 40])
def test_a_linear_guess_needs_no_full_rank(cases: int) -> None:
    """Fewer cases than inputs, a constant input, two equal ones: finite, and near the cases."""
    generator = torch.Generator().manual_seed(1)
    condition = torch.randn(cases, 6, generator=generator)
    condition[:, 2] = 0.5
    condition[:, 4] = condition[:, 3]
    sample = 0.3 * torch.randn(cases, 2, 2, generator=generator)
    guess = fit_linear_guess(condition, sample)
    assert guess.weight.isfinite().all()
    error = guess(condition) - sample.flatten(1)
    assert (error**2).mean() <= ((sample - sample.mean(dim=0)) ** 2).mean() + 1e-9


def test_far_from_the_data_only_the_mean_is_left_of_a_random_relation() -> None:
    """The ridge keeps a relation that three noisy cases suggest from being blown up."""
    condition = 1e-4 * torch.randn(3, 4, generator=torch.Generator().manual_seed(2))
    guess = fit_linear_guess(condition, torch.randn(3, 2))
    assert guess.weight.abs().max() < 0.1


TABLE = LatencyTable((1, 10), (0.002, 0.011))


def test_the_expected_time_is_rounds_times_a_call_of_mean_size() -> None:
    variant = Variant("x0", rounds=6, evals=30)
    assert variant.seconds(TABLE) == pytest.approx(6 * TABLE.predict(5)) == pytest.approx(0.036)
    assert Variant("sequential", rounds=50, evals=50).seconds(TABLE) == pytest.approx(0.1)


def calibration(*variants: Variant, **changes: Any) -> Calibration:
    sequential = Variant("sequential", {}, 100, 100, 0.0, 0.0, 0.0)
    made = Calibration(
        scheduler="ddim",
        steps=6,
        tolerance=1e-2,
        cases=100,
        matrices=torch.zeros(6, D, D),
        guess=LinearGuess(torch.zeros(3, D), torch.zeros(D)),
        variants=(sequential, *variants),
    )
    return dataclasses.replace(made, **changes)


VARIANTS = st.builds(
    lambda rounds, width: Variant("x0", {"tolerance": 1e-2}, rounds, rounds * width),
    st.floats(1, 100),
    st.floats(1, 100),
)
TABLES = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=6).map(
    lambda times: LatencyTable(
        tuple(2**k for k in range(len(times))), tuple(torch.tensor(times).cummax(0)[0].tolist())
    )
)


@settings(max_examples=150, deadline=None)
@given(st.lists(VARIANTS, max_size=5), TABLES, st.floats(1.0, 3.0))
def test_the_fastest_is_never_expected_to_be_slower_than_sequential(
    variants: list[Variant], latency: LatencyTable, advantage: float
) -> None:
    made = calibration(*variants)
    reference = made.variants[0].seconds(latency)
    chosen = made.fastest(latency, advantage)
    if chosen.sampler == "sequential":
        assert all(variant.seconds(latency) * advantage >= reference for variant in variants)
    else:
        assert chosen.seconds(latency) * advantage <= reference
        assert chosen.seconds(latency) == min(variant.seconds(latency) for variant in variants)


def test_the_fastest_depends_on_the_device() -> None:
    few_rounds = Variant("x0", {}, rounds=10, evals=500)
    few_rows = Variant("chord", {"window": 20}, rounds=20, evals=200)
    made = calibration(few_rounds, few_rows)
    flat = LatencyTable((1, 128), (1.0, 1.0))
    proportional = LatencyTable((1, 128), (0.01, 1.28))
    affine = LatencyTable((1, 101), (1.0, 3.0))
    assert made.fastest(flat) is few_rounds
    assert made.fastest(affine) is few_rounds
    assert made.fastest(proportional).sampler == "sequential"
    assert made.fastest(LatencyTable((1, 10, 50), (1.0, 1.1, 9.0))) is few_rows


def test_a_small_advantage_is_not_enough() -> None:
    made = calibration(Variant("x0", {}, rounds=90, evals=90))
    flat = LatencyTable((1,), (1.0,))
    assert made.fastest(LatencyTable((1, 2), (1.0, 1.0))).sampler == "sequential"
    assert made.fastest(flat, advantage=1.0).sampler == "x0"


COURSE = (AfterRound(10, 0.5), AfterRound(8, 0.2), AfterRound(1, 0.01))


@pytest.mark.parametrize(
    ("asked", "sizes", "rows"),
    [
        ([20, 8, 27, 3], (20, 30, 100), [20, 20, 30, 30]),  # never back to fewer nodes
        ([90, 120], (20, 30, 100), [100, 100]),
        ([20, 8, 27, 3], (40,), [40] * 4),
    ],
)
def test_recorded_rounds_have_the_rows_of_their_size(
    asked: list[int], sizes: tuple[int, ...], rows: list[int]
) -> None:
    course = tuple(AfterRound(evals, 0.1 / (1 + k)) for k, evals in enumerate(asked))
    variant = Variant("collocation", rounds=2, evals=sum(asked), course=course)
    recorded = variant.recorded(sizes)
    assert [after.evals for after in recorded.course] == rows
    assert [after.error_p95 for after in recorded.course] == [one.error_p95 for one in course]
    assert recorded.evals == pytest.approx(2 * sum(rows[:2]) / 2)
    assert Variant("x0", rounds=4, evals=80).recorded((10, 30)).evals == 4 * 30


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (0.0, 0.5),
        (0.0110, 0.5),
        (0.0199, 0.5),
        (0.0201, 0.2),
        (0.0219, 0.2),
        (0.0221, 0.01),
        (9, 0.01),
    ],
)
def test_the_error_at_a_deadline_is_that_of_the_last_round_that_fits(
    seconds: float, error: float
) -> None:
    """Rounds of 11, 9 and 2 ms; the first one is always waited for."""
    assert Variant("x0", rounds=3, evals=19, course=COURSE).error_within(seconds, TABLE) == error


def test_without_a_course_only_the_end_is_known() -> None:
    variant = Variant("x0", rounds=6, evals=30, error_p95=0.004)
    assert variant.error_within(0.035, TABLE) == math.inf
    assert variant.error_within(0.037, TABLE) == 0.004


@pytest.mark.parametrize("name", ["paradigms", "parataa", "x0"])
def test_a_course_tells_what_fewer_rounds_would_have_given(name: str) -> None:
    solved = problem("ddim", 12, clip_sample=False)
    batches = [solved.noise(batch=size, shape=SHAPE, first_seed=size) for size in (3, 5)]
    exact = [solved.solve(samplers.get("sequential"), noise) for noise in batches]
    watched = [Watch(result.sample) for result in exact]
    results = [
        solved.solve(samplers.get(name), noise, callback=watch)
        for noise, watch in zip(batches, watched, strict=True)
    ]
    measured = assess(name, {}, results, exact, watched)
    assert len(measured.course) == max(int(result.rounds.max()) for result in results)
    assert measured.course[-1].error_p95 == pytest.approx(measured.error_p95)
    total = 0.0
    for k, after in enumerate(measured.course, start=1):
        cut = [solved.solve(samplers.get(name, max_rounds=k), noise) for noise in batches]
        left = assess(name, {}, cut, exact)
        assert after.error_p95 == pytest.approx(left.error_p95, rel=1e-6, abs=1e-12)
        in_flight = sum(int((result.rounds >= k).sum()) for result in results)
        total += after.evals * in_flight
        assert total == pytest.approx(sum(int(result.evals.sum()) for result in cut))


def test_the_deadline_decides_about_the_variant() -> None:
    far, near, there = AfterRound(10, 0.5), AfterRound(10, 0.1), AfterRound(10, 0.0)
    quick = Variant("x0", {}, 2, 20, error_p95=0.0, course=(far, there))
    steady = Variant("chord", {}, 3, 30, error_p95=0.0, course=(near, near, there))
    made, latency = calibration(quick, steady), LatencyTable((1, 100), (1.0, 1.0))
    assert made.fastest(latency) is quick
    assert made.fastest(latency, 1.0, deadline_s=1.9) is steady
    assert made.fastest(latency, 1.0, deadline_s=2.1) is quick
    assert made.fastest(latency, 2.0, deadline_s=2.1) is steady  # other work costs time, too


@pytest.mark.parametrize("deadline_s", [1e-3, 1.0, 1e6])
def test_with_a_deadline_sequential_is_not_taken_where_another_is_accurate(
    deadline_s: float,
) -> None:
    made = calibration(Variant("x0", {}, 90, 9000, error_p95=0.0))
    assert made.fastest(TABLE).sampler == "sequential"
    assert made.fastest(TABLE, deadline_s=deadline_s).sampler == "x0"
    unknown = calibration(Variant("x0", {}, 9, 90), Variant("chord", {}, 5, 50))
    assert unknown.fastest(TABLE, deadline_s=deadline_s).sampler == "chord"
    off = calibration(Variant("x0", {}, 9, 90, error_p95=0.5))
    assert off.fastest(TABLE, deadline_s=deadline_s).sampler == "sequential"


@pytest.mark.parametrize("options", [{"tolerance": 1e-2}, {}], ids=["ours", "other"])
def test_what_was_less_accurate_than_its_tolerance_is_not_taken(options: dict[str, Any]) -> None:
    for error, name in ((1e-2, "x0"), (1.01e-2, "sequential")):
        made = calibration(Variant("x0", options, 2, 20, error_p95=error))
        assert made.fastest(LatencyTable((1, 100), (1.0, 1.0))).sampler == name


MEASURED = calibration(
    Variant("x0", {"tolerance": 1e-2}, 5, 50, amplification=2.0),
    Variant("x0", {"tolerance": 1e-2, "window": 10}, 8, 40, amplification=3.0),
    Variant("parataa", {}, 8, 80, amplification=4.0),
    Variant("paradigms", {}, 8, 80, amplification=5.0),
    Variant("chord", {"tolerance": 1e-2}, 4, 40, amplification=6.0),
)


def amplification(sampler: Sampler) -> float:
    assert sampler.certificate is not None
    return sampler.certificate.amplification


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sequential", {}, 0.0),
        ("x0", {}, 3.0),
        ("x0", {"tolerance": 1e-2}, 3.0),
        ("x0", {"tolerance": 1e-3, "window": 10}, 3.0),
        ("x0", {"tolerance": 1.1e-2}, math.nan),
        ("x0", {"history": 1}, math.nan),
        ("parataa", {}, 4.0),
        ("parataa", {"relative_tolerance": 1.0}, math.nan),
        ("parataa", {"order": 3}, math.nan),
        ("paradigms", {}, 5.0),
        ("paradigms", {"tolerance": 0.2}, math.nan),
        ("chord", {}, 6.0),
        ("chord", {"matrices": torch.ones(6, D, D)}, math.nan),
        ("asd", {}, math.nan),
    ],
)
def test_a_bound_is_only_given_for_what_was_measured(
    name: str, options: dict[str, Any], expected: float
) -> None:
    assert amplification(MEASURED.sampler(name, options)) == pytest.approx(expected, nan_ok=True)


def test_what_was_not_measured_at_all_has_no_bound() -> None:
    assert math.isnan(amplification(calibration().sampler("x0", {})))


def test_a_default_tolerance_beyond_the_measured_one_has_no_bound() -> None:
    """Measured at 1e-3; without options x0 lets 1e-2 pass."""
    strict = dataclasses.replace(MEASURED, tolerance=1e-3)
    assert amplification(strict.sampler("x0", {"tolerance": 1e-3})) == 3.0
    sampler = strict.sampler("x0", {})
    assert math.isnan(amplification(sampler)) or sampler.tolerance == 1e-3


def test_a_continued_old_trajectory_has_no_bound() -> None:
    """ParaTAA's T_init gives a variation of the old sample, not the sequential one."""
    options = {"trajectory": torch.zeros(1, 7, *SHAPE), "solve_last": 2}
    assert math.isnan(amplification(MEASURED.sampler("parataa", options)))


def test_the_calibrations_matrices_are_used_unless_others_are_given() -> None:
    other = torch.ones(6, D, D)

    def used(options: dict[str, Any]) -> Any:
        made: Any = MEASURED.sampler("chord", options)
        return made.splitting.matrices

    assert used({}) is MEASURED.matrices
    assert used({"matrices": other}) is other
    with pytest.raises(InputError, match="unknown sampler 'heun'"):
        MEASURED.sampler("heun", {})
    with pytest.raises(InputError, match=r"no option \['widow'\]"):
        MEASURED.sampler("x0", {"widow": 3})


CONDITION = torch.tensor([[0.1, 0.2, 0.0], [0.5, -3.0, 0.0]])
GUESS = LinearGuess(torch.arange(3.0 * D).reshape(3, D) / 20, torch.full((D,), 0.25))


def ours(guess: Guess) -> FixedPoint:
    return FixedPoint(Scalar("clean"), ResidualBelow(0.0), guess)


def started(
    sampler: Sampler,
    condition: Tensor | None = CONDITION,
    clip: bool = False,
    guess: Guess | None = None,
) -> tuple[Tensor, Process, Noise]:
    """All states before the first round, on a process in float32."""
    process = Process.from_scheduler(scheduler("ddim", clip_sample=clip), 6)
    noise = Noise.from_seeds([0, 1], SHAPE, 6)

    def network(x: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        return torch.zeros_like(x)

    solve: Any = sampler.begin(Denoiser(network, condition), process, noise, guess)
    return solve.X, process.to("cpu", torch.float32), noise


@pytest.mark.parametrize("clip", [False, True])
def test_a_sampler_that_starts_at_the_prior_starts_from_the_linear_guess(clip: bool) -> None:
    states, process, noise = started(ours(Prior()).starting_at(GUESS), clip=clip)
    clean = GUESS(CONDITION).reshape(2, *SHAPE)
    assert clean.abs().max() > 1
    expected = FromCleanSample(clean.clamp(-1, 1) if clip else clean)
    assert torch.equal(states, expected.start(process, noise)[0])
    for name, options in (("x0", {}), ("pcm", {"consistency": None, "splitting": "x0"})):
        made = samplers.get(name, **options).starting_at(GUESS)
        assert torch.equal(started(made, clip=clip)[0], started(ours(GUESS), clip=clip)[0])


@pytest.mark.parametrize(
    "guess",
    [
        samplers.Copy(),
        FromCleanSample(torch.zeros(2, *SHAPE)),
        samplers.Trajectory(torch.zeros(2, 7, *SHAPE)),
    ],
    ids=["copy", "previous", "trajectory"],
)
def test_a_sampler_with_a_start_of_its_own_keeps_it(guess: Guess) -> None:
    made = ours(guess).starting_at(GUESS)
    assert isinstance(made, FixedPoint)
    assert made.guess is guess
    sequential = samplers.get("sequential")
    assert sequential.starting_at(GUESS) is sequential


def test_a_given_guess_goes_first() -> None:
    sampler, given = ours(GUESS), FromCleanSample(torch.ones(2, *SHAPE))
    states, process, noise = started(sampler, guess=given)
    assert torch.equal(states, given.start(process, noise)[0])
    states, process, noise = started(sampler, condition=None)
    assert torch.equal(states, Prior().start(process, noise)[0])


def test_the_guess_moves_the_start_and_not_the_solution() -> None:
    process = Process.from_scheduler(scheduler("ddim", clip_sample=False), 6)
    noise = Noise.from_seeds([0, 1], SHAPE, 6)

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return torch.zeros_like(x)

    guessed, exact = (
        sampler(Denoiser(network, CONDITION), process, noise)
        for sampler in (
            samplers.get("x0", tolerance=0.0).starting_at(GUESS),
            samplers.get("sequential"),
        )
    )
    assert torch.equal(guessed.sample, exact.sample)


def solved_with(correction: tuple[float, ...], *status: Status) -> SampleResult:
    nothing = torch.zeros(len(correction))
    counts = torch.ones(len(correction), dtype=torch.int64)
    kept = status or (Status.CONVERGED,) * len(correction)
    scores = torch.tensor(correction)
    return SampleResult(nothing, nothing, counts, counts, nothing, scores, nothing[None], kept)


def test_the_bound_is_the_correction_times_the_amplification() -> None:
    result = solved_with((0.004, 0.0))
    bound = Certificate(3.0).bound(result, own_start=True)
    assert bound.tolist() == pytest.approx([0.012, 3 * ERROR_FLOOR])
    assert Certificate(math.nan).bound(result, own_start=True).isnan().all()
    assert Certificate(3.0).bound(result, own_start=False).isnan().all()
    assert Certificate(0.0).bound(result, own_start=True).tolist() == [0, 0]
    # Rounding is there, however well a sampler did in calibration.
    small = Certificate(0.01).bound(result, own_start=True).tolist()
    assert small == pytest.approx([4e-5, ERROR_FLOOR])


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.CONVERGED])
def test_a_sample_that_did_not_converge_has_no_bound(status: Status) -> None:
    result = solved_with((0.004, 0.004), Status.CONVERGED, status)
    bound = Certificate(3.0).bound(result, own_start=True)
    assert bound.tolist() == pytest.approx([0.012, math.nan], nan_ok=True)


def test_assessing_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no results"):
        assess("x0", {}, [], [])


def test_what_is_assessed_is_the_worst_and_the_mean_over_all_batches() -> None:
    def result(sample: list[float], correction: list[float], rounds: list[int]) -> SampleResult:
        values = torch.tensor(sample)[:, None, None]
        counts, scores = torch.tensor(rounds), torch.tensor(correction)
        status = (Status.CONVERGED,) * len(sample)
        return SampleResult(values, values, counts, 10 * counts, scores, scores, scores, status)

    exact = [result([0.0, 0.0], [0, 0], [9, 9]), result([1.0], [0], [9])]
    found = [result([0.01, 0.0], [0.02, 0.0], [3, 4]), result([1.04], [0.01], [5])]
    variant = assess("x0", {"window": 4}, found, exact)
    assert (variant.sampler, variant.options) == ("x0", {"window": 4})
    assert (variant.rounds, variant.evals) == (4, 40)
    assert variant.amplification == pytest.approx(4.0, rel=1e-4)
    assert variant.error_max == pytest.approx(0.04, rel=1e-4)
    assert 0.01 < variant.error_p95 <= 0.04
    with pytest.raises(ValueError, match="shorter"):
        assess("x0", {}, found, exact[:1])


def certified(name: str, solved: Problem, noise: Noise) -> Sampler:
    """The sampler, calibrated on the samples of `noise`."""
    exact = solved.solve(samplers.get("sequential"), noise)
    some, trajectory = noise.select(range(12)), exact.trajectory[:12]
    matrices = mean_jacobian(Denoiser(solved.network), solved.process, some, trajectory)
    made = calibration(matrices=matrices)
    options = {"tolerance": made.tolerance} if name in ("x0", "chord") else {}
    results = [solved.solve(made.sampler(name, options), noise)]
    made = dataclasses.replace(made, variants=(assess(name, options, results, [exact]),))
    return made.sampler(name, options)


def largest_error(result: SampleResult, exact: SampleResult) -> Tensor:
    return (result.sample - exact.sample).abs().flatten(1).amax(dim=1)


@pytest.mark.parametrize("name", ["x0", "chord", "parataa", "paradigms"])
def test_the_bound_holds_for_new_samples(name: str) -> None:
    """The confidence that is promised is 500 / 501; the smallest share we accept is 99 %."""
    solved = problem("ddim", 10, Mixture(modes=2, std=0.3))
    sampler = certified(name, solved, solved.noise(500, SHAPE))
    fresh = solved.noise(10_000, SHAPE, first_seed=1000)
    result = solved.solve(sampler, fresh)
    error = largest_error(result, solved.solve(samplers.get("sequential"), fresh))
    assert result.converged.all()
    assert result.error_bound is not None
    assert (error <= result.error_bound).double().mean() >= 0.99
    if name in ("x0", "chord"):  # a bound that holds because it is endless would tell nothing
        assert result.error_bound.median() < 0.05


@pytest.mark.parametrize(("name", "distance"), [("x0", 1.0), ("chord", 0.0)])
def test_from_another_start_the_bound_holds_or_is_not_given(name: str, distance: float) -> None:
    """As with the previous chunk: a start that calibration has not seen."""
    solved = problem("ddim", 10, Mixture(modes=2, std=0.3))
    sampler = certified(name, solved, solved.noise(500, SHAPE))
    fresh = solved.noise(3000, SHAPE, first_seed=1000)
    exact = solved.solve(samplers.get("sequential"), fresh)
    away = torch.randn(exact.sample.shape, generator=torch.Generator().manual_seed(0)).double()
    result = solved.solve(sampler, fresh, guess=FromCleanSample(exact.sample + distance * away))
    assert result.error_bound is not None
    covered = largest_error(result, exact) <= result.error_bound
    assert (covered | result.error_bound.isnan()).double().mean() >= 0.99
