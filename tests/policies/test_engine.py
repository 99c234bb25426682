"""A policy on another engine: the same actions, and everything that depends on speed follows."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import DiffusionPolicy, load_policy, samplers
from para_policy.checkpoints.native import read_config
from para_policy.checkpoints.observations import read_observations
from para_policy.errors import InputError
from para_policy.inference import EngineConfig, Size
from para_policy.inference.device import device_description
from para_policy.inference.graphs import Recorded, Recorder
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.samplers import Draft, FixedPoint, Sampler
from para_policy.samplers.deadline import Deadline, LatencyTable
from tests.checkpoint import random_observations
from tests.inference.test_recorded import Counted
from tests.training.demonstrations import REPOSITORY

SHIPPED = REPOSITORY / "checkpoints" / "pusht_state"
SIZES = (Size(1), Size(24))
OPENVINO = EngineConfig("openvino", sizes=SIZES)
BFLOAT16 = EngineConfig("eager", "bfloat16")


@pytest.fixture(scope="module")
def fast(tiny_directory: Path) -> DiffusionPolicy:
    """The same as `policy` on OpenVINO, warmed up."""
    pytest.importorskip("openvino")
    loaded = load_policy(tiny_directory, engine=OPENVINO)
    loaded.warm_up()
    return loaded


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def one(seed: int = 0) -> dict[str, np.ndarray]:
    return {name: values[0] for name, values in random_observations(1, seed).items()}


@pytest.mark.slow
def test_the_shipped_policy_acts_alike_on_openvino(one_thread: None) -> None:
    pytest.importorskip("openvino")
    obs = {n: v[0] for n, v in read_observations(SHIPPED, read_config(SHIPPED)).items()}
    eager = load_policy(SHIPPED)
    fast = load_policy(SHIPPED, engine=EngineConfig("openvino", sizes=(Size(1), Size(64))))
    for sampler in ("sequential", "chord"):
        expected, found = (p.sample(obs, sampler=sampler, seed=3) for p in (eager, fast))
        assert found.stats.rounds == expected.stats.rounds
        np.testing.assert_allclose(found.sample, expected.sample, rtol=0, atol=1e-4)
    assert fast.runtime.in_use.backend == "openvino"


@pytest.mark.parametrize("sampler", ["sequential", "paradigms", "x0", "chord"])
def test_batches_and_windows_fit_into_any_size(
    policy: DiffusionPolicy, fast: DiffusionPolicy, sampler: str
) -> None:
    obs, seeds = random_observations(3), [1, 2, 3]
    expected, found = (p.sample(obs, sampler=sampler, seed=seeds) for p in (policy, fast))
    assert found.stats.evals.max() > 0
    np.testing.assert_allclose(found.sample, expected.sample, rtol=0, atol=1e-4)


def test_eager_is_what_nobody_asked_otherwise(policy: DiffusionPolicy) -> None:
    assert policy.runtime.in_use == EngineConfig()
    assert policy.runtime.device_key == device_description(policy.device)
    policy.warm_up()
    assert policy.runtime.engine.backend is None, "there is nothing to prepare"


def test_an_engine_has_its_own_key_and_auto_that_of_what_it_takes(
    policy: DiffusionPolicy, fast: DiffusionPolicy
) -> None:
    plain = device_description(policy.device)
    assert fast.runtime.device_key == f"{plain}, openvino"
    policy.runtime = policy.runtime.on(EngineConfig("auto", sizes=SIZES))
    assert policy.runtime.device_key == f"{plain}, openvino"
    assert policy.runtime.in_use == OPENVINO
    policy.runtime = policy.runtime.on(BFLOAT16)
    assert policy.runtime.device_key == f"{plain}, eager, bfloat16"


def test_weights_and_engine_are_exchanged_independently(policy: DiffusionPolicy) -> None:
    network, before = policy.network, policy.sample(one(), sampler="chord").sample
    calibrations = policy.calibrations
    policy.runtime = policy.runtime.on(BFLOAT16)
    assert policy.network is network
    assert 0 < np.abs(policy.sample(one()).sample - before).max() < 0.1
    with pytest.warns(UserWarning, match="has other weights: .* forgotten"):
        policy.network = torch.nn.Identity().eval()
    assert policy.runtime.engine.config == BFLOAT16
    policy.network = network
    policy.calibrations = calibrations
    policy.runtime = policy.runtime.on(EngineConfig())
    np.testing.assert_array_equal(policy.sample(one(), sampler="chord").sample, before)


def test_what_was_measured_for_other_weights_is_not_used_for_a_new_network(
    policy: DiffusionPolicy,
) -> None:
    """Error bounds would be wrong, without a word."""
    for same in (copy.deepcopy(policy.network), torch.compile(policy.network)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            policy.network = same  # type: ignore[assignment]
        assert policy.calibrations
    other = copy.deepcopy(policy.network)
    next(other.parameters()).add_(1e-3)
    with pytest.warns(UserWarning, match="has other weights"):
        policy.network = other
    assert policy.calibrations == {}
    assert np.isnan(policy.sample(one(), sampler="x0").stats.error_bound).all()


def test_after_warming_up_nothing_is_left_to_prepare(fast: DiffusionPolicy) -> None:
    prepared = fast.runtime.engine.memory_bytes
    assert prepared > 0
    fast.sample(random_observations(3), sampler="x0", seed=[1, 2, 3])
    assert fast.runtime.engine.memory_bytes == prepared


def test_the_engine_fills_up_instead_of_the_denoiser(
    policy: DiffusionPolicy, fast: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def count(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        given.append(len(x))
        return x

    rows = torch.zeros(9, dtype=torch.int64)
    for chosen in (policy, fast):
        monkeypatch.setattr(chosen.runtime, "network", count)
        chosen.denoiser(random_observations(1))(torch.zeros(9, 16, 2), rows, rows)
    assert given == [16, 9]


def table(one_row: float, many: float) -> LatencyTable:
    """With the rows of `SIZES`."""
    return LatencyTable((1, 2, 24), (one_row, many, many))


def test_auto_looks_at_the_latencies_of_the_engine_in_use(
    policy: DiffusionPolicy, fast: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, openvino = policy.runtime.table_key, fast.runtime.table_key
    tables = {plain: table(1e-3, 1e-3), openvino: table(1e-3, 1.0)}
    for chosen in (policy, fast):
        monkeypatch.setattr(chosen.runtime, "latencies", tables)
    assert policy.sampler("auto").name != "sequential"  # type: ignore[attr-defined]
    assert fast.sampler("auto").name == "sequential"  # type: ignore[attr-defined]


def test_deadlines_look_at_the_latencies_of_the_engine_in_use(
    policy: DiffusionPolicy, fast: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[LatencyTable | None] = []

    def spy(*problem: Any, deadline: Deadline, **rest: Any) -> samplers.SampleResult:
        seen.append(deadline.latency)
        return samplers.get("sequential")(*problem, **rest)

    plain, openvino = policy.runtime.table_key, fast.runtime.table_key
    slow, quick = table(1.0, 1.0), table(1e-3, 1e-3)
    for chosen in (policy, fast):
        monkeypatch.setattr(chosen.runtime, "latencies", {plain: slow, openvino: quick})
        chosen.sample(one(), sampler=spy, deadline_s=60.0)
    assert seen == [slow, quick]


def test_a_latency_table_knows_the_sizes_of_the_engine(fast: DiffusionPolicy) -> None:
    measured = fast.runtime.measure_latency(100)
    assert measured.rows == (1, 2, 24)
    assert measured.predict(2) == measured.predict(5) == measured.predict(24)


@pytest.mark.parametrize("rows", [(1, 2, 8, 9, 24), (1, 24), (1, 2, 32)])
def test_a_latency_table_of_other_sizes_is_not_used(
    fast: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch, rows: tuple[int, ...]
) -> None:
    """Where calls are filled up to other sizes they take other times."""
    other = LatencyTable(rows, (1.0,) * len(rows))
    monkeypatch.setattr(fast.runtime, "latencies", {fast.runtime.table_key: other})
    assert fast.runtime.known_latency() is None
    measured = fast.runtime.latency(100)
    assert measured.rows == (1, 2, 24)
    assert fast.runtime.known_latency() is measured


def test_a_latency_table_of_another_network_is_not_used(policy: DiffusionPolicy) -> None:
    policy.runtime.latencies[policy.runtime.table_key] = table(1.0, 1.0)
    assert policy.runtime.on(EngineConfig()).known_latency() == table(1.0, 1.0)
    for other in (torch.nn.Identity(), torch.compile(policy.network)):
        assert policy.runtime.with_module(other.eval()).known_latency() is None


def test_trained_networks_run_on_the_same_engine(
    policy: DiffusionPolicy, fast: DiffusionPolicy
) -> None:
    changes = {"final_conv.1.bias": torch.ones(2)}
    model = PicardConsistencyModel("ddim", 8, "identity", 1, 1, changes)
    chosen = fast.runtime.in_use
    changed = model.on(fast.network, 20, chosen)(1.0)
    assert changed.engine.config == chosen
    rows = (torch.zeros(3, 16, 2), torch.zeros(3, dtype=torch.int64), torch.zeros(3, 36))
    expected = model.on(policy.network, 20)(1.0)(*rows)
    torch.testing.assert_close(changed(*rows), expected, rtol=0, atol=1e-4)
    fast.consistency_models["ddim", 8, "identity"] = model
    made = fast.sampler("pcm", scheduler="ddim", steps=8, splitting="identity")
    del fast.consistency_models["ddim", 8, "identity"]
    assert isinstance(made, FixedPoint)
    assert isinstance(made.guess, Draft)
    network: Any = made.guess.consistency(0.0)
    assert network.engine.config == chosen


@pytest.mark.parametrize("calibrated", [True, False])
def test_no_tolerance_is_set_below_the_rounding_of_the_network(
    policy: DiffusionPolicy, bare_policy: DiffusionPolicy, calibrated: bool
) -> None:
    chosen = policy if calibrated else bare_policy
    floor = chosen.runtime.noise_floor(chosen.process())
    assert 0 < floor < 1e-3
    with pytest.warns(UserWarning, match=r"tolerance is .* rounding of the network") as told:
        raised = chosen.sampler("x0", tolerance=floor / 10)
    assert raised.tolerance == floor
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen.sampler("x0", tolerance=2 * floor).tolerance == 2 * floor
        assert chosen.sampler("x0", tolerance=0.0).tolerance == 0.0
        assert chosen.sampler("x0").tolerance == 1e-2
        chosen.sampler("sequential")


def test_a_coarser_arithmetic_has_a_higher_floor(bare_policy: DiffusionPolicy) -> None:
    process = bare_policy.process()
    exact = bare_policy.runtime.noise_floor(process)
    bare_policy.runtime = bare_policy.runtime.on(BFLOAT16)
    coarse = bare_policy.runtime.noise_floor(process)
    assert coarse > 30 * exact
    with pytest.warns(UserWarning, match="eager, bfloat16"):
        assert bare_policy.sampler("x0", tolerance=coarse / 2).tolerance == coarse


def test_a_default_is_raised_without_a_bound_on_the_error(
    policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a tolerance that nobody has measured, nobody knows how far the answer is off."""
    policy.runtime = policy.runtime.on(BFLOAT16)
    monkeypatch.setattr(policy.runtime, "noise_floor", lambda process: 0.5)
    with pytest.warns(UserWarning, match="rounding"):
        made = policy.sampler("chord")
    assert made.certificate is not None
    assert np.isnan(made.certificate.amplification)


@pytest.mark.parametrize("name", ["chord", "collocation"])
def test_a_solve_in_bfloat16_ends_where_its_loop_ends(policy: DiffusionPolicy, name: str) -> None:
    """To a tolerance above the rounding of the network, whose answers jump from state to state."""
    policy.runtime = policy.runtime.on(BFLOAT16)
    tolerance = 20 * policy.runtime.noise_floor(policy.process())
    obs, seeds = random_observations(4, seed=1), list(range(4))
    exact = policy.sample(obs, sampler="sequential", seed=seeds)
    result = policy.sample(obs, sampler=policy.sampler(name, tolerance=tolerance), seed=seeds)
    assert result.stats.converged.all()
    assert 0 < np.abs(result.sample - exact.sample).max() <= tolerance


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("magic", "float32", "engine is 'magic'; expected one of auto, eager"),
        ("eager", "float8", "precision is 'float8'; expected one of float32"),
        ("eager", "float16", "precision 'float16' needs an NVIDIA GPU"),
        ("cuda-graph", "float32", "engine 'cuda-graph' cannot be used on cpu"),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused_at_once(
    tiny_directory: Path, engine: str, precision: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_policy(tiny_directory, engine=engine, precision=precision)


def record_rounds(policy: DiffusionPolicy, recorder: Recorder) -> None:
    """As on an engine with CUDA graphs."""

    def recorded(sampler: Sampler) -> Sampler:
        if not sampler.recordable:
            return sampler
        return dataclasses.replace(sampler, recordings=Recorded(recorder))

    policy.runtime = policy.runtime.on(policy.runtime.engine.config)
    policy.runtime.recorded = recorded  # type: ignore[method-assign]


@pytest.mark.parametrize("sampler", ["sequential", "paradigms", "chord"])
def test_where_rounds_are_recorded_chunks_stay_the_same(
    policy: DiffusionPolicy, sampler: str
) -> None:
    observations = [one(seed) for seed in range(3)]
    previous = policy.sample(observations[0], sampler="chord", seed=5)
    continued: list[dict[str, Any]] = [
        {},
        {"previous": previous, "executed": 1},
        {"previous": previous, "executed": 1, "frozen": 1},
    ]

    def chunks() -> list[np.ndarray]:
        return [
            policy.sample(obs, sampler=sampler, seed=7, **given).sample
            for given in continued
            for obs in observations
        ]

    expected = chunks()
    recorder = Counted()
    record_rounds(policy, recorder)
    # The same sweeps, but of other numbers of rows, which round differently.
    np.testing.assert_allclose(chunks(), expected, rtol=0, atol=1e-5)
    recorded = recorder.recorded
    assert recorded > 0
    chunks()
    assert recorder.recorded == recorded, "what was recorded serves every chunk"
