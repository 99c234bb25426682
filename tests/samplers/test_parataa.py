"""`parataa` is the published algorithm: the same iterates, round by round, and its guarantees.

Reference: Tang et al. 2024 (arXiv 2402.09970), definition 2.1, section 3, theorem 3.6.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from para_policy import Noise, Process, samplers
from para_policy.errors import InputError
from para_policy.samplers import (
    Copy,
    CorrectionBelowNoise,
    FixedPoint,
    ResidualBelowEither,
    RoundInfo,
    SampleResult,
    Scalar,
    Status,
)
from tests.problems import (
    Hashed,
    Mixture,
    Network,
    Problem,
    Rational,
    Sawtooth,
    Threshold,
    network,
    problem,
    scheduler,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Array = NDArray[np.float64]
SEQUENTIAL = samplers.get("sequential")
N = 20
SHAPE = (4, 2)

# How the sampler is set up: keyword arguments of the scheduler, of the process.
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ddpm, clip": ("ddpm", {}, {}),
    "ddpm": ("ddpm", {"clip_sample": False}, {}),
    "ddim, clip": ("ddim", {}, {}),
    "ddim": ("ddim", {"clip_sample": False}, {}),
    "ddim, clip, eta": ("ddim", {}, {"eta": 0.5}),
    "ddim, clipped output": ("ddim", {}, {"use_clipped_model_output": True}),
}


def variant(name: str, num_steps: int = N, net: Network | None = None) -> Problem:
    kind, options, process_options = VARIANTS[name]
    made = scheduler(kind, **options)
    process = Process.from_scheduler(made, num_steps, **process_options)
    return Problem(net or network(Mixture(), made), process)


# --- A dense implementation from the paper's formulas: no scan, no Gram matrix, no batching. ---


@dataclass(frozen=True)
class Formulation:
    """x_{s+1} = a_s x_s + b_s eps(x_s) + c_s xi_s, written out from the cumulative alphas alone.

    With a clip `epsilon` is the effective one: what a step without the clip would have to use to
    arrive at the same state.
    """

    a: Array
    b: Array
    c: Array
    sigma: Array
    epsilon: Callable[[Array, Array], Array]  # states (M, *shape), steps (M,)


def formulation(name: str, net: Network) -> Formulation:
    kind, options, process_options = VARIANTS[name]
    made = copy.deepcopy(scheduler(kind, **options))
    made.set_timesteps(N)
    timesteps = made.timesteps
    now = made.alphas_cumprod.double().numpy()[timesteps.numpy()]
    after = np.append(now[1:], 1.0)
    eta = 1.0 if kind == "ddpm" else process_options.get("eta", 0.0)
    sigma = np.sqrt((1 - after) / (1 - now) * (1 - now / after))
    c = eta * sigma
    c[-1] = 0
    a = np.sqrt(after / now)
    b = np.sqrt(np.maximum(1 - after - c**2, 0)) - np.sqrt(1 - now) * a
    keeps_raw_epsilon = kind == "ddim" and not process_options.get("use_clipped_model_output")

    def epsilon(x: Array, s: Array) -> Array:
        raw = net(torch.from_numpy(x), timesteps[torch.from_numpy(s)]).numpy()
        column = (-1, *(1,) * (x.ndim - 1))
        root, spread = np.sqrt(now[s]).reshape(column), np.sqrt(1 - now[s]).reshape(column)
        clean = (x - spread * raw) / root
        clipped = np.clip(clean, -1, 1) if options.get("clip_sample", True) else clean
        if keeps_raw_epsilon:
            shift = np.sqrt(after[s]).reshape(column) * (clipped - clean)
            return raw + shift / b[s].reshape(column)
        return (x - root * clipped) / spread

    return Formulation(a, b, c, sigma, epsilon)


@dataclass(frozen=True)
class Stored:
    """One entry of the history: rows [first, end), their states and order-k residuals."""

    first: int
    end: int
    states: Array
    residuals: Array

    def at(self, first: int, last: int) -> tuple[Array, Array]:
        rows = slice(first - self.first, last + 1 - self.first)
        return self.states[rows], self.residuals[rows]


@dataclass(frozen=True)
class Options:
    order: int
    history: int
    window: int | None
    tolerance: float
    relative_tolerance: float
    regularisation: float


def order_k(form: Formulation, X: Array, drive: Array, first: int, s: int, order: int) -> Array:
    """(2.1): the state after step `s`, integrated from `order` states back, inside the window.

    Args:
        drive: (rows of the window, *shape), b eps + c xi.
    """
    begin = max(first, s - order + 1)
    value = np.prod(form.a[begin : s + 1]) * X[begin]
    for j in range(begin, s + 1):
        value = value + np.prod(form.a[j + 1 : s + 1]) * drive[j - first]
    return value


def anderson(history: list[Stored], first: int, s: int, regularisation: float) -> Array:
    """(2.2), (2.3): what is taken off row `s`, from one least-squares problem over rows first..s."""
    own: list[Stored] = []
    for stored in reversed(history):  # as far back as the row was in the window without a gap
        if not stored.first <= s < stored.end:
            break
        own.insert(0, stored)
    if len(own) < 2:
        return np.zeros(())
    pieces = [stored.at(first, s) for stored in own]
    dX = np.stack([new[0][-1] - old[0][-1] for old, new in itertools.pairwise(pieces)])
    dR = np.stack([new[1] - old[1] for old, new in itertools.pairwise(pieces)])
    columns = dR.reshape(len(dR), -1).T
    damping = np.sqrt(regularisation * np.sum(columns**2) / len(dR))
    stacked = np.concatenate([columns, damping * np.eye(len(dR))])
    wanted = np.concatenate([pieces[-1][1].reshape(-1), np.zeros(len(dR))])
    weights = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    return np.tensordot(weights, dX + dR[:, -1], axes=1)


def dense_rounds(
    form: Formulation, initial: Array, xi: Array, options: Options
) -> list[tuple[int, Array]]:
    """Number of final states and all states after each round, for one sample."""
    column = (-1, *(1,) * initial.ndim)
    X = np.repeat(initial[None], N + 1, axis=0)
    width = min(options.window or N, N)
    first, history, rounds = 0, [], []
    while first < N:
        end = min(first + width, N)
        rows = np.arange(first, end)
        drive = form.b[rows].reshape(column) * form.epsilon(X[rows], rows)
        drive = drive + form.c[rows].reshape(column) * xi[rows]
        residual = X[rows + 1] - form.a[rows].reshape(column) * X[rows] - drive
        rms = np.sqrt(np.mean(residual.reshape(len(rows), -1) ** 2, axis=1))
        unfinished = (rms > options.tolerance) & (
            rms > options.relative_tolerance * form.sigma[rows]
        )
        marker = first + int(np.argmax(unfinished)) if unfinished.any() else end - 1
        new = np.stack([order_k(form, X, drive, first, s, options.order) for s in rows])
        history = [*history, Stored(first, end, X[rows + 1], new - X[rows + 1])]
        history = history[-options.history :]
        for s in range(marker + 1, end):
            new[s - first] -= anderson(history, first, s, options.regularisation)
        X[rows + 1] = new
        X[end + 1 :] = X[end]
        first = marker + 1
        rounds.append((first, X.copy()))
    return rounds


def recorded(
    solved: Problem, sampler: FixedPoint, noise: Noise, **options: Any
) -> tuple[list[RoundInfo], SampleResult]:
    """Every round of a solve, with the states as they were then."""
    rounds: list[RoundInfo] = []

    def keep(info: RoundInfo) -> None:
        rounds.append(dataclasses.replace(info, trajectory=info.trajectory.clone()))

    return rounds, solved.solve(sampler, noise, callback=keep, **options)


CASES = list(
    itertools.product(["ddpm, clip", "ddim, clip"], [1, 2, 3, 7, N], [1, 2, 3, 4], [None, 5, 12])
)
CASES += itertools.product(
    [name for name in VARIANTS if name not in ("ddpm, clip", "ddim, clip")],
    [1, 3, N],
    [1, 3],
    [None, 5],
)


@pytest.mark.parametrize(("name", "order", "history", "window"), CASES)
def test_every_iterate_is_the_published_one(
    name: str, order: int, history: int, window: int | None
) -> None:
    base = variant(name)
    options = Options(order, history, window, 1e-3, 2e-3, 1e-4)
    noise = base.noise(batch=2, shape=SHAPE)
    rounds, result = recorded(base, samplers.get("parataa", **vars(options)), noise)
    assert set(result.status) == {Status.CONVERGED}
    form = formulation(name, base.network)
    for i in range(2):
        expected = dense_rounds(form, noise.initial[i].numpy(), noise.steps[i].numpy(), options)
        assert int(result.rounds[i]) == len(expected)
        for info, (frozen, states) in zip(rounds, expected, strict=False):
            assert int(info.accepted[i]) == frozen
            scale = max(1.0, float(np.abs(states).max()))
            np.testing.assert_allclose(info.trajectory[i], states, rtol=0, atol=1e-8 * scale)


def test_the_defaults_are_those_of_the_reference_scripts() -> None:
    base = variant("ddpm, clip")
    noise = base.noise(batch=2, shape=SHAPE)
    written = {
        "order": N,
        "history": 2,
        "window": N,
        "tolerance": 1e-3,
        "relative_tolerance": 1e-3,
        "regularisation": 1e-6,
    }
    default = base.solve(samplers.get("parataa"), noise)
    explicit = base.solve(samplers.get("parataa", **written), noise)
    assert torch.equal(default.trajectory, explicit.trajectory)
    assert torch.equal(default.rounds, explicit.rounds)


def test_an_order_beyond_n_integrates_from_the_first_state() -> None:
    base = variant("ddim, clip")
    noise = base.noise()
    whole, beyond = (base.solve(samplers.get("parataa", order=k), noise) for k in (None, 10 * N))
    assert torch.equal(whole.trajectory, beyond.trajectory)


# --- What the algorithm guarantees. ---


def states_like_a_solution(base: Problem, noise: Noise) -> Tensor:
    """A rough trajectory to start from."""
    generator = torch.Generator().manual_seed(5)
    states = base.solve(SEQUENTIAL, noise).trajectory
    return states + 0.1 * torch.randn(states.shape, generator=generator, dtype=states.dtype)


@pytest.mark.parametrize("poison", [0.3, 1e150, torch.nan], ids=str)
@pytest.mark.parametrize("history", [1, 2, 3])
@pytest.mark.parametrize("order", [2, None])
@pytest.mark.parametrize(("name", "tolerance"), [("ddpm, clip", 0.0), ("ddim", 1e-2)])
def test_cleaner_rows_never_change_noisier_ones(
    name: str, order: int | None, history: int, tolerance: float, poison: float
) -> None:
    """Information flows from noise to sample alone (definition 3.1), so N rounds suffice."""
    base = variant(name)
    noise = base.noise()
    states = states_like_a_solution(base, noise)
    options = {
        "order": order,
        "history": history,
        "tolerance": tolerance,
        "relative_tolerance": tolerance,
    }
    plain, _ = recorded(base, samplers.get("parataa", trajectory=states, **options), noise)
    for cut in (4, 11):
        changed = states.clone()
        changed[:, cut + 1 :] += poison
        other, _ = recorded(base, samplers.get("parataa", trajectory=changed, **options), noise)
        for before, after in zip(plain, other, strict=False):
            noisier = before.trajectory[:, : cut + 1]
            torch.testing.assert_close(after.trajectory[:, : cut + 1], noisier, rtol=0, atol=1e-11)
            assert torch.equal(before.accepted.clamp(max=cut), after.accepted.clamp(max=cut))
        if poison == poison:
            first = other[0].trajectory[:, cut + 1 :] - plain[0].trajectory[:, cut + 1 :]
            assert first.abs().max() > 1e-6, "the change is to reach something"


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("history", [2, 3])
@pytest.mark.parametrize("cut", [5, 12])
def test_a_wild_network_at_cleaner_steps_leaves_noisier_states_alone(
    cut: int, history: int, window: int | None
) -> None:
    """Their residuals grow from round to round, the others go on shrinking."""
    base = variant("ddpm")
    last_tame = int(base.process.timesteps[cut - 1])

    def net(x: Tensor, t: Tensor) -> Tensor:
        cleaner = (t < last_tame).reshape(-1, 1, 1)
        return torch.where(cleaner, -5 * x, base.network(x, t))

    noise = base.noise()
    sampler = samplers.get("parataa", history=history, window=window)
    tame, _ = recorded(base, sampler, noise)
    mixed, _ = recorded(Problem(net, base.process), sampler, noise)
    for before, after in zip(tame, mixed, strict=False):
        assert torch.equal(before.accepted.clamp(max=cut), after.accepted.clamp(max=cut))
        torch.testing.assert_close(
            after.trajectory[:, : cut + 1], before.trajectory[:, : cut + 1], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("order", [1, 3, None])
def test_a_history_of_one_is_plain_iteration(order: int | None, window: int | None) -> None:
    base = variant("ddpm, clip")
    noise = base.noise()
    plain = FixedPoint(
        Scalar("epsilon", order), ResidualBelowEither(1e-3, 1e-2), Copy(), window=window
    )
    taa = samplers.get("parataa", order=order, history=1, window=window, relative_tolerance=1e-2)
    expected, result = base.solve(plain, noise), base.solve(taa, noise)
    assert torch.equal(result.trajectory, expected.trajectory)
    assert torch.equal(result.rounds, expected.rounds)
    assert torch.equal(result.evals, expected.evals)


def test_acceleration_saves_rounds() -> None:
    base = variant("ddpm, clip", 50)
    noise = base.noise(batch=8)
    rounds = [
        base.solve(samplers.get("parataa", history=m), noise).rounds.double().mean()
        for m in (1, 2, 3)
    ]
    assert rounds[1] < 0.9 * rounds[0]
    assert rounds[2] < 0.9 * rounds[0]


@pytest.mark.parametrize("window", [None, 4, 9])
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_order_n_with_the_identity_is_paradigms(kind: str, window: int | None) -> None:
    """ParaDiGMS is the order N system with the linear term left inside the drift."""
    base = problem(kind, N)
    noise = base.noise()
    order_n = FixedPoint(Scalar("identity", N), CorrectionBelowNoise(0.05), Copy(), window=window)
    paradigms = samplers.get("paradigms", window=window, tolerance=0.05)
    expected, _ = recorded(base, paradigms, noise)
    got, _ = recorded(base, order_n, noise)
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one.trajectory, other.trajectory, rtol=0, atol=1e-11)
        assert torch.equal(one.accepted, other.accepted)


@pytest.mark.parametrize("name", ["ddpm, clip", "ddim"])
@pytest.mark.parametrize("order", [1, 2, 3, 7])
def test_a_round_carries_information_over_order_steps(order: int, name: str) -> None:
    """X_0 of the neighbour's noise reaches states 1..k in one round and no further."""
    base = variant(name)
    noise = base.noise(batch=1)
    states = states_like_a_solution(base, noise)
    moved = Noise(noise.initial + 0.5, noise.steps)
    options = {"tolerance": 0.0, "relative_tolerance": 0.0, "history": 1}
    sampler = samplers.get("parataa", order=order, trajectory=states, **options)
    (one, _), (other, _) = (recorded(base, sampler, which) for which in (noise, moved))
    for before, after in zip(one, other, strict=False):
        difference = (before.trajectory - after.trajectory).abs().amax(dim=(0, 2, 3))
        reached = min(before.round * order, N)
        assert (difference[reached + 1 :] == 0).all()
        if reached < N:
            assert difference[reached] > 0


def adversaries() -> st.SearchStrategy[Network]:
    return st.one_of(
        st.builds(Hashed, st.integers(0, 1000), st.floats(0.1, 10)),
        st.builds(Sawtooth, st.floats(1.5, 100)),
        st.builds(Threshold, st.floats(-1, 1)),
    )


@settings(max_examples=60, deadline=None)
@given(
    net=adversaries(),
    kind=st.sampled_from(["ddpm", "ddim", "dpmsolver++"]),
    num_steps=st.integers(1, 12),
    order=st.one_of(st.none(), st.integers(1, 13)),
    history=st.integers(1, 4),
    window=st.one_of(st.none(), st.integers(1, 13)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    first_seed=st.integers(0, 1000),
)
def test_adversarial_networks_end_exactly_within_n_rounds(
    net: Network,
    kind: str,
    num_steps: int,
    order: int | None,
    history: int,
    window: int | None,
    dtype: torch.dtype,
    first_seed: int,
) -> None:
    """Theorem 3.6: converged rows and the first other one take the plain update."""
    solved = Problem(net, problem(kind, num_steps).process)
    noise = solved.noise(batch=2, shape=(3,), dtype=dtype, first_seed=first_seed)
    sampler = samplers.get(
        "parataa",
        order=order,
        history=history,
        window=window,
        tolerance=0.0,
        relative_tolerance=0.0,
    )
    result = solved.solve(sampler, noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert set(result.status) == {Status.CONVERGED}
    assert result.rounds.max() <= num_steps


# --- Early stopping. ---


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("limit", [1, 3, 6])
def test_an_early_stop_says_so_and_keeps_the_exact_prefix(limit: int, window: int | None) -> None:
    solved = variant("ddpm, clip", net=Rational())
    noise = solved.noise()
    sampler = samplers.get(
        "parataa", window=window, max_rounds=limit, tolerance=0.0, relative_tolerance=0.0
    )
    rounds, result = recorded(solved, sampler, noise)
    assert len(rounds) == limit
    assert result.rounds.tolist() == [limit] * 3
    assert set(result.status) == {Status.ROUND_BUDGET}
    assert not result.converged.any()
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    assert torch.equal(result.trajectory[:, : limit + 1], expected[:, : limit + 1])
    assert torch.equal(result.sample, result.trajectory[:, -1])
    seen = [states for info in rounds for states in info.trajectory[:, -1]]
    for sample in result.sample:
        assert any(torch.equal(sample, other) for other in seen), "an iterate, not a mixture"


@pytest.mark.parametrize("window", [None, 5, 12])
@pytest.mark.parametrize("limit", [4, 8])
@pytest.mark.parametrize("name", ["ddpm, clip", "ddim, clip"])
def test_an_early_stop_returns_an_iterate_as_good_as_the_last(
    name: str, limit: int, window: int | None
) -> None:
    """The residuals of different windows, or of a constant start, do not tell which one is better."""
    base = variant(name)
    noise = base.noise(batch=20)
    exact = base.solve(SEQUENTIAL, noise).sample
    sampler = samplers.get("parataa", window=window, max_rounds=limit)
    rounds, result = recorded(base, sampler, noise)
    error = (result.sample - exact).abs().amax(dim=(1, 2))
    last = (rounds[-1].trajectory[:, -1] - exact).abs().amax(dim=(1, 2))
    assert error.median() <= 1.5 * last.median()


def test_a_budget_that_suffices_changes_nothing() -> None:
    base = variant("ddim, clip")
    noise = base.noise(batch=6)
    free = base.solve(samplers.get("parataa"), noise)
    enough = base.solve(samplers.get("parataa", max_rounds=int(free.rounds.max())), noise)
    assert torch.equal(free.trajectory, enough.trajectory)
    assert set(enough.status) == {Status.CONVERGED}


# --- Starting from an existing trajectory. ---


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_any_start_gives_the_exact_solution(kind: str, window: int | None) -> None:
    solved = Problem(Rational(), problem(kind, N).process)
    noise = solved.noise()
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    exact = {"window": window, "tolerance": 0.0, "relative_tolerance": 0.0}
    for other in (noise.select([1, 2, 0]), solved.noise(first_seed=70)):
        states = solved.solve(SEQUENTIAL, other).trajectory  # X_0 belongs to other noise too
        before = states.clone()
        result = solved.solve(samplers.get("parataa", trajectory=states, **exact), noise)
        assert torch.equal(result.trajectory, expected)
        assert torch.equal(states, before), "the given trajectory was written to"


def test_the_solution_itself_is_recognised_in_one_round() -> None:
    base = variant("ddpm, clip")
    noise = base.noise()
    states = base.solve(SEQUENTIAL, noise).trajectory
    result = base.solve(samplers.get("parataa", trajectory=states), noise)
    assert result.rounds.tolist() == [1] * 3
    torch.testing.assert_close(result.trajectory, states, rtol=0, atol=1e-10)


def test_a_near_solution_saves_rounds() -> None:
    base = variant("ddpm, clip", 50)
    noise = base.noise(batch=6)
    states = base.solve(SEQUENTIAL, noise).trajectory
    near = states + 1e-3 * torch.randn(
        states.shape, generator=torch.Generator().manual_seed(1), dtype=states.dtype
    )
    scratch = base.solve(samplers.get("parataa"), noise).rounds.double().mean()
    warm = base.solve(samplers.get("parataa", trajectory=near), noise).rounds.double().mean()
    assert warm < 0.8 * scratch


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("solve_last", [1, 7, 15])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_solve_last_keeps_the_first_states_and_solves_the_others(
    kind: str, solve_last: int, window: int | None
) -> None:
    """The recursion is run by hand from the last given state, with the new condition's network."""
    old = problem(kind, N)
    solved = Problem(Rational(), old.process)
    noise = old.noise()
    states = old.solve(SEQUENTIAL, noise).trajectory
    sampler = samplers.get(
        "parataa",
        trajectory=states,
        solve_last=solve_last,
        window=window,
        tolerance=0.0,
        relative_tolerance=0.0,
    )
    result = solved.solve(sampler, noise)
    kept = N - solve_last
    assert torch.equal(result.trajectory[:, : kept + 1], states[:, : kept + 1])
    by_hand = continued(solved, states, noise, kept)
    torch.testing.assert_close(result.trajectory[:, kept:], by_hand, rtol=0, atol=1e-12)
    assert (result.rounds <= solve_last).all()
    assert (result.evals <= solve_last * (solve_last + 1) // 2 + result.rounds).all()
    assert set(result.status) == {Status.CONVERGED}


def test_solve_last_is_refused_where_a_step_needs_the_prediction_before_it() -> None:
    solved = problem("dpmsolver++", N)
    noise = solved.noise()
    states = solved.solve(SEQUENTIAL, noise).trajectory
    sampler = samplers.get("parataa", trajectory=states, solve_last=7)
    with pytest.raises(InputError, match=f"solve_last is 7: step {N - 7} of a multistep scheduler"):
        solved.solve(sampler, noise)


def continued(solved: Problem, states: Tensor, noise: Noise, kept: int) -> Tensor:
    """X_kept .. X_N (batch, solved steps + 1, *shape), one step after the other."""
    process = solved.process.to("cpu", states.dtype)

    def clean(x: Tensor, s: int) -> Tensor:
        step = torch.full((len(x),), s)
        return process.predict_clean(x, solved.network(x, process.timesteps[step]), step)

    x = states[:, kept]
    # A multistep scheduler also remembers what was predicted at the state before.
    previous = clean(states[:, kept - 1], kept - 1) if kept else torch.zeros_like(x)
    path = [x]
    for s in range(kept, N):
        step = torch.full((len(x),), s)
        now = clean(x, s)
        x = process.mean(x, now, previous, step) + process.noise(noise.steps[:, s], step)
        previous = now
        path.append(x)
    return torch.stack(path, dim=1)


def test_solving_the_last_n_steps_is_exact() -> None:
    """With T_init = T nothing is kept: it is a start like any other."""
    solved = variant("ddim, clip", net=Rational())
    noise = solved.noise()
    states = solved.solve(SEQUENTIAL, noise).trajectory + 0.01
    states[:, 0] = noise.initial
    exact = {"tolerance": 0.0, "relative_tolerance": 0.0}
    sampler = samplers.get("parataa", trajectory=states, solve_last=N, **exact)
    result = solved.solve(sampler, noise)
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)


@pytest.mark.parametrize("solve_last", [0, -1, N + 1, 2.5, "3", True])
def test_a_wrong_number_of_steps_to_solve_is_refused(solve_last: Any) -> None:
    base = variant("ddim, clip")
    noise = base.noise()
    states = base.solve(SEQUENTIAL, noise).trajectory
    with pytest.raises(InputError, match="solve_last"):
        base.solve(samplers.get("parataa", trajectory=states, solve_last=solve_last), noise)


def test_solve_last_needs_a_trajectory() -> None:
    with pytest.raises(InputError, match="trajectory"):
        samplers.get("parataa", solve_last=5)


def test_a_trajectory_of_another_shape_is_refused() -> None:
    base = variant("ddim, clip")
    noise = base.noise()
    states = base.solve(SEQUENTIAL, noise).trajectory
    for wrong in (states[:, 1:], states[:2], states[..., :1]):
        with pytest.raises(InputError, match=r"trajectory.*21"):
            base.solve(samplers.get("parataa", trajectory=wrong), noise)


# --- The stopping rule. ---


def test_a_row_is_finished_below_either_bound() -> None:
    sigma = torch.tensor([0.5, 0.2, 0.1, 0.01, 0.0], dtype=torch.float64)
    rows = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    rms = torch.tensor([[0.04, 0.021, 0.0099, 0.002], [0.0009, 0.02, 0.0101, 0.06]])
    # One coordinate carries it all: the mean square counts, not the largest entry.
    residual = torch.zeros(2, 4, 3, 2, dtype=torch.float64)
    residual[:, :, 1, 0] = rms * 6**0.5
    change = torch.full_like(residual, 1e9)
    passed = ResidualBelowEither(absolute=1e-3, relative=0.1).passed(change, residual, sigma, rows)
    assert passed.tolist() == [[True, False, True, False], [True, False, True, False]]
    absolute = ResidualBelowEither(absolute=0.03, relative=0.0).passed(
        change, residual, sigma, rows
    )
    assert absolute.tolist() == [[False, True, True, True], [True, True, True, False]]
    relative = ResidualBelowEither(absolute=0.0, relative=0.1).passed(change, residual, sigma, rows)
    assert relative.tolist() == [[True, False, True, False], [True, False, True, False]]
    nothing = ResidualBelowEither(0.0, 0.0).passed(change, 0 * residual, sigma, rows)
    assert nothing.all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_broken_residual_never_passes(bad: float) -> None:
    residual = torch.zeros(1, 2, 3)
    residual[0, 1, 2] = bad
    rule = ResidualBelowEither(1e6, 1e6)
    passed = rule.passed(residual, residual, torch.ones(3), torch.tensor([[0, 1]]))
    assert passed.tolist() == [[True, False]]


@pytest.mark.parametrize("loose", ["tolerance", "relative_tolerance"])
def test_either_loose_bound_ends_a_solve_in_one_round(loose: str) -> None:
    base = variant("ddpm, clip")
    tight = {"tolerance": 0.0, "relative_tolerance": 0.0}
    result = base.solve(samplers.get("parataa", **{**tight, loose: 1e6}), base.noise())
    assert result.rounds.tolist() == [1] * 3
    assert base.solve(samplers.get("parataa", **tight), base.noise()).rounds.min() > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "order is 0"),
        ({"order": 2.0}, r"order is 2\.0"),
        ({"order": True}, "order is True"),
        ({"history": 0}, "history is 0"),
        ({"history": 1.0}, r"history is 1\.0"),
        ({"history": "2"}, "history is '2'"),
        ({"history": True}, "history is True"),
        ({"tolerance": -1e-3}, "tolerance is -0.001"),
        ({"relative_tolerance": float("nan")}, "relative_tolerance is nan"),
        ({"regularisation": 0.0}, "regularisation is 0.0"),
        ({"regularisation": float("inf")}, "regularisation is inf"),
        ({"regularisation": "1e-6"}, "regularisation is '1e-6'"),
        ({"window": 0}, "window is 0"),
        ({"max_rounds": 0}, "max_rounds is 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        samplers.get("parataa", **options)
