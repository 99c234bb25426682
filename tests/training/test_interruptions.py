"""Training that is killed, stopped, extended, repeated in one folder, or that diverges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate import Accelerator
from torch import Tensor

from para_policy import load_policy
from para_policy.cli.main import main
from para_policy.errors import InputError, NonFiniteError
from para_policy.lock import sole_writer
from para_policy.stopping import Stopped
from para_policy.training import trainer
from para_policy.training.behaviour_cloning import _Cloning, train
from para_policy.training.config import TrainConfig
from para_policy.training.records import Records
from para_policy.training.states import States
from tests.signals import wait_for
from tests.training.demonstrations import circles, write_group
from tests.training.test_behaviour_cloning import config, content, metrics, weights

ROOT = Path(__file__).parents[2]
STEPS = 6


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs."""
    monkeypatch.setattr(trainer, "plot_curves", lambda *arguments: None)


@pytest.fixture
def whole(zarr_path: Path, tmp_path: Path) -> Path:
    """A run that nothing disturbed."""
    train(config(zarr_path, checkpoint_every=2), tmp_path / "whole", device="cpu")
    return tmp_path / "whole"


class Killed(BaseException):
    """As `kill -9`: nothing of ours runs afterwards."""


MOMENTS = [
    (States, "begin"),
    (Accelerator, "save_state"),
    (States, "finish"),
    (Path, "rename"),
    (_Cloning, "export"),
    (Records, "add"),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("owner", "method"), MOMENTS)
def test_a_run_that_is_killed_at_the_worst_moment_goes_on(
    whole: Path,
    zarr_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    method: str,
    after: bool,
) -> None:
    """At the second save, so that there is a state before; with a line of the log cut off."""
    output, calls, call = tmp_path / "parts", [0], getattr(owner, method)

    def killed(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2 and not after:
            raise Killed
        result = call(*arguments, **options)
        if calls[0] == 2:
            raise Killed
        return result

    made = config(zarr_path, checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, killed)
        with pytest.raises(Killed):
            train(made, output, device="cpu")
    with (output / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    train(made, output, resume=True, device="cpu")
    assert weights(output) == weights(whole)
    assert [record["step"] for record in metrics(output)] == [2, 4, 6]
    assert len(list((output / "state").iterdir())) == 2


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_state_costs_the_steps_since_the_one_before(
    whole: Path, zarr_path: Path, tmp_path: Path, damaged: int
) -> None:
    before = weights(whole)
    for path in States(whole / "state").newest_first()[:damaged]:
        (path / "optimizer.bin").write_bytes(b"")
    made = config(zarr_path, checkpoint_every=2)
    if damaged == 2:
        with pytest.raises(InputError, match=r"no state .* is whole .*step_00000006 .*optimizer"):
            train(made, whole, resume=True, device="cpu")
        return
    train(made, whole, resume=True, device="cpu")
    assert weights(whole) == before


def test_a_result_that_a_kill_has_left_behind_its_state_is_written_again(
    whole: Path, zarr_path: Path
) -> None:
    before = weights(whole)
    (whole / "checkpoint" / "model.safetensors").unlink()
    train(config(zarr_path, checkpoint_every=2), whole, resume=True, device="cpu")
    assert weights(whole) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_step_at_hand(
    whole: Path,
    zarr_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    output, made = tmp_path / "parts", config(zarr_path, checkpoint_every=2)
    loss = _Cloning.loss

    def signalled(self: Any, network: Any, step: int, accelerator: Any) -> Tensor:
        if step == 2:
            signal.raise_signal(number)
        return loss(self, network, step, accelerator)

    with monkeypatch.context() as patch:
        patch.setattr(_Cloning, "loss", signalled)
        with pytest.raises(Stopped, match=r"step 3 is kept in .*parts.*--resume") as caught:
            train(made, output, device="cpu")
    assert caught.value.exit_code == code
    assert States(output / "state").newest()[1].step == 3
    load_policy(output / "checkpoint")
    train(made, output, resume=True, device="cpu")
    assert weights(output) == weights(whole)


def test_a_real_process_is_killed_then_stopped_and_goes_on(zarr_path: Path, tmp_path: Path) -> None:
    """Twice the same folder: after `kill -9`, and after Ctrl-C; the lock of the dead is free."""
    output, made = tmp_path / "run", content(zarr_path, steps=10**6, checkpoint_every=2)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(made))
    command = [sys.executable, "-m", "para_policy", "train", "--config", tmp_path / "train.yaml",
               "--output", output, "--device", "cpu"]  # fmt: skip

    def started(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *more], cwd=ROOT, text=True, stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def step() -> int:
        return max((int(path.name[5:]) for path in output.glob("state/step_*")), default=0)

    process = started()
    wait_for(lambda: step() >= 4)
    process.kill()
    process.communicate(timeout=60)
    killed = step()
    process = started("--resume")
    wait_for(lambda: step() > killed)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    last = States(output / "state").newest()[1].step
    assert error.splitlines()[-1].startswith(
        f"stopped by SIGINT; step {last} is kept in '{output}'"
    )
    assert "Traceback" not in error
    load_policy(output / "checkpoint")
    assert [record["step"] for record in metrics(output)] == list(range(2, last + 1, 2))


def test_more_steps_extend_a_finished_run(whole: Path, zarr_path: Path) -> None:
    more = config(zarr_path, steps=10, checkpoint_every=2)
    before = weights(whole)
    train(more, whole, resume=True, device="cpu")
    assert [record["step"] for record in metrics(whole)] == [2, 4, 6, 8, 10]
    assert weights(whole) != before
    begun = TrainConfig.model_validate_json((whole / "config.json").read_text())
    assert begun.model_dump(exclude={"data": {"sha256"}}) == more.model_dump(
        exclude={"data": {"sha256"}}
    )
    with pytest.raises(InputError, match="has done 10 steps, asked for 9"):
        train(config(zarr_path, steps=9), whole, resume=True, device="cpu")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "learning_rate", 1.0),
        ("training", "seed", 1),
        ("training", "batch_size", 8),
        ("data", "validation_ratio", 0.34),
        ("policy", "n_action_steps", 4),
    ],
)
def test_only_length_and_place_of_the_data_may_change(
    whole: Path, zarr_path: Path, section: str, key: str, value: Any
) -> None:
    other = content(zarr_path, checkpoint_every=1, log_every=3, steps=7)
    other[section][key] = value
    told = rf"another configuration .*other is {section}\.{key} \(.*, now {value}\); resume with"
    with pytest.raises(InputError, match=told):
        train(TrainConfig.model_validate(other), whole, resume=True, device="cpu")


def test_the_data_may_move_but_not_be_others(whole: Path, zarr_path: Path, tmp_path: Path) -> None:
    arrays, ends = circles()
    options: dict[str, Any] = {"steps": 7, "checkpoint_every": 2}
    arrays["action"][20, 1] += 1e-3
    begun = (whole / "config.json").read_bytes()
    result = weights(whole)
    other = write_group(tmp_path / "other.zarr", arrays, ends)
    fewer = write_group(tmp_path / "fewer.zarr", *circles((35, 20, 40)))
    for path in (other, fewer):
        with pytest.raises(
            InputError, match=r"other is the content of data \(sha256 .*, now .*resume"
        ):
            train(config(path, **options), whole, resume=True, device="cpu")
    assert (weights(whole), (whole / "config.json").read_bytes()) == (result, begun)
    moved = zarr_path.rename(tmp_path / "moved.zarr")
    train(config(moved, **options), whole, resume=True, device="cpu")
    assert weights(whole) != result


def test_a_run_of_a_release_that_noted_no_content_goes_on(whole: Path, zarr_path: Path) -> None:
    file = whole / "config.json"
    begun = json.loads(file.read_text())
    noted = begun["data"].pop("sha256")
    file.write_text(json.dumps(begun))
    train(config(zarr_path, checkpoint_every=2), whole, resume=True, device="cpu")
    assert json.loads(file.read_text())["data"]["sha256"] == noted


def test_a_configuration_that_is_lost_is_missed(whole: Path, zarr_path: Path) -> None:
    (whole / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json.* does not say what the run was begun"):
        train(config(zarr_path), whole, resume=True, device="cpu")


def test_two_runs_do_not_share_a_folder(zarr_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    with (
        sole_writer(output, output / ".lock"),
        pytest.raises(InputError, match=r"another run is writing to .*run"),
    ):
        train(config(zarr_path), output, device="cpu")
    train(config(zarr_path), output, device="cpu")


def test_a_result_without_states_is_not_overwritten(zarr_path: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    with pytest.raises(InputError, match="already holds a run"):
        train(config(zarr_path), tmp_path / "run", device="cpu")


def broken_loss(at: int, value: float) -> Any:
    loss = _Cloning.loss

    def broken(self: Any, network: Any, step: int, accelerator: Any) -> Tensor:
        found = loss(self, network, step, accelerator)
        return found * value if step == at else found

    return broken


def broken_gradient(at: int, value: float) -> Any:
    loss = _Cloning.loss

    def broken(self: Any, network: Any, step: int, accelerator: Any) -> Tensor:
        found = loss(self, network, step, accelerator)
        if step == at:
            parameter = next(network.parameters())
            parameter.register_hook(lambda gradient: gradient * value)
        return found

    return broken


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("broken", "what"), [(broken_loss, "loss"), (broken_gradient, "norm of the gradients")]
)
def test_a_run_that_diverges_ends_and_keeps_its_good_weights(
    whole: Path,
    zarr_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: Any,
    what: str,
    value: float,
) -> None:
    output = tmp_path / "parts"
    made = content(zarr_path, checkpoint_every=2)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(made))
    command = ["train", "--config", str(tmp_path / "train.yaml"), "--output", str(output)]
    with monkeypatch.context() as patch:
        patch.setattr(_Cloning, "loss", broken(4, value))
        assert main([*command, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert f"training diverged at step 5: its {what} is" in error
    assert f"good weights, of step 4, are kept in '{output / 'checkpoint'}'" in error
    assert "training diverged" in error.splitlines()[-1]
    records = (output / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["step"] for line in records] == [2, 4]
    load_policy(output / "checkpoint")
    assert main([*command, "--device", "cpu", "--resume"]) == 0
    assert weights(output) == weights(whole)


@pytest.mark.parametrize("changes", [{"log_every": 100}, {"log_every": 1}])
def test_weights_that_are_infinite_are_never_saved(
    zarr_path: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    made = config(zarr_path, learning_rate=1e20, warmup_steps=0, checkpoint_every=1, **changes)
    with pytest.raises(NonFiniteError, match="diverged at step"):
        train(made, tmp_path / "run", device="cpu")
    if (tmp_path / "run" / "checkpoint").exists():
        load_policy(tmp_path / "run" / "checkpoint")


def test_dpmsolver_is_trained_on_the_noise_of_its_schedule(zarr_path: Path, tmp_path: Path) -> None:
    """Weights do not depend on the sampler that the configuration names."""
    made = content(zarr_path)
    dpm = {**made["policy"]["noise_scheduler"], "_class_name": "DPMSolverMultistepScheduler"}
    dpm = {key: dpm[key] for key in dpm if key not in ("variance_type", "clip_sample")}
    for prediction in ("epsilon", "v_prediction", "sample"):
        for name in ("ddpm", "dpm"):
            schedule = made["policy"]["noise_scheduler"] if name == "ddpm" else dpm
            policy = {
                **made["policy"],
                "noise_scheduler": {**schedule, "prediction_type": prediction},
            }
            chosen = TrainConfig.model_validate({**made, "policy": policy})
            train(chosen, tmp_path / f"{name}_{prediction}", device="cpu")
        one, other = (weights(tmp_path / f"{name}_{prediction}") for name in ("ddpm", "dpm"))
        assert one == other


def test_what_cannot_be_sampled_is_not_trained(zarr_path: Path, tmp_path: Path) -> None:
    made = content(zarr_path)
    made["policy"]["noise_scheduler"]["thresholding"] = True
    with pytest.raises(InputError, match="thresholding"):
        train(TrainConfig.model_validate(made), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
