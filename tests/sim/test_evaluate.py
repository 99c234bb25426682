"""`python -m sim.evaluate` and `python -m sim.report`: contract, resume, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import sim.evaluate
import sim.report
from sim.evaluate import Arguments, evaluate, partial_path
from sim.partial import PartialResults
from sim.provenance import sampling_identity
from tests.fixtures_checkpoint import save_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SAMPLERS = ("sequential", "paradigms")
TIMINGS = {"date", "latency_ms", "batched_call_ms"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), 8)


def arguments(checkpoint: Path, folder: Path, **changes: Any) -> Arguments:
    options: dict[str, Any] = {
        "checkpoint": checkpoint,
        "json": folder / "out.json",
        "episodes": 3,
        "batch": 2,
        "steps": 4,
        "latency_chunks": 2,
        **changes,
    }
    return Arguments(**options)


def run_quietly(args: Arguments) -> dict[str, Any]:
    return evaluate(args, Console(quiet=True))


@pytest.fixture(scope="module")
def finished(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Folder and JSON of a complete run."""
    folder = tmp_path_factory.mktemp("run")
    run_quietly(arguments(checkpoint, folder, report=folder / "out.html"))
    return folder, json.loads((folder / "out.json").read_text())


def without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_timings(item) for key, item in value.items() if key not in TIMINGS}
    return [without_timings(item) for item in value] if isinstance(value, list) else value


def test_json_contract(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, document = finished
    assert document["episodes"] == 3
    assert document["seed"] == 100000
    assert (document["scheduler"], document["steps"]) == ("ddpm", 4)
    assert {"device", "dtype", "threads", "date", "versions", "checkpoint_sha256"} <= set(document)
    assert list(document["samplers"]) == list(SAMPLERS)
    for result in document["samplers"].values():
        for name in ("mean_max_reward", "success_rate"):
            low, high = result[f"{name}_ci95"]
            assert 0.0 <= low <= result[name] <= high <= 1.0
        assert 0.0 <= result["mean_final_coverage"] <= 1.0
        assert 1 <= result["rounds_mean"] <= 4
        assert result["latency_ms"]["p50"] <= result["latency_ms"]["p95"]
        episodes = result["per_episode"]
        assert [episode["seed"] for episode in episodes] == [100000, 100001, 100002]
        assert episodes[0]["start_state"] == pytest.approx([235, 124, 335, 128, -0.9049274284])
        assert len(episodes[0]["rounds"]) == 38
    assert list(document["paired"]) == ["paradigms"]
    assert set(document["paired"]["paradigms"]) >= {"difference", "ci95", "margin", "equivalent"}
    assert document["paired"]["paradigms"]["margin"] == 0.02
    assert not partial_path(folder / "out.json").exists()


def test_report_needs_nothing_else(finished: tuple[Path, dict[str, Any]]) -> None:
    page = (finished[0] / "out.html").read_text()
    assert page.count('src="data:image/svg+xml;base64,') == 6
    assert "http" not in page
    for fact in ("sequential", "paradigms", "±0.02", "100000 to 100002", "cpu", "thread"):
        assert fact in page


def test_resumed_run_equals_an_uninterrupted_one(
    finished: tuple[Path, dict[str, Any]],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = arguments(checkpoint, tmp_path)
    play, played = sim.evaluate.play, []

    def stop_after_two(policy: Any, settings: Any, task: Any, on_progress: Any) -> Any:
        if len(played) == 2:
            raise KeyboardInterrupt
        played.append(task)
        return play(policy, settings, task, on_progress)

    monkeypatch.setattr(sim.evaluate, "play", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run_quietly(args)
    with partial_path(args.json).open("a") as file:
        file.write('{"key": "cut off by a crash')

    def play_the_rest(policy: Any, settings: Any, task: Any, on_progress: Any) -> Any:
        assert task not in played
        return play(policy, settings, task, on_progress)

    monkeypatch.setattr(sim.evaluate, "play", play_the_rest)
    run_quietly(args)
    document = json.loads(args.json.read_text())
    assert without_timings(document) == without_timings(finished[1])


def test_other_settings_never_resume(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.partial.jsonl"
    task = sim.evaluate.Task("sequential", (1, 2))
    PartialResults(path, {"steps": 4}).add(task, [])
    assert PartialResults(path, {"steps": 4}).load() == {task: []}
    assert PartialResults(path, {"steps": 5}).load() == {}


def test_identity_knows_weights_and_schedule(checkpoint: Path, tmp_path: Path) -> None:
    from para_policy import load_policy

    other = save_tiny_checkpoint(tmp_path / "checkpoint", 8, seed=1)
    args = arguments(checkpoint, tmp_path)
    identities = [
        sampling_identity(load_policy(changed.checkpoint), changed.settings)
        for changed in (
            args,
            arguments(checkpoint, tmp_path, scheduler="ddim"),
            arguments(checkpoint, tmp_path, steps=8),
            arguments(other, tmp_path),
        )
    ]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])


def test_one_episode_and_one_sampler(checkpoint: Path, tmp_path: Path) -> None:
    args = arguments(
        checkpoint, tmp_path, samplers="sequential", episodes=1, latency_chunks=0,
        report=tmp_path / "out.html", video=tmp_path / "video",
    )  # fmt: skip
    run_quietly(args)
    text = args.json.read_text()
    assert "NaN" not in text
    assert json.loads(text)["paired"] == {}
    assert args.report is not None
    assert args.report.read_text().count("data:image/svg+xml") == 2
    assert [path.name for path in (tmp_path / "video").iterdir()] == ["pusht_100000_sequential.mp4"]


def test_jobs_give_the_same_results(
    finished: tuple[Path, dict[str, Any]], checkpoint: Path, tmp_path: Path
) -> None:
    changes = {"jobs": 2, "samplers": "paradigms", "episodes": 2, "batch": 1, "latency_chunks": 0}
    document = run_quietly(arguments(checkpoint, tmp_path, **changes))
    found, expected = (
        [episode["max_reward"] for episode in results["samplers"]["paradigms"]["per_episode"]]
        for results in (document, finished[1])
    )
    assert found == pytest.approx(expected[:2], abs=1e-3)


def command_line(module: Any, monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def bad_options(checkpoint: Path, folder: Path) -> Iterator[tuple[str, list[object]]]:
    out = ["--json", folder / "x.json"]
    good = ["--checkpoint", checkpoint, *out]
    occupied = folder / "file"
    occupied.touch()
    yield "unknown sampler 'magic'", [*good, "--samplers", "sequential,magic"]
    yield "different samplers", [*good, "--samplers", "sequential,sequential"]
    yield "--episodes 0", [*good, "--episodes", 0]
    yield "--jobs 0", [*good, "--jobs", 0]
    yield "--margin -1", [*good, "--margin", -1]
    yield "seed -5", [*good, "--seed", -5]
    yield "missing", ["--checkpoint", folder / "missing", *out]
    yield "unknown scheduler", [*good, "--scheduler", "euler"]
    yield "num_steps is 9", [*good, "--steps", 9]
    yield "device 'abacus'", [*good, "--device", "abacus"]
    yield "cannot write", ["--checkpoint", checkpoint, "--json", occupied / "x.json"]
    yield "is a folder", ["--checkpoint", checkpoint, "--json", folder]
    yield "cannot write", [*good, "--report", occupied / "x.html"]
    yield "cannot write", [*good, "--video", occupied / "video"]


def test_bad_options_end_with_one_line_and_code_2(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sim.evaluate, "_play_all", pytest.fail)  # found before the run
    for message, options in bad_options(checkpoint, tmp_path):
        code = command_line(sim.evaluate, monkeypatch, *options)
        error = capsys.readouterr().err
        assert code == 2, (options, error)
        assert error.count("\n") == 1, error
        assert message in error, (message, error)


def test_report_command(
    finished: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = finished[0] / "out.json"
    page = tmp_path / "docs" / "results.md"
    assert command_line(sim.report, monkeypatch, "--json", source, "--markdown", page) == 0
    text = page.read_text()
    assert text.startswith("# PushT evaluation: sequential, paradigms\n")
    assert "| paradigms |" in text
    assert "python -m sim.evaluate --checkpoint" in text
    assert command_line(sim.report, monkeypatch, "--json", source) == 2
    other = tmp_path / "other.json"
    other.write_text("[1, 2]")
    assert command_line(sim.report, monkeypatch, "--json", other, "--html", tmp_path / "x") == 2
    assert "no evaluation JSON" in capsys.readouterr().err


def test_interrupt_tells_how_to_go_on(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "sim.evaluate", "--checkpoint", checkpoint, "--json", out,
         "--episodes", "500", "--batch", "1", "--steps", "4"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not partial_path(out).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "give the same command again" in " ".join(error.split())
    assert "Traceback" not in error
    assert not out.exists()
