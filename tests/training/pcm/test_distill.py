"""Training of PCM: the sweep it trains is the one that `pcm` makes, and it learns to land near."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from para_policy import DiffusionPolicy, Noise, Process, load_policy
from para_policy.checkpoints.consistency import folder, read_consistencies
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.cli.main import main
from para_policy.errors import DataError, InputError, NonFiniteError
from para_policy.networks.config import UnetConfig
from para_policy.policies.build import build_network
from para_policy.policies.config import PolicyConfig
from para_policy.policies.consistency import PicardConsistencyModel, changeable
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.samplers import Chord, Scalar, Sequential
from para_policy.training import trainer
from para_policy.training.accelerator import make_accelerator
from para_policy.training.pcm import distill, low_rank, trajectories
from para_policy.training.pcm.problem import Problem, Settings
from para_policy.training.pcm.sweep import sweep
from para_policy.training.pcm.trajectories import Trajectories
from para_policy.training.states import States
from tests.checkpoint import (
    random_observations,
    save_tiny_checkpoint,
)
from tests.problems import Mixture, Rational, problem, scheduler
from tests.problems import network as exact
from tests.training.interruption import interrupt_at

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS, COUNT, ROUNDS = 8, 16, 2
SPLITTINGS = ["chord", "x0", "identity"]
Store = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than most of these runs."""
    monkeypatch.setattr(trainer, "plot_curves", lambda *arguments: None)


@pytest.fixture(scope="module")
def store(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Trajectories of the tiny policy with these settings, each made once."""
    directory = tmp_path_factory.mktemp("stores")

    @cache
    def make(**changed: Any) -> Path:
        given = random_observations(changed.pop("given", COUNT))
        settings = Settings(**{"steps": STEPS, "rounds": ROUNDS, "count": COUNT, **changed})
        path = directory / f"{len(list(directory.iterdir()))}.zarr"
        sha256 = checkpoint_hash(checkpoint)
        return trajectories.generate(load_policy(checkpoint), given, settings, path, sha256)

    return make


def config(data: Path, **changed: Any) -> distill.DistillConfig:
    values = {
        "data": data,
        "rank": 4,
        "steps": 6,
        "batch_size": 4,
        "warmup_steps": 1,
        "log_every": 2,
        "checkpoint_every": 3,
        **changed,
    }
    return distill.make_config(values)


def train(
    checkpoint: Path, data: Path, output: Path, *, resume: bool = False, **changed: Any
) -> Path:
    return distill.distill(
        load_policy(checkpoint),
        checkpoint_hash(checkpoint),
        config(data, **changed),
        output,
        resume=resume,
        device="cpu",
    )


def metrics(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def exported(output: Path) -> dict[str, list[float]]:
    (file,) = (output / "checkpoint").glob("*.safetensors")
    return {name: value.tolist() for name, value in load_file(file).items()}


def add_random_model(
    policy: DiffusionPolicy, *key: Any, stride: int, informed: bool = False
) -> PicardConsistencyModel:
    generator = torch.Generator().manual_seed(3)
    changes = {
        name: 0.3 * torch.randn(shape, generator=generator)
        for name, shape in changeable(policy.network).items()
        if informed or not name.endswith(".further")
    }
    model = PicardConsistencyModel(*key, ROUNDS, stride, changes, informed=informed)
    policy.consistency_models[key] = model
    return model


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_sweep_is_a_drafting_round_of_pcm(
    policy: DiffusionPolicy, kind: str, splitting: str, stride: int
) -> None:
    model = add_random_model(policy, kind, STEPS, splitting, stride=stride)
    denoiser = policy.denoiser(random_observations(8))
    noise = Noise.from_seeds(range(8), (16, 2), STEPS)
    found: list[Tensor] = []
    policy.sampler(
        "pcm", scheduler=kind, steps=STEPS, splitting=splitting, horizon=ROUNDS, max_rounds=ROUNDS
    )(
        denoiser,
        policy.process(kind, STEPS),
        noise,
        callback=lambda i: found.append(i.trajectory.clone()),
    )
    made = Problem.of(policy, kind, STEPS, splitting)
    process = made.process.to("cpu", torch.float32)
    propagate = made.splitting.bind(process, (16, 2))
    X = made.iterates(denoiser, noise, 1)[:, 0]
    network = model.on(policy.network, 100)(1.0)
    assert len(found) == ROUNDS
    for expected in found:
        assert (expected - X).abs().max() > 0.01
        condition = denoiser.condition
        assert condition is not None
        X = sweep(network, process, propagate, noise, condition, X, stride).X
        torch.testing.assert_close(X, expected, rtol=1e-6, atol=1e-6)
        X = expected


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_an_informed_network_sees_in_training_what_it_sees_in_pcm(
    checkpoint: Path, policy: DiffusionPolicy, store: Store, splitting: str
) -> None:
    model = add_random_model(policy, "ddpm", STEPS, splitting, stride=1, informed=True)
    made = config(store(splitting=splitting), informed=True)
    task = distill._Distillation(policy, checkpoint_hash(checkpoint), made)
    noise, condition, iterates, _ = task.data.batch(torch.arange(COUNT))
    network: Any = model.on(policy.network, 100)(1.0)
    once = partial(task._sweep, network, make_accelerator("no", "cpu", None), noise, condition)
    X = iterates[:, 0]
    trained = [swept.X for _, swept in task._rounds(once, X)]
    drafted: list[Tensor] = []
    policy.sampler("pcm", steps=STEPS, splitting=splitting, horizon=ROUNDS, max_rounds=ROUNDS)(
        policy.denoiser(random_observations(COUNT)),
        policy.process(None, STEPS),
        noise,
        callback=lambda info: drafted.append(info.trajectory.clone()),
    )
    assert len(trained) == len(drafted) == ROUNDS
    for k in range(ROUNDS):
        torch.testing.assert_close(trained[k], drafted[k], rtol=1e-4, atol=1e-4)
    untold = once(1, torch.zeros(COUNT), trained[0]).X
    assert (untold - trained[1]).abs().max() > 0.01


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("splitting", SPLITTINGS)
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_an_untrained_network_makes_the_sweeps_of_the_base(
    policy: DiffusionPolicy, store: Store, kind: str, splitting: str, adapted: bool
) -> None:
    data = Trajectories(store(scheduler=kind, splitting=splitting, rounds=3))
    noise, condition, iterates, _ = data.batch(torch.arange(COUNT))
    made = Problem.of(policy, kind, STEPS, splitting)
    process = made.process.to("cpu", torch.float32)
    propagate = made.splitting.bind(process, (16, 2))
    network = copy.deepcopy(policy.network)
    if adapted:
        low_rank.adapt(network, 4)
    for k in range(2):
        after = sweep(network, process, propagate, noise, condition, iterates[:, k], 1)
        torch.testing.assert_close(after.X, iterates[:, k + 1], rtol=1e-4, atol=1e-4)


def small_problem(kind: str) -> tuple[Process, Noise, Tensor]:
    """Six steps in float64, and a trajectory that solves nothing."""
    process = problem(kind, 6, prediction_type="sample").process
    noise = Noise.from_seeds([0, 1], (2, 2), 6, dtype=torch.float64)
    X = 0.5 * Noise.from_seeds([5, 6], (2, 2), 7, dtype=torch.float64).steps
    return process, noise, X


SMALL = {
    "identity": Scalar("identity"),
    "x0": Scalar("clean"),
    "chord": Chord(0.4 * torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(7)).double()),
}


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("splitting", SMALL)
@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_the_gradient_of_a_sweep_is_that_of_finite_differences(
    kind: str, splitting: str, stride: int
) -> None:
    process, noise, X = small_problem(kind)
    propagate = SMALL[splitting].bind(process, (2, 2))
    condition = torch.ones(2, 1, dtype=torch.float64)

    def swept(weights: Tensor) -> Tensor:
        def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            bent = Rational(0.5)(x, t)
            return weights[0] * bent + weights[1] * bent.flip(2) + weights[2] * cond[:, None]

        return sweep(network, process, propagate, noise, condition, X, stride).X

    weights = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    # The output of the network passes float32, which large differences do not feel.
    assert torch.autograd.gradcheck(swept, (weights,), eps=1e-2, atol=1e-4, rtol=1e-4)


def test_the_first_state_and_the_states_of_the_solution_stay() -> None:
    """X_0 is noise; from the sequential trajectory nothing moves."""
    made = problem("ddpm", 6)
    noise = made.noise(2, (2, 2), torch.float32)
    process = made.process.to("cpu", torch.float32)
    solution = made.solve(Sequential(), noise).trajectory
    condition = torch.zeros(2, 1)

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return made.network(x, t)

    for splitting in (SMALL["identity"], SMALL["x0"]):
        propagate = splitting.bind(process, (2, 2))
        after = sweep(network, process, propagate, noise, condition, solution, 1).X
        torch.testing.assert_close(after, solution, rtol=1e-5, atol=1e-5)
        moved = sweep(network, process, propagate, noise, condition, 0.5 * solution, 1).X
        assert torch.equal(moved[:, 0], 0.5 * solution[:, 0])


def squared_error(X: Tensor, solution: Tensor) -> Tensor:
    return (X - solution).square().flatten(1).mean(dim=1)


@pytest.mark.parametrize("objective", ["own", "picard"])
def test_losses_of_an_untrained_network_are_those_of_the_stored_iterates(
    checkpoint: Path, store: Store, tmp_path: Path, objective: str
) -> None:
    _, _, iterates, solution = Trajectories(store(rounds=3)).batch(torch.arange(COUNT))
    d = [squared_error(X, solution) for X in iterates.unbind(dim=1)]
    held_out = COUNT // 4
    d, left = [v[:-held_out] for v in d], (d[2] / (d[0] + 0.02**2))[-held_out:].mean().item()
    own = [torch.stack([(d[k + 1] / (d[k] + 0.02**2)).mean() for k in range(2)]).mean()]
    picard = [d[k + 1].mean() / (d[k].mean() + 0.02**2).sqrt() for k in range(2)]
    expected = {"own": 2 * own, "picard": picard}[objective]
    changed = {"batch_size": COUNT - held_out, "learning_rate": 1e-12, "steps": 2, "log_every": 1}
    train(checkpoint, store(), tmp_path / "run", objective=objective, **changed)
    for record, loss in zip(metrics(tmp_path / "run"), expected, strict=True):
        assert record["loss"] == pytest.approx(loss.item(), rel=1e-3)
        assert record["ema_loss"] == pytest.approx(left, rel=1e-3)


@pytest.mark.parametrize(
    ("given", "held_out"),
    [
        (99, [12, 13, 14, 15]),
        (COUNT, [12, 13, 14, 15]),
        (8, [6, 7, 14, 15]),
        (5, [4, 9, 14]),
        (4, [3, 7, 11, 15]),
        (3, [12, 13, 14, 15]),  # too few to keep one for the test
    ],
)
def test_what_is_held_out_starts_from_observations_of_its_own(
    store: Store, given: int, held_out: list[int]
) -> None:
    data = Trajectories(store(given=given))
    learnt, held = data.split(64)
    assert held.tolist() == held_out
    assert sorted([*learnt.tolist(), *held_out]) == list(range(COUNT))
    if given >= 4:
        (_, seen, *_), (_, unseen, *_) = data.batch(learnt), data.batch(held)
        assert not (unseen[:, None] == seen).all(dim=2).any()
    learnt_of_all, two = data.split(2)
    assert len(two) == 2
    assert not set(two.tolist()) & set(learnt_of_all.tolist())


@pytest.mark.parametrize(
    ("rank", "loss"),
    [(0, {}), (4, {}), (4, {"trajectory": 0, "rows": 1}), (0, {"rows": 1, "neighbours": 1})],
)
@pytest.mark.parametrize("objective", ["own", "picard"])
def test_training_lowers_the_loss(
    checkpoint: Path,
    store: Store,
    tmp_path: Path,
    objective: str,
    rank: int,
    loss: dict[str, float],
) -> None:
    data = store(scheduler="ddim", splitting="identity")
    changed = {"objective": objective, "rank": rank, "learning_rate": 1e-2, "loss": loss}
    train(checkpoint, data, tmp_path / "run", steps=40, log_every=20, **changed)
    records = metrics(tmp_path / "run")
    assert [record["step"] for record in records] == [20, 40]
    assert records[-1]["loss"] < 0.95 * records[0]["loss"]


@pytest.mark.parametrize(
    ("splitting", "stride", "rank", "informed"),
    [("chord", 1, 4, False), ("x0", 2, 0, True), ("identity", 4, 4, True)],
)
def test_the_exported_file_makes_pcm_leave_the_error_that_training_saw(
    checkpoint: Path,
    store: Store,
    tmp_path: Path,
    splitting: str,
    stride: int,
    rank: int,
    informed: bool,
) -> None:
    """So the averaged weights are in the file, and `pcm` starts and sweeps as in training."""
    data = store(splitting=splitting)
    changed = {"stride": stride, "rank": rank, "learning_rate": 1e-2, "ema_decay": 0.5}
    changed["informed"] = informed
    path = train(checkpoint, data, tmp_path / "run", **changed)
    policy = load_policy(checkpoint, consistency=path)
    assert list(policy.consistency_models) == [("ddpm", STEPS, splitting)]
    model = policy.consistency_models["ddpm", STEPS, splitting]
    assert (model.rounds, model.stride, model.informed) == (ROUNDS, stride, informed)
    columns = [v for n, v in model.changes.items() if n.endswith(".further")]
    assert bool(columns) == informed
    assert all(isinstance(v, Tensor) and v.abs().max() > 1e-3 for v in columns)
    held_out = torch.arange(COUNT - COUNT // 4, COUNT)
    noise, _, iterates, solution = Trajectories(data).batch(held_out)
    observations = {n: v[held_out.numpy()] for n, v in random_observations(COUNT).items()}
    sampler = policy.sampler(
        "pcm", steps=STEPS, splitting=splitting, horizon=ROUNDS, max_rounds=ROUNDS
    )
    result = sampler(policy.denoiser(observations), policy.process(None, STEPS), noise)
    left = (result.trajectory - solution).square().flatten(1).mean(dim=1)
    start = (iterates[:, 0] - solution).square().flatten(1).mean(dim=1)
    records = metrics(tmp_path / "run")
    assert (left / start).mean().item() == pytest.approx(records[-1]["ema_loss"], rel=1e-2)


@pytest.mark.parametrize("rank", [0, 4])
def test_the_exported_file_is_the_averaged_network_in_half_precision(
    checkpoint: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    x = torch.randn(6, 16, 2, generator=torch.Generator().manual_seed(0))
    inputs = (x, torch.arange(6), torch.zeros(6, 36))
    averaged: list[Tensor] = []
    export = distill._Distillation.export

    def recorded(self: Any, network: nn.Module, directory: Path) -> None:
        averaged.append(network(*inputs).detach())
        export(self, network, directory)

    monkeypatch.setattr(distill._Distillation, "export", recorded)
    changed = {"rank": rank, "learning_rate": 1e-2, "ema_decay": 0.5}
    path = train(checkpoint, store(), tmp_path / "run", **changed)
    policy = load_policy(checkpoint, consistency=path)
    network = policy.consistency_models["ddpm", STEPS, "chord"].on(policy.network, 100)(1.0)
    base = policy.network(*inputs)
    change, error = averaged[-1] - base, network(*inputs) - averaged[-1]
    assert change.abs().max() > 0.05
    assert error.abs().max() < 5e-3 * change.abs().max()
    newest, _ = States(tmp_path / "run" / "state").newest()
    raw = load_file(newest / "model.safetensors")
    trained = build_network(policy.config)
    if rank:
        low_rank.adapt(trained, rank)
    trained.load_state_dict(raw)
    assert (trained(*inputs) - averaged[-1]).abs().max() > 5 * error.abs().max()


@pytest.mark.parametrize(("objective", "rank", "stop"), [("own", 4, 5), ("picard", 0, 3)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    checkpoint: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    rank: int,
    stop: int,
) -> None:
    changed = {"objective": objective, "rank": rank}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(checkpoint, store(), whole, **changed)
    with monkeypatch.context() as patch:
        interrupt_at(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint, store(), parts, **changed)
    assert exported(parts) != exported(whole)
    train(checkpoint, store(), parts, resume=True, **changed)
    assert exported(parts) == exported(whole)
    for key in ("step", "ema_loss", "learning_rate"):
        assert [r[key] for r in metrics(parts)] == [r[key] for r in metrics(whole)]


def test_a_run_depends_on_its_seed_alone(checkpoint: Path, store: Store, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(ord(name))
        train(checkpoint, store(), tmp_path / name, seed=seed, steps=3)
    assert exported(tmp_path / "a") == exported(tmp_path / "b")
    assert exported(tmp_path / "a") != exported(tmp_path / "c")


def test_the_base_network_is_left_as_it_is(
    checkpoint: Path, store: Store, policy: DiffusionPolicy, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in policy.network.state_dict().items()}
    sha256 = checkpoint_hash(checkpoint)
    for rank in (0, 4):
        made = config(store(), rank=rank, steps=2, learning_rate=0.1)
        distill.distill(policy, sha256, made, tmp_path / str(rank), device="cpu")
    after = policy.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in policy.network.parameters())


def refused(
    policy: DiffusionPolicy, data: Path, tmp_path: Path, weights: str = "", **c: Any
) -> str:
    """The message of the DataError or InputError, which must come before anything is written."""
    weights = weights or Trajectories(data).facts["weights_sha256"]
    with pytest.raises((DataError, InputError)) as caught:
        distill.distill(policy, weights, config(data, **c), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    return str(caught.value)


def test_trajectories_of_other_weights_are_refused(
    policy: DiffusionPolicy, store: Store, tmp_path: Path
) -> None:
    message = refused(policy, store(), tmp_path, weights="abc")
    assert "made with other weights" in message
    assert "here abc" in message
    assert "run para-policy trajectories again" in message


def test_trajectories_of_another_noise_schedule_are_refused(
    policy: DiffusionPolicy, store: Store, tmp_path: Path
) -> None:
    schedule = {**policy.config.noise_scheduler, "beta_schedule": "linear"}
    policy.config = policy.config.model_copy(update={"noise_scheduler": schedule})
    assert "made with other noise_scheduler" in refused(policy, store(), tmp_path)


def test_a_multistep_scheduler_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="use ddpm or ddim"):
        store(scheduler="dpmsolver++", splitting="x0", count=4)


def test_chord_needs_its_calibration(checkpoint: Path, store: Store, tmp_path: Path) -> None:
    bare = load_policy(checkpoint, calibrated=False)
    assert "run para-policy calibrate" in refused(bare, store(), tmp_path)


@pytest.mark.parametrize(("count", "batch_size"), [(16, 13), (4, 4)])
def test_too_few_trajectories_are_refused(
    policy: DiffusionPolicy, store: Store, tmp_path: Path, count: int, batch_size: int
) -> None:
    message = refused(policy, store(count=count), tmp_path, batch_size=batch_size)
    assert f"{count - count // 4} trajectories do not fill one batch of {batch_size}" in message
    assert "--batch-size" in message


def test_too_few_trajectories_to_hold_some_out_are_refused(
    policy: DiffusionPolicy, store: Store, tmp_path: Path
) -> None:
    assert "trajectories" in refused(policy, store(count=3), tmp_path, batch_size=1)


def test_an_absent_or_unfinished_store_is_refused(
    checkpoint: Path, policy: DiffusionPolicy, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"absent\.zarr.*para-policy trajectories"):
        train(checkpoint, tmp_path / "absent.zarr", tmp_path / "run")
    half = tmp_path / "half.zarr"
    shutil.copytree(store(), half)
    facts = json.loads((half / "zarr.json").read_text())
    facts["attributes"]["finished"] = 8
    (half / "zarr.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=f"holds 8 of {COUNT} trajectories"):
        train(checkpoint, half, tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objective", "paper"),
        ("rank", -1),
        ("rank", 1.5),
        ("stride", 0),
        ("steps", 0),
        ("steps", "many"),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("ema_decay", 1.0),
        ("warmup_steps", -1),
        ("precision", "fp8"),
        ("learning_rat", 1.0),
        ("informed", "yes, please"),
        ("loss", {"trajectory": 0}),
        ("loss", {"rows": -1}),
    ],
)
def test_wrong_options_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{key}[.:]") as caught:
        config(Path("t.zarr"), **{key: value})
    assert "\n" not in str(caught.value)


def test_a_run_that_diverges_exports_nothing(
    checkpoint: Path, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(
        NonFiniteError, match=r"diverged at step 2: .*no step was saved.*learning rate"
    ):
        train(checkpoint, store(), tmp_path / "run", steps=2, learning_rate=1e20)
    assert not list((tmp_path / "run").glob("checkpoint/*"))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_cannot_be_used_is_refused(
    checkpoint: Path, store: Store, tmp_path: Path, seed: int
) -> None:
    with pytest.raises(InputError, match="seed"):
        train(checkpoint, store(), tmp_path / "run", seed=seed)


def test_a_finished_run_is_not_overwritten(checkpoint: Path, store: Store, tmp_path: Path) -> None:
    train(checkpoint, store(), tmp_path / "run", steps=2)
    before = exported(tmp_path / "run")
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        train(checkpoint, store(), tmp_path / "run", steps=2, seed=7)
    with pytest.raises(InputError, match="another configuration"):
        train(checkpoint, store(), tmp_path / "run", steps=2, seed=7, resume=True)
    assert exported(tmp_path / "run") == before


def test_a_run_is_not_resumed_with_other_base_weights(
    checkpoint: Path, store: Store, tmp_path: Path
) -> None:
    train(checkpoint, store(splitting="x0"), tmp_path / "run", steps=2)
    other = save_tiny_checkpoint(tmp_path / "other", 20, seed=5)
    data = trajectories.generate(
        load_policy(other),
        random_observations(5),
        Settings(steps=STEPS, splitting="x0", count=COUNT),
        tmp_path / "t.zarr",
        checkpoint_hash(other),
    )
    with pytest.raises((InputError, DataError)):
        train(other, data, tmp_path / "run", steps=2, resume=True)


@pytest.mark.parametrize("change", [{"splitting": "x0"}, {"rounds": 3}])
def test_a_run_is_not_resumed_with_trajectories_of_another_solve(
    checkpoint: Path, store: Store, tmp_path: Path, change: dict[str, Any]
) -> None:
    train(checkpoint, store(), tmp_path / "run", steps=2)
    with pytest.raises((InputError, DataError)):
        train(checkpoint, store(**change), tmp_path / "run", steps=2, resume=True)


def test_a_run_is_resumed_where_its_data_has_moved(
    checkpoint: Path, store: Store, tmp_path: Path
) -> None:
    train(checkpoint, store(), tmp_path / "run", steps=2)
    before = exported(tmp_path / "run")
    moved = Path(shutil.copytree(store(), tmp_path / "moved.zarr"))
    train(checkpoint, moved, tmp_path / "run", steps=2, resume=True)
    assert exported(tmp_path / "run") == before


def test_an_iterate_that_is_solved_does_not_break_training(
    checkpoint: Path, store: Store, tmp_path: Path
) -> None:
    settings = {"scheduler": "ddim", "steps": 2, "splitting": "identity", "rounds": 3}
    train(checkpoint, store(**settings), tmp_path / "run", objective="picard")
    assert all(np.isfinite(record["loss"]) for record in metrics(tmp_path / "run"))


class InMemory(Trajectories):
    """Reading chunks takes longer than the cheap steps of an analytic problem."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.noise, *self.states = super().batch(torch.arange(len(self)))

    def batch(self, indices: Tensor) -> tuple[Noise, Tensor, Tensor, Tensor]:
        condition, iterates, solution = (values[indices] for values in self.states)
        return self.noise.select(indices), condition, iterates, solution


class TwoModes(nn.Module):
    """The exact denoiser of two modes plus a small network that begins at 0."""

    def __init__(self, schedule: Any) -> None:
        super().__init__()
        self.exact, self.levels = exact(Mixture(modes=2), schedule), len(schedule.betas)
        self.body = nn.Sequential(
            nn.Linear(15, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 8)
        )
        nn.init.zeros_(self.body[-1].weight)
        nn.init.zeros_(self.body[-1].bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        angle = torch.pi * t[:, None] / self.levels
        features = torch.cat([x.flatten(1), condition, angle, angle.sin(), angle.cos()], dim=1)
        return self.exact(x, t) + self.body(features).reshape(x.shape)


def two_modes() -> DiffusionPolicy:
    """A policy whose base network is exact: all coordinates commit to one of two modes."""
    made = PolicyConfig(
        inputs={"position": (2,)},
        action_names=("x", "y"),
        horizon=4,
        n_action_steps=2,
        network=UnetConfig(down_dims=(8, 8), step_embed_dim=8, kernel_size=3, n_groups=4),
        noise_scheduler={
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": 20,
            "beta_schedule": "squaredcos_cap_v2",
        },
    )
    torch.manual_seed(0)
    box = LinearNormalizer.fit(np.array([[-1.0, -1.0], [1.0, 1.0]], dtype=np.float32))
    policy = DiffusionPolicy(
        made, build_network(made).state_dict(), {"position": box, "action": box}
    )
    policy.network = TwoModes(scheduler("ddpm", 20)).eval().requires_grad_(False)  # type: ignore[assignment]
    return policy


def positions(count: int, seed: int) -> dict[str, np.ndarray]:
    return {"position": np.random.default_rng(seed).uniform(-1, 1, (count, 2, 2))}


def errors(policy: DiffusionPolicy, model: PicardConsistencyModel) -> list[float]:
    """Mean squared error of the trajectories of `pcm` after one and two rounds, seeds 0 to 127."""
    key = (model.scheduler, model.steps, model.splitting)
    policy.consistency_models[key] = model
    process = policy.process(*key[:2])
    denoiser = policy.denoiser(positions(128, seed=1))
    noise = Noise.from_seeds(range(128), (4, 2), model.steps)
    solution = Sequential()(denoiser, process, noise).trajectory
    sampler = policy.sampler(
        "pcm", scheduler=key[0], steps=key[1], splitting=key[2], horizon=ROUNDS, max_rounds=ROUNDS
    )
    found: list[float] = []
    sampler(
        denoiser,
        process,
        noise,
        callback=lambda info: found.append((info.trajectory - solution).square().mean().item()),
    )
    return found


@pytest.mark.parametrize(
    ("key", "objective", "rank"),
    [(("ddpm", 20, "identity"), "picard", 0), (("ddim", 10, "identity"), "own", 8)],
)
def test_distilled_rounds_land_nearer_to_the_sequential_sample_of_two_modes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: tuple[str, int, str],
    objective: str,
    rank: int,
) -> None:
    policy = two_modes()
    settings = Settings(*key, rounds=ROUNDS, count=1024)
    data = trajectories.generate(policy, positions(64, seed=0), settings, tmp_path / "t.zarr", "w")
    monkeypatch.setattr(distill, "Trajectories", InMemory)
    changed = {"learning_rate": 2e-2, "ema_decay": 0.98, "batch_size": 64}
    length = {"steps": 200, "log_every": 200, "checkpoint_every": 200}
    made = config(data, objective=objective, rank=rank, **changed, **length)
    directory = distill.distill(policy, "w", made, tmp_path / "run", device="cpu")
    shapes = {name: tuple(value.shape) for name, value in policy.network.named_parameters()}
    models = read_consistencies(directory, "w", policy.config.noise_scheduler, shapes)
    before = errors(policy, PicardConsistencyModel(*key, ROUNDS, 1, {}))
    after = errors(policy, models[key])
    assert len(before) == ROUNDS
    for untrained, trained in zip(before, after, strict=True):
        assert trained < 0.7 * untrained


Run = Callable[..., int]


@pytest.fixture
def command(checkpoint: Path, store: Store, tmp_path: Path) -> Run:
    """`para-policy distill`; options replace the defaults."""

    def run(*flags: str, **options: Any) -> int:
        given = {
            "checkpoint": checkpoint,
            "data": store(),
            "output": tmp_path / "run",
            "rank": 2,
            "steps": 2,
            "batch-size": 4,
            "device": "cpu",
            **options,
        }
        return main(["distill", *(f"--{name}={value}" for name, value in given.items()), *flags])

    return run


def test_the_command_makes_weights_that_info_and_pcm_find(
    command: Run, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    assert command(checkpoint=own, stride=2) == 0
    output = capsys.readouterr().out.replace("\n", "")
    assert f"PCM weights: {tmp_path / 'run' / 'checkpoint'}" in output
    assert f"copy them to {folder(own)}" in output
    assert main(["info", str(own)]) == 0
    assert "nothing (para-policy distill)" in capsys.readouterr().out
    shutil.copytree(tmp_path / "run" / "checkpoint", folder(own))
    assert main(["info", str(own)]) == 0
    assert f"ddpm {STEPS} steps chord" in capsys.readouterr().out
    policy, observation = load_policy(own), random_observations(1)
    one = {name: value[0] for name, value in observation.items()}
    found, expected = (
        policy.sample(one, sampler=name, steps=STEPS) for name in ("pcm", "sequential")
    )
    assert np.abs(found.sample - expected.sample).max() < 0.02


def test_the_command_resumes(
    command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert command() == 0
    weights = exported(tmp_path / "run")
    assert command() == 2
    assert "--resume" in capsys.readouterr().err
    assert command("--resume", seed=7) == 2
    assert "another configuration" in capsys.readouterr().err
    assert command("--resume") == 0
    assert exported(tmp_path / "run") == weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": -1}, "rank: "),
        ({"stride": 0}, "stride: "),
        ({"steps": 0}, "steps: "),
        ({"learning-rate": -1.0}, "learning_rate: "),
        ({"batch-size": 13}, "12 trajectories do not fill one batch of 13"),
        ({"data": "absent.zarr"}, "'absent.zarr' holds no trajectories"),
        ({"checkpoint": "absent"}, "no checkpoint at 'absent'"),
        ({"device": "nonsense"}, "device 'nonsense' cannot be used"),
        ({"threads": 0}, "threads"),
    ],
)
def test_bad_options_end_with_one_line_and_code_2(
    command: Run,
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
    assert not (tmp_path / "run").exists()


def test_another_checkpoint_than_that_of_the_trajectories_ends_with_code_2(
    command: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(checkpoint=save_tiny_checkpoint(tmp_path / "other", 20, seed=5)) == 2
    assert "made with other weights" in capsys.readouterr().err
