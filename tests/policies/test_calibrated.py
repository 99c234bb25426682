"""What a calibration changes: the samplers there are, where they start, and how far they may err."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import DiffusionPolicy, samplers
from para_policy.calibration import AfterRound, Variant
from para_policy.errors import InputError, NonFiniteError
from para_policy.inference.runtime import Runtime
from para_policy.samplers import FixedPoint, RoundInfo, Status
from para_policy.samplers.deadline import LatencyTable
from tests.checkpoint import random_observations

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SEEDS = [3, 4, 5]


def one(seed: int = 0) -> dict[str, np.ndarray]:
    return {name: values[0] for name, values in random_observations(1, seed).items()}


def with_latency(policy: DiffusionPolicy, table: LatencyTable) -> DiffusionPolicy:
    policy.runtime.latencies[policy.runtime.table_key] = table
    return policy


def test_samplers_are_calibrated_where_there_is_a_calibration(
    policy: DiffusionPolicy, bare_policy: DiffusionPolicy
) -> None:
    calibrated = policy.sampler("x0", scheduler="ddim", steps=8, window=4)
    assert isinstance(calibrated, FixedPoint)
    assert calibrated.certificate is not None
    assert calibrated.window == 4
    assert policy.sampler("x0", scheduler="ddim", steps=7).certificate is None
    bare = bare_policy.sampler("x0", scheduler="ddim", steps=8, window=4)
    assert bare == samplers.get("x0", window=4)
    given = torch.zeros(7, 32, 32)
    chord = policy.sampler("chord", scheduler="ddim", steps=7, matrices=given)
    assert isinstance(chord, FixedPoint)


@pytest.mark.parametrize("name", ["sequential", "paradigms", "parataa", "x0", "chord"])
def test_the_bound_is_in_physical_units(policy: DiffusionPolicy, name: str) -> None:
    policy.normalizers["action"].scale.copy_(torch.tensor([2 / 512, -0.5]))
    obs = random_observations(3)
    exact = policy.sample(obs, seed=SEEDS)
    result = policy.sample(obs, sampler=name, seed=SEEDS)
    bound, stats = result.stats.error_bound, result.stats
    assert bound.shape == (3, 2)
    certificate = policy.sampler(name).certificate
    assert certificate is not None
    amplification = certificate.amplification
    normalised = amplification * np.maximum(stats.correction, 1e-5)
    if amplification:
        normalised = np.maximum(normalised, 1e-5)
    np.testing.assert_allclose(bound, normalised[:, None] * [256, 2], rtol=1e-5)
    if name != "parataa":  # eight cases calibrate it too little to hold for each of three
        assert (np.abs(result.prediction - exact.prediction) <= 2 * bound[:, None] + 1e-2).all()
    alone = policy.sample({name: v[1] for name, v in obs.items()}, sampler=name, seed=SEEDS[1])
    assert alone.stats.error_bound.shape == (2,)
    np.testing.assert_allclose(alone.stats.error_bound, bound[1], rtol=0.2, atol=1e-3)


def test_there_is_no_bound_without_a_calibration(
    policy: DiffusionPolicy, bare_policy: DiffusionPolicy
) -> None:
    assert np.isnan(bare_policy.sample(one(), sampler="x0").stats.error_bound).all()
    obs = random_observations(3)
    assert (
        np.isnan(bare_policy.sample(obs, seed=SEEDS).stats.error_bound).tolist() == [[True] * 2] * 3
    )
    assert np.isnan(policy.sample(one(), sampler=samplers.get("x0")).stats.error_bound).all()
    assert np.isnan(policy.sample(one(), sampler="asd").stats.error_bound).all()
    loose = policy.sampler("x0", tolerance=0.5)
    assert np.isnan(policy.sample(one(), sampler=loose).stats.error_bound).all()


def test_a_chunk_that_did_not_converge_has_no_bound(policy: DiffusionPolicy) -> None:
    stats = policy.sample(one(), sampler=policy.sampler("x0", max_rounds=2)).stats
    assert stats.converged is False
    assert stats.status == Status.ROUND_BUDGET.value
    assert np.isnan(stats.error_bound).all()


def test_a_calibration_that_arrives_later_counts(
    policy: DiffusionPolicy, bare_policy: DiffusionPolicy
) -> None:
    before = bare_policy.sample(one(), sampler="x0").stats
    assert np.isnan(before.error_bound).all()
    bare_policy.calibrations = policy.calibrations
    assert np.isfinite(bare_policy.sample(one(), sampler="x0").stats.error_bound).all()


def test_auto_takes_the_fastest_on_this_device(policy: DiffusionPolicy) -> None:
    measured = policy.calibrations["ddpm", 20]
    # Few rounds, if calls of any size take the same time.
    with_latency(policy, LatencyTable((1, 128), (1.0, 1.0)))
    chosen = policy.sampler("auto")
    assert chosen.name == min(measured.variants, key=lambda variant: variant.rounds).sampler
    with_latency(policy, LatencyTable((1, 128), (0.01, 1.28)))
    chosen = policy.sampler("auto")
    assert chosen.name == "sequential"


def test_auto_uses_the_options_that_were_measured(policy: DiffusionPolicy) -> None:
    with_latency(policy, LatencyTable((1, 128), (1.0, 1.0)))
    measured = policy.calibrations["ddpm", 20]
    options = {"tolerance": 5e-3, "window": 7, "lookahead": None}
    best = Variant("x0", options, rounds=2, evals=20, amplification=1.5)
    policy.calibrations["ddpm", 20] = dataclasses.replace(
        measured, variants=(*measured.variants, best)
    )
    chosen, wider = policy.sampler("auto"), policy.sampler("auto", window=9)
    assert isinstance(chosen, FixedPoint)
    assert isinstance(wider, FixedPoint)
    assert (chosen.window, chosen.tolerance) == (7, 5e-3)
    assert wider.window == 9


def test_auto_gives_the_sequential_answer(policy: DiffusionPolicy) -> None:
    with_latency(policy, LatencyTable((1, 128), (1.0, 1.0)))
    obs = random_observations(3)
    exact, result = (policy.sample(obs, sampler=s, seed=SEEDS) for s in ("sequential", "auto"))
    assert result.stats.rounds.max() < 20
    np.testing.assert_allclose(result.sample, exact.sample, atol=0.1)


def cost(policy: DiffusionPolicy, clock: Any, seconds: float) -> list[int]:
    """Every network call takes `seconds` of the clock; returns the rows of the calls."""
    rows: list[int] = []

    def hook(module: Any, inputs: Any, output: Any) -> None:
        rows.append(len(output))
        clock.now += seconds

    policy.network.get_submodule("final_conv").register_forward_hook(hook)
    return rows


class Clock:
    """Stands in for the module `time`."""

    now = 50.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("samplers.deadline", "policies.chain"):
        monkeypatch.setattr(f"para_policy.{module}.time", clock)
    return clock


@pytest.mark.parametrize("name", ["paradigms", "parataa", "x0", "chord"])
def test_a_chunk_is_there_before_its_deadline(
    policy: DiffusionPolicy, clock: Clock, name: str
) -> None:
    with_latency(policy, LatencyTable((1, 1000), (1.0, 1.0)))
    rows = cost(policy, clock, 1.0)
    free = policy.sample(one(), sampler=name)
    for rounds in range(1, free.stats.rounds):
        rows.clear()
        # A twentieth of the time is kept in reserve.
        result = policy.sample(one(), sampler=name, deadline_s=(rounds + 0.5) / 0.9)
        assert len(rows) == result.stats.rounds == rounds
        assert result.stats.wall_s == rounds
        assert result.stats.converged is False
        assert result.stats.status == Status.DEADLINE.value
        assert np.isfinite(result.stats.residual)
        assert np.isfinite(result.actions).all()
        assert np.isnan(result.stats.error_bound).all()
    generous = policy.sample(one(), sampler=name, deadline_s=1e6)
    np.testing.assert_array_equal(generous.sample, free.sample)
    assert generous.stats.status == free.stats.status == "converged"


def test_the_latency_table_of_this_device_counts(policy: DiffusionPolicy, clock: Clock) -> None:
    """Calls are quick, but the table says that large ones are not; without a table they would run."""
    rows = cost(policy, clock, 0.01)
    policy.sample(one(), sampler="x0", deadline_s=1.0)
    assert len(rows) > 3
    rows.clear()
    with_latency(policy, LatencyTable((1, 1000), (1.0, 1.0)))
    policy.sample(one(), sampler="x0", deadline_s=1.0)
    assert len(rows) == 1


def test_a_late_first_round_still_answers(policy: DiffusionPolicy, clock: Clock) -> None:
    cost(policy, clock, 100.0)
    stats = policy.sample(one(), sampler="x0", deadline_s=0.1).stats
    assert (stats.rounds, stats.converged) == (1, False)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), True, "0.1"], ids=repr)
def test_a_deadline_that_is_no_time_to_come_is_refused(
    policy: DiffusionPolicy, seconds: Any
) -> None:
    with pytest.raises(InputError, match=r"deadline is .* above 0"):
        policy.sample(one(), sampler="x0", deadline_s=seconds)


@pytest.mark.parametrize("name", ["sequential", "asd"])
def test_samplers_without_an_early_answer_refuse_a_deadline(
    policy: DiffusionPolicy, name: str
) -> None:
    with pytest.raises(InputError, match=f"{name}.*deadline"):
        policy.sample(one(), sampler=name, deadline_s=10.0)


def test_auto_with_a_deadline_never_ends_in_a_sampler_that_cannot_stop(
    policy: DiffusionPolicy,
) -> None:
    """Where sequential is the fastest, the fastest that can stop early must do."""
    with_latency(policy, LatencyTable((1, 128), (0.01, 1.28)))
    result = policy.sample(one(), sampler="auto", deadline_s=1e6)
    assert result.stats.converged


def test_auto_with_a_deadline_takes_what_is_least_wrong_by_then(policy: DiffusionPolicy) -> None:
    """A sampler that converges sooner may be further off until then."""
    with_latency(policy, LatencyTable((1, 128), (1.0, 1.0)))
    key = policy.chain(None, None).key
    measured = policy.calibrations[key]
    reference = next(v for v in measured.variants if v.sampler == "sequential")
    soon = [AfterRound(20, 0.5), AfterRound(20, 0.4), AfterRound(20, 1e-3)]
    steady = [AfterRound(20, 0.3), AfterRound(20, 0.1), AfterRound(20, 0.05), AfterRound(20, 1e-3)]
    variants = (
        reference,
        Variant("x0", {"window": 5}, 3, 60, 1.0, 1e-3, 1e-3, tuple(soon)),
        Variant("x0", {"window": None}, 4, 80, 1.0, 1e-3, 1e-3, tuple(steady)),
    )
    policy.calibrations[key] = dataclasses.replace(measured, variants=variants)
    for deadline_s, window in ((0.1, None), (1.3, None), (2.6, None), (3.9, 5), (100.0, 5)):
        assert policy.chain().choose("auto", deadline_s) == ("x0", {"window": window})
    assert policy.chain().choose("auto") == ("x0", {"window": 5})
    assert policy.chain().choose("x0", 1.0) == ("x0", {})


def test_auto_reckons_with_the_rows_of_recorded_rounds(
    policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those have the rows of the whole window to the end, needed or not."""
    with_latency(policy, LatencyTable((1, 128), (0.01, 1.28)))
    key = policy.chain(None, None).key
    measured = policy.calibrations[key]
    reference = next(v for v in measured.variants if v.sampler == "sequential")
    variants = (
        reference,
        Variant("x0", {"window": 5}, 4, 8, 1.0, 1e-3, 1e-3),
        Variant("x0", {"window": 3}, 5, 13, 1.0, 1e-3, 1e-3),
    )
    policy.calibrations[key] = dataclasses.replace(measured, variants=variants)
    assert policy.chain().choose("auto") == ("x0", {"window": 5})
    monkeypatch.setattr(Runtime, "records", property(lambda self: True))
    assert policy.chain().choose("auto") == ("x0", {"window": 3})


def test_samplers_of_auto_are_made_once_whatever_the_deadlines(policy: DiffusionPolicy) -> None:
    with_latency(policy, LatencyTable((1, 128), (1e-4, 1e-4)))
    for deadline_s in (5.0, 5.5, 6.0):
        policy.sample(one(), sampler="auto", deadline_s=deadline_s)
    assert len(policy.chain()._named) == 1


@pytest.mark.parametrize("row_s", [1e-9, 1.0])
def test_auto_takes_a_tolerance_whatever_is_fastest(policy: DiffusionPolicy, row_s: float) -> None:
    """Where it is `sequential` there is no error to bound."""
    with_latency(policy, LatencyTable((1, 128), (1.0, 1.0 + 127 * row_s)))
    chosen = policy.sampler("auto", tolerance=1e-4, max_rounds=19)
    assert (chosen.name == "sequential") is (row_s == 1.0)
    assert chosen.options().get("tolerance", 1e-4) == 1e-4
    with pytest.raises(InputError, match=r"'auto' has no option \['tolerence'\]"):
        policy.sampler("auto", tolerence=1e-4)
    with pytest.raises(InputError, match="tolerance is -1"):
        policy.sampler("auto", tolerance=-1.0)


def test_a_tolerance_of_auto_is_none_of_the_papers_samplers(policy: DiffusionPolicy) -> None:
    """`parataa` bounds a mean of squares: as a largest coordinate it let errors of five times as much
    pass. Where it is chosen it runs as it was measured, or is not chosen."""
    with_latency(policy, LatencyTable((1, 128), (1.0, 1.0)))
    key = policy.chain().key
    measured = policy.calibrations[key]
    variants = (
        next(v for v in measured.variants if v.sampler == "sequential"),
        Variant("parataa", {}, 3, 60, 1.0, 2e-3, 2e-3),
        Variant("x0", {"tolerance": measured.tolerance}, 6, 60, 1.0, 2e-3, 2e-3),
    )
    policy.calibrations[key] = dataclasses.replace(measured, variants=variants)
    options = samplers.get("parataa").options()
    for tolerance in (measured.tolerance, 3e-3):
        chosen = policy.sampler("auto", tolerance=tolerance, history=2)
        assert (chosen.name, chosen.options()) == ("parataa", options)
    chosen = policy.sampler("auto", tolerance=1e-3)
    assert (chosen.name, chosen.tolerance) == ("x0", 1e-3)


def test_an_option_of_the_wrong_kind_is_refused_with_a_calibration_too(
    policy: DiffusionPolicy,
) -> None:
    with pytest.raises(InputError, match="tolerance is '1e-2'; expected a finite number"):
        policy.sampler("x0", tolerance="1e-2")


def absurd(policy: DiffusionPolicy, scale: float) -> Any:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(20, 32, 32, generator=generator)


@pytest.mark.parametrize("max_rounds", [1, 2, 3, 6])
@pytest.mark.parametrize("scale", [0.3, 10.0, 1e20, 1e37])
def test_what_diverges_still_gives_actions_inside_the_numbers(
    policy: DiffusionPolicy, scale: float, max_rounds: int
) -> None:
    """An absurd linear part throws the iteration out; the answer stays finite and says so."""
    matrices = absurd(policy, scale)
    for history in (1, 3):
        sampler = samplers.get(
            "chord", matrices=matrices, window=None, history=history, max_rounds=max_rounds
        )
        result = policy.sample(random_observations(3), sampler=sampler, seed=SEEDS)
        assert np.isfinite(result.prediction).all()
        assert not result.stats.converged.any()
        assert (result.stats.rounds == max_rounds).all()


def blows_up(policy: DiffusionPolicy, limit: float, value: float) -> None:
    """Off the trajectory the network returns no number; on it, it is as before."""

    denoise = policy.network.denoise

    def fragile(x: torch.Tensor, films: Any) -> torch.Tensor:
        outside = x.flatten(1).abs().amax(dim=1) > limit
        return torch.where(outside[:, None, None], value, denoise(x, films))

    policy.network.denoise = fragile  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("name", ["paradigms", "parataa", "x0", "chord"])
def test_a_network_that_blows_up_off_the_trajectory_is_survived(
    policy: DiffusionPolicy, name: str, value: float
) -> None:
    obs = random_observations(3)
    states: list[RoundInfo] = []
    exact = policy.sample(obs, seed=SEEDS, callback=states.append)
    blows_up(policy, float(states[-1].trajectory.abs().max()) + 0.2, value)
    for max_rounds in (1, 2, 4):
        sampler = policy.sampler(name, max_rounds=max_rounds)
        early = policy.sample(obs, sampler=sampler, seed=SEEDS)
        assert np.isfinite(early.prediction).all()
    result = policy.sample(obs, sampler=name, seed=SEEDS)
    assert result.stats.converged.all()
    np.testing.assert_allclose(result.sample, exact.sample, atol=0.1)


def test_nan_on_the_trajectory_is_an_error_with_a_deadline_too(
    policy: DiffusionPolicy, clock: Clock
) -> None:
    cost(policy, clock, 1.0)
    blows_up(policy, 0.0, float("nan"))
    with pytest.raises(NonFiniteError, match="must not be executed"):
        policy.sample(one(), sampler="x0", deadline_s=3.5)
    with pytest.raises(NonFiniteError, match="must not be executed"):
        policy.sample(one(), sampler=policy.sampler("chord", max_rounds=1))
