"""Counts that no machine could serve are refused before anything is allocated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from para_policy import DiffusionPolicy, load_policy
from para_policy.calibration.measure import Settings, calibrate
from para_policy.errors import InputError
from para_policy.inference.device import set_threads
from para_policy.memory import check_disk, check_memory
from para_policy.networks.config import UnetConfig
from para_policy.training import behaviour_cloning
from para_policy.training.behaviour_cloning import _Cloning
from para_policy.training.config import CloningConfig, DataConfig, RunConfig, TrainConfig
from para_policy.training.dataset import Columns, Feature, observation_windows
from para_policy.training.pcm import trajectories
from para_policy.training.pcm.distill import DistillConfig
from para_policy.training.pcm.problem import Settings as TrajectorySettings
from para_policy.training.replay_buffer import ReplayBuffer
from sim.evaluation.batches import Sampling, Task, make_tasks
from sim.evaluation.processes import play_in_processes
from sim.render_demonstrations import Arguments
from sim.tasks.rollout import rollout
from tests.checkpoint import random_observations, save_tiny_checkpoint, tiny_config
from tests.training.demonstrations import circles, write_group

MANY = 10**13


def test_what_fits_is_let_pass_and_what_does_not_is_named(tmp_path: Path) -> None:
    check_memory("--count 1", 2**20)
    with pytest.raises(
        InputError, match=r"--count 9 takes at least 1.05e\+06 GiB; there are .* of memory"
    ):
        check_memory("--count 9", 2**50)
    free = shutil.disk_usage(tmp_path).free
    check_disk("a file", free // 2, tmp_path)
    with pytest.raises(InputError, match="free disk"):
        check_disk("a file", 2 * free, tmp_path)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPolicy:
    return load_policy(save_tiny_checkpoint(tmp_path_factory.mktemp("policy"), train_timesteps=8))


def train_a_huge_network() -> None:
    network = UnetConfig(down_dims=(96_000, 96_000), n_groups=8)
    behaviour_cloning.train(
        TrainConfig(
            policy=tiny_config().changed({"network": network.model_dump()}),
            data=DataConfig(path=Path("none"), action=Columns(array="action"), observations={}),
            training=CloningConfig(steps=1),
        ),
        "none",
    )


REQUESTS: dict[str, Callable[[DiffusionPolicy, Path], object]] = {
    "cases": lambda policy, _: calibrate(
        policy.chain(), random_observations(2), Settings(cases=MANY)
    ),
    "trajectories": lambda policy, folder: trajectories.generate(
        policy,
        random_observations(2),
        TrajectorySettings(splitting="x0", count=MANY),
        folder / "store",
        "0",
    ),
    "network": lambda policy, _: train_a_huge_network(),
    "--episodes": lambda policy, _: make_tasks(["x0"], 0, MANY, 25),
    "episodes": lambda policy, _: rollout(policy, range(MANY)),
    "--jobs": lambda policy, folder: next(
        play_in_processes(Sampling(folder), [Task("x0", (0,))] * 10**5, 10**5, lambda _: None)
    ),
    "--size": lambda policy, folder: Arguments(folder, folder / "out", size=10**7)(),
    "--threads": lambda policy, _: set_threads(10**9),
}


@pytest.mark.parametrize("words", REQUESTS)
def test_counts_beyond_the_machine_are_refused(
    policy: DiffusionPolicy, tmp_path: Path, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        REQUESTS[words](policy, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_no_more_observations_are_made_than_were_recorded(tmp_path: Path) -> None:
    buffer = ReplayBuffer(write_group(tmp_path / "data.zarr", *circles()))
    config = tiny_config().changed({"inputs": {"agent_pos": (2,)}})
    columns: dict[str, Feature] = {"agent_pos": Columns(array="state", columns=(0, 1))}
    found = observation_windows(buffer, columns, Columns(array="action"), config, MANY)
    every = observation_windows(buffer, columns, Columns(array="action"), config, len(buffer))
    assert np.array_equal(found["agent_pos"], every["agent_pos"])
    assert len(found["agent_pos"]) == len(buffer)


@pytest.mark.parametrize("kind", [CloningConfig, DistillConfig])
@pytest.mark.parametrize("value", [10**8, 10**400])
def test_counts_that_nobody_trains_are_refused(kind: type[RunConfig], value: int) -> None:
    good: dict[str, Any] = {"steps": 1, **({"data": "none"} if kind is DistillConfig else {})}
    fields = kind.model_fields.items()
    counts = [name for name, field in fields if field.annotation is int and name != "seed"]
    assert {"steps", "batch_size", "log_every", "checkpoint_every", "warmup_steps"} < set(counts)
    for name in counts:
        with pytest.raises(ValidationError, match=name):
            kind.model_validate({**good, name: value})


@pytest.mark.parametrize("name", ["batch_size", "evaluation_windows"])
def test_batches_beyond_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    buffer = write_group(tmp_path / "data.zarr", *circles())
    columns: dict[str, Feature] = {"agent_pos": Columns(array="state", columns=(0, 1))}
    config = TrainConfig(
        policy=tiny_config().changed({"inputs": {"agent_pos": (2,)}}),
        data=DataConfig(path=buffer, action=Columns(array="action"), observations=columns),
        training=CloningConfig(steps=1, **{"batch_size": 1, "evaluation_windows": 1, name: 60}),
    )
    window = 4 * (2 * config.policy.n_obs_steps + 5 * 2 * config.policy.horizon)
    monkeypatch.setattr("para_policy.memory._memory", lambda: 60 * window)
    _Cloning(config)
    monkeypatch.setattr("para_policy.memory._memory", lambda: 60 * window - 1)
    with pytest.raises(InputError, match=f"training.{name} 60 takes at least"):
        _Cloning(config)


def test_ranks_beyond_every_layer_are_refused() -> None:
    with pytest.raises(ValidationError, match="rank"):
        DistillConfig(data=Path("none"), rank=10**9)
