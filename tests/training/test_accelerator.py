"""Which device a run trains on, and what TensorBoard shows of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from para_policy.cli.main import main
from para_policy.errors import InputError
from para_policy.training.accelerator import TENSORBOARD, make_accelerator
from tests.checkpoint import tiny_config
from tests.training.demonstrations import circles, write_group


def write_config(folder: Path) -> Path:
    policy = tiny_config(10).model_copy(update={"inputs": {"agent_pos": (2,)}})
    observations = {"agent_pos": {"array": "state", "columns": [0, 1]}}
    data = write_group(folder / "demo.zarr", *circles())
    content = {
        "policy": policy.model_dump(mode="json"),
        "data": {"path": str(data), "observations": observations},
        "training": {"steps": 6, "batch_size": 8, "log_every": 2, "checkpoint_every": 3},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Curves that TensorBoard draws: (step, value) by name."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_shows_what_the_metrics_say(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = ["train", "--config", str(write_config(tmp_path)), "--output", str(run)]
    train += ["--device", "cpu"]
    assert main([*train, "--tensorboard"]) == 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curves = shown(run / TENSORBOARD)
    assert {"loss", "ema_loss", "learning_rate"} <= set(curves)
    for name, points in curves.items():
        assert [step for step, _ in points] == [2, 4, 6]
        assert [value for _, value in points] == pytest.approx([r[name] for r in records])


def test_without_the_option_there_is_no_log(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = ["train", "--config", str(write_config(tmp_path)), "--output", str(run)]
    assert main([*train, "--device", "cpu"]) == 0
    assert not (run / TENSORBOARD).exists()


@pytest.mark.parametrize("device", ["cuda:99", "abacus", "cuda:-1", ""])
def test_a_device_that_cannot_be_used_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    config, run = write_config(tmp_path), tmp_path / "run"
    train = ["train", "--config", str(config), "--output", str(run), "--device", device]
    assert main(train) == 2
    err = capsys.readouterr().err
    assert f"device {device!r} cannot be used" in err
    assert err.count("\n") == 1
    assert not run.exists()


def test_many_processes_choose_their_own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_accelerator("no", "cpu")
    assert made.device.type == "cpu"
    monkeypatch.setattr(type(made), "num_processes", property(lambda self: 2))
    with pytest.raises(InputError, match="leave --device out under `accelerate launch`"):
        make_accelerator("no", "cpu")


@pytest.mark.gpu
def test_a_run_trains_on_the_gpu_that_it_was_given() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    last = torch.cuda.device_count() - 1
    made = make_accelerator("no", f"cuda:{last}")
    assert torch.zeros(1, device=made.device).device.index == last
