"""`para-policy trajectories --cluster`: the store of one process, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from para_policy.checkpoints.carried import CarriedCheckpoint
from para_policy.checkpoints.observations import save_observations
from para_policy.errors import InputError
from para_policy.training.pcm.on_cluster import _Solver
from para_policy.training.pcm.problem import Settings
from para_policy.versions import versions
from tests.checkpoint import random_observations
from tests.commands import runner
from tests.sessions import ROOT, environment, kill_busy_workers, ray_cluster, started
from tests.signals import wait_for
from tests.training.pcm.test_trajectories import NAMES, content, interrupt_writing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
COUNT = 60 * 32 + 5


@pytest.fixture
def observed(checkpoint: Path) -> Path:
    """A checkpoint with observations beside it."""
    save_observations(checkpoint, random_observations(20))
    return checkpoint


def arguments(checkpoint: Path, out: Path) -> list[str]:
    options = ["--output", str(out), "--count", str(COUNT), "--steps", "8", "--rounds", "3"]
    return ["trajectories", str(checkpoint), *options]


def finished(out: Path) -> int:
    """Trajectories that are stored."""
    if not out.exists():
        return 0
    found = zarr.open_group(out, mode="r").attrs.get("finished", 0)
    assert isinstance(found, int)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_store_is_that_of_one_process_whoever_makes_which_part(
    observed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    here, there, back = (tmp_path / name for name in ("here", "there", "back"))

    def run(out: Path) -> int:
        return runner(capsys)(*arguments(observed, out), "--threads", "1")[0]

    def on_ray(out: Path, address: str) -> list[str]:
        return [
            *(sys.executable, "-m", "para_policy", *arguments(observed, out)),
            *("--cluster", address),
        ]

    assert run(here) == 0
    with monkeypatch.context() as patch:
        interrupt_writing(patch, 3 * len(NAMES))
        assert run(back) == 130
    assert finished(back) == 3 * 32
    with ray_cluster(tmp_path) as (address, session):
        with started(on_ray(there, address), tmp_path) as process:
            wait_for(lambda: finished(there) > 0 or process.poll() is not None, 300)
            assert process.poll() is None, process.communicate()
            wait_for(lambda: kill_busy_workers(session) > 0)
            before = finished(there)
            wait_for(lambda: finished(there) > before or process.poll() is not None, 300)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            _, error = process.communicate(timeout=120)
            assert process.returncode == 130, error
        kept = finished(there)
        assert before < kept < COUNT
        assert error.splitlines()[-1].startswith(
            f"stopped by SIGINT; '{there}' holds {kept} of {COUNT} trajectories; give the same"
        )
        assert "Traceback" not in error
        subprocess.run(on_ray(back, address), cwd=ROOT, env=environment(tmp_path), check=True)
    assert run(there) == 0
    expected = content(here)
    for out in (there, back):
        for name, values in content(out).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=f"{out.name}: {name}")


def test_bad_options_end_with_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    call = runner(capsys, *arguments(checkpoint, tmp_path / "out"))
    for wrong, options in [
        ("expected local, auto on a machine of the cluster, or HOST:PORT", ["nonsense"]),
        ("with --cluster expected cpu, or cuda", ["local", "--device", "cuda:1"]),
        ("--threads 2 is for this machine", ["local", "--threads", "2"]),
    ]:
        code, _, error = call("--cluster", *options)
        assert code == 2
        assert wrong in error
        assert error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())


def test_a_worker_with_other_packages_is_refused(checkpoint: Path) -> None:
    here = versions()
    for name, wanted, has in [
        ("numpy", "1.0", here["numpy"]),
        ("python", "2.7", here["python"]),
        ("no-such-package", "1.0", "not installed"),
    ]:
        expected = {**here, name: wanted}
        other = _Solver(CarriedCheckpoint.of(checkpoint), "cpu", None, Settings(), expected)
        with pytest.raises(InputError, match=rf"has {name} {has}; .*it is {wanted}: install"):
            other()
