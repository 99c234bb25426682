"""The soak, short: what it measures, and that broken limits are found."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.ros.soak import _jitter_ms, broken_limits, main, pauses

GOOD: dict[str, Any] = {
    "memory": {"policy_node": {"growth_percent": 0.2}, "chunk_executor": {"growth_percent": -0.1}},
    "missed_heartbeats": {"policy_node: policy": 0, "chunk_executor: commands": 0},
    "errors": [],
    "exit_codes": {"policy_node": 0, "chunk_executor": 0},
}


@pytest.mark.slow
def test_a_short_soak_at_50_hz(domain_id: int, tmp_path: Path) -> None:
    arguments = ["--seconds", "15", "--rate-hz", "50", "--domain-id", str(domain_id), "--cell"]
    arguments += ["--json", str(tmp_path / "soak.json"), "--plots", str(tmp_path)]
    # Memory that settles takes longer than this; only a torrent would be found.
    assert main([*arguments, "--max-growth-percent", "5"]) == 0
    document = json.loads((tmp_path / "soak.json").read_text())
    assert document["broken_limits"] == []
    assert set(document["memory"]) == {"policy_node", "chunk_executor"}
    assert all(memory["at_start_mib"] > 50 for memory in document["memory"].values())
    assert set(document["missed_heartbeats"]) == {"policy_node: policy", "chunk_executor: commands"}
    assert document["chunks"] >= 5
    assert document["commands"] >= 50
    assert sum(document["samples"]["latency_ms"]["counts"]) >= 5
    assert len(list(tmp_path.glob("soak_50hz_*.png"))) == 4
    assert document["chunk_lasts_ms"] == 240
    longest = [pause["ms"] for pause in document["longest_pauses"]]
    assert longest == sorted(longest, reverse=True)
    assert len(longest) == 5


def test_all_is_well_within_the_limits() -> None:
    assert broken_limits(1.0, GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("memory", "policy_node", "growth_percent"), 1.5, "policy_node grew by 1.50 %"),
        (("missed_heartbeats", "chunk_executor: commands"), 2, "missed 2 heartbeats"),
        (("missed_heartbeats",), {"policy_node: policy": 0}, "heartbeats of"),
        (("errors",), ["policy_node: no chunk"], "a node reported: policy_node: no chunk"),
        (("exit_codes", "chunk_executor"), -9, "chunk_executor ended with code -9"),
    ],
)
def test_each_limit_is_found(path: tuple[str, ...], value: Any, said: str) -> None:
    document = copy.deepcopy(GOOD)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (sentence,) = broken_limits(1.0, document)
    assert said in sentence


def test_pauses_say_which_chunks_came_too_late() -> None:
    ms = 1_000_000
    heard = SimpleNamespace(
        commands=[0, 20 * ms, 40 * ms, 840 * ms, 860 * ms, 1160 * ms],
        chunks=[10 * ms, 300 * ms, 600 * ms, 830 * ms, 1100 * ms],
        chunk_ages_ms=[100.0, 250.0, 241.0, 239.0, 60.0],
        warnings=[
            (10 * ms, "holding: no chunk yet"),
            (350 * ms, "chunk refused: its last action ended 0.010 s ago"),
            (650 * ms, "chunk refused: its last action ended 0.001 s ago"),
        ],
    )
    first, second, *rest = pauses(heard, 240.0)
    assert (first["at_s"], first["ms"]) == (0.04, 800.0)
    assert (first["chunks"], first["too_late"]) == (3, 2)
    assert first["said"] == ["chunk refused: its last action ended N s ago"]
    assert (second["ms"], second["chunks"], second["too_late"], second["said"]) == (300, 1, 0, [])
    assert [pause["ms"] for pause in rest] == [20, 20, 20]


def test_a_hold_is_no_jitter() -> None:
    assert _jitter_ms([20.0, 23.0, 16.0, 400.0], 50.0) == pytest.approx([0, 3, 4])


def test_bad_settings_end_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "1"]) == 2
    assert "expected at least 10 s" in capsys.readouterr().err
