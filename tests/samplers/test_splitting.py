"""Every splitting solves the linear recurrence that it names, and has the same fixed point."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from para_policy import Process, samplers
from para_policy.errors import InputError
from para_policy.samplers import (
    Acceptance,
    Chord,
    Copy,
    CorrectionBelowNoise,
    FixedPoint,
    FromCleanSample,
    Guess,
    LowRankChord,
    Prior,
    ResidualBelow,
    ResidualBelowEither,
    Scalar,
    Splitting,
    Status,
    Trajectory,
    TriangularAnderson,
)
from para_policy.samplers.splitting import many
from tests.problems import (
    Gaussian,
    Hashed,
    Linear,
    Network,
    Problem,
    Rational,
    Sawtooth,
    Threshold,
    problem,
    row_by_row,
    scheduler,
    solver,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ["ddpm", "ddim", "dpmsolver++"]
SEQUENTIAL = samplers.get("sequential")
N = 20
SHAPE = (4, 2)
D = 8


def random_matrices(scale: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(N, D, D, generator=generator, dtype=torch.float64) / D**0.5


SPLITTINGS: dict[str, Splitting] = {
    **{
        f"{drift}, order {order}": Scalar(drift, order)
        for drift in ("identity", "epsilon", "clean")
        for order in (1, 2, 5, N, None)
    },
    "chord, zero": Chord(torch.zeros(N, D, D)),
    "chord, random": Chord(random_matrices(1.0)),
    "chord, expansive": Chord(random_matrices(30.0)),
    "chord, huge": Chord(random_matrices(1e20)),
}
EXACT: list[Acceptance] = [
    CorrectionBelowNoise(0.0),
    ResidualBelow(0.0),
    ResidualBelowEither(0.0, 0.0),
]


# --- The linear part. ---


def coefficients(drift: str, kind: str) -> Tensor:
    """(N,) Phi, from the cumulative alphas of the scheduler alone."""
    made = scheduler(kind)
    made.set_timesteps(N)
    now = made.alphas_cumprod.double()[made.timesteps]
    after = torch.cat([now[1:], torch.ones(1, dtype=torch.float64)])
    if drift == "identity":
        return torch.ones(N, dtype=torch.float64)
    if drift == "epsilon":
        return (after / now).sqrt()
    if kind == "ddim":
        return ((1 - after) / (1 - now)).sqrt()
    return (now / after).sqrt() * (1 - after) / (1 - now)


@pytest.mark.parametrize("order", [1, 2, 5, N, 3 * N, None])
@pytest.mark.parametrize("drift", ["identity", "epsilon", "clean"])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_scalar_splitting_adds_up_the_residuals_of_its_order(
    kind: str, drift: Any, order: int | None
) -> None:
    """Phi_s E_s = sum_j (prod_{i=j+1..s} phi_i) r_j, j from first and from s - k + 1, below s."""
    process = problem(kind, N).process
    phi = coefficients(drift, kind)
    residual = torch.randn(2, 6, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    rows = torch.stack([torch.arange(6), torch.arange(6) + 13])
    got = Scalar(drift, order).bind(process, torch.Size(SHAPE))(residual, rows)
    for i, first in enumerate((0, 13)):
        for w in range(6):
            s = first + w
            expected = torch.zeros(SHAPE, dtype=torch.float64)
            for j in range(max(first, s - (order or N) + 1), s):
                expected += phi[j + 1 : s + 1].prod() * residual[i, j - first]
            torch.testing.assert_close(got[i, w], expected, rtol=1e-10, atol=1e-12)


def test_a_chord_multiplies_from_the_left() -> None:
    process = problem("ddpm", N).process
    matrices = random_matrices(1.0)
    residual = torch.randn(2, 5, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    rows = torch.stack([torch.arange(5), torch.arange(5) + 9])
    got = Chord(matrices).bind(process, torch.Size(SHAPE))(residual, rows)
    for i in range(2):
        error = torch.zeros(D, dtype=torch.float64)
        for w, s in enumerate(rows[i].tolist()):
            carry = matrices[s] @ error
            torch.testing.assert_close(got[i, w].flatten(), carry, rtol=1e-12, atol=1e-12)
            error = carry + residual[i, w].flatten()


@pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS)
def test_nothing_reaches_a_row_from_itself_or_from_cleaner_ones(splitting: Splitting) -> None:
    process = problem("ddpm", N).process
    propagate = splitting.bind(process, torch.Size(SHAPE))
    rows = torch.arange(N)[None]
    residual = torch.randn(1, N, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    changed = residual.clone()
    changed[:, 7:] += 1e3
    one, other = propagate(residual, rows), propagate(changed, rows)
    torch.testing.assert_close(one[:, :8], other[:, :8], rtol=0, atol=1e-10, equal_nan=True)
    assert (one[:, 0] == 0).all()


@pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS)
def test_no_residual_is_no_correction_to_the_bit(splitting: Splitting) -> None:
    """Otherwise a solution would not stay one."""
    process = problem("ddpm", N).process
    residual = torch.zeros(1, N, *SHAPE, dtype=torch.float64)
    residual[:, 12:] = 1e3
    carry = splitting.bind(process, torch.Size(SHAPE))(residual, torch.arange(N)[None])
    assert (carry[:, :13] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("d", [1, 8, 32])
@pytest.mark.parametrize("kind", ["scalar", "order", "chord", "factors"])
def test_a_sample_is_propagated_alike_in_every_batch(kind: str, d: int, dtype: torch.dtype) -> None:
    """To the bit, so that a batch changes neither the result nor the rounds of its samples; and in all
    large batches, where samples are worked on together."""
    process = problem("ddpm", N).process.to("cpu", dtype)
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(N, d, d, generator=generator) / d**0.5
    splitting: Splitting = {
        "scalar": Scalar("clean"),
        "order": Scalar("epsilon", 3),
        "chord": Chord(matrices),
        "factors": LowRankChord(matrices[:, :, :4].contiguous(), matrices[:, :4].contiguous()),
    }[kind]
    propagate = splitting.bind(process, torch.Size((d,)))
    residual = torch.randn(400, 12, d, generator=generator).to(dtype)
    rows = (torch.arange(12) + torch.arange(400)[:, None] % 20).clamp(max=N - 1)
    residual[:, 1:].masked_fill_((rows[:, 1:] == rows[:, :-1])[:, :, None], 0.0)
    alone = torch.cat([propagate(residual[i : i + 1], rows[i : i + 1]) for i in range(400)])
    for batch in (2, 4, 7):
        assert torch.equal(propagate(residual[:batch], rows[:batch]), alone[:batch])
    assert not many(170, 12)
    assert many(171, 12)
    largest = propagate(residual, rows)
    torch.testing.assert_close(largest, alone, rtol=0, atol=1e-5 * float(alone.abs().max()))
    for batch in (171, 300):
        assert torch.equal(propagate(residual[:batch], rows[:batch]), largest[:batch])


# --- The fixed point. ---


@pytest.mark.parametrize(
    ("kind", "acceptance", "window"), list(zip(KINDS, EXACT, [None, 7, None], strict=True))
)
@pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS)
def test_every_splitting_ends_in_the_sequential_solution(
    splitting: Splitting, kind: str, acceptance: Acceptance, window: int | None
) -> None:
    solved = Problem(Rational(), problem(kind, N).process)
    noise = solved.noise(batch=2, shape=SHAPE)
    result = solved.solve(FixedPoint(splitting, acceptance, Copy(), window=window), noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert set(result.status) == {Status.CONVERGED}
    assert result.rounds.max() <= N


@pytest.mark.parametrize("name", ["paradigms", "parataa", "x0", "chord"])
def test_in_a_large_batch_a_sample_does_not_depend_on_the_others(name: str) -> None:
    """Not on when they leave it, either."""
    solved = Problem(Rational(), problem("ddpm", N).process)
    sampler, noise = solver(name, solved.process, size=D, window=N), solved.noise(113, SHAPE)
    assert many(noise.batch, N)
    far, _ = Copy().start(solved.process, noise)
    near = solved.solve(SEQUENTIAL, noise).trajectory
    near[:3] = far[:3]  # all others are done at once
    results = [solved.solve(sampler, noise, guess=Trajectory(states)) for states in (far, near)]
    assert results[1].rounds[3:].max() < results[1].rounds[:3].min()
    first, second = (result.trajectory[:3] for result in results)
    assert torch.equal(first, second)
    alone = solved.solve(sampler, noise.select(range(3)), guess=Trajectory(far[:3]))
    torch.testing.assert_close(first, alone.trajectory, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("scale", "dtype"), [(1e200, torch.float64), (1e30, torch.float32)])
def test_matrices_whose_products_overflow_are_refused_or_harmless(
    scale: float, dtype: torch.dtype
) -> None:
    """A product that is infinite must not meet a correction that is 0."""
    solved = Problem(Rational(), problem("ddpm", N).process)
    noise = solved.noise(batch=2, shape=SHAPE, dtype=dtype)
    try:
        sampler = FixedPoint(Chord(random_matrices(scale)), ResidualBelow(0.0), Copy())
        result = solved.solve(sampler, noise)
    except InputError:
        return
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert set(result.status) == {Status.CONVERGED}


def mean_jacobian(process: Process, net: Network, noise_free: Tensor) -> Tensor:
    """(N, d, d) dS_s/dx by differences at one point; exact up to rounding for linear networks."""
    d, shape = noise_free.numel(), noise_free.shape
    jacobian = torch.empty(process.num_steps, d, d, dtype=torch.float64)
    for s in range(process.num_steps):
        step = torch.full((d + 1,), s)
        x = torch.cat([torch.zeros(1, d), torch.eye(d)]).double().reshape(-1, *shape)
        clean = process.predict_clean(x, net(x, process.timesteps[step]), step)
        moved = process.mean(x, clean, torch.zeros_like(x), step).flatten(1)
        jacobian[s] = (moved[1:] - moved[0]).T
    return jacobian


def linear_problem(kind: str, num_steps: int = N) -> Problem:
    """A full matrix as network and no clip: each step is linear, with an unsymmetric Jacobian."""
    made = scheduler(kind, prediction_type="sample", clip_sample=False)
    return Problem(Linear(D, gain=0.9), Process.from_scheduler(made, num_steps))


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_the_exact_jacobian_of_a_linear_problem_needs_one_sweep(
    kind: str, window: int | None
) -> None:
    solved = linear_problem(kind)
    noise = solved.noise(shape=SHAPE)
    matrices = mean_jacobian(solved.process, solved.network, noise.initial[0])
    assert (matrices - matrices.mT).abs().max() > 0.01, "a transposed one would do as well"
    sampler = FixedPoint(Chord(matrices), ResidualBelow(1e-10), Copy(), window=window)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    states: list[Tensor] = []
    result = solved.solve(
        sampler, noise, callback=lambda info: states.append(info.trajectory.clone())
    )
    end = (window or N) + 1
    torch.testing.assert_close(states[0][:, :end], expected[:, :end], rtol=0, atol=1e-12)
    torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-12)
    if window is None:
        assert result.rounds.tolist() == [2] * 3  # the second one finds no residual
    wrong = FixedPoint(Chord(matrices.mT.contiguous()), ResidualBelow(1e-10), Copy(), window=window)
    assert (solved.solve(wrong, noise).rounds > result.rounds).all()


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_the_exact_jacobian_of_gaussian_data_needs_one_sweep(kind: str) -> None:
    solved = problem(kind, N, Gaussian(0.3, 0.2), clip_sample=False)
    noise = solved.noise(shape=SHAPE)
    matrices = mean_jacobian(solved.process, solved.network, noise.initial[0])
    sampler = samplers.get(
        "chord", matrices=matrices, tolerance=1e-9, window=None, lookahead=None, history=1
    )
    result = solved.solve(sampler, noise)
    assert result.rounds.tolist() == [2] * 3
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-11)


def test_matrices_of_another_dtype_are_converted() -> None:
    solved = linear_problem("ddim")
    noise = solved.noise(shape=SHAPE)
    matrices = mean_jacobian(solved.process, solved.network, noise.initial[0]).float()
    for dtype in (torch.float32, torch.float64):
        noise = solved.noise(shape=SHAPE, dtype=dtype)
        result = solved.solve(FixedPoint(Chord(matrices), ResidualBelow(1e-4), Copy()), noise)
        assert result.sample.dtype == dtype
        assert result.rounds.max() <= 3


# --- What is refused. ---


@pytest.mark.parametrize(
    "shape",
    [(N + 1, D, D), (N, D + 1, D + 1), (N, D, D + 1), (N, D), (D, D), (N, *SHAPE), (1, N, D, D)],
    ids=str,
)
def test_matrices_that_do_not_fit_are_refused_with_their_shape(shape: tuple[int, ...]) -> None:
    solved = problem("ddpm", N)
    message = r"\(" + ", ".join(map(str, shape)) + r"\).*(\(20, 8, 8\)|\(N, d, d\))"
    with pytest.raises(InputError, match=message):
        solved.solve(
            FixedPoint(Chord(torch.zeros(shape)), ResidualBelow(), Copy()),
            solved.noise(shape=SHAPE),
        )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_matrices_that_are_not_numbers_are_refused(bad: float) -> None:
    """0 * inf would spoil states that are final."""
    matrices = torch.zeros(N, D, D)
    matrices[3, 1, 2] = bad
    solved = problem("ddpm", N)
    with pytest.raises(InputError, match=r"NaN|finite"):
        solved.solve(
            FixedPoint(Chord(matrices), ResidualBelow(), Copy()), solved.noise(shape=SHAPE)
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("linear",), "'linear'.*identity, epsilon or clean"),
        ((None,), "None.*identity, epsilon or clean"),
        (("clean", 0), "order is 0"),
        (("clean", -2), "order is -2"),
        (("clean", 1.5), "order is 1.5"),
        (("clean", True), "order is True"),
    ],
)
def test_wrong_scalars_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scalar(*arguments)


# --- Any parts together. ---


@st.composite
def parts(draw: st.DrawFn, num_steps: int, batch: int, d: int) -> FixedPoint:
    """Any sampler that can be put together, with tolerance 0."""
    drift = st.sampled_from(["identity", "epsilon", "clean"])
    order = st.one_of(st.none(), st.integers(1, num_steps + 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    matrices = torch.randn(num_steps, d, d, generator=generator, dtype=torch.float64)
    states = torch.randn(batch, num_steps + 1, d, generator=generator, dtype=torch.float64)
    scale = draw(st.sampled_from([0.0, 0.1, 1.0, 1e3, 1e20]))
    splitting: Splitting = draw(
        st.one_of(st.builds(Scalar, drift, order), st.just(Chord(scale * matrices)))
    )
    guesses: list[Guess] = [
        Copy(),
        Prior(),
        FromCleanSample(states[:, 0]),
        Trajectory(states),
        Trajectory(1e6 * states),
    ]
    acceleration = st.builds(TriangularAnderson, st.integers(2, 4), st.sampled_from([1e-8, 1e-3]))
    maybe = st.one_of(st.none(), st.integers(1, num_steps + 2))
    return FixedPoint(
        splitting,
        draw(st.sampled_from(EXACT)),
        draw(st.sampled_from(guesses)),
        draw(st.one_of(st.none(), acceleration)),
        window=draw(maybe),
        lookahead=draw(maybe),
    )


@st.composite
def networks(draw: st.DrawFn, kind: str, num_steps: int) -> Problem:
    smooth = problem(kind, num_steps, Gaussian(draw(st.floats(-0.5, 0.5)), 0.1))
    net = draw(
        st.one_of(
            st.just(row_by_row(smooth.network)),
            st.builds(Rational, st.floats(0.1, 5)),
            st.builds(Hashed, st.integers(0, 1000), st.floats(0.1, 10)),
            st.builds(Sawtooth, st.floats(1.5, 100)),
            st.builds(Threshold, st.floats(-1, 1)),
        )
    )
    return Problem(net, smooth.process)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_parts_end_in_the_sequential_solution_within_n_rounds(data: st.DataObject) -> None:
    num_steps = data.draw(st.integers(1, 12))
    solved = data.draw(networks(data.draw(st.sampled_from(KINDS)), num_steps))
    sampler = data.draw(parts(num_steps, batch=2, d=3))
    noise = solved.noise(batch=2, shape=(3,), first_seed=data.draw(st.integers(0, 1000)))
    result = solved.solve(sampler, noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert set(result.status) == {Status.CONVERGED}
    assert result.rounds.max() <= num_steps
    assert (result.residual == 0).all()
    assert (result.correction == 0).all()
    assert (result.evals >= num_steps).all()
    assert (result.evals <= num_steps * (num_steps + 1) // 2).all()
