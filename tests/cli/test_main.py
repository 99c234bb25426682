"""`para-policy` itself: how it is started, and what it loads before it knows what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import para_policy
from para_policy.checkpoints import load
from para_policy.cli import common
from para_policy.cli.main import main
from para_policy.inference import config

ROOT = Path(__file__).parents[2]


def test_the_module_is_the_command_and_says_its_version() -> None:
    command = [sys.executable, "-m", "para_policy", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == f"para-policy {para_policy.__version__}\n"


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from para_policy.cli.main import main\n"
        "try: main(['bench', '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'diffusers', 'scipy', 'rclpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "usage: para-policy bench" in done.stdout
    assert done.stdout.endswith("\n[]\n")


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
