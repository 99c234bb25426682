"""`para-policy evaluate --cluster`: the episodes of a local run, whatever happens to workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from para_policy.checkpoints import consistency
from para_policy.checkpoints.carried import CarriedCheckpoint
from para_policy.errors import InputError
from para_policy.versions import versions
from sim.evaluation.batches import Sampling
from sim.evaluation.cluster import _Player
from sim.evaluation.partial import partial_path
from sim.pusht.task import PUSHT
from tests.checkpoint import save_tiny_checkpoint
from tests.commands import runner
from tests.sessions import ROOT, environment, kill_busy_workers, processes, ray_cluster, started
from tests.signals import wait_for
from tests.sim.evaluation.test_evaluate import without_timings

EPISODES = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", 8)


def command(checkpoint: Path, out: Path, *more: object) -> list[str]:
    return [
        *(sys.executable, "-m", "para_policy", "evaluate", str(checkpoint), "--json", str(out)),
        *("--episodes", str(EPISODES), "--batch", "1", "--steps", "4", "--samplers", "x0+guess"),
        *("--latency-chunks", "0", *map(str, more)),
    ]


def episodes(out: Path) -> Any:
    return without_timings(json.loads(out.read_text())["samplers"]["x0+guess"]["per_episode"])


def batches(out: Path) -> int:
    kept = partial_path(out)
    return kept.read_text().count('"key"') if kept.exists() else 0


@pytest.fixture(scope="module")
def here(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The episodes of a run in one process."""
    folder = tmp_path_factory.mktemp("here")
    out = folder / "out.json"
    subprocess.run(command(checkpoint, out), cwd=ROOT, env=environment(folder), check=True)
    return episodes(out)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_and_a_stop_cost_nothing_that_was_played(
    checkpoint: Path, here: Any, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out.json"
    on_ray = command(checkpoint, out, "--cluster", "local", "--jobs", "1")
    with started(on_ray, tmp_path) as process:
        wait_for(lambda: batches(out) >= 1, 300)
        wait_for(lambda: kill_busy_workers(process.pid) > 0)
        played = batches(out)
        wait_for(lambda: batches(out) > played or process.poll() is not None, 300)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, error = process.communicate(timeout=120)
        assert process.returncode == 130, error
        assert error.splitlines()[-1].startswith(f"stopped by SIGINT; '{out}' is partial, finished")
        assert "Traceback" not in error
        wait_for(lambda: not processes(process.pid), 30)
    kept = batches(out)
    assert played < kept < EPISODES
    # What was played there is not played again here.
    subprocess.run(command(checkpoint, out), cwd=ROOT, env=environment(tmp_path), check=True)
    assert episodes(out) == here


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_is_there_already_plays(checkpoint: Path, here: Any, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out.json"
    with ray_cluster(tmp_path) as (address, _):
        subprocess.run(
            command(checkpoint, out, "--cluster", address),
            cwd=ROOT, env=environment(tmp_path), check=True,
        )  # fmt: skip
    assert episodes(out) == here
    assert json.loads(out.read_text())["cluster"] == address


def test_bad_options_end_with_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    call = runner(capsys, "evaluate", str(checkpoint), "--json", str(tmp_path / "out.json"))
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    for wrong, options in [
        ("expected local, auto on a machine of the cluster, or HOST:PORT", ["nonsense"]),
        ("expected local, auto on a machine of the cluster, or HOST:PORT", ["ray://host:10001"]),
        (f"no Ray cluster at {nobody} ([Errno 111] Connection refused); start one", [nobody]),
        ("no Ray cluster at 127.0.0.1:70000", ["127.0.0.1:70000"]),
        ("leave it out with --cluster auto", ["auto", "--jobs", 2]),
        ("with --cluster expected cpu, or cuda", ["local", "--device", "cuda:1"]),
    ]:
        code, _, error = call("--cluster", *options)
        assert code == 2
        assert wrong in error
        assert error.count("\n") == 1, error


def test_a_checkpoint_travels_with_all_that_actions_depend_on(
    checkpoint: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "policy"
    directory.symlink_to(checkpoint)
    trained = consistency.folder(directory)
    trained.mkdir(exist_ok=True)
    (trained / "ddpm_4_x0.safetensors").write_bytes(b"weights")
    with CarriedCheckpoint.of(directory).unpacked() as there:
        assert (consistency.folder(there) / "ddpm_4_x0.safetensors").read_bytes() == b"weights"
        for path in checkpoint.iterdir():
            if path.suffix != ".md":
                assert (there / path.name).read_bytes() == path.read_bytes()
    assert not there.exists()
    (trained / "ddpm_4_x0.safetensors").unlink()


def test_a_worker_with_another_numpy_is_refused(checkpoint: Path) -> None:
    carried, here = CarriedCheckpoint.of(checkpoint), versions(*PUSHT.packages)
    other = _Player(Sampling(checkpoint), carried, {**here, "numpy": "1.0"})
    with pytest.raises(InputError, match=rf"has numpy {here['numpy']}; .*it is 1\.0: install"):
        other()
