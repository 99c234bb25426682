"""PCM weights come back as they were, and files that are damaged or belong elsewhere are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from para_policy import load_policy
from para_policy.checkpoints.consistency import folder, read_consistencies, save_consistency
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.cli.main import main
from para_policy.errors import CheckpointError, InputError
from para_policy.policies.consistency import Change, PicardConsistencyModel
from tests.checkpoint import save_tiny_checkpoint, tiny_config
from tests.checkpoints.damage import Damage, edit

SCHEDULE = tiny_config(20).noise_scheduler
FACTORS, WHOLE = "final_conv.0.block.0.weight", "final_conv.1.bias"
AGAIN = "distill again, or delete"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path / "policy", train_timesteps=20)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(**changed: Any) -> PicardConsistencyModel:
    """Factors of one weight, the whole change of another."""
    changes = {FACTORS: (random(8, 2), random(2, 24)), WHOLE: random(2)}
    made = PicardConsistencyModel("ddim", 8, "identity", rounds=2, stride=3, changes=changes)
    return dataclasses.replace(made, **changed)


def save(
    checkpoint: Path, made: PicardConsistencyModel, directory: str | Path | None = None
) -> Path:
    directory = folder(checkpoint) if directory is None else directory
    return save_consistency(directory, made, checkpoint_hash(checkpoint), SCHEDULE)


def parts(change: Change) -> tuple[Tensor, ...]:
    return change if isinstance(change, tuple) else (change,)


def assert_stored(read: PicardConsistencyModel, made: PicardConsistencyModel) -> None:
    """`read` is `made`, its changes rounded to half precision."""
    for name in ("scheduler", "steps", "splitting", "rounds", "stride"):
        assert getattr(read, name) == getattr(made, name)
    assert set(read.changes) == set(made.changes)
    for name, change in made.changes.items():
        found, expected = parts(read.changes[name]), parts(change)
        assert len(found) == len(expected)
        for value, exact in zip(found, expected, strict=True):
            assert value.dtype == torch.float16
            assert torch.equal(value, exact.half())


def test_pcm_weights_come_back_as_they_were_saved(checkpoint: Path) -> None:
    made = model()
    path = save(checkpoint, made)
    assert path == checkpoint.with_name("policy_pcm") / "ddim_8_identity.safetensors"
    read = load_policy(checkpoint).consistency_models
    assert set(read) == {("ddim", 8, "identity")}
    (found,) = read.values()
    assert_stored(found, made)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Change]:
    sizes, seeds = st.integers(1, 5), st.integers(0, 100)
    values = st.sampled_from((torch.float16, torch.float32, torch.float64))

    def tensor(*shape: int) -> Tensor:
        return random(*shape, seed=draw(seeds)).to(draw(values))

    drawn: dict[str, Change] = {}
    for number in range(draw(st.integers(1, 4))):
        rows, columns, rank = draw(sizes), draw(sizes), draw(sizes)
        if draw(st.booleans()):
            # Transposed: what is not contiguous is stored too.
            drawn[f"net.{number}.weight"] = (tensor(rank, rows).T, tensor(rank, columns))
        else:
            drawn[f"net.{number}.bias"] = tensor(*draw(st.sampled_from(((), (rows, columns)))))
    return drawn


def shapes(changes: dict[str, Change]) -> dict[str, tuple[int, ...]]:
    """Of weights that the changes fit."""
    return {
        name: (len(change[0]), change[1].shape[1]) if isinstance(change, tuple) else change.shape
        for name, change in changes.items()
    }


@given(changes(), st.integers(1, 9), st.integers(1, 9), st.sampled_from(("x0", "chord")))
def test_any_changes_come_back(
    changes: dict[str, Change], rounds: int, stride: int, splitting: str
) -> None:
    made = model(changes=changes, rounds=rounds, stride=stride, splitting=splitting)
    with TemporaryDirectory() as directory:
        save_consistency(directory, made, "0", SCHEDULE)
        read = read_consistencies(directory, "0", SCHEDULE, shapes(changes))
    assert_stored(read["ddim", 8, splitting], made)


@given(st.floats(-60000, 60000))
def test_half_precision_moves_a_change_by_a_thousandth_at_most(value: float) -> None:
    made = model(changes={WHOLE: torch.tensor([value])})
    with TemporaryDirectory() as directory:
        save_consistency(directory, made, "0", SCHEDULE)
        found = read_consistencies(directory, "0", SCHEDULE, shapes(dict(made.changes)))
    change = found["ddim", 8, "identity"].changes[WHOLE]
    assert isinstance(change, Tensor)
    assert float(change) == pytest.approx(value, rel=1e-3, abs=1e-7)


def test_there_may_be_one_for_each_scheduler_step_count_and_splitting(checkpoint: Path) -> None:
    keys = [("ddim", 8, "identity"), ("ddim", 8, "x0"), ("ddim", 16, "x0"), ("ddpm", 8, "x0")]
    for stride, (kind, steps, splitting) in enumerate(keys, start=1):
        save(checkpoint, model(scheduler=kind, steps=steps, splitting=splitting, stride=stride))
    read = load_policy(checkpoint).consistency_models
    assert {key: found.stride for key, found in read.items()} == dict(
        zip(keys, (1, 2, 3, 4), strict=True)
    )


def test_saving_again_replaces_the_file_and_leaves_nothing_else(checkpoint: Path) -> None:
    save(checkpoint, model(stride=3))
    path = save(checkpoint, model(stride=5))
    assert list(path.parent.iterdir()) == [path]
    assert load_policy(checkpoint).consistency_models["ddim", 8, "identity"].stride == 5


def test_what_is_no_safetensors_file_is_passed_over(checkpoint: Path) -> None:
    path = save(checkpoint, model())
    for name in ("curves.png", "README.md", f"{path.name}.tmp"):
        (path.parent / name).write_text("half a file")
    assert set(load_policy(checkpoint).consistency_models) == {("ddim", 8, "identity")}


@pytest.mark.parametrize("create", [False, True], ids=["no folder", "empty folder"])
def test_a_policy_without_pcm_weights_has_none(checkpoint: Path, create: bool) -> None:
    if create:
        folder(checkpoint).mkdir()
    assert load_policy(checkpoint).consistency_models == {}


def test_the_default_folder_is_beside_the_checkpoint_however_it_is_spelt(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoint, model())
    monkeypatch.chdir(checkpoint)
    for spelt in (".", "../policy", "../policy/", str(checkpoint)):
        assert folder(spelt) == checkpoint.with_name("policy_pcm"), spelt
        assert load_policy(spelt).consistency_models, spelt


def test_an_explicit_folder_is_read_instead_of_the_default(
    checkpoint: Path, tmp_path: Path
) -> None:
    save(checkpoint, model(stride=3))
    save(checkpoint, model(splitting="x0"), tmp_path / "other")
    read = load_policy(checkpoint, consistency=str(tmp_path / "other")).consistency_models
    assert set(read) == {("ddim", 8, "x0")}


@pytest.mark.parametrize("create", [False, True], ids=["nothing there", "a file"])
def test_an_explicit_folder_must_be_there(checkpoint: Path, tmp_path: Path, create: bool) -> None:
    if create:
        (tmp_path / "other").write_text("")
    with pytest.raises(CheckpointError, match=r"no PCM weights at '.*other': expected a directory"):
        load_policy(checkpoint, consistency=tmp_path / "other")


def test_the_training_output_is_read_in_place(checkpoint: Path, tmp_path: Path) -> None:
    path = save(checkpoint, model(), tmp_path / "run" / "deep" / "checkpoint")
    assert load_policy(checkpoint, consistency=path.parent).consistency_models


def fact(**changed: Any) -> Damage:
    return edit(facts=lambda facts: facts.update(changed))


def schedule(**changed: Any) -> Damage:
    return edit(facts=lambda facts: facts["noise_scheduler"].update(changed))


def tensor(name: str, value: Tensor) -> Damage:
    return edit(tensors=lambda tensors: tensors.update({name: value}))


def without(name: str) -> Damage:
    return edit(tensors=lambda tensors: tensors.pop(name))


def rewrite(change: Callable[[bytes], bytes]) -> Damage:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


def says(text: str) -> Damage:
    return edit(metadata=lambda facts: {"pcm": text})


DAMAGES: dict[str, tuple[Damage, str]] = {
    "other weights": (fact(weights_sha256="0" * 64), f"other weights.*000.*{AGAIN}"),
    "other betas": (schedule(beta_schedule="linear"), f"other noise_scheduler.*linear.*{AGAIN}"),
    "other clipping": (schedule(clip_sample=False), f"other noise_scheduler.*{AGAIN}"),
    "other training steps": (schedule(num_train_timesteps=21), "other noise_scheduler.*21"),
    "one more schedule key": (schedule(thresholding=True), "other noise_scheduler"),
    "no schedule keys": (fact(noise_scheduler={}), "other noise_scheduler"),
    "newer format": (
        fact(format_version=3),
        f"format_version 3, this release reads 1 and 2; .*{AGAIN}",
    ),
    "newer format with other keys": (
        edit(facts=lambda facts: (facts.clear(), facts.update(format_version=7, rank=16))),
        "format_version 7, this release reads 1 and 2",
    ),
    "unknown key": (fact(colour="red"), f"colour: .*{AGAIN}"),
    "informed is a number": (fact(informed=3), f"informed: .*{AGAIN}"),
    "informed, and lacks the weights": (
        fact(informed=True),
        f"informed=True.*further.*missing; .*{AGAIN}",
    ),
    "steps are text": (fact(steps="many"), f"steps: .*{AGAIN}"),
    "steps are a fraction": (fact(steps=8.5), f"steps: .*{AGAIN}"),
    "rounds are text": (fact(rounds="few"), f"rounds: .*{AGAIN}"),
    "rounds are null": (fact(rounds=None), f"rounds: .*{AGAIN}"),
    "a schedule is text": (fact(noise_scheduler="ddpm"), f"noise_scheduler: .*{AGAIN}"),
    "no rounds": (fact(rounds=0), f"rounds: .*greater than or equal to 1, got 0; .*{AGAIN}"),
    "negative rounds": (fact(rounds=-1), "rounds: "),
    "no stride": (fact(stride=0), f"stride: .*greater than or equal to 1, got 0; .*{AGAIN}"),
    "negative stride": (fact(stride=-2), "stride: "),
    "truncated": (rewrite(lambda content: content[:-1]), "truncated"),
    "half a header": (rewrite(lambda content: content[:100]), "truncated"),
    "empty": (rewrite(lambda content: b""), "truncated"),
    "longer": (rewrite(lambda content: content + b"\0"), "truncated or no safetensors file"),
    "a pickle": (rewrite(lambda content: b"\x80\x04]\x94." * 50), "no safetensors file"),
    "NaN": (tensor(WHOLE, torch.tensor([0.0, math.nan])), f"NaN.*{WHOLE}"),
    "infinite factor": (tensor(f"{FACTORS}.up", torch.full((8, 2), math.inf)), "infinite.*up"),
    "foreign": (edit(metadata=lambda facts: None), f"no PCM weights.*{AGAIN}"),
    "other metadata": (edit(metadata=lambda facts: {"format": "pt"}), f"no PCM weights.*{AGAIN}"),
    "no JSON": (says("{"), f"no PCM weights.*{AGAIN}"),
    "a list": (says("[1, 2]"), f"no PCM weights.*{AGAIN}"),
    "a number": (says("1"), f"no PCM weights.*{AGAIN}"),
    "no facts": (says("{}"), "no PCM weights.*format_version"),
    "ranks that differ": (
        tensor(f"{FACTORS}.up", torch.zeros(8, 3)),
        rf"factors of '{FACTORS}' are \(8, 3\) and \(2, 24\).*{AGAIN}",
    ),
    "a flat factor": (tensor(f"{FACTORS}.up", torch.zeros(16)), r"are \(16,\) and \(2, 24\)"),
    "a factor of three axes": (
        tensor(f"{FACTORS}.down", torch.zeros(2, 8, 3)),
        r"are \(8, 2\) and \(2, 8, 3\)",
    ),
    "no second factor": (without(f"{FACTORS}.down"), rf"factors of '{FACTORS}'.*{AGAIN}"),
} | {
    f"without {key}": (edit(facts=lambda facts, key=key: facts.pop(key)), f"{key}.*{AGAIN}")
    for key in (
        "format_version",
        "weights_sha256",
        "noise_scheduler",
        "scheduler",
        "steps",
        "splitting",
        "rounds",
        "stride",
    )
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_pcm_weights_that_cannot_be_trusted_are_refused(
    checkpoint: Path, damage: Damage, message: str
) -> None:
    save(checkpoint, model(scheduler="ddpm"))
    path = save(checkpoint, model())
    damage(path)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        load_policy(checkpoint)
    assert str(path) in str(caught.value)
    assert load_policy(checkpoint, calibrated=False).consistency_models == {}


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    return save_consistency(directory, model(), "0", SCHEDULE)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_anywhere_is_refused(whole_file: Path, share: float) -> None:
    content = whole_file.read_bytes()
    with TemporaryDirectory() as directory:
        (Path(directory) / whole_file.name).write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match="truncated"):
            read_consistencies(directory, "0", SCHEDULE, {})


def test_new_weights_make_old_pcm_weights_useless(checkpoint: Path) -> None:
    save(checkpoint, model())
    save_tiny_checkpoint(checkpoint, train_timesteps=20, seed=1)
    with pytest.raises(CheckpointError, match=f"other weights.*{AGAIN}"):
        load_policy(checkpoint)


@pytest.mark.parametrize(
    "changes",
    [{"nothing.weight": random(2)}, {WHOLE: random(3)}, {FACTORS: (random(8, 2), random(2, 23))}],
    ids=["unknown name", "wide", "wide factors"],
)
def test_weights_of_another_network_are_refused(
    checkpoint: Path, changes: dict[str, Change]
) -> None:
    save(checkpoint, model(changes=changes))
    with pytest.raises(CheckpointError, match=f"PCM changes .*the network .*{AGAIN}"):
        load_policy(checkpoint)


def test_info_says_what_pcm_weights_there_are(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line() -> str:
        assert main(["info", str(checkpoint)]) == 0
        (found,) = [
            text for text in capsys.readouterr().out.splitlines() if text.startswith("PCM weights")
        ]
        return found.removeprefix("PCM weights for").strip()

    assert line() == "nothing (para-policy distill)"
    save(checkpoint, model())
    path = save(checkpoint, model(scheduler="ddpm", steps=20, splitting="chord"))
    assert line() == "ddim 8 steps identity, ddpm 20 steps chord"
    fact(rounds=0)(path)
    assert main(["info", str(checkpoint)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert AGAIN in error


def test_a_lone_second_factor_is_refused(checkpoint: Path) -> None:
    without(f"{FACTORS}.up")(save(checkpoint, model()))
    with pytest.raises(CheckpointError, match=FACTORS):
        load_policy(checkpoint)


def test_two_files_for_one_solve_are_refused(checkpoint: Path) -> None:
    path = save(checkpoint, model())
    shutil.copy(path, path.with_name("old.safetensors"))
    with pytest.raises(CheckpointError, match=r"old\.safetensors"):
        load_policy(checkpoint)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e5])
def test_changes_that_half_precision_cannot_hold_are_not_written(
    checkpoint: Path, value: float
) -> None:
    with pytest.raises((CheckpointError, InputError), match=WHOLE):
        save(checkpoint, model(changes={WHOLE: torch.full((2,), value)}))


def test_non_finite_weights_are_refused_with_a_fix(checkpoint: Path) -> None:
    tensor(WHOLE, torch.full((2,), math.nan))(save(checkpoint, model()))
    with pytest.raises(CheckpointError, match=AGAIN):
        load_policy(checkpoint)


@pytest.mark.parametrize("damage", [fact(steps=0), fact(splitting="magic"), fact(scheduler="")])
def test_facts_that_name_no_solve_are_refused(checkpoint: Path, damage: Damage) -> None:
    damage(save(checkpoint, model()))
    with pytest.raises(CheckpointError, match=AGAIN):
        load_policy(checkpoint)
