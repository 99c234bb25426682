"""The latency experiment in real time, with a policy that knows nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from sim.ros.latency import real_time
from sim.ros.latency.__main__ import main
from sim.ros.latency.conditions import Arguments, Condition


@pytest.mark.slow
def test_a_run_writes_numbers_table_and_plot_and_goes_on(
    checkpoint: Path, domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.json"
    arguments = ["--json", str(output), "--checkpoint", str(checkpoint), "--sampler", "x0"]
    arguments += ["--modes", "uncompensated", "chunking_hard", "--added-latency-ms", "150"]
    arguments += ["--episodes", "1", "--max-steps", "25", "--domain-id", str(domain_id)]
    assert main(arguments) == 0
    document = json.loads(output.read_text())
    conditions = document["conditions"]
    assert set(conditions) == {"in_process", "uncompensated, 150 ms", "chunking_hard, 150 ms"}
    for name, result in conditions.items():
        assert 0 <= result["mean_max_reward"] <= 1
        if name != "in_process":
            # Chunks are late on purpose, so that few actions of each are played.
            assert result["latency_ms"]["p50"] >= 150
            assert result["actions_per_chunk"] < conditions["in_process"]["actions_per_chunk"]
    assert document["load_average"]
    assert "| chunking_hard, 150 ms |" in output.with_suffix(".md").read_text()
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    def refuse(*_: object) -> None:
        raise AssertionError("all episodes have been played")

    monkeypatch.setattr("sim.ros.latency.real_time.play_in_real_time", refuse)
    assert main(arguments) == 0
    assert json.loads(output.read_text())["conditions"] == conditions


@pytest.mark.parametrize(("mode", "offset_s"), [("uncompensated", 0.0), ("chunking_hard", 0.05)])
def test_both_nodes_know_when_actions_are_played(
    mode: str,
    offset_s: float,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Mapping[str, Any]] = []
    monkeypatch.setattr(real_time, "start_runtime", lambda _, *nodes: given.extend(nodes))
    monkeypatch.setattr(real_time, "start_simulator", lambda *_: None)
    args = Arguments(json=tmp_path / "out.json", checkpoint=checkpoint)
    real_time._start(cast(Any, None), args, Condition(mode, 0.0), tmp_path)
    assert [node["latency_offset_s"] for node in given] == [offset_s, offset_s]


def test_the_plot_has_a_name_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", str(tmp_path / "out.png")]) == 2
    assert "out.png' is given twice; expected a file of its own" in capsys.readouterr().err


def test_a_pipeline_that_fails_ends_the_run(
    checkpoint: Path,
    domain_id: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--json", str(tmp_path / "out.json"), "--checkpoint", str(checkpoint)]
    arguments += ["--episodes", "1", "--max-steps", "5", "--domain-id", str(domain_id)]
    # One that only the node refuses.
    arguments += ["--sampler", "x0", "--added-latency-ms", "20000", "--modes", "compensated"]
    assert main(arguments) == 2
    assert "added_latency_ms" in capsys.readouterr().err
