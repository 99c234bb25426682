"""`para-policy calibrate`: what it measures, what it writes, and what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from para_policy import DiffusionPolicy, calibration, load_policy, samplers
from para_policy.calibration import measure as calibrate
from para_policy.calibration.measure import Settings, candidates
from para_policy.checkpoints.calibration import read_sizes
from para_policy.checkpoints.observations import save_observations
from para_policy.cli.main import main
from para_policy.errors import InputError
from para_policy.inference import EngineConfig, Size
from tests.checkpoint import random_observations, save_tiny_checkpoint, tiny_config
from tests.checkpoints.damage import Damage, edit
from tests.commands import Run, runner
from tests.problems import all_nodes
from tests.training.demonstrations import circles, write_group

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = save_tiny_checkpoint(tmp_path / "policy", train_timesteps=10)
    save_observations(directory, random_observations(6))
    return directory


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys, "calibrate")


def few(checkpoint: Path, *more: object) -> tuple[object, ...]:
    return ("--checkpoint", checkpoint, "--cases", 5, "--threads", 1, *more)


def test_it_writes_what_load_policy_reads(checkpoint: Path, run: Run) -> None:
    code, out, _ = run(*few(checkpoint))
    assert code == 0
    for words in ("ddpm, 10 steps, 5 samples", "sequential", "chord", "amplification"):
        assert words in out
    files = {path.name for path in (checkpoint / "calibration").iterdir()}
    assert files == {"ddpm_10.safetensors", "latency.json"}
    policy = load_policy(checkpoint)
    assert set(policy.calibrations) == {("ddpm", 10)}
    measured = policy.calibrations["ddpm", 10]
    assert (measured.cases, measured.tolerance, measured.steps) == (5, 1e-2, 10)
    assert measured.matrices.shape == (10, 32, 32)  # type: ignore[union-attr]
    names = [variant.sampler for variant in measured.variants]
    assert names[0] == "sequential"
    assert set(names) == set(samplers.names()) - {"asd", "pcm"}
    reference = measured.variants[0]
    assert (reference.rounds, reference.evals, reference.error_max) == (10, 10, 0)
    for variant in measured.variants[1:]:
        assert 1 <= variant.rounds <= 10
        assert variant.rounds <= variant.evals <= 55
        assert 0 <= variant.error_p95 <= variant.error_max < 0.5
        assert variant.amplification >= 0
        assert variant.course[-1].error_p95 == pytest.approx(variant.error_p95)
        assert 1 <= variant.course[0].evals <= 10
    assert reference.course == ()
    (device,) = policy.runtime.latencies
    assert "1 thread(s)" in device
    assert policy.runtime.latencies[device].rows[-1] >= 10


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_calibration_that_is_stopped_goes_on(
    checkpoint: Path, run: Run, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """No sampler is measured twice, and what is found is the same."""
    assert run(*few(checkpoint))[0] == 0
    file = checkpoint / "calibration" / "ddpm_10.safetensors"
    whole = load_policy(checkpoint).calibrations["ddpm", 10]
    file.unlink()
    measured: list[str] = []
    variant = calibrate._Measurement._variant

    def signalled(self: Any, basis: Any, name: str, *rest: Any) -> Any:
        if len(measured) == at:
            signal.raise_signal(signal.SIGTERM)
        measured.append(name)
        return variant(self, basis, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(calibrate._Measurement, "_variant", signalled)
        code, _, err = run(*few(checkpoint))
    assert code == 143
    assert "are kept in" in err
    assert "are kept in" in err.splitlines()[-1]
    assert load_policy(checkpoint).calibrations == {}
    monkeypatch.setattr(calibrate._Measurement, "_variant", counted(measured, variant))
    monkeypatch.setattr(calibrate, "chord_matrices", pytest.fail)
    assert run(*few(checkpoint))[0] == 0
    assert measured == [variant.sampler for variant in whole.variants[1:]]
    assert {path.name for path in file.parent.iterdir()} == {file.name, "latency.json"}
    found = load_policy(checkpoint).calibrations["ddpm", 10]
    assert torch.equal(found.matrices, whole.matrices)  # type: ignore[arg-type]
    assert repr(found.variants) == repr(whole.variants)


def counted(measured: list[str], variant: Any) -> Any:
    def measure(self: Any, basis: Any, name: str, *rest: Any) -> Any:
        measured.append(name)
        return variant(self, basis, name, *rest)

    return measure


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def without(*names: str) -> Damage:
    """As an earlier release has kept it."""
    return edit(tensors=lambda tensors: [tensors.pop(f"nodes.{name}") for name in names])


KEPT: dict[str, tuple[Damage | None, Sequence[str], int]] = {
    "other cases": (None, ("--cases=6",), 0),
    "other tolerance": (None, ("--tolerance=0.02",), 0),
    "broken": (truncate, (), 0),
    "no defects": (without("defect"), (), 1),
    "no nodes": (without("order", "error", "sensitivity", "defect"), (), 1),
}


@pytest.mark.parametrize(("damage", "more", "warned"), KEPT.values(), ids=KEPT)
def test_what_was_kept_of_something_else_is_not_used(
    checkpoint: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    damage: Damage | None,
    more: Sequence[str],
    warned: int,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            calibrate._Measurement,
            "_variant",
            lambda *rest: signal.raise_signal(signal.SIGINT),
        )
        assert run(*few(checkpoint))[0] == 130
    partial = checkpoint / "calibration" / "ddpm_10.partial"
    if damage is not None:
        damage(partial)
    basis = calibrate._Measurement._basis
    made: list[Any] = []

    def again(self: Any, references: Any) -> Any:
        made.append(references)
        return basis(self, references)

    monkeypatch.setattr(calibrate._Measurement, "_basis", again)
    with warnings.catch_warnings(record=True) as told:
        assert run(*few(checkpoint, *more))[0] == 0
    texts = [str(one.message) for one in told if "earlier release" in str(one.message)]
    assert len(texts) == warned
    assert all(f"'{partial}' was begun by an earlier release" in text for text in texts)
    assert len(made) == 1
    assert not partial.exists()
    assert load_policy(checkpoint).calibrations["ddpm", 10].complete


def test_auto_and_chord_work_afterwards(checkpoint: Path, run: Run) -> None:
    observation = {name: values[0] for name, values in random_observations(1, seed=5).items()}
    before = load_policy(checkpoint)
    for name in ("auto", "chord"):
        with pytest.raises(InputError, match="needs a calibration"):
            before.sample(observation, sampler=name)
    assert run(*few(checkpoint, "--scheduler", "ddim", "--steps", 6))[0] == 0
    policy = load_policy(checkpoint)
    exact = policy.sample(observation, scheduler="ddim", steps=6)
    for name in ("auto", "chord"):
        result = policy.sample(observation, sampler=name, scheduler="ddim", steps=6)
        assert result.stats.converged
        np.testing.assert_allclose(result.sample, exact.sample, atol=0.1)
        assert np.isfinite(result.stats.error_bound).all()


def test_the_latency_of_the_longest_process_is_kept(checkpoint: Path, run: Run) -> None:
    """Few steps need few rows; a table for many rows must not be lost to them."""
    assert run(*few(checkpoint, "--steps", 10))[0] == 0
    assert run(*few(checkpoint, "--scheduler", "ddim", "--steps", 3))[0] == 0
    (table,) = load_policy(checkpoint).runtime.latencies.values()
    assert table.rows[-1] >= 10


def test_large_chunks_are_kept_in_factors(
    checkpoint: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration.jacobian, "_DENSE", 31)
    monkeypatch.setattr(calibration.jacobian, "_RANK", 6)
    assert run(*few(checkpoint, "--scheduler", "ddim", "--steps", 6))[0] == 0
    policy = load_policy(checkpoint)
    matrices = policy.calibrations["ddim", 6].matrices
    assert isinstance(matrices, tuple)
    assert [tuple(factor.shape) for factor in matrices] == [(6, 32, 6), (6, 6, 32)]
    obs, options = random_observations(2), {"scheduler": "ddim", "steps": 6, "seed": [0, 1]}
    result = policy.sample(obs, sampler="chord", **options)
    np.testing.assert_allclose(result.sample, policy.sample(obs, **options).sample, atol=0.1)


def test_it_measures_again_over_what_is_there(checkpoint: Path, run: Run) -> None:
    """An old calibration, even a broken one, does not stand in the way of a new one."""
    folder = checkpoint / "calibration"
    folder.mkdir()
    (folder / "ddpm_10.safetensors").write_bytes(b"broken")
    assert run(*few(checkpoint))[0] == 0
    load_policy(checkpoint)
    save_tiny_checkpoint(checkpoint, train_timesteps=10, seed=1)
    assert run(*few(checkpoint))[0] == 0
    load_policy(checkpoint)


def test_a_broken_latency_file_does_not_stand_in_the_way(checkpoint: Path, run: Run) -> None:
    (checkpoint / "calibration").mkdir()
    (checkpoint / "calibration" / "latency.json").write_text("{")
    code, _, err = run("--quiet", *few(checkpoint))
    assert (code, err) == (0, "")


def demonstrations(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A checkpoint without observations, the configuration of its data, and the data."""
    config = tiny_config(10).model_copy(update={"inputs": {"agent_pos": (2,)}})
    policy = config.model_dump(mode="json")
    observations = {"agent_pos": {"array": "state", "columns": [0, 1]}}
    data = {"path": "nowhere", "action": {"array": "action"}, "observations": observations}
    training = {"steps": 2, "batch_size": 16}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"policy": policy, "data": data, "training": training}))
    group = write_group(tmp_path / "data.zarr", *circles())
    train = ("--config", path, "--output", tmp_path / "run", "--data", group, "--device", "cpu")
    assert main(["train", *map(str, train)]) == 0
    checkpoint = tmp_path / "run" / "checkpoint"
    (checkpoint / "observations.safetensors").unlink(missing_ok=True)
    return checkpoint, path, group


def test_observations_may_come_from_demonstrations(tmp_path: Path, run: Run) -> None:
    checkpoint, config, data = demonstrations(tmp_path)
    code, _, err = run(*few(checkpoint))
    assert code == 2
    assert "observations.safetensors' is missing" in err
    code, _, err = run("--quiet", *few(checkpoint, "--data", data, "--config", config))
    assert (code, err) == (0, "")
    assert load_policy(checkpoint).calibrations["ddpm", 10].cases == 5
    for more, message in (
        (("--data", tmp_path / "absent.zarr", "--config", config), "absent.zarr"),
        (("--data", data, "--config", tmp_path / "absent.yaml"), "absent.yaml"),
    ):
        code, _, err = run(*few(checkpoint, *more))
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


BAD: dict[str, tuple[Sequence[object], str]] = {
    "no cases": (("--cases", 0), "cases is 0; expected an integer of at least 1"),
    "negative cases": (("--cases", -3), "cases is -3"),
    "scheduler": (("--scheduler", "euler"), "unknown scheduler 'euler'"),
    "steps": (("--steps", 11), "num_steps is 11"),
    "no steps": (("--steps", 0), "num_steps is 0"),
    "repeated level": (("--scheduler", "dpmsolver++"), "repeat a noise level"),
    "tolerance": (("--tolerance", -1.0), "tolerance is -1.0"),
    "tolerance is no number": (("--tolerance", "nan"), "tolerance is nan"),
    "threads": (("--threads", 0), "--threads is 0"),
    "device": (("--device", "cuda:99"), "device 'cuda:99' cannot be used"),
}


@pytest.mark.parametrize(("more", "message"), BAD.values(), ids=BAD)
def test_bad_options_end_with_one_line_and_code_2(
    checkpoint: Path, run: Run, more: Sequence[object], message: str
) -> None:
    code, _, err = run(*few(checkpoint, *more))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (checkpoint / "calibration").exists()


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf, True])
def test_a_tolerance_is_checked_before_the_work(tolerance: float) -> None:
    with pytest.raises(InputError, match="tolerance is"):
        Settings(tolerance=tolerance)


def test_a_missing_checkpoint_is_named(tmp_path: Path, run: Run) -> None:
    code, _, err = run(*few(tmp_path / "nothing"))
    assert code == 2
    assert f"no checkpoint at '{tmp_path / 'nothing'}'" in err
    assert not (tmp_path / "nothing").exists()


def test_an_output_that_cannot_be_written_ends_with_one_line(checkpoint: Path, run: Run) -> None:
    (checkpoint / "calibration").write_text("a file where the folder should be")
    code, _, err = run(*few(checkpoint))
    assert code == 2
    assert "calibration" in err
    assert err.count("\n") == 1


def test_no_observations_are_refused(checkpoint: Path, run: Run) -> None:
    save_observations(checkpoint, random_observations(0))
    code, _, err = run(*few(checkpoint))
    assert code == 2
    assert "observations" in err
    assert err.count("\n") == 1


def test_a_measurement_depends_on_its_settings_alone(checkpoint: Path) -> None:
    """Every observation is used, with seeds of its own, in batches of any size."""
    policy, observations = load_policy(checkpoint), random_observations(3)
    settings = Settings(jacobians=2, cases=7)
    first, again = (
        calibrate.calibrate(policy.chain("ddim", 5), observations, settings) for _ in "ab"
    )
    assert first.variants == again.variants
    assert torch.equal(first.matrices, again.matrices)  # type: ignore[arg-type]
    for values in observations.values():
        values[-1] += 9
    other = calibrate.calibrate(policy.chain("ddim", 5), observations, settings)
    assert other.variants != first.variants


def test_many_cases_are_solved_in_batches(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_policy(checkpoint)
    settings = Settings(jacobians=2, cases=9)
    whole = calibrate.calibrate(policy.chain("ddim", 5), random_observations(4), settings)
    monkeypatch.setattr(calibrate, "_BATCH", 4)
    parts = calibrate.calibrate(policy.chain("ddim", 5), random_observations(4), settings)
    for a, b in zip(whole.variants, parts.variants, strict=True):
        assert (a.sampler, a.rounds, a.evals) == (b.sampler, b.rounds, b.evals)
        assert a.error_max == pytest.approx(b.error_max, abs=1e-4)
    torch.testing.assert_close(whole.guess.weight, parts.guess.weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 10, 49, 50, 100])
def test_every_candidate_can_be_made(steps: int) -> None:
    made = candidates(steps, 5e-3)
    assert {name for name, _ in made} == set(samplers.names()) - {"sequential", "asd", "pcm"}
    for name, options in made:
        parts = {"matrices": torch.zeros(steps, 2, 2), "nodes": all_nodes(steps)}
        known = {part: parts[part] for part in parts if part in samplers.options(name)}
        samplers.get(name, **options, **known)
        assert options.get("tolerance", 5e-3) == 5e-3
        assert options.get("window") is None or options["window"] < steps


def test_the_table_marks_what_auto_takes(checkpoint: Path) -> None:
    policy: DiffusionPolicy = load_policy(checkpoint)
    settings = Settings(jacobians=1, cases=2)
    measured = calibrate.calibrate(policy.chain("ddim", 5), random_observations(2), settings)
    policy.calibrations["ddim", 5] = measured
    table = policy.runtime.latency(5)
    view = calibrate.table(measured, table)
    first = list(view.columns[0].cells)
    (marked,) = [str(cell) for cell in first if str(cell).endswith("*")]
    chosen = policy.sampler("auto", scheduler="ddim", steps=5)
    assert marked.startswith(chosen.name)
    assert len(first) == len(measured.variants)


def test_a_single_step_can_be_calibrated(checkpoint: Path) -> None:
    policy = load_policy(checkpoint)
    settings = Settings(jacobians=1, cases=1)
    measured = calibrate.calibrate(policy.chain("ddim", 1), random_observations(1), settings)
    assert {variant.rounds for variant in measured.variants} == {1.0}
    policy.calibrations["ddim", 1] = dataclasses.replace(measured)
    obs, options = random_observations(1), {"scheduler": "ddim", "steps": 1, "seed": [0]}
    for name in ("auto", "chord", "x0"):
        result = policy.sample(obs, sampler=name, **options)
        np.testing.assert_array_equal(result.sample, policy.sample(obs, **options).sample)


def test_latencies_are_stored_for_the_device_that_was_measured(checkpoint: Path, run: Run) -> None:
    assert run(*few(checkpoint))[0] == 0
    stored = json.loads((checkpoint / "calibration" / "latency.json").read_text())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert list(stored) == [load_policy(checkpoint).runtime.table_key]
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_an_engine_is_measured_alone_for_a_checkpoint_that_is_calibrated(
    checkpoint: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    few_sizes = functools.partial(EngineConfig, sizes=(Size(1), Size(4)))
    monkeypatch.setattr("para_policy.inference.EngineConfig", few_sizes)
    alone = few(checkpoint, "--engine", "openvino", "--device-only")
    code, _, problem = run(*alone)
    assert code == 2
    assert "not calibrated for ddpm with 10 steps; leave the option out" in problem
    assert run(*few(checkpoint))[0] == 0
    measured = (checkpoint / "calibration" / "ddpm_10.safetensors").read_bytes()
    code, out, _ = run(*alone)
    assert code == 0
    assert "sequential" in out
    assert (checkpoint / "calibration" / "ddpm_10.safetensors").read_bytes() == measured
    (key, sizes), *others = read_sizes(checkpoint).items()
    assert not others
    assert ", 1 thread(s), openvino, network" in key
    assert sizes[-1].rows == 4
    assert {size.threads for size in sizes} == {1}
    tables = load_policy(checkpoint).runtime.latencies
    assert set(tables) == {key, key.replace(", openvino", "")}
    assert set(tables[key].rows) >= {size.rows for size in sizes}
