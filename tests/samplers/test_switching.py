"""Model switching (PCM): another network begins the solve, the base network alone decides."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from para_policy import Denoiser, Noise, load_policy, samplers
from para_policy.checkpoints.native import read_config
from para_policy.checkpoints.observations import read_observations
from para_policy.errors import InputError
from para_policy.samplers import (
    SPLITTINGS,
    Chord,
    FromCleanSample,
    Consistency,
    Copy,
    FixedPoint,
    Guess,
    LowRankChord,
    RoundInfo,
    SampleResult,
    Status,
    Switching,
    Trajectory,
    pace,
)
from para_policy.samplers import deadline as deadlines
from para_policy.samplers.deadline import Deadline, LatencyTable
from tests.problems import Hashed, Mixture, Network, Problem, Rational, problem
from tests.samplers.test_deadline import Clock, Timed
from tests.training.demonstrations import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KINDS = ["ddpm", "ddim", "dpmsolver++"]
BLENDS = ["weights", "features", "none"]
SEQUENTIAL = samplers.get("sequential")
N = 8
SHAPE = (2, 2)
D = 4
WRONG = Hashed(seed=5)


def constant(value: float) -> Network:
    return lambda x, t: torch.full(x.shape, value, dtype=torch.float64).to(x.dtype)


def broken_in_places(x: Tensor, t: Tensor) -> Tensor:
    """NaN in one coordinate of every third row, infinite in another, huge elsewhere."""
    out = 1e30 * torch.ones_like(x)
    out[t % 3 == 0, 0] = torch.nan
    out[t % 3 == 1, -1] = torch.inf
    return out


ADVERSARIES: dict[str, Network] = {
    "random": WRONG,
    "large": Hashed(seed=6, gain=1e3),
    "1e30": constant(1e30),
    "1e300": constant(1e300),
    "random 1e300": Hashed(seed=7, gain=1e300),
    "nan": constant(math.nan),
    "inf": constant(math.inf),
    "-inf": constant(-math.inf),
    "in places": broken_in_places,
    "expansive": lambda x, t: 1e3 * x,
}


def matrices(steps: int, scale: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(steps, D, D, generator=generator, dtype=torch.float64)
    return 0.8 * torch.eye(D, dtype=torch.float64) + scale * noise


def pcm(consistency: Consistency, splitting: str, steps: int = N, **options: Any) -> FixedPoint:
    if splitting == "chord":
        options.setdefault("matrices", matrices(steps))
    if splitting == "identity":  # it has none
        options.pop("lookahead", None)
    made: FixedPoint = samplers.get("pcm", consistency=consistency, splitting=splitting, **options)
    return made


def exact_problem(kind: str, steps: int = N) -> Problem:
    """Its network computes with basic arithmetic, so that bitwise claims can be checked."""
    return Problem(Rational(), problem(kind, steps).process)


def noise_of(solved: Problem, batch: int = 2, **options: Any) -> Noise:
    return solved.noise(batch=batch, shape=SHAPE, **options)


def always(network: Network) -> Consistency:
    return lambda share: network


def between(base: Network, tuned: Network) -> Consistency:
    """As the merged weights of a linear network: `share` of the change in its output."""
    return lambda share: lambda x, t: base(x, t) + share * (tuned(x, t) - base(x, t))


def draft_calls(switching: Switching) -> int:
    """Network calls before the switch."""
    parts = map(switching.networks, itertools.count())
    return sum(
        len(networks)
        for networks in itertools.takewhile(lambda networks: networks != ((None, 1.0),), parts)
    )


def assert_exact(solved: Problem, sampler: FixedPoint, noise: Noise, **options: Any) -> None:
    """The sequential floats within N rounds after the drafts."""
    result = solved.solve(sampler, noise, **options)
    assert set(result.status) == {Status.CONVERGED}
    assert torch.equal(result.trajectory, solved.solve(SEQUENTIAL, noise).trajectory)
    assert sampler.switching is not None
    assert result.rounds.max() <= solved.process.num_steps + draft_calls(sampler.switching)


def iterates(
    solved: Problem, sampler: FixedPoint, noise: Noise, **options: Any
) -> tuple[SampleResult, list[Tensor]]:
    """The result, and all states after each round."""
    seen: list[Tensor] = []
    result = solved.solve(
        sampler, noise, callback=lambda info: seen.append(info.trajectory.clone()), **options
    )
    return result, seen


# --- The schedule. ---

STIFFNESS = st.floats(1.0, 1e6)
HORIZONS = st.integers(1, 1000)


@given(STIFFNESS, HORIZONS, st.integers(0, 10**6))
def test_the_share_is_the_clipped_line(stiffness: float, horizon: int, k: int) -> None:
    line = 1 - Fraction(stiffness) * k / horizon
    share = Switching(always(WRONG), stiffness, horizon).share(k)
    assert share == pytest.approx(float(max(Fraction(0), line)), rel=0, abs=1e-12)
    assert 0 <= share <= 1


@given(STIFFNESS, HORIZONS)
def test_the_share_starts_at_one_never_rises_and_ends_at_zero(
    stiffness: float, horizon: int
) -> None:
    switching = Switching(always(WRONG), stiffness, horizon)
    shares = [switching.share(k) for k in range(50)]
    assert shares[0] == 1
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares))
    assert switching.share(math.ceil(horizon / stiffness) + 1) == 0


def test_by_default_one_round_is_drafted() -> None:
    assert [Switching(always(WRONG)).share(k) for k in range(3)] == [1, 0, 0]


NUMBERS = [0, -1.0, math.nan, math.inf, "1", True, None]
COUNTS = [0, -1, 1.5, 2.0, "2", True, None]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("stiffness", value, "expected a finite number above 0") for value in NUMBERS),
        *(("horizon", value, "expected an integer of at least 1") for value in COUNTS),
        *(("stride", value, "expected an integer of at least 1") for value in COUNTS),
        *(
            ("blend", value, "expected one of weights, features, none")
            for value in ("weight", "", None, 1, ["none"])
        ),
    ],
)
def test_a_wrong_option_is_refused(name: str, value: Any, expected: str) -> None:
    for make in (lambda **o: Switching(always(WRONG), **o), lambda **o: pcm(WRONG, "x0", **o)):
        with pytest.raises(InputError) as error:
            make(**{name: value})
        assert str(error.value).startswith(f"{name} is {value!r}")
        assert expected in str(error.value)


@pytest.mark.parametrize("name", ["stiffness", "horizon"])
def test_a_number_beyond_all_floats_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 1000"):
        Switching(always(WRONG), **{name: 10**400})


def test_a_schedule_that_hardly_falls_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"horizon is 2: with stiffness 0.001 .*at most 1000 rounds"
    ):
        Switching(always(WRONG), stiffness=1e-3, horizon=2)


# --- What each round evaluates. ---


def named(share: float) -> Any:
    return f"tuned {share}"


@pytest.mark.parametrize(
    ("blend", "expected"),
    [
        ("weights", [[(1.0, 1.0)], [(0.75, 1.0)], [(0.5, 1.0)], [(0.25, 1.0)]]),
        ("none", [[(1.0, 1.0)]] * 4),
        (
            "features",
            [
                [(1.0, 1.0)],
                [(1.0, 0.75), (None, 0.25)],
                [(1.0, 0.5), (None, 0.5)],
                [(1.0, 0.25), (None, 0.75)],
            ],
        ),
    ],
)
def test_the_networks_of_each_round(blend: Any, expected: list[list[tuple[Any, float]]]) -> None:
    switching = Switching(named, horizon=4, blend=blend)
    for k, parts in enumerate(expected):
        networks = tuple((share and named(share), part) for share, part in parts)
        assert switching.networks(k) == networks
    for k in (4, 5, 100):
        assert switching.networks(k) == ((None, 1.0),)


@given(st.sampled_from(BLENDS), STIFFNESS, HORIZONS, st.integers(0, 100))
def test_the_parts_of_a_step_sum_to_one(blend: Any, stiffness: float, horizon: int, k: int) -> None:
    switching = Switching(named, stiffness, horizon, blend)
    networks = switching.networks(k)
    assert sum(part for _, part in networks) == pytest.approx(1.0)
    assert all(0 < part <= 1 for _, part in networks)
    tuned = [network for network, _ in networks if network is not None]
    assert len(tuned) == (switching.share(k) > 0)


@dataclass
class Log:
    """Every network call: the share of the fine-tuning (0 for the base network), and its rows."""

    solved: Problem
    tuned: Network = WRONG
    calls: list[tuple[float, list[int]]] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)

    def recorded(self, share: float, inner: Network) -> Network:
        steps = {int(t): s for s, t in enumerate(self.solved.process.timesteps)}

        def network(x: Tensor, t: Tensor) -> Tensor:
            self.calls.append((share, [steps[int(value)] for value in t]))
            return inner(x, t)

        return network

    def consistency(self, share: float) -> Network:
        self.asked.append(share)
        return self.recorded(share, between(self.solved.network, self.tuned)(share))

    def solve(
        self, sampler: FixedPoint, noise: Noise, **options: Any
    ) -> tuple[SampleResult, Denoiser]:
        denoiser = Denoiser(self.recorded(0.0, self.solved.network))
        return sampler(denoiser, self.solved.process, noise, **options), denoiser


EXPECTED_SHARES = {
    "weights": [1.0, 0.75, 0.5, 0.25],
    "none": [1.0] * 4,
    "features": [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0],
}


@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blend", BLENDS)
def test_calls_rows_and_counts(blend: str, kind: str, splitting: str) -> None:
    """Drafts reach all rows whatever the window; then the fine-tuned network is never called."""
    log = Log(exact_problem(kind))
    sampler = pcm(log.consistency, splitting, blend=blend, horizon=4, window=3)
    numbers: list[int] = []
    noise = noise_of(log.solved, batch=3)
    result, denoiser = log.solve(sampler, noise, callback=lambda info: numbers.append(info.round))
    shares = EXPECTED_SHARES[blend]
    assert [share for share, _ in log.calls[: len(shares)]] == shares
    assert {share for share, _ in log.calls[len(shares) :]} == {0.0}
    assert len(log.calls) > len(shares)
    assert [share for share in log.asked if share] == [share for share in shares if share]
    assert 0.0 not in log.asked
    for _, rows in log.calls[: len(shares)]:
        assert rows == list(range(N)) * 3
    assert log.calls[len(shares)][1] == [0, 1, 2] * 3

    assert denoiser.rounds == len(log.calls) == result.rounds.max()
    assert denoiser.evals == sum(len(rows) for _, rows in log.calls) == result.evals.sum()
    paired = blend == "features"
    assert numbers[:4] == ([1, 3, 5, 7] if paired else [1, 2, 3, 4])
    assert numbers[4:] == list(range(len(shares) + 1, len(log.calls) + 1))
    assert len(result.residuals) == len(numbers)


@pytest.mark.parametrize("lookahead", [None, 2])
@pytest.mark.parametrize("stride", [1, 2, 5, N - 1, 3 * N])
@pytest.mark.parametrize("blend", BLENDS)
def test_drafts_evaluate_every_so_many_th_row_and_the_last(
    blend: str, stride: int, lookahead: int | None
) -> None:
    log = Log(exact_problem("ddim"))
    options = {"blend": blend, "stride": stride, "lookahead": lookahead, "window": 4}
    log.solve(pcm(log.consistency, "x0", horizon=2, **options), noise_of(log.solved, batch=1))
    drafts = 3 if blend == "features" else 2
    expected = sorted({*range(0, N, stride), N - 1})
    assert [rows for _, rows in log.calls[:drafts]] == [expected] * drafts
    ahead = [] if lookahead is None else [*range(4, N, lookahead), N - 1]
    assert log.calls[drafts][1] == sorted({*range(4), *ahead})


def test_a_multistep_scheduler_drafts_every_row() -> None:
    log = Log(exact_problem("dpmsolver++"))
    log.solve(pcm(log.consistency, "x0", stride=4), noise_of(log.solved, batch=1))
    assert log.calls[0] == (1.0, list(range(N)))


@pytest.mark.parametrize("guess", [None, "solution"])
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("blend", BLENDS)
def test_nothing_is_frozen_before_the_switch(blend: str, splitting: str, guess: str | None) -> None:
    """Not even the solution, where every residual is 0."""
    solved = exact_problem("ddpm")
    noise = noise_of(solved)
    sampler = pcm(
        always(solved.network), splitting, blend=blend, horizon=3, tolerance=0.1, window=5
    )
    seen: list[RoundInfo] = []
    states = solved.solve(SEQUENTIAL, noise).trajectory
    start = None if guess is None else Trajectory(states)
    result = solved.solve(sampler, noise, guess=start, callback=seen.append)
    assert [info.accepted.tolist() for info in seen[:3]] == [[0, 0]] * 3
    assert (seen[3].accepted >= 1).all()
    assert (seen[-1].accepted == N).all()
    if guess is not None:
        assert result.rounds.max() <= draft_calls(sampler.switching) + math.ceil(N / 5)  # type: ignore[arg-type]


def test_states_beyond_the_window_keep_the_draft() -> None:
    """The sampler's own guess would repeat the last state of the window there."""
    solved = exact_problem("ddpm")
    made = pcm(always(WRONG), "identity", window=3, tolerance=0.0)
    _, seen = iterates(solved, dataclasses.replace(made, guess=Copy()), noise_of(solved))
    assert torch.equal(seen[1][:, 5:], seen[0][:, 5:])
    assert not torch.equal(seen[0][:, 5:-1], seen[0][:, 6:])


# --- The answer is the sequential one. ---

LAYOUTS: dict[str, dict[str, Any]] = {
    "all rows": {},
    "plain sweeps": {"history": 1},
    "window": {"window": 4},
    "window of one": {"window": 1, "stride": 3},
    "lookahead": {"window": 4, "lookahead": 3, "stride": 2},
    "long history": {"window": 5, "history": 4},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_tolerance_zero_gives_the_sequential_floats(
    kind: str, blend: str, splitting: str, layout: dict[str, Any]
) -> None:
    solved = exact_problem(kind)
    options = {"blend": blend, "horizon": 3, "tolerance": 0.0, **layout}
    sampler = pcm(between(solved.network, WRONG), splitting, **options)
    assert_exact(solved, sampler, noise_of(solved, dtype=torch.float32))


@pytest.mark.parametrize("layout", ["all rows", "window", "lookahead"])
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tight_tolerance_gives_the_sequential_sample_of_a_mixture(
    kind: str, splitting: str, layout: str
) -> None:
    solved = problem(kind, 16)
    other = problem(kind, 16, Mixture(seed=9)).network
    noise = noise_of(solved)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    for blend in BLENDS:
        options = {"blend": blend, "horizon": 2, "tolerance": 1e-8, **LAYOUTS[layout]}
        sampler = pcm(between(solved.network, other), splitting, steps=16, **options)
        result = solved.solve(sampler, noise)
        assert set(result.status) == {Status.CONVERGED}
        torch.testing.assert_close(result.trajectory, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("tuned", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_fine_tuned_network_can_reach_the_answer(
    kind: str, splitting: str, tuned: Network
) -> None:
    solved = exact_problem(kind)
    noise = noise_of(solved)
    for blend, layout in zip(BLENDS, ("all rows", "window", "lookahead"), strict=True):
        options = {"blend": blend, "horizon": 2, "tolerance": 0.0, **LAYOUTS[layout]}
        assert_exact(solved, pcm(always(tuned), splitting, **options), noise)


@pytest.mark.parametrize("tuned", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_unclipped_predictions_cannot_either(splitting: str, tuned: Network) -> None:
    base = problem("ddim", N, clip_sample=False, eta=0.5)
    solved = Problem(Rational(), base.process)
    dtypes = itertools.cycle((torch.float32, torch.float64))
    for dtype, layout in zip(dtypes, ({}, *LAYOUTS.values()), strict=False):
        sampler = pcm(always(tuned), splitting, horizon=2, tolerance=0.0, **layout)
        assert_exact(solved, sampler, noise_of(solved, dtype=dtype))


@st.composite
def options_of(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "blend": draw(st.sampled_from(BLENDS)),
        "stiffness": draw(st.floats(0.3, 5.0)),
        "horizon": draw(st.integers(1, 5)),
        "stride": draw(st.integers(1, 12)),
        "window": draw(st.none() | st.integers(1, 12)),
        "lookahead": draw(st.none() | st.integers(1, 12)),
        "history": draw(st.integers(1, 4)),
    }


@settings(max_examples=120)
@given(
    steps=st.integers(1, 10),
    kind=st.sampled_from(KINDS),
    splitting=st.sampled_from(SPLITTINGS),
    tuned=st.sampled_from(list(ADVERSARIES)),
    options=options_of(),
    seed=st.integers(0, 10**6),
)
def test_every_solve_is_exact_and_counts_its_calls(
    steps: int, kind: str, splitting: str, tuned: str, options: dict[str, Any], seed: int
) -> None:
    log = Log(exact_problem(kind, steps), ADVERSARIES[tuned])
    sampler = pcm(log.consistency, splitting, steps=steps, tolerance=0.0, **options)
    noise = noise_of(log.solved, first_seed=seed)
    result, denoiser = log.solve(sampler, noise)
    assert set(result.status) == {Status.CONVERGED}
    assert torch.equal(result.trajectory, log.solved.solve(SEQUENTIAL, noise).trajectory)
    assert sampler.switching is not None
    drafts = draft_calls(sampler.switching)
    assert drafts < result.rounds.max() <= steps + drafts
    assert (denoiser.rounds, denoiser.evals) == (result.rounds.max(), result.evals.sum())
    assert {share for share, _ in log.calls[drafts:]} == {0.0}


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_the_shipped_network_with_filled_calls_gives_the_very_floats(splitting: str) -> None:
    path, steps = REPOSITORY / "checkpoints" / "pusht_state", 8
    policy = load_policy(path, calibrated=False)
    values = {name: value[:1] for name, value in read_observations(path, read_config(path)).items()}
    condition = policy.denoiser(values).condition
    noise = Noise.from_seeds([3], (16, 2), steps)

    def tuned(share: float) -> Network:
        return lambda *inputs: (1 + share) * policy.network(*inputs)

    if splitting == "chord":
        drawn = torch.randn(steps, 32, 32, generator=torch.Generator().manual_seed(0))
        made = pcm(tuned, splitting, matrices=0.1 * drawn, horizon=2, tolerance=0.0)
    else:
        made = pcm(tuned, splitting, horizon=2, blend="features", tolerance=0.0)
    padded, process = (
        Denoiser(policy.network, condition, pad_to=steps),
        policy.process("ddim", steps),
    )
    exact, result = (sampler(padded, process, noise) for sampler in (SEQUENTIAL, made))
    assert result.converged.all()
    assert torch.equal(result.trajectory, exact.trajectory)


# --- What a draft does. ---


def swept(solved: Problem, X: Tensor, noise: Noise, phi: Tensor) -> Tensor:
    """One sweep of all rows by hand; `phi` (N, d, d)."""
    batch, steps = len(X), torch.arange(N)
    s, x = steps.repeat(batch), X[:, :N].flatten(0, 1)
    clean = solved.process.predict_clean(x, solved.network(x, solved.process.timesteps[s]), s)
    clean = clean.reshape(batch, N, *SHAPE)
    before = torch.cat([clean[:, :1], clean[:, :-1]], dim=1)
    new, E = [X[:, 0]], torch.zeros(batch, D, dtype=X.dtype)
    for k in range(N):
        step = torch.full((batch,), k)
        target = solved.process.mean(X[:, k], clean[:, k], before[:, k], step)
        target = target + solved.process.noise(noise.steps[:, k], step)
        E = E @ phi[k].T + (target - X[:, k + 1]).flatten(1)
        new.append(X[:, k + 1] + E.reshape(batch, *SHAPE))
    return torch.stack(new, dim=1)


def linear_part(splitting: str, solved: Problem) -> Tensor:
    eye = torch.eye(D, dtype=torch.float64)
    if splitting == "chord":
        return matrices(N)
    return eye.repeat(N, 1, 1) if splitting == "identity" else solved.process.B[:, None, None] * eye


@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_network_makes_plain_sweeps_of_the_base_network(
    kind: str, blend: str, splitting: str
) -> None:
    """Neither window nor acceleration touches the drafts."""
    solved = exact_problem(kind)
    noise = noise_of(solved)
    sampler = pcm(
        always(solved.network), splitting, blend=blend, horizon=4, window=3, tolerance=0.0
    )
    _, seen = iterates(solved, sampler, noise)
    X, _ = Prior().start(solved.process, noise)
    for state in seen[:4]:
        X = swept(solved, X, noise, linear_part(splitting, solved))
        torch.testing.assert_close(state, X, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_untrained_draft_is_the_first_base_sweep_to_the_bit(
    kind: str, splitting: str
) -> None:
    solved = exact_problem(kind)
    noise = noise_of(solved)
    sampler = pcm(always(solved.network), splitting, history=1, tolerance=0.0)
    (drafted, *_), (plain, *_) = (
        iterates(solved, made, noise)[1]
        for made in (sampler, dataclasses.replace(sampler, switching=None))
    )
    assert torch.equal(drafted, plain)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_shares_weigh_the_step_and_not_its_input(kind: str, blend: str) -> None:
    """Clipping makes the difference between blended weights and blended steps."""
    solved = exact_problem(kind)
    noise = noise_of(solved)

    def tuned(x: Tensor, t: Tensor) -> Tensor:
        return solved.network(x, t) + 3.0

    mixed = between(solved.network, tuned)
    sampler = pcm(mixed, "x0", blend=blend, horizon=4, tolerance=0.0)
    _, seen = iterates(solved, sampler, noise)
    first = torch.zeros(2, dtype=torch.int64)

    def step(network: Network) -> Tensor:
        x = noise.initial
        clean = solved.process.predict_clean(x, network(x, solved.process.timesteps[first]), first)
        noisy = solved.process.noise(noise.steps[:, 0], first)
        return solved.process.mean(x, clean, clean, first) + noisy

    base, full = step(solved.network), step(tuned)
    for k, share in enumerate([1.0, 0.75, 0.5, 0.25, 0.0]):
        expected = {
            "weights": step(mixed(share)),
            "features": share * full + (1 - share) * base,
            "none": full if share else base,
        }[blend]
        torch.testing.assert_close(seen[k][:, 1], expected, rtol=0, atol=1e-12)
    assert not torch.allclose(base, full)


@pytest.mark.parametrize("layout", [{}, {"window": 4}, {"window": 4, "lookahead": 3}], ids=str)
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_after_the_switch_it_is_the_base_solve_from_the_last_draft(
    kind: str, splitting: str, layout: dict[str, Any]
) -> None:
    """Its residual and correction know nothing of the drafts, which a loose tolerance lets pass."""
    solved = exact_problem(kind)
    noise = noise_of(solved)
    options = {"horizon": 2, "tolerance": 0.5, **layout}
    sampler = pcm(always(solved.network), splitting, **options)
    result, seen = iterates(solved, sampler, noise)
    plain = dataclasses.replace(sampler, switching=None)
    expected, states = iterates(solved, plain, noise, guess=Trajectory(seen[1]))
    assert all(torch.equal(a, b) for a, b in zip(seen[2:], states, strict=True))
    assert torch.equal(result.residual, expected.residual)
    assert torch.equal(result.correction, expected.correction)
    assert torch.equal(result.rounds, expected.rounds + 2)
    assert torch.equal(result.evals, expected.evals + 2 * N)
    torch.testing.assert_close(
        result.residuals[2:], expected.residuals, rtol=0, atol=0, equal_nan=True
    )


def state_blind(solved: Problem, noise: Noise) -> Network:
    """Predicts, whatever the state, what the base network says along the solution."""
    states = solved.solve(SEQUENTIAL, noise).trajectory[0]
    steps = {int(t): s for s, t in enumerate(solved.process.timesteps)}

    def network(x: Tensor, t: Tensor) -> Tensor:
        return solved.network(states[[steps[int(value)] for value in t]], t)

    return network


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_draft_is_confirmed_in_one_round(kind: str) -> None:
    solved = Problem(Rational(0.5), problem(kind, N, prediction_type="sample").process)
    noise = noise_of(solved, batch=1)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    tuned = always(state_blind(solved, noise))
    sampler = pcm(tuned, "x0", tolerance=1e-9)
    result, seen = iterates(solved, sampler, noise)
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-12)
    assert result.rounds.tolist() == [2]
    plain = solved.solve(dataclasses.replace(sampler, switching=None), noise)
    assert plain.rounds.item() > 2


@pytest.mark.parametrize("stride", [2, 3, 7, N])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_strided_draft_interpolates_between_its_rows(kind: str, stride: int) -> None:
    """Predictions that are linear in the step, and ignore the state, need only a few rows."""
    process = problem(kind, N, prediction_type="sample").process

    def net(x: Tensor, t: Tensor) -> Tensor:
        row = N - 1 - torch.searchsorted(process.timesteps.flip(0), t)
        return 0 * x + 0.05 * row.to(x.dtype).reshape(-1, 1, 1) - 0.3

    solved = Problem(net, process)
    noise = noise_of(solved)
    result, seen = iterates(solved, pcm(always(net), "x0", stride=stride), noise)
    torch.testing.assert_close(
        seen[0], solved.solve(SEQUENTIAL, noise).trajectory, rtol=0, atol=1e-6
    )
    assert result.rounds.tolist() == [2, 2]


# --- Drafts that are not numbers. ---


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"stride": 3},
        {"window": 4},
        {"window": 4, "lookahead": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("splitting", ["x0", "chord"])
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_draft_of_nan_is_passed_over(
    kind: str, splitting: str, layout: dict[str, Any], history: int
) -> None:
    """What follows is the solve without a fine-tuned network."""
    solved = exact_problem(kind)
    noise = noise_of(solved)
    sampler = pcm(
        always(constant(math.nan)), splitting, horizon=2, tolerance=1e-3, history=history, **layout
    )
    result, seen = iterates(solved, sampler, noise)
    plain, expected = iterates(solved, dataclasses.replace(sampler, switching=None), noise)
    start, _ = Prior().start(solved.process, noise)
    assert all(torch.equal(state, start) for state in seen[:2])
    assert result.rounds.tolist() == [rounds + 2 for rounds in plain.rounds.tolist()]
    for state, want in zip(seen[2:], expected, strict=True):
        torch.testing.assert_close(state, want, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_numbers_leave_the_other_rows_a_draft(bad: float) -> None:
    solved = Problem(constant(0.3), problem("ddim", N, prediction_type="sample").process)
    noise = noise_of(solved)
    row = 5

    def tuned(x: Tensor, t: Tensor) -> Tensor:
        broken = (t == solved.process.timesteps[row])[:, None, None]
        return torch.where(broken, bad, torch.full_like(x, 0.3))

    _, seen = iterates(solved, pcm(always(tuned), "x0", tolerance=1e-9), noise)
    expected = solved.solve(SEQUENTIAL, noise).trajectory
    assert seen[0].isfinite().all()
    torch.testing.assert_close(seen[0][:, : row + 1], expected[:, : row + 1], rtol=0, atol=1e-12)
    assert not torch.allclose(seen[0][:, row + 1], expected[:, row + 1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_a_sample_whose_draft_breaks_leaves_the_others_alone(
    splitting: str, blend: str, bad: float
) -> None:
    base = exact_problem("ddpm")
    noise = noise_of(base, batch=3)

    def network(x: Tensor, t: Tensor, poison: Tensor) -> Tensor:
        return base.network(x, t)

    def tuned(x: Tensor, t: Tensor, poison: Tensor) -> Tensor:
        return base.network(x, t) + 0.1 + poison[:, None, None]

    sampler = pcm(always(tuned), splitting, blend=blend, horizon=2, tolerance=1e-3)
    together = sampler(
        Denoiser(network, torch.tensor([0.0, bad, 0.0], dtype=torch.float64)), base.process, noise
    )
    healthy = torch.zeros(2, dtype=torch.float64)
    alone = sampler(Denoiser(network, healthy), base.process, noise.select([0, 2]))
    assert set(together.status) == {Status.CONVERGED}
    assert torch.equal(together.trajectory[[0, 2]], alone.trajectory)
    assert together.rounds[[0, 2]].tolist() == alone.rounds.tolist()
    assert together.trajectory[1].isfinite().all()


@pytest.mark.parametrize("blend", BLENDS)
def test_a_broken_base_network_shows_whatever_the_drafts_said(blend: str) -> None:
    base = exact_problem("ddim")
    last = base.process.timesteps[-1]

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((t == last)[:, None, None], torch.nan, base.network(x, t))

    solved = Problem(net, base.process)
    sampler = pcm(always(base.network), "x0", blend=blend, horizon=3)
    assert set(solved.solve(sampler, noise_of(solved)).status) == {Status.NON_FINITE}


# --- Batches. ---


@settings(max_examples=30)
@given(
    kind=st.sampled_from(KINDS),
    splitting=st.sampled_from(SPLITTINGS),
    tuned=st.sampled_from(list(ADVERSARIES)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    tolerance=st.sampled_from([0.0, 1e-3, 0.1]),
    options=options_of(),
)
def test_a_sample_does_not_depend_on_the_rest_of_its_batch(
    kind: str,
    splitting: str,
    tuned: str,
    dtype: torch.dtype,
    tolerance: float,
    options: dict[str, Any],
) -> None:
    solved = exact_problem(kind, 8)
    consistency = between(solved.network, ADVERSARIES[tuned])
    sampler = pcm(consistency, splitting, steps=8, tolerance=tolerance, **options)
    noise = noise_of(solved, batch=4, dtype=dtype)
    together = solved.solve(sampler, noise)
    for i in range(4):
        alone = solved.solve(sampler, noise.select([i]))
        assert torch.equal(alone.trajectory[0], together.trajectory[i])
        for statistic in ("rounds", "evals", "residual", "correction"):
            assert getattr(alone, statistic)[0] == getattr(together, statistic)[i], statistic


@pytest.mark.parametrize(
    ("splitting", "tolerance"), [("identity", 1.0), ("x0", 0.1), ("chord", 0.1)]
)
def test_samples_leave_at_different_times_with_the_same_answer(
    splitting: str, tolerance: float
) -> None:
    solved = problem("ddpm", 24)
    other = problem("ddpm", 24, Mixture(seed=9)).network
    noise = noise_of(solved, batch=6)
    options = {"steps": 24, "tolerance": tolerance, "horizon": 2}
    sampler = pcm(between(solved.network, other), splitting, **options)
    together = solved.solve(sampler, noise)
    assert len(set(together.rounds.tolist())) > 1
    for i in range(6):
        alone = solved.solve(sampler, noise.select([i]))
        torch.testing.assert_close(alone.trajectory[0], together.trajectory[i], rtol=0, atol=1e-12)
        assert alone.rounds[0] == together.rounds[i]


# --- Guesses, budgets, deadlines. ---


def guesses() -> dict[str, Guess]:
    drawn = torch.randn(2, N + 1, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    return {
        "copy": Copy(),
        "sample": FromCleanSample(drawn[:, 0]),
        "far sample": FromCleanSample(1e3 * drawn[:, 0]),
        "trajectory": Trajectory(drawn),
        "broken trajectory": Trajectory(torch.full_like(drawn, math.nan)),
    }


@pytest.mark.parametrize("tuned", ["random", "nan", "in places"])
@pytest.mark.parametrize("guess", guesses())
@pytest.mark.parametrize("kind", KINDS)
def test_every_guess_leads_to_the_sequential_solution(kind: str, guess: str, tuned: str) -> None:
    solved = exact_problem(kind)
    noise = noise_of(solved)
    for splitting, blend in zip(SPLITTINGS, BLENDS, strict=True):
        sampler = pcm(
            always(ADVERSARIES[tuned]), splitting, blend=blend, horizon=2, tolerance=0.0, window=5
        )
        assert_exact(solved, sampler, noise, guess=guesses()[guess])


@pytest.mark.parametrize("blend", BLENDS)
def test_a_draft_starts_from_the_guess(blend: str) -> None:
    solved = exact_problem("ddim")
    noise = noise_of(solved)
    states = torch.randn(2, N + 1, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    sampler = pcm(always(solved.network), "x0", blend=blend, tolerance=0.0)
    _, seen = iterates(solved, sampler, noise, guess=Trajectory(states))
    start = torch.cat([noise.initial[:, None], states[:, 1:]], dim=1)
    expected = swept(solved, start, noise, linear_part("x0", solved))
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solve_last", [1, 5, N])
@pytest.mark.parametrize("tuned", ["random", "1e300", "nan"])
def test_states_that_are_given_stay_as_they_are(tuned: str, solve_last: int) -> None:
    solved = exact_problem("ddpm")
    noise = noise_of(solved)
    old = solved.solve(SEQUENTIAL, noise_of(solved, first_seed=7)).trajectory
    sampler = pcm(always(ADVERSARIES[tuned]), "chord", horizon=2, tolerance=0.0, stride=2)
    guess = Trajectory(old, solve_last)
    progress: list[RoundInfo] = []
    result = solved.solve(sampler, noise, guess=guess, callback=progress.append)
    plain = solved.solve(dataclasses.replace(sampler, switching=None), noise, guess=guess)
    assert progress[1].frozen.tolist() == [N - solve_last] * 2
    assert torch.equal(result.trajectory, plain.trajectory)
    assert result.rounds.max() <= solve_last + 2


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_a_budget_counts_network_calls_and_claims_nothing(splitting: str, blend: str) -> None:
    log = Log(exact_problem("ddpm"))
    noise = noise_of(log.solved)
    options = {"blend": blend, "horizon": 3, "tolerance": 1e-3}
    ends: list[int] = []
    sampler = pcm(log.consistency, splitting, **options)
    free, _ = log.solve(sampler, noise, callback=lambda info: ends.append(info.round))
    for limit in range(1, int(free.rounds.max()) + 2):
        limited = dataclasses.replace(sampler, max_rounds=limit)
        result, denoiser = log.solve(limited, noise)
        done = max(end for end in ends if end <= limit)
        assert denoiser.rounds == done == result.rounds.max()
        assert result.sample.isfinite().all()
        for i, rounds in enumerate(free.rounds.tolist()):
            finished = rounds <= limit
            assert result.status[i] is (Status.CONVERGED if finished else Status.ROUND_BUDGET)
            if finished:
                assert torch.equal(result.trajectory[i], free.trajectory[i])


def test_a_draft_alone_has_not_converged() -> None:
    """Even if it starts from the solution and stays there."""
    solved = exact_problem("ddim")
    noise = noise_of(solved)
    states = solved.solve(SEQUENTIAL, noise).trajectory
    sampler = pcm(always(solved.network), "x0", horizon=5, max_rounds=5)
    result = solved.solve(sampler, noise, guess=Trajectory(states))
    assert set(result.status) == {Status.ROUND_BUDGET}
    assert not result.converged.any()
    torch.testing.assert_close(result.trajectory, states, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tuned", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_solve_that_stops_early_never_returns_nan(tuned: Network, limit: int) -> None:
    solved = exact_problem("ddpm")
    for splitting, blend in itertools.product(SPLITTINGS, BLENDS):
        options = {"blend": blend, "horizon": 2, "tolerance": 0.0, "max_rounds": limit}
        result = solved.solve(pcm(always(tuned), splitting, **options), noise_of(solved))
        assert result.trajectory.isfinite().all()
        assert set(result.status) == {Status.ROUND_BUDGET}


@pytest.mark.parametrize("lookahead", [None, 3], ids=["window", "lookahead"])
def test_base_rounds_after_a_draft_of_nan_are_returned_when_time_is_up(
    lookahead: int | None,
) -> None:
    solved = exact_problem("ddpm")
    noise = noise_of(solved)
    sampler = pcm(
        always(constant(math.nan)), "x0", window=4, lookahead=lookahead, tolerance=0.0, max_rounds=4
    )
    result = solved.solve(sampler, noise)
    plain = dataclasses.replace(sampler, switching=None, max_rounds=3)
    assert torch.equal(result.trajectory, solved.solve(plain, noise).trajectory)


TABLE = LatencyTable((1, 41), (1.0, 5.0))  # 0.9 s for a call and 0.1 s for each row


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (deadlines, pace):
        monkeypatch.setattr(module, "time", made)
    return made


def timed_solve(
    clock: Clock, blend: str, seconds: float | None, **options: Any
) -> tuple[SampleResult, list[int]]:
    """The result, and the rows of each network call."""
    solved, rows = exact_problem("ddim"), []

    def timed(inner: Network) -> Network:
        return Timed(inner, clock, TABLE.predict, rows)

    sampler = pcm(always(timed(WRONG)), "x0", blend=blend, horizon=3, tolerance=1e-6, **options)
    deadline = None if seconds is None else Deadline.after(seconds, TABLE)
    denoiser = Denoiser(timed(solved.network))
    return sampler(denoiser, solved.process, noise_of(solved), deadline=deadline), rows


@pytest.mark.parametrize("blend", ["weights", "features", "none"])
def test_drafts_stop_at_the_last_round_that_fits(clock: Clock, blend: str) -> None:
    _, rows = timed_solve(clock, blend, None, window=4, stride=2)
    calls = [1, 2, 2] if blend == "features" else [1, 1, 1]
    calls += [1] * (len(rows) - sum(calls))
    ends = list(itertools.accumulate(calls))
    for before, after in list(itertools.pairwise(ends))[:5]:
        start = sum(map(TABLE.predict, rows[:before]))
        following = sum(map(TABLE.predict, rows[before:after]))
        for share, expected in ((0.01, before), (0.99, before), (1.01, after)):
            result, called = timed_solve(
                clock, blend, start + share * following, window=4, stride=2
            )
            assert called == rows[:expected]
            assert result.rounds.tolist() == [expected] * 2
            assert set(result.status) == {Status.DEADLINE}
            assert result.trajectory.isfinite().all()


@pytest.mark.parametrize("blend", BLENDS)
def test_a_generous_deadline_changes_nothing(clock: Clock, blend: str) -> None:
    free, expected = timed_solve(clock, blend, None)
    result, rows = timed_solve(clock, blend, 1e6)
    assert rows == expected
    assert torch.equal(result.trajectory, free.trajectory)
    assert result.status == free.status == (Status.CONVERGED,) * 2


@pytest.mark.parametrize("blend", BLENDS)
def test_the_first_draft_always_runs(clock: Clock, blend: str) -> None:
    result, rows = timed_solve(clock, blend, 1e-9)
    assert rows == [2 * N]
    assert set(result.status) == {Status.DEADLINE}
    assert result.trajectory.isfinite().all()


# --- The preset. ---


def test_the_solver_after_the_switch_is_that_of_the_splitting() -> None:
    def after(splitting: str, **options: Any) -> FixedPoint:
        return dataclasses.replace(pcm(named, splitting, **options), switching=None)

    ours = {"tolerance": 0.03, "window": 7, "lookahead": 2, "history": 4, "max_rounds": 9}
    assert after("x0", **ours) == samplers.get("x0", **ours)
    assert after("x0") == samplers.get("x0")
    picard = samplers.get("paradigms", window=7, tolerance=0.03, max_rounds=9)
    chosen = {key: ours[key] for key in ("window", "tolerance", "max_rounds")}
    assert after("identity", **chosen) == dataclasses.replace(picard, guess=Prior())
    whole = samplers.get("paradigms", window=None)
    assert after("identity") == dataclasses.replace(whole, guess=Prior())
    given = matrices(N)
    made = after("chord", matrices=given, **ours)
    expected = samplers.get("chord", matrices=given, **ours)
    assert isinstance(made.splitting, Chord)
    assert made.splitting.matrices is given
    assert dataclasses.replace(made, splitting=expected.splitting) == expected


def test_the_chord_takes_matrices_in_factors() -> None:
    solved = exact_problem("ddpm")
    left = 0.1 * matrices(N)[:, :, :2]
    sampler = pcm(always(WRONG), "chord", matrices=(left, left.mT), tolerance=0.0, horizon=2)
    assert isinstance(sampler.splitting, LowRankChord)
    assert_exact(solved, sampler, noise_of(solved))


def test_options_reach_the_switching() -> None:
    assert pcm(named, "x0").switching == Switching(named, blend="none")
    sampler = pcm(named, "x0", stiffness=0.5, horizon=3, blend="features", stride=4)
    assert sampler.switching == Switching(named, 0.5, 3, "features", 4)


@pytest.mark.parametrize(
    ("splitting", "options", "message"),
    [
        ("picard", {}, "splitting is 'picard'; expected one of identity, x0, chord"),
        (None, {}, "splitting is None; expected one of identity, x0, chord"),
        ("chord", {}, "'chord' needs matrices; run para-policy calibrate"),
        ("x0", {"tolerance": -1.0}, "tolerance is -1.0"),
        ("identity", {"tolerance": math.nan}, "tolerance is nan"),
        ("identity", {"window": 0}, "window is 0"),
        ("x0", {"lookahead": 0}, "lookahead is 0"),
        ("x0", {"history": 0}, "history is 0"),
        ("x0", {"max_rounds": 0}, "max_rounds is 0"),
        ("x0", {"horizn": 2}, "no option.*horizn.*horizon"),
        ("identity", {"lookahead": 3}, "lookahead is 3; splitting 'identity' has none"),
    ],
)
def test_a_wrong_choice_is_refused(splitting: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        samplers.get("pcm", consistency=always(WRONG), splitting=splitting, **options)


def test_the_fine_tuned_network_cannot_be_left_out() -> None:
    with pytest.raises(InputError, match=r"pcm.*consistency"):
        samplers.get("pcm", splitting="x0")


# --- The network argument of a Denoiser. ---

X = torch.arange(24.0).reshape(4, 3, 2)
T = torch.tensor([9, 9, 5, 0])
SAMPLE = torch.tensor([0, 2, 2, 1])
CONDITION = torch.tensor([[10.0], [20.0], [30.0]])


def test_another_network_replaces_the_bound_one_for_that_call_only() -> None:
    denoiser = Denoiser(lambda x, t: 2 * x)
    assert torch.equal(denoiser(X, T, SAMPLE, lambda x, t: 5 * x), 5 * X)
    assert torch.equal(denoiser(X, T, SAMPLE, None), 2 * X)
    assert torch.equal(denoiser(X, T, SAMPLE), 2 * X)
    assert (denoiser.rounds, denoiser.evals) == (3, 12)


@pytest.mark.parametrize(("pad_to", "pad_from", "rows"), [(1, 1, 3), (8, 1, 8), (8, 4, 3)])
def test_another_network_sees_the_same_call(pad_to: int, pad_from: int, rows: int) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        calls.append((x, t, condition))
        return x + condition[:, :, None]

    denoiser = Denoiser(network, CONDITION, pad_to=pad_to, pad_from=pad_from)
    outputs = [denoiser(X[:3], T[:3], SAMPLE[:3], other) for other in (None, network)]
    assert torch.equal(*outputs)
    assert len(calls[0][0]) == rows
    assert all(torch.equal(a, b) for a, b in zip(*calls, strict=True))
    assert calls[1][2][:3].flatten().tolist() == [10, 30, 30]
    assert (denoiser.rounds, denoiser.evals) == (2, 6)


def test_another_network_records_no_gradient_and_keeps_the_shape() -> None:
    layer = nn.Linear(2, 2)
    denoiser = Denoiser(lambda x, t: x)
    assert not denoiser(X, T, SAMPLE, lambda x, t: layer(x)).requires_grad
    with pytest.raises(InputError, match=r"\(4, 3, 2\).*shape must not change"):
        denoiser(X, T, SAMPLE, lambda x, t: x[:2])


class Empty(nn.Sequential):
    """A module of length 0, which Python takes for false."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 5 * x


def test_another_network_is_called_even_if_it_counts_as_false() -> None:
    assert torch.equal(Denoiser(lambda x, t: 2 * x)(X, T, SAMPLE, Empty()), 5 * X)
