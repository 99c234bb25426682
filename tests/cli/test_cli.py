"""The command line as users meet it: exit codes, reports, one-line errors."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from para_policy.checkpoints.observations import save_observations
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoint import (
    calibrate_tiny_checkpoint,
    save_tiny_checkpoint,
    tiny_config,
)
from tests.commands import Run, runner
from tests.full_disk import full_disk
from tests.training.demonstrations import circles, write_group


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = save_tiny_checkpoint(tmp_path / "policy", train_timesteps=10)
    random = np.random.default_rng(0)
    widths = {"environment_state": 16, "agent_pos": 2}
    save_observations(
        directory, {name: random.uniform(0, 512, (4, 2, size)) for name, size in widths.items()}
    )
    return directory


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def bench(checkpoint: Path, output: Path, *more: object) -> tuple[object, ...]:
    return ("bench", "--checkpoint", checkpoint, "--json", output, "--observations", 3, *more)


def test_bench_writes_the_report_of_the_contract(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    code, out, _ = run(*bench(checkpoint, tmp_path / "out.json", "--threads", 1))
    report: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert code == 0
    assert "paradigms" in out
    assert "benchmark" not in out
    assert (report["scheduler"], report["steps"], report["observations"]) == ("ddpm", 10, 3)
    assert report["threads"] == 1
    assert report["dtype"] == "float32"
    assert list(report["samplers"]) == ["sequential", "paradigms", "x0"]
    reference, parallel, _ = report["samplers"].values()
    assert reference["rounds_mean"] == reference["evals_mean"] == reference["rounds_max"] == 10
    assert set(reference["max_abs_error"]) >= {"median", "p95", "max"}
    assert set(reference["max_abs_error"].values()) == {0.0}
    assert reference["speedup_vs_sequential"] == 1.0
    assert parallel["rounds_max"] <= 10
    assert 0 < parallel["max_abs_error"]["max"] < 0.5
    assert set(parallel["latency_ms"]) >= {"p50", "p95", "p99"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_bench_that_is_stopped_reports_what_it_has(
    checkpoint: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    """3 samplers, two turns to warm up, and one whole turn before the signal."""
    sample, calls = DiffusionPolicy.sample, [0]

    def signalled(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3 * 2 + 3 + 2:
            signal.raise_signal(number)
        return sample(*arguments, **options)

    monkeypatch.setattr(DiffusionPolicy, "sample", signalled)
    output = tmp_path / "out.json"
    found, out, err = run(*bench(checkpoint, output))
    assert found == code
    assert "stopped early: ddpm, 10 steps, 1 observations" in " ".join(out.split())
    said = f"stopped by {signal.Signals(number).name}; the report in '{output}' is partial"
    assert err.splitlines()[-1] == said
    report = json.loads(output.read_text())
    assert (report["partial"], report["observations"], report["seeds"]) == (True, 1, [0, 0])
    assert list(report["samplers"]) == ["sequential", "paradigms", "x0"]
    assert calls[0] == 3 * 2 + 3 + 2


def test_a_bench_that_is_stopped_at_once_leaves_the_report_before(
    checkpoint: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.json"
    assert run(*bench(checkpoint, output))[0] == 0
    before = output.read_text()
    assert json.loads(before)["partial"] is False
    monkeypatch.setattr(DiffusionPolicy, "warm_up", lambda self: signal.raise_signal(signal.SIGINT))
    code, _, err = run(*bench(checkpoint, output))
    assert (code, err.splitlines()[-1]) == (130, "stopped by SIGINT; nothing was measured yet")
    assert output.read_text() == before


def test_bench_takes_another_scheduler(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    arguments = bench(checkpoint, tmp_path / "out.json", "--scheduler", "ddim", "--steps", 5)
    assert run(*arguments)[0] == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["scheduler"], report["steps"]) == ("ddim", 5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--samplers", "magic"), "unknown sampler 'magic'"),
        (("--samplers", ","), "no samplers given"),
        (("--observations", 5), "there are 4"),
        (("--observations", 0), "observations is 0"),
        (("--threads", 0), "--threads is 0"),
        (("--scheduler", "euler"), "unknown scheduler 'euler'"),
        (("--steps", 11), "num_steps is 11"),
        (("--device", "cuda:99"), "device 'cuda:99' cannot be used"),
    ],
)
def test_bad_options_end_with_one_line_and_code_2(
    checkpoint: Path, tmp_path: Path, run: Run, more: tuple[object, ...], message: str
) -> None:
    code, _, err = run(*bench(checkpoint, tmp_path / "out.json", *more))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_a_missing_checkpoint_is_named(tmp_path: Path, run: Run) -> None:
    code, _, err = run("info", tmp_path / "nothing")
    assert code == 2
    assert f"no checkpoint at '{tmp_path / 'nothing'}'" in err


def test_a_checkpoint_without_observations_cannot_be_benchmarked(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    (checkpoint / "observations.safetensors").unlink()
    code, _, err = run(*bench(checkpoint, tmp_path / "out.json"))
    assert code == 2
    assert "observations.safetensors' is missing" in err


def test_info_says_what_a_checkpoint_holds(checkpoint: Path, run: Run) -> None:
    code, out, _ = run("info", checkpoint)
    assert code == 0
    for words in ("environment_state [16]", "agent_pos [2]", "10 Hz", "predicts 16", "DDPM"):
        assert words in out


def test_info_says_what_a_checkpoint_is_calibrated_for(checkpoint: Path, run: Run) -> None:
    assert "nothing (para-policy calibrate)" in run("info", checkpoint)[1]
    calibrate_tiny_checkpoint(checkpoint, "ddim", 4)
    calibrate_tiny_checkpoint(checkpoint, "ddpm", 5)
    assert "ddim 4 steps, ddpm 5 steps" in run("info", checkpoint)[1]


def test_train_makes_a_checkpoint_that_info_reads(tmp_path: Path, run: Run) -> None:
    policy = tiny_config(10).model_dump(mode="json")
    policy["inputs"] = {"agent_pos": [2]}
    data = {"path": "nowhere", "action": {"array": "action"}, "observations": {}}
    data["observations"] = {"agent_pos": {"array": "state", "columns": [0, 1]}}
    training = {"steps": 100, "batch_size": 16}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"policy": policy, "data": data, "training": training}))
    demonstrations = write_group(tmp_path / "data.zarr", *circles())
    train = ("train", "--config", config, "--output", tmp_path / "run", "--device", "cpu")
    assert "no data set at 'nowhere'" in run(*train)[2]
    assert "--steps is 0" in run(*train, "--data", demonstrations, "--steps", 0)[2]
    assert "--seed is -1" in run(*train, "--data", demonstrations, "--seed", -1)[2]
    code, out, _ = run(*train, "--data", demonstrations, "--steps", 4, "--seed", 7)
    assert code == 0
    told = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert (told["steps"], told["seed"]) == (4, 7)
    assert f"checkpoint: {tmp_path / 'run' / 'checkpoint'}" in out.replace("\n", "")
    assert run("info", tmp_path / "run" / "checkpoint")[0] == 0


def test_what_was_measured_is_printed_where_it_cannot_be_written(
    checkpoint: Path, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "reports"
    with full_disk():
        code, out, err = run(*bench(checkpoint, folder / "out.json"))
    assert code == 2
    assert "paradigms" in out
    assert f"cannot write '{folder / 'out.json'}' (File too large)" in err
    assert "File too large" in err.splitlines()[-1]
    assert not list(folder.iterdir())
