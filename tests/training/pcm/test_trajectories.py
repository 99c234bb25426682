"""Stored Picard trajectories are those of `pcm`, grow batch by batch, and are bound to their origin."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
import zarr
from torch import Tensor

from para_policy import DiffusionPolicy, Noise, load_policy
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.cli.main import main
from para_policy.diffusion.process import Process
from para_policy.errors import DataError, InputError
from para_policy.lock import sole_writer
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.samplers import Prior, Sequential
from para_policy.training.pcm import trajectories
from para_policy.training.pcm.problem import Settings
from para_policy.training.pcm.trajectories import Trajectories
from tests.checkpoint import (
    random_observations,
    tiny_config,
)
from tests.training.demonstrations import circles, write_group

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS, COUNT, ROUNDS = 8, 40, 3
OBSERVATIONS = 7
NAMES = ("seed", "condition", "iterates", "solution")
SOLVES = [
    ("ddpm", "chord"),
    ("ddpm", "x0"),
    ("ddpm", "identity"),
    ("ddim", "chord"),
]


@pytest.fixture(scope="module")
def finished(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the default settings; copy it before damaging it."""
    return make(load_policy(checkpoint), tmp_path_factory.mktemp("store") / "t.zarr")


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "t.zarr"))


def make(policy: DiffusionPolicy, path: Path, weights: str = "w", **settings: Any) -> Path:
    chosen = Settings(**{"steps": STEPS, "rounds": ROUNDS, "count": COUNT, **settings})
    return trajectories.generate(policy, random_observations(OBSERVATIONS), chosen, path, weights)


def content(path: Path) -> dict[str, np.ndarray]:
    group: Any = zarr.open_group(path, mode="r")
    return {name: group[name][:] for name in NAMES}


def files(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def bound(policy: DiffusionPolicy) -> Any:
    index = np.arange(COUNT) % OBSERVATIONS
    observations = random_observations(OBSERVATIONS)
    return policy.denoiser({name: values[index] for name, values in observations.items()})


def plain_sweep(
    phi: Tensor, process: Process, noise: Noise, x0: Callable[[int], Tensor], X: Tensor
) -> Tensor:
    """X_{s+1} + E_{s+1} with E_{s+1} = Phi_s E_s + r_s, row after row."""
    swept, E, before = [X[:, 0]], torch.zeros_like(X[:, 0]), torch.zeros_like(X[:, 0])
    for s in range(process.num_steps):
        at = torch.full((len(X),), s)
        clean = x0(s)
        mean = process.mean(X[:, s], clean, before, at) + process.noise(noise.steps[:, s], at)
        E = (phi[s] @ E.flatten(1).mT).mT.reshape(E.shape) + mean - X[:, s + 1]
        swept.append(X[:, s + 1] + E)
        before = clean
    return torch.stack(swept, dim=1)


def linear_part(
    policy: DiffusionPolicy, process: Process, scheduler: str, splitting: str
) -> Tensor:
    if splitting == "chord":
        matrices = policy.calibrations[scheduler, STEPS].matrices
        assert isinstance(matrices, Tensor)
        return matrices
    scale = process.B if splitting == "x0" else torch.ones_like(process.B)
    return scale[:, None, None] * torch.eye(32)


@pytest.mark.parametrize(("scheduler", "splitting"), SOLVES)
def test_iterates_are_base_sweeps_and_the_solution_is_sequential(
    policy: DiffusionPolicy, tmp_path: Path, scheduler: str, splitting: str
) -> None:
    path = make(policy, tmp_path / "t.zarr", scheduler=scheduler, splitting=splitting)
    store = Trajectories(path)
    noise, condition, iterates, solution = store.batch(torch.arange(COUNT))
    assert len(store) == COUNT
    assert iterates.shape == (COUNT, ROUNDS, STEPS + 1, 16, 2)
    denoiser = bound(policy)
    torch.testing.assert_close(condition, denoiser.condition)
    process = policy.process(scheduler, STEPS)
    expected = Sequential()(denoiser, process, noise).trajectory
    torch.testing.assert_close(solution, expected, rtol=1e-4, atol=1e-4)
    process = process.to("cpu", torch.float32)
    phi = linear_part(policy, process, scheduler, splitting)
    assert (iterates[:, 0] - solution).abs().max() > 0.01
    for k in range(ROUNDS - 1):
        X = iterates[:, k]

        def predicted(s: int, X: Tensor = X) -> Tensor:
            at = torch.full((COUNT,), s)
            output = policy.network(X[:, s], process.timesteps[at], condition)
            return process.predict_clean(X[:, s], output, at)

        swept = plain_sweep(phi, process, noise, predicted, X)
        torch.testing.assert_close(iterates[:, k + 1], swept, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scheduler", "splitting"), SOLVES[:4])
def test_the_first_iterate_is_where_pcm_begins(
    policy: DiffusionPolicy, tmp_path: Path, scheduler: str, splitting: str
) -> None:
    path = make(policy, tmp_path / "t.zarr", scheduler=scheduler, splitting=splitting)
    noise, _, iterates, _ = Trajectories(path).batch(torch.arange(COUNT))
    key = (scheduler, STEPS, splitting)
    policy.consistency_models[key] = PicardConsistencyModel(*key, 1, 1, {})
    met: list[Tensor] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        met.append(x)
        return torch.zeros_like(x)

    sampler = policy.sampler(
        "pcm",
        scheduler=scheduler,
        steps=STEPS,
        splitting=splitting,
        consistency=lambda share: network,
        max_rounds=1,
    )
    sampler(bound(policy), policy.process(scheduler, STEPS), noise)
    assert torch.equal(met[0].reshape(COUNT, STEPS, 16, 2), iterates[:, 0, :-1])


def test_without_a_calibration_the_start_is_the_prior(
    checkpoint: Path, policy: DiffusionPolicy, tmp_path: Path
) -> None:
    bare = load_policy(checkpoint, calibrated=False)
    starts = []
    for number, made in enumerate((bare, policy)):
        path = make(made, tmp_path / f"{number}.zarr", splitting="x0")
        noise, _, iterates, _ = Trajectories(path).batch(torch.arange(COUNT))
        starts.append(iterates[:, 0])
    process = bare.process(None, STEPS).to("cpu", torch.float32)
    assert torch.equal(starts[0], Prior().start(process, noise)[0])
    assert not torch.allclose(starts[0], starts[1], atol=1e-2)


def test_noise_comes_from_stored_seeds_that_nothing_else_counts_from(finished: Path) -> None:
    seeds = content(finished)["seed"].tolist()
    assert len(set(seeds)) == COUNT
    # Robots count from 0, calibration from 2**40.
    assert min(seeds) >= 2**41
    chosen = torch.tensor([33, 2, 17])
    noise = Trajectories(finished).batch(chosen)[0]
    expected = Noise.from_seeds([seeds[i] for i in chosen], (16, 2), STEPS)
    assert torch.equal(noise.initial, expected.initial)
    assert torch.equal(noise.steps, expected.steps)


def test_a_batch_holds_the_chosen_trajectories_in_order(finished: Path) -> None:
    chosen = torch.tensor([33, 2, 17, 2])
    _, *found = Trajectories(finished).batch(chosen)
    held = content(finished)
    for name, values in zip(("condition", "iterates", "solution"), found, strict=True):
        assert np.array_equal(values.numpy(), held[name][chosen.numpy()])


def interrupt_writing(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    left, write = [writes], zarr.Array.__setitem__

    def interrupted(self: Any, *arguments: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, *arguments)

    monkeypatch.setattr(zarr.Array, "__setitem__", interrupted)


@pytest.mark.parametrize("writes", [0, 2, 4, 5, 7])
def test_a_run_that_goes_on_equals_an_uninterrupted_one(
    policy: DiffusionPolicy,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
) -> None:
    path = tmp_path / "t.zarr"
    with monkeypatch.context() as patch:
        interrupt_writing(patch, writes)
        with pytest.raises(KeyboardInterrupt):
            make(policy, path)
    with pytest.raises(DataError, match=rf"holds {32 * (writes // 4)} of {COUNT}.*again to go on"):
        Trajectories(path)
    make(policy, path)
    whole, parts = content(finished), content(path)
    for name in NAMES:
        assert np.array_equal(parts[name], whole[name]), name


def test_solving_and_writing_go_batch_by_batch(
    policy: DiffusionPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by the batch, and no batch is solved twice."""
    sizes: list[int] = []
    bind = policy.denoiser

    def denoiser(observations: Any) -> Any:
        sizes.append(len(observations["agent_pos"]))
        return bind(observations)

    monkeypatch.setattr(policy, "denoiser", denoiser)
    with monkeypatch.context() as patch:
        interrupt_writing(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            make(policy, tmp_path / "t.zarr", count=70)
    assert sizes == [32, 32, 6]
    sizes.clear()
    make(policy, tmp_path / "t.zarr", count=70)
    assert sizes == [6]
    make(policy, tmp_path / "t.zarr", count=70)
    assert sizes == [6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 7, "splitting": "x0"}, "steps"),
        ({"scheduler": "ddim"}, "scheduler"),
        ({"splitting": "x0"}, "splitting"),
        ({"rounds": 2}, "rounds"),
        ({"count": 41}, "count"),
        ({"weights": "other"}, "weights_sha256"),
    ],
)
def test_a_store_of_other_settings_or_weights_is_kept(
    policy: DiffusionPolicy, store: Path, change: dict[str, Any], message: str
) -> None:
    before = files(store)
    with pytest.raises(InputError, match=rf"t\.zarr.*another.*{message}.*give another path"):
        make(policy, store, **change)
    assert files(store) == before


def test_a_store_of_another_noise_schedule_is_kept(policy: DiffusionPolicy, store: Path) -> None:
    schedule = {**policy.config.noise_scheduler, "beta_schedule": "linear"}
    zarr.open_group(store).attrs["noise_scheduler"] = schedule
    with pytest.raises(InputError, match=r"another noise_scheduler.*linear"):
        make(policy, store)


def foreign_group(path: Path) -> None:
    write_group(path, *circles())


def foreign_array(path: Path) -> None:
    zarr.create_array(path, shape=(3,), dtype="float32")


def empty_folder(path: Path) -> None:
    path.mkdir()


def text_file(path: Path) -> None:
    path.write_text("mine")


def absent(path: Path) -> None:
    pass


def no_json(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text("{")


@pytest.mark.parametrize(
    "there",
    [
        foreign_group,
        foreign_array,
        empty_folder,
        no_json,
        text_file,
    ],
)
def test_something_else_is_not_overwritten(
    policy: DiffusionPolicy, tmp_path: Path, there: Callable[[Path], None]
) -> None:
    path = tmp_path / "t.zarr"
    there(path)
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"t\.zarr"):
        make(policy, path)
    (tmp_path / ".t.zarr.lock").unlink()
    assert files(tmp_path) == before


def test_a_path_that_cannot_be_made_is_named(policy: DiffusionPolicy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file"):
        make(policy, tmp_path / "file" / "t.zarr")


@pytest.mark.parametrize(
    "there", [foreign_group, foreign_array, empty_folder, text_file, absent, no_json]
)
def test_what_is_no_store_cannot_be_read(tmp_path: Path, there: Callable[[Path], None]) -> None:
    path = tmp_path / "t.zarr"
    there(path)
    with pytest.raises(DataError, match=r"t\.zarr.*para-policy trajectories"):
        Trajectories(path)


def set_facts(**facts: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        zarr.open_group(path, mode="r+").attrs.update(facts)

    return damage


def without_solution(path: Path) -> None:
    shutil.rmtree(path / "solution")


def shorter_solution(path: Path) -> None:
    array: Any = zarr.open_group(path, mode="r+")["solution"]
    array.resize((COUNT - 1, *array.shape[1:]))


def one_chunk(path: Path) -> Path:
    return next(file for file in (path / "solution" / "c").rglob("*") if file.is_file())


def lost_chunk(path: Path) -> None:
    one_chunk(path).unlink()


def garbled_chunk(path: Path) -> None:
    one_chunk(path).write_bytes(b"garbage")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_facts(count=None), "holds no trajectories"),
        (set_facts(count="many"), "holds no trajectories"),
        (set_facts(count=COUNT + 1), "broken"),
        (set_facts(format_version=99), "format_version 99"),
        (set_facts(finished=None), f"0 of {COUNT}"),
        (set_facts(finished=COUNT - 1), f"{COUNT - 1} of {COUNT}"),
        (without_solution, "solution"),
        (shorter_solution, "broken"),
        (lost_chunk, "solution"),
        (garbled_chunk, "decoded"),
    ],
)
def test_a_damaged_store_cannot_be_read(
    store: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(store)
    with pytest.raises(DataError, match=message) as caught:
        Trajectories(store).batch(torch.arange(COUNT))
    assert "t.zarr" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, r"rounds is 0; expected"),
        ({"rounds": 1.5}, r"rounds is 1\.5; expected"),
        ({"count": 0}, r"count is 0; expected"),
        ({"count": True}, r"count is True; expected"),
        ({"splitting": "epsilon"}, r"splitting is 'epsilon'; expected one of identity, x0, chord"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheduler": "euler"}, "unknown scheduler 'euler'"),
        ({"steps": 21}, "num_steps is 21"),
        ({"steps": 5}, r"needs a calibration for ddpm with 5 steps.*para-policy calibrate"),
    ],
)
def test_settings_that_the_policy_cannot_solve_leave_nothing_behind(
    policy: DiffusionPolicy, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(policy, tmp_path / "t.zarr", **settings)
    assert not (tmp_path / "t.zarr").exists()


@pytest.mark.parametrize("rounds", [1, STEPS + 1])
def test_as_many_iterates_are_stored_as_were_asked_for(
    policy: DiffusionPolicy, tmp_path: Path, rounds: int
) -> None:
    path = make(policy, tmp_path / "t.zarr", splitting="x0", rounds=rounds, count=4)
    iterates, solution = Trajectories(path).batch(torch.arange(4))[2:]
    assert iterates.shape[1] == rounds
    for k in range(rounds):
        torch.testing.assert_close(iterates[:, k, : k + 1], solution[:, : k + 1])


def test_more_rounds_than_a_solve_can_take_are_stored_or_refused(
    policy: DiffusionPolicy, tmp_path: Path
) -> None:
    try:
        path = make(policy, tmp_path / "t.zarr", rounds=STEPS + 2, count=4)
    except InputError:
        return
    assert Trajectories(path).batch(torch.arange(4))[2].shape[1] == STEPS + 2


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_there_must_be_observations(policy: DiffusionPolicy, tmp_path: Path) -> None:
    none = {name: values[:0] for name, values in random_observations(1).items()}
    with pytest.raises(InputError, match="observations"):
        trajectories.generate(policy, none, Settings(steps=STEPS), tmp_path / "t.zarr", "w")


def test_a_run_that_stopped_while_the_store_was_made_can_go_on(
    policy: DiffusionPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group, "create_array", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(policy, tmp_path / "t.zarr", count=4)
    make(policy, tmp_path / "t.zarr", count=4)


def test_a_store_is_written_by_one_at_a_time(policy: DiffusionPolicy, tmp_path: Path) -> None:
    path = tmp_path / "t.zarr"
    with (
        sole_writer(path),
        pytest.raises(InputError, match=r"another run is writing to .*t\.zarr"),
    ):
        make(policy, path, count=4)
    make(policy, path, count=4)


def raise_interrupt(*arguments: Any, **options: Any) -> None:
    raise KeyboardInterrupt


def test_a_store_is_not_continued_with_another_calibration(
    policy: DiffusionPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_writing(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            make(policy, tmp_path / "t.zarr")
    calibration = policy.calibrations["ddpm", STEPS]
    guess = dataclasses.replace(calibration.guess, bias=calibration.guess.bias + 0.5)
    policy.calibrations["ddpm", STEPS] = dataclasses.replace(calibration, guess=guess)
    with pytest.raises(InputError, match="calibration"):
        make(policy, tmp_path / "t.zarr")


@pytest.fixture
def command(checkpoint: Path, tmp_path: Path) -> Callable[..., int]:
    """`para-policy trajectories` on demonstrations of circles; options replace the defaults."""
    corners = [[float(x), float(y)] for x in (-30, 30) for y in (-60, -20, 20, 60)]
    block = {"array": "state", "pose_columns": [2, 3, 4], "rigid_points": corners}
    agent = {"array": "state", "columns": [0, 1]}
    data = {
        "path": "elsewhere",
        "action": {"array": "action"},
        "observations": {"environment_state": block, "agent_pos": agent},
    }
    policy = tiny_config(20).model_dump(mode="json")
    text = yaml.safe_dump({"policy": policy, "data": data, "training": {"steps": 1}})
    (tmp_path / "train.yaml").write_text(text)
    write_group(tmp_path / "demo.zarr", *circles())

    def run(**options: Any) -> int:
        given = {
            "checkpoint": checkpoint,
            "data": tmp_path / "demo.zarr",
            "config": tmp_path / "train.yaml",
            "output": tmp_path / "t.zarr",
            "steps": STEPS,
            "count": 6,
            **options,
        }
        return main(["trajectories", *(f"--{name}={value}" for name, value in given.items())])

    return run


def test_the_command_makes_a_store_and_does_nothing_the_second_time(
    command: Callable[..., int],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(scheduler="ddim", splitting="identity", rounds=3) == 0
    assert f"trajectories: {tmp_path / 't.zarr'}" in capsys.readouterr().out.replace("\n", "")
    store = Trajectories(tmp_path / "t.zarr")
    assert store.facts["weights_sha256"] == checkpoint_hash(checkpoint)
    assert store.facts["noise_scheduler"] == tiny_config(20).noise_scheduler
    asked = {"scheduler": "ddim", "steps": STEPS, "splitting": "identity", "rounds": 3, "count": 6}
    assert {key: store.facts[key] for key in asked} == asked
    condition = store.batch(torch.arange(6))[1]
    assert len(condition.unique(dim=0)) == 6
    before = files(tmp_path)
    assert command(scheduler="ddim", splitting="identity", rounds=3) == 0
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds is 0; expected"),
        ({"count": 0}, "count is 0; expected"),
        ({"splitting": "newton"}, "splitting is 'newton'; expected one of"),
        ({"steps": 5}, "para-policy calibrate"),
        ({"scheduler": "euler"}, "unknown scheduler 'euler'"),
        ({"data": "absent.zarr"}, "no data set at 'absent.zarr'"),
        ({"config": "absent.yaml"}, "absent.yaml"),
        ({"checkpoint": "absent"}, "no checkpoint at 'absent'"),
    ],
)
def test_bad_options_end_with_one_line_and_code_2(
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    message: str,
) -> None:
    assert command(**options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "t.zarr").exists()


def test_an_occupied_output_ends_with_code_2(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(count=2) == 0
    assert command(count=3) == 2
    assert "another count (2, asked for 3)" in capsys.readouterr().err
    facts = json.loads((tmp_path / "t.zarr" / "zarr.json").read_text())["attributes"]
    assert facts["count"] == 2
