"""The closed loop with disturbed observations, with a policy that knows nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.ros.disturbed import CLEAN, main
from tests.checkpoint import save_tiny_checkpoint


@pytest.mark.slow
def test_a_run_writes_numbers_and_table_and_goes_on(
    checkpoint: Path, domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.json"
    arguments = ["--json", str(output), "--checkpoint", str(checkpoint), "--sampler", "x0"]
    arguments += ["--disturbances", "all", "--per-step", "3", "--episodes", "1"]
    arguments += ["--max-steps", "25", "--domain-id", str(domain_id)]
    assert main(arguments) == 0
    document = json.loads(output.read_text())
    assert (document["reference"], set(document["conditions"])) == (CLEAN, {CLEAN, "all, 30 Hz"})
    assert document["conditions"]["all, 30 Hz"]["disturbance"]["drop"] == 0.05
    assert "minus_reference" in document["conditions"]["all, 30 Hz"]
    assert "| all, 30 Hz |" in output.with_suffix(".md").read_text()

    def refuse(*_: object) -> None:
        raise AssertionError("all episodes have been played")

    monkeypatch.setattr("sim.ros.latency.real_time.play_in_real_time", refuse)
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--disturbances", "magic"], "unknown disturbance 'magic'"),
        (["--per-step", "0"], "--per-step is 0; expected 1 or more"),
        (["--max-steps", "0"], "--max-steps is 0; expected 1 or more"),
        (["--margin", "2"], "equivalence margin 2 must be above 0"),
        (["--seed", "-1"], "start state seed -1 is out of range"),
        (["--jobs", "200"], "ROS domain is '249'; expected 0 to 232"),
        (["--json", "{folder}/out.md"], "out.md' is given twice"),
        (["--checkpoint", "/nowhere"], "no checkpoint at '/nowhere'"),
        (["{folder}/tiny", "--sampler", "chord"], "sampler 'chord' needs a calibration"),
        (["{folder}/tiny", "--sampler", "magic"], "unknown sampler 'magic'"),
        (["nobody/nothing-at-all"], "the Hugging Face Hub does not give it"),
    ],
)
def test_bad_input_ends_in_one_line(
    tmp_path: Path,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if "{folder}/tiny" in arguments:
        save_tiny_checkpoint(tmp_path / "tiny", 8)
    given = [word.format(folder=tmp_path) for word in arguments]
    assert main(["--json", str(tmp_path / "out.json"), *given]) == 2
    assert reason in capsys.readouterr().err
