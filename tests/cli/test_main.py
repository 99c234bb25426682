"""`para-policy` itself: how it is started, and what it loads before it knows what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import para_policy
from para_policy.checkpoints import load
from para_policy.cli import common
from para_policy.cli.main import COMMANDS, main
from para_policy.inference import config
from tests.checkpoint import save_tiny_checkpoint

ROOT = Path(__file__).parents[2]


def test_the_module_is_the_command_and_says_its_version() -> None:
    command = [sys.executable, "-m", "para_policy", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == f"para-policy {para_policy.__version__}\n"


# Each takes longer to import than help takes to print.
SLOW = {"asyncio", "diffusers", "matplotlib", "rclpy", "rich", "scipy", "torch", "typeguard"}
HELP = f"""
import contextlib, inspect, io, sys
inspect.getsource = None  # parses the file for each class that it is asked for
from para_policy.cli.main import COMMANDS, main
main(["--help"])
for name in COMMANDS:
    if name == "convert":  # its --action-names is a tuple, which tyro checks by typeguard
        continue
    with contextlib.suppress(SystemExit):
        main([name, "--help"])
print(sorted({SLOW!r} & set(sys.modules)))
"""


def test_help_imports_nothing_slow() -> None:
    command = [sys.executable, "-c", HELP]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
        assert name == "convert" or f"usage: para-policy {name} [-h]" in done.stdout
    assert done.stdout.endswith("\n[]\n")


def test_help_may_stand_before_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help", "info"])
    assert stop.value.code == 0
    assert "usage: para-policy info [-h]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command given"),
        (["--quiet"], "no command given"),
        (["bnech"], "unknown command 'bnech'; did you mean bench?"),
        ([""], "unknown command ''; para-policy --help lists"),
    ],
)
def test_without_a_command_the_commands_are_offered(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_completion_is_a_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--tyro-print-completion", "bash"])
    assert not stop.value.code
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    asked = "COMP_WORDS=(para-policy ini); COMP_CWORD=1; _tyro_para_policy; echo ${COMPREPLY[@]}"
    command = ["bash", "-c", f"source {script}; {asked}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "init-ros" in done.stdout
    assert "bench" not in done.stdout


def test_verbose_tells_stages_and_where_an_error_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-v", "info", str(tmp_path)]) == 2
    *_, trace, last = capsys.readouterr().err.splitlines()
    assert trace.startswith("para_policy.errors.CheckpointError: no checkpoint at")
    assert last == f"error: {trace.partition(': ')[2]}"
    assert main(["info", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [last]


# How a stream ends: in a process of its own, with a shell around it.
ENDS = (
    ("info {tiny} | true", 141, ""),
    ("--help | true", 141, ""),
    ("info --help | true", 141, ""),
    ("info {tiny} > /dev/full", 2, "error: No space left on device\n"),
    ("info {tiny} >&-", 0, ""),
    ("info {tiny} 2>&- >/dev/null", 0, ""),
    ("info $'\\xff' 2>&1", 2, "error: no checkpoint at '\\udcff'"),
    ("info tests 2>&1 | true", 2, ""),
    ("bnech 2> /dev/full", 2, ""),
    ("info --x 2> /dev/full", 2, ""),
    ("info --help >&-", 0, ""),
    ("--help > /dev/full", 2, "error: No space left on device\n"),
)


@pytest.mark.parametrize(("text", "code", "message"), ENDS, ids=[text for text, *_ in ENDS])
def test_streams_may_end_and_lack_characters(
    text: str, code: int, message: str, tmp_path: Path
) -> None:
    if "{tiny}" in text:
        text = text.format(tiny=save_tiny_checkpoint(tmp_path / "tiny", 8))
    head, *pipe = text.split(" | ")
    # Who reads has gone before the first word is written.
    script = f"{sys.executable} -m para_policy {head}"
    script = f"{{ sleep 0.3; {script}; }} | true; exit ${{PIPESTATUS[0]}}" if pipe else script
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == code, done
    assert (done.stdout + done.stderr).startswith(message)
    assert "Traceback" not in done.stdout + done.stderr
    assert message or not done.stderr


@pytest.mark.parametrize("both", [False, True])
def test_results_that_nobody_reads_are_written(tmp_path: Path, both: bool) -> None:
    """`both`: nor the progress."""
    tiny, written = save_tiny_checkpoint(tmp_path / "tiny", 8), tmp_path / "out.json"
    command = (
        f"{sys.executable} -m para_policy evaluate {tiny} --samplers x0 --steps 1 --episodes 1"
    )
    streams = "2>&1 |" if both else "|"
    script = (
        f"{command} --latency-chunks 0 --json {written} {streams} true; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 141, done
    assert both or done.stderr.endswith(f"Results: {written}\n")
    assert json.loads(written.read_text())["episodes"] == 1


def test_options_offer_what_the_package_takes() -> None:
    assert common.Precision == config.Precision
    assert common.Weights == load.Weights


def test_a_training_configuration_is_found_by_its_former_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    former, now = Path("configs/mine.yaml"), Path("config/training/mine.yaml")
    assert common.training_config(former) == former
    now.parent.mkdir(parents=True)
    now.touch()
    with pytest.warns(FutureWarning, match="configs/mine.yaml is now config/training/mine.yaml"):
        assert common.training_config(former) == now
    former.parent.mkdir()
    former.touch()
    assert common.training_config(former) == former
    assert common.training_config(Path("elsewhere/mine.yaml")) == Path("elsewhere/mine.yaml")


def test_train_reads_a_configuration_by_its_former_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    train = ["train", "--config", "configs/pusht_state.yaml", "--output", str(tmp_path / "run")]
    with pytest.warns(FutureWarning, match="is now config/training/pusht_state.yaml"):
        assert main([*train, "--data", str(tmp_path / "none")]) == 2
    assert f"no data set at '{tmp_path / 'none'}'" in capsys.readouterr().err
