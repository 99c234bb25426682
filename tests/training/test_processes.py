"""Training on two processes: the run of a single one, as `torchrun` starts it on CPUs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from para_policy import load_policy
from para_policy.errors import InputError
from para_policy.training.accelerator import Accelerator
from para_policy.training.behaviour_cloning import train
from para_policy.training.config import TrainConfig
from para_policy.training.draws import batch_indices, own_part
from para_policy.training.states import States
from tests.signals import wait_for
from tests.training.test_behaviour_cloning import config, content, metrics

ROOT = Path(__file__).parents[2]


class Member:
    """One of the processes of a run, as accelerate describes it."""

    def __init__(self, index: int, count: int) -> None:
        self.process_index, self.num_processes = index, count


def seen(step: int, count: int) -> list[list[int]]:
    """Examples of each process, of 40 in batches of 12."""
    return [
        batch_indices(step, 40, 12, 7, Member(index, count)).tolist()  # type: ignore[arg-type]
        for index in range(count)
    ]


def test_processes_share_the_batch_of_a_single_one() -> None:
    for step in range(7):
        for count in (2, 3, 4):
            parts = seen(step, count)
            assert [len(part) for part in parts] == [12 // count] * count
            assert [*chain(*parts)] == seen(step, 1)[0]
    assert len({*chain(*(seen(step, 1)[0] for step in range(3)))}) == 36
    rows = [own_part(12, Member(index, 4)) for index in range(4)]  # type: ignore[arg-type]
    assert [*chain(*(range(12)[part] for part in rows))] == [*range(12)]


def test_a_batch_that_cannot_be_divided_is_refused(
    zarr_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(InputError, match="batch_size is 16, which 3 processes cannot divide"):
        train(config(zarr_path), tmp_path / "run")


def settings(path: Path, **training: Any) -> dict[str, Any]:
    """Channels enough that no bias is taken back by a normalisation: Adam would enlarge its rounding."""
    made = content(path, **training)
    made["policy"]["network"]["down_dims"] = [16, 16]
    return made


def launched(folder: Path, made: dict[str, Any]) -> subprocess.Popen[str]:
    """Two processes that train, without GPUs, of which they would need two."""
    (folder / "train.yaml").write_text(yaml.safe_dump(made))
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "para_policy", "train", "--config", folder / "train.yaml"),
            *("--output", folder / "two"),
        ],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def same(one: Path, other: Path) -> None:
    """Weights within the rounding of sums in another order."""
    expected, found = (load_file(run / "checkpoint" / "model.safetensors") for run in (one, other))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_as_one_does(zarr_path: Path, tmp_path: Path) -> None:
    one, two, made = tmp_path / "one", tmp_path / "two", settings(zarr_path)
    chosen = TrainConfig.model_validate(made)
    train(chosen, one, device="cpu")
    process = launched(tmp_path, made)
    printed, error = process.communicate(timeout=400)
    assert process.returncode == 0, error
    assert printed == f"checkpoint: {two / 'checkpoint'}\n"
    same(one, two)
    assert [record["step"] for record in metrics(two)] == [2, 4, 6]
    for record, expected in zip(metrics(two), metrics(one), strict=True):
        for name in ("loss", "ema_loss", "learning_rate"):
            assert record[name] == pytest.approx(expected[name], rel=1e-5)
    # A state of two is one of a single process, too.
    shutil.rmtree(States(two / "state").newest_first()[0])
    train(chosen, two, resume=True, device="cpu")
    same(one, two)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stop_of_two_processes_is_said_once_and_kept(zarr_path: Path, tmp_path: Path) -> None:
    process = launched(tmp_path, settings(zarr_path, steps=10**6, checkpoint_every=5))
    states = States(tmp_path / "two" / "state")
    wait_for(lambda: bool(states.newest_first()), 400)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does; the launcher passes it on as well
    _, error = process.communicate(timeout=120)
    step = states.newest()[1].step
    assert error.count(f"stopped by SIGINT; step {step} is kept") == 1, error
    load_policy(tmp_path / "two" / "checkpoint")
