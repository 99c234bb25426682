"""`para-policy evaluate` and `python -m sim.report`: contract, resume, errors."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro
from rich.console import Console

import sim.report
from para_policy.cli.main import main
from para_policy.errors import InputError, NonFiniteError
from para_policy.stopping import Stopped, stoppable
from para_policy.training.config import LARGEST_SEED
from sim.evaluate import Evaluate
from sim.evaluation import run, tables
from sim.evaluation.batches import Task, make_tasks, paired_runs
from sim.evaluation.partial import PartialResults, partial_path
from sim.evaluation.progress import print_results
from sim.evaluation.provenance import sampling_identity
from sim.pusht.task import PUSHT
from sim.tasks.episode import Episode
from tests.checkpoint import save_tiny_checkpoint
from tests.full_disk import full_disk
from tests.signals import alive, wait_for

ROOT = Path(__file__).resolve().parents[3]
SAMPLERS = ("sequential", "x0")
TIMINGS = {"date", "latency_ms", "batched_call_ms"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), 8)


def arguments(checkpoint: Path, folder: Path, **changes: Any) -> Evaluate:
    options: dict[str, Any] = {
        "checkpoint": checkpoint,
        "json": folder / "out.json",
        "episodes": 3,
        "batch": 2,
        "steps": 4,
        "latency_chunks": 2,
        **changes,
    }
    return Evaluate(**options)


def run_quietly(args: Evaluate) -> dict[str, Any]:
    return run.evaluate(args, Console(quiet=True))


@pytest.fixture(scope="module")
def finished(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Folder and JSON of a complete run."""
    folder = tmp_path_factory.mktemp("run")
    run_quietly(arguments(checkpoint, folder, report=folder / "out.html"))
    return folder, json.loads((folder / "out.json").read_text())


def without_timings(value: Any) -> Any:
    """Numbers are rounded: gym-pusht adds areas in the order of a set, which is no fixed order."""
    if isinstance(value, float):
        return round(value, 12) + 0.0
    if isinstance(value, dict):
        return {key: without_timings(item) for key, item in value.items() if key not in TIMINGS}
    return [without_timings(item) for item in value] if isinstance(value, list) else value


def test_json_contract(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, document = finished
    assert document["episodes"] == 3
    assert document["partial"] is False
    assert document["seed"] == 100000
    assert (document["scheduler"], document["steps"]) == ("ddpm", 4)
    assert (document["backend"], document["dtype"]) == ("eager", "float32")
    assert {"device", "threads", "date", "versions", "checkpoint_sha256"} <= set(document)
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
        assert result["rounds"]["mean"] == result["rounds_mean"]
        assert result["rounds"]["p95"] <= result["rounds"]["max"] == result["rounds_max"]
        assert result["max_abs_error"] is None
        assert result["error_above_1e-2_rate"] is None
        assert result["seams"]["count"] == 3 * 37
        for jump in ("velocity_jump_px_per_s", "acceleration_jump_px_per_s2"):
            for where in ("seam", "inside"):
                low, high = result["seams"][jump][where]["ci95"]
                assert 0 < low <= result["seams"][jump][where]["mean"] <= high
    assert document["reference"] == "sequential"
    assert document["paired"]["x0"]["reference"] == "sequential"
    assert list(document["paired"]) == ["x0"]
    assert set(document["paired"]["x0"]) >= {"difference", "ci95", "margin", "equivalent"}
    assert document["paired"]["x0"]["verdict"] == "too few episodes to say"
    assert not document["paired"]["x0"]["equivalent"]
    assert document["paired"]["x0"]["margin"] == 0.02
    assert not partial_path(folder / "out.json").exists()


def test_report_needs_nothing_else(finished: tuple[Path, dict[str, Any]]) -> None:
    page = (finished[0] / "out.html").read_text()
    assert page.count('src="data:image/svg+xml;base64,') == 6
    assert "http" not in page
    for fact in ("sequential", "x0", "±0.02", "100000 to 100002", "cpu", "thread"):
        assert fact in page
    assert "Seams between chunks" in page
    assert "Error of every chunk" not in page


def test_the_report_names_the_batch_that_was_played(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    document = {**finished[1], "batch": 50}
    assert tables.circumstances(document)["Vectorised"].startswith("up to 2 episodes per batch")


def test_resumed_run_equals_an_uninterrupted_one(
    finished: tuple[Path, dict[str, Any]],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = arguments(checkpoint, tmp_path)
    play, played = run.play, []

    def stop_after_two(policy: Any, sampling: Any, task: Any, on_progress: Any) -> Any:
        if len(played) == 2:
            raise KeyboardInterrupt
        played.append(task)
        return play(policy, sampling, task, on_progress)

    monkeypatch.setattr(run, "play", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run_quietly(args)
    with partial_path(args.json).open("a") as file:
        file.write('{"key": "cut off by a crash')

    def play_the_rest(policy: Any, sampling: Any, task: Any, on_progress: Any) -> Any:
        assert task not in played
        return play(policy, sampling, task, on_progress)

    monkeypatch.setattr(run, "play", play_the_rest)
    run_quietly(args)
    document = json.loads(args.json.read_text())
    assert without_timings(document) == without_timings(finished[1])


def test_other_settings_never_resume(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.partial.jsonl"
    task, read = Task("sequential", (1, 2)), Episode.reader(PUSHT)
    PartialResults(path, read, {"sequential": {"steps": 4}}).add(task, [])
    assert PartialResults(path, read, {"sequential": {"steps": 4}}).load() == {task: []}
    assert PartialResults(path, read, {"sequential": {"steps": 5}}).load() == {}
    other = PartialResults(path, read, {"x0": {"steps": 4}})
    assert (other.load(), other.others) == ({}, 1)
    other.add(Task("x0", (1, 2)), [])
    other.remove()
    left = PartialResults(path, read, {"sequential": {"steps": 4}})
    assert (left.load(), left.others) == ({task: []}, 0)
    left.remove()
    assert not path.exists()


FOREIGN = {
    "text": b"my notes\n",
    "lines of JSON": b'{"time": 1, "reward": 0.5}\n{"time": 2, "reward": 0.7}\n',
    "lists": b"[1, 2]\n",
    "no JSON after lines of ours": b'\n{"key": "a", "sampler": "x0", "seeds": [1], "episodes": []}\nkey\n',
    "binary": b"\x00\xff\xfe\n",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_something_else_is_left_alone(
    checkpoint: Path, tmp_path: Path, content: bytes
) -> None:
    args = arguments(checkpoint, tmp_path)
    path = partial_path(args.json)
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=rf"'{path}' is no file of finished tasks .*move it"
    ) as told:
        run_quietly(args)
    assert "\n" not in str(told.value)
    assert path.read_bytes() == content
    assert not args.json.exists()


def test_lines_that_a_crash_has_cut_off_are_passed_over(tmp_path: Path) -> None:
    path, task = tmp_path / "out.partial.jsonl", Task("sequential", (1, 2))
    results = PartialResults(path, Episode.reader(PUSHT), {"sequential": {}})
    results.add(task, [])
    line = path.read_text().strip()
    path.write_text("\n".join(line[:length] for length in (1, 5, 9, 30, -1)))
    results.add(task, [])
    assert results.load() == {task: []}


def test_finished_batches_of_other_seeds_outlive_a_run_with_the_same_output(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"samplers": "sequential", "latency_chunks": 0}
    stopped = arguments(checkpoint, tmp_path, **options)
    play = run.play

    def one_batch(policy: Any, sampling: Any, task: Any, on_progress: Any) -> Any:
        if task.seeds != (100000, 100001):
            raise KeyboardInterrupt
        return play(policy, sampling, task, on_progress)

    with monkeypatch.context() as first:
        first.setattr(run, "play", one_batch)
        with pytest.raises(KeyboardInterrupt):
            run_quietly(stopped)
    kept = partial_path(stopped.json).read_text()
    told = io.StringIO()
    other = arguments(checkpoint, tmp_path, seed=7, episodes=1, **options)
    run.evaluate(other, Console(file=told, width=500))
    assert "1 batches in" in told.getvalue()
    assert partial_path(stopped.json).read_text() == kept
    run_quietly(arguments(checkpoint, tmp_path, episodes=2, **options))  # what was finished
    assert not partial_path(stopped.json).exists()


def test_every_output_has_a_file_of_its_own_for_what_is_finished() -> None:
    names = ["run.json", "run_0.01", "run_0.02", "run_0.02.json5"]
    assert len({partial_path(Path(name)) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["out.json", "out.partial.jsonl"])
def test_a_report_in_place_of_the_results_is_refused(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=rf"{name}' is given twice; expected a file of its own"):
        run_quietly(arguments(checkpoint, tmp_path, report=tmp_path / "x" / ".." / name))


def test_the_last_start_state_suffices_for_all_latencies(checkpoint: Path, tmp_path: Path) -> None:
    last = {"seed": LARGEST_SEED, "episodes": 1, "samplers": "sequential"}
    run_quietly(arguments(checkpoint, tmp_path, **last, latency_chunks=40))
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["samplers"]["sequential"]["latency_ms"]["p50"] > 0


def test_the_command_that_is_told_repeats_the_evaluation(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    changed = {
        "checkpoint": "a folder", "device": "cuda:1", "batch": 7, "jobs": 2, "margin": 0.3,
        "latency_chunks": 0, "check_errors": True, "task": "aloha", "cluster": "local",
    }  # fmt: skip
    document = {**finished[1], **changed}
    words = shlex.split(tables.command(document))
    assert words[:2] == ["para-policy", "evaluate"]
    told = tyro.cli(Evaluate, args=words[2:])
    expected = {**changed, "env": "aloha", "engine": "eager", "episodes": 3, "seed": 100000}
    expected |= {"samplers": ",".join(SAMPLERS), "scheduler": "ddpm", "steps": 4}
    del expected["task"], expected["checkpoint"]
    assert told.given() == "a folder"
    assert {name: getattr(told, name) for name in expected} == expected
    plain = tyro.cli(Evaluate, args=shlex.split(tables.command(finished[1]))[2:])
    for name in ("episodes", "seed", "batch", "margin", "latency_chunks", "check_errors"):
        assert getattr(plain, name) == finished[1][name]


def test_identity_knows_weights_and_schedule(checkpoint: Path, tmp_path: Path) -> None:
    other = save_tiny_checkpoint(tmp_path / "checkpoint", 8, seed=1)
    args = arguments(checkpoint, tmp_path)
    identities = [
        sampling_identity(run.sampling_of(changed).load(), run.sampling_of(changed))
        for changed in (
            args,
            arguments(checkpoint, tmp_path, scheduler="ddim"),
            arguments(checkpoint, tmp_path, steps=8),
            arguments(checkpoint, tmp_path, check_errors=True),
            arguments(other, tmp_path),
            arguments(checkpoint, tmp_path, precision="bfloat16"),
        )
    ]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])
    moved = arguments(shutil.copytree(checkpoint, tmp_path / "moved"), tmp_path)
    assert sampling_identity(run.sampling_of(moved).load(), run.sampling_of(moved)) == identities[0]
    results = moved.directory() / "results"
    results.mkdir()
    for name in ("weights.safetensors", "config.json", "../out.json"):
        (results / name).write_text("{}")
    assert sampling_identity(run.sampling_of(moved).load(), run.sampling_of(moved)) == identities[0]


VARIANTS = ("sequential", "sequential+noise", "x0+guess", "x0+guess+noise", "asd", "x0+redrawn")


@pytest.fixture(scope="module")
def compared(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Folder and JSON of a run with starts and checked errors."""
    folder = tmp_path_factory.mktemp("variants")
    run_quietly(
        arguments(
            checkpoint, folder, samplers=",".join(VARIANTS), episodes=2, steps=4,
            check_errors=True, latency_chunks=1, report=folder / "out.html",
        )
    )  # fmt: skip
    return folder, json.loads((folder / "out.json").read_text())


def test_variants_are_compared_with_the_sequential_run_of_their_noise(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    document = compared[1]
    assert list(document["samplers"]) == list(VARIANTS)
    # Of the same start states, and of the same noise but for `sequential+noise` and `asd`.
    assert {name: pair["reference"] for name, pair in document["paired"].items()} == {
        "sequential+noise": "sequential",
        "x0+guess": "sequential",
        "x0+guess+noise": "sequential+noise",
        "asd": "sequential",
        "x0+redrawn": "sequential",
    }
    for name in VARIANTS[1:4]:  # in the first chunk nothing is shifted yet
        assert document["samplers"][name]["first_chunk_error"]["max"] < 2e-2
    for name in ("asd", "x0+redrawn"):
        assert document["samplers"][name]["first_chunk_error"] is None
    assert document["samplers"]["asd"]["residual_per_round"]["p50"] == []


def test_errors_of_all_chunks_are_checked(compared: tuple[Path, dict[str, Any]]) -> None:
    document = compared[1]
    assert document["check_errors"] is True
    for name, result in document["samplers"].items():
        errors = [error for episode in result["per_episode"] for error in episode["error"]]
        assert len(errors) == result["chunks"]
        if not name.startswith("x0"):
            assert set(errors) == {None}
            assert result["max_abs_error"] is None
            continue
        found = result["max_abs_error"]
        assert list(found) == ["median", "p95", "p99", "max"]
        assert found["median"] <= found["p95"] <= found["p99"] <= found["max"] < 2e-2
        assert found["max"] == max(errors)
        above = sum(error > 1e-2 for error in errors) / len(errors)
        assert result["error_above_1e-2_rate"] == pytest.approx(above)


def test_seams_of_a_variant_are_those_of_its_reference(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    samplers = compared[1]["samplers"]
    for jump in ("velocity_jump_px_per_s", "acceleration_jump_px_per_s2"):
        exact, found = (
            samplers[name]["seams"][jump]["seam"]["mean"]
            for name in ("sequential+noise", "x0+guess+noise")
        )
        assert found == pytest.approx(exact, rel=0.02)


def test_report_shows_variants_and_errors(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, document = compared
    page = (folder / "out.html").read_text()
    for fact in (*VARIANTS, "Error of every chunk", "Compared with", "another sample of the same"):
        assert fact in page
    text = "\n".join(sim.report.markdown_parts(document))
    assert "| x0+guess+noise | sequential+noise |" in text
    assert "| too few episodes to say, ±0.02 (needs about " in text
    assert f"--samplers {','.join(VARIANTS)} " in text
    assert "--check-errors" in text
    printed = io.StringIO()
    print_results(Console(file=printed, width=120), document)
    for fact in (*VARIANTS, "acceleration, px/s²", "x0+guess+noise minus sequential+noise: "):
        assert fact in printed.getvalue()


@pytest.mark.parametrize(
    ("mean", "ci95", "shown"),
    [
        (153557.4, [151357.0, 155757.0], "153557 [151357, 155757]"),
        (3.456, [3.3, 3.611], "3.46 [3.30, 3.61]"),
        (None, None, "-"),
    ],
)
def test_jumps_are_told_in_figures_that_tell_something(
    finished: tuple[Path, dict[str, Any]], mean: float | None, ci95: list[float] | None, shown: str
) -> None:
    document = copy.deepcopy(finished[1])
    document["samplers"]["x0"]["seams"]["velocity_jump_px_per_s"]["seam"] = {
        "mean": mean,
        "ci95": ci95,
    }
    row = next(r for r in tables.seam_rows(document) if r[:2] == ["x0", "velocity, px/s"])
    assert row[2] == shown


def test_variants_resume_each_by_itself(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batches of another start, or without errors, are not those of this run."""
    args = arguments(checkpoint, tmp_path, samplers="x0,x0+guess", episodes=1, latency_chunks=0)
    play, played = run.play, []

    def stop_after(count: int) -> Any:
        def play_some(policy: Any, sampling: Any, task: Any, on_progress: Any) -> Any:
            if len(played) == count:
                raise KeyboardInterrupt
            played.append((task.sampler, sampling.check_errors))
            return play(policy, sampling, task, on_progress)

        return play_some

    for checked in (False, True):
        monkeypatch.setattr(run, "play", stop_after(1 if not checked else 2))
        with pytest.raises(KeyboardInterrupt):
            run_quietly(dataclasses.replace(args, check_errors=checked))
    assert played == [("x0", False), ("x0", True)]
    monkeypatch.setattr(run, "play", stop_after(3))
    run_quietly(args)
    assert played[2:] == [("x0+guess", False)]


def test_one_episode_and_one_sampler(checkpoint: Path, tmp_path: Path) -> None:
    args = arguments(
        checkpoint, tmp_path, samplers="sequential+noise", episodes=1, latency_chunks=0,
        report=tmp_path / "out.html", video=tmp_path / "video",
    )  # fmt: skip
    run_quietly(args)
    text = args.json.read_text()
    assert "NaN" not in text
    assert json.loads(text)["paired"] == {}
    assert args.report is not None
    assert args.report.read_text().count("data:image/svg+xml") == 2
    assert [path.name for path in (tmp_path / "video").iterdir()] == [
        "pusht_100000_sequential-noise.mp4"
    ]


def test_jobs_give_the_same_results(
    compared: tuple[Path, dict[str, Any]], checkpoint: Path, tmp_path: Path
) -> None:
    name = "x0+guess+noise"
    changes = {"jobs": 2, "samplers": name, "episodes": 2, "batch": 1, "latency_chunks": 0}
    document = run_quietly(arguments(checkpoint, tmp_path, **changes, check_errors=True))
    found, expected = (results["samplers"][name] for results in (document, compared[1]))
    for one, other in zip(found["per_episode"], expected["per_episode"], strict=True):
        assert one["max_reward"] == pytest.approx(other["max_reward"], abs=1e-3)
    assert found["max_abs_error"]["max"] < 2e-2


def report(monkeypatch: pytest.MonkeyPatch, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        sim.report.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def bad_options(checkpoint: Path, folder: Path) -> Iterator[tuple[str, list[object]]]:
    out = ["--json", folder / "x.json"]
    good = ["--checkpoint", checkpoint, *out]
    occupied = folder / "file"
    occupied.touch()
    yield "unknown sampler 'magic'", [*good, "--samplers", "sequential,magic"]
    yield "expected x0, x0+guess, x0+guess+noise", [*good, "--samplers", "sequential,x0+noise"]
    yield "expected sequential, sequential+noise", [*good, "--samplers", "sequential+guess"]
    yield "run para-policy calibrate", [*good, "--samplers", "sequential,chord+guess"]
    yield "different samplers", [*good, "--samplers", "sequential,sequential"]
    yield from ((f"--episodes {n}", [*good, "--episodes", n]) for n in (0, 10**18))
    yield "--jobs 0", [*good, "--jobs", 0]
    yield "--video-episodes 3 is given, but no --video", [*good, "--video-episodes", 3]
    yield from ((f"margin {m}", [*good, "--margin", m]) for m in (-1, 0, 1, "inf", "nan"))
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
    monkeypatch.setattr(run, "_play_all", pytest.fail)  # found before the run
    for message, options in bad_options(checkpoint, tmp_path):
        code = main(["evaluate", *map(str, options)])
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
    assert report(monkeypatch, "--json", source, "--markdown", page) == 0
    text = page.read_text()
    assert text.startswith("# PushT evaluation: sequential, x0\n")
    assert "| x0 |" in text
    assert "para-policy evaluate --checkpoint" in text
    assert "--engine eager --precision float32" in text
    assert report(monkeypatch, "--json", source) == 2
    other = tmp_path / "other.json"
    other.write_text("[1, 2]")
    assert report(monkeypatch, "--json", other, "--html", tmp_path / "x") == 2
    assert "no evaluation JSON" in capsys.readouterr().err
    document = json.loads(source.read_text())
    del document["samplers"]["sequential"]["residual_per_round"]  # only a figure asks for it
    other.write_text(json.dumps(document))
    assert report(monkeypatch, "--json", other, "--html", tmp_path / "x") == 2
    error = capsys.readouterr().err
    assert "of this version (KeyError: 'residual_per_round'); write one with" in error
    assert not (tmp_path / "x").exists()


def parts(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every object in a document, of each list the first, with the name of each of its parts."""
    if isinstance(value, list):
        value = value[0] if value else None
    for name in list(value) if isinstance(value, dict) else ():
        yield value, name
        yield from parts(value[name])


def test_a_document_of_another_version_is_one_error(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    other, errors = tmp_path / "other.json", {}
    document = copy.deepcopy(finished[1])
    for whole, name in parts(document):
        part = whole.pop(name)
        other.write_text(json.dumps(document))
        try:
            with sim.report.reading(other) as found:
                sim.report.markdown_parts(found)
        except InputError as error:
            errors[name] = str(error)
        whole[name] = part
    asked_for = {"episodes", "threads", "samplers", "seams", "mean", "paired", "verdict"}
    assert asked_for <= errors.keys()
    assert all(f"of this version (KeyError: '{name}')" in text for name, text in errors.items())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_what_was_played(
    checkpoint: Path, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "out.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "sim.evaluate", "--checkpoint", checkpoint, "--json", out,
         "--episodes", "500", "--batch", "1", "--steps", "4"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    kept = partial_path(out)
    wait_for(lambda: kept.exists() and kept.read_text().count("episodes") >= 2)
    process.send_signal(number)
    printed, error = process.communicate(timeout=60)
    assert process.returncode == code
    last = error.splitlines()[-1]
    assert last.startswith(f"stopped by {signal.Signals(number).name}; '{out}' is partial")
    assert last.endswith("give the same command again to go on")
    assert "Traceback" not in error
    document = json.loads(out.read_text())
    assert document["partial"] is True
    assert 1 <= document["episodes"] < 500
    assert len(document["samplers"]["x0"]["per_episode"]) == document["episodes"]
    assert f"stopped early: {document['episodes']} PushT episodes" in " ".join(printed.split())
    assert kept.exists()


def test_a_worker_that_is_killed_leaves_what_was_played(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [
        *(sys.executable, "-m", "sim.evaluate", checkpoint, "--json", out, "--steps", "4"),
        *("--jobs", "2", "--samplers", "x0", "--batch", "1", "--latency-chunks", "0"),
    ]
    options: dict[str, Any] = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    process = subprocess.Popen(
        [*command, "--episodes", "500"],
        **options, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    kept = partial_path(out)
    wait_for(lambda: kept.exists() and kept.read_text().count('"key"') >= 2)
    second = subprocess.run([*command, "--episodes", "500"], **options, capture_output=True)
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].startswith(b"error: another run is writing to")
    os.kill(worker_of(process.pid), signal.SIGKILL)
    printed, error = process.communicate(timeout=60)
    assert process.returncode == 2
    last = error.splitlines()[-1]
    assert last.startswith("error: a process of --jobs 2 has ended before its work (killed")
    assert f"'{out}' is partial, finished batches are kept in '{kept}'; give the same" in last
    assert "Traceback" not in error
    played = json.loads(out.read_text())["episodes"]
    assert f"stopped early: {played} PushT episodes" in " ".join(printed.split())
    more = subprocess.run([*command, "--episodes", str(played + 1)], **options, check=False)
    assert more.returncode == 0
    assert json.loads(out.read_text())["episodes"] == played + 1


def test_a_run_that_is_killed_leaves_no_worker(checkpoint: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "sim.evaluate", checkpoint, "--json", tmp_path / "out.json"),
        *("--jobs", "2", "--samplers", "x0", "--batch", "1", "--latency-chunks", "0"),
        *("--steps", "4", "--episodes", "500"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for(partial_path(tmp_path / "out.json").exists)
    worker = worker_of(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(worker))


def worker_of(parent: int) -> int:
    """A process that plays, not the one that keeps track of what they share."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    )


@pytest.mark.parametrize("failure", ["NaN", "full disk"])
def test_what_fails_in_its_course_leaves_what_was_played(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: str,
) -> None:
    args = arguments(checkpoint, tmp_path, samplers="sequential", batch=1)
    play = run.play

    def fail(policy: Any, sampling: Any, task: Any, on_progress: Any) -> Any:
        if task.seeds == (100001,) and failure == "NaN":
            raise NonFiniteError("NaN from the network")
        return play(policy, sampling, task, on_progress)

    monkeypatch.setattr(run, "play", fail)
    if failure == "NaN":
        with pytest.raises(
            NonFiniteError, match=r"NaN .*; '.*out\.json' is partial, finished .* kept"
        ):
            run_quietly(args)
        assert json.loads(args.json.read_text())["episodes"] == 1
    else:
        with full_disk(), pytest.raises(InputError, match="cannot write"):
            run_quietly(args)
    assert "stopped early: 1 PushT episodes" in " ".join(capsys.readouterr().out.split())


def test_a_stop_before_all_samplers_have_a_batch_leaves_older_results(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = arguments(checkpoint, tmp_path)
    args.json.write_text("older")
    play = run.play

    def one_sampler(policy: Any, sampling: Any, task: Any, on_progress: Any) -> Any:
        if task.sampler != SAMPLERS[0]:
            signal.raise_signal(signal.SIGTERM)
        return play(policy, sampling, task, on_progress)

    monkeypatch.setattr(run, "play", one_sampler)
    with (
        stoppable(),
        pytest.raises(Stopped, match=r"no batch was finished by all samplers, .* kept"),
    ):
        run_quietly(args)
    assert args.json.read_text() == "older"


def test_batches_are_compared_up_to_the_first_that_is_missing() -> None:
    tasks = make_tasks(("a", "b"), 0, 3, 1)
    played: dict[Task, list[Any]] = {task: [task] for task in tasks}
    assert paired_runs(tasks, played) == {"a": tasks[::2], "b": tasks[1::2]}
    del played[tasks[3]]  # b of the second batch, while others went on
    assert paired_runs(tasks, played) == {"a": [tasks[0]], "b": [tasks[1]]}
    del played[tasks[0]]
    assert paired_runs(tasks, played) == {}
