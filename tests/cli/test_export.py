"""`para-policy export`, as a user calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime
import pytest

from para_policy.checkpoints.native import save_checkpoint
from para_policy.cli.main import main
from para_policy.networks.config import VisionConfig
from tests.checkpoint import save_tiny_checkpoint, tiny_config
from tests.checkpoints.random_weights import random_normalizers, random_weights


def export(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path / "policy", train_timesteps=10)


@pytest.mark.slow
def test_an_image_policy_is_exported_without_its_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vision = VisionConfig(cameras=("front",), crop=(24, 24), num_keypoints=4, feature_dim=8)
    inputs = {"front": (3, 32, 32), "agent_pos": (2,)}
    config = tiny_config(10).changed({"inputs": inputs, "vision": vision.model_dump()})
    save_checkpoint(tmp_path / "policy", config, random_weights(config), random_normalizers(config))
    output = tmp_path / "new" / "network.onnx"
    assert export("--checkpoint", tmp_path / "policy", "--output", output, "--format", "onnx") == 0
    out, err = capsys.readouterr()
    assert "largest difference to torch" in out
    assert "batches of 1, 2, 7, 64, all 10 timesteps" in out
    assert "not exported: the encoder of front; the network's 'condition' has its output" in out
    assert f"exported: {output}" in out
    assert err == ""
    assert [path.name for path in output.parent.iterdir()] == ["network.onnx"]
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[2].shape == ["batch", 2 * (8 + 2)]


def test_a_file_is_replaced_only_when_asked(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "network.onnx"
    output.write_text("mine")
    assert export("--checkpoint", checkpoint, "--output", output) == 2
    assert "is there already; --force replaces it" in capsys.readouterr().err
    assert output.read_text() == "mine"
    # The error is the next one: --force got further, and still nothing is lost.
    assert export("--checkpoint", checkpoint, "--output", output, "--force", "--opset", 7) == 2
    assert "opset is 7" in capsys.readouterr().err
    assert output.read_text() == "mine"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(
    checkpoint: Path,
    tmp_path: Path,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in ("check", "export"):
        monkeypatch.delitem(sys.modules, f"para_policy.checkpoints.onnx.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    assert export("--checkpoint", checkpoint, "--output", tmp_path / "network.onnx") == 2
    message = f"exporting to ONNX needs {package}; pip install '.[export]' in the checkout"
    assert message in capsys.readouterr().err


def test_an_unknown_format_is_answered_with_the_known_ones(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        export("--checkpoint", checkpoint, "--output", tmp_path / "n", "--format", "tensorrt")
    assert stop.value.code == 2
    assert "onnx" in capsys.readouterr().err


def test_a_missing_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("--checkpoint", tmp_path / "none", "--output", tmp_path / "network.onnx") == 2
    assert f"no checkpoint at '{tmp_path / 'none'}'" in capsys.readouterr().err
