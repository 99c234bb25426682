"""A calibration comes back as it was, and one that belongs elsewhere is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from para_policy import DiffusionPolicy, load_policy
from para_policy.calibration import AfterRound, Calibration, LinearGuess, Variant
from para_policy.checkpoints.calibration import (
    read_calibrations,
    read_latencies,
    read_sizes,
    save_calibration,
    save_latency,
    save_sizes,
)
from para_policy.checkpoints.describe import describe
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.errors import CheckpointError, InputError
from para_policy.inference import EngineConfig, Size
from para_policy.samplers import Nodes
from para_policy.samplers.deadline import LatencyTable
from tests.checkpoint import THREE_LEVELS, random_observations, save_tiny_checkpoint, tiny_config
from tests.checkpoints.damage import edit

STEPS, SAMPLE, CONDITION = 8, 32, 36


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path / "policy", train_timesteps=20)


def calibration(scheduler: str = "ddim", scale: float = 0.1) -> Calibration:
    generator = torch.Generator().manual_seed(0)
    return Calibration(
        scheduler=scheduler,
        steps=STEPS,
        tolerance=1e-2,
        cases=17,
        matrices=scale * torch.randn(STEPS, SAMPLE, SAMPLE, generator=generator),
        guess=LinearGuess(
            scale * torch.randn(CONDITION, SAMPLE, generator=generator),
            scale * torch.randn(SAMPLE, generator=generator),
        ),
        variants=(
            Variant("sequential", {}, 8, 8, 0.0, 0.0, 0.0),
            Variant("paradigms", {}, 6, 30, math.nan, math.nan, math.nan),
            Variant(
                "chord",
                {"tolerance": 1e-2, "window": None},
                *(3.25, 20.5, 1.5, 1e-4, 2e-3),
                course=(AfterRound(8.0, 0.5), AfterRound(6.5, 0.125)),
            ),
        ),
    )


def save(directory: Path, made: Calibration) -> Path:
    schedule = tiny_config(20).noise_scheduler
    return save_calibration(directory, made, checkpoint_hash(directory), schedule)


def test_a_calibration_comes_back_as_it_was_saved(checkpoint: Path) -> None:
    made = calibration()
    path = save(checkpoint, made)
    assert path == checkpoint / "calibration" / "ddim_8.safetensors"
    read = load_policy(checkpoint).calibrations["ddim", 8]
    assert torch.equal(read.matrices, made.matrices)
    assert torch.equal(read.guess.weight, made.guess.weight)
    assert torch.equal(read.guess.bias, made.guess.bias)
    assert (read.scheduler, read.steps, read.tolerance, read.cases) == ("ddim", 8, 1e-2, 17)
    assert read.variants[0] == made.variants[0]
    assert read.variants[2] == made.variants[2]
    assert math.isnan(read.variants[1].amplification)


def test_a_calibration_is_of_one_task(checkpoint: Path) -> None:
    schedule, sha256 = tiny_config(20).noise_scheduler, checkpoint_hash(checkpoint)
    made = calibration()
    shapes = (*made.guess.weight.shape,)

    def read(task: str | None) -> bool:
        return bool(read_calibrations(checkpoint, lambda _: True, schedule, *shapes, task=task))

    save_calibration(checkpoint, made, sha256, schedule, "push")
    assert read("push")
    assert read(None), "not known here, as to `accelerate`"
    with pytest.raises(CheckpointError, match=r"measured for the task 'push'; .* is told 'pull'"):
        read("pull")
    save(checkpoint, made)
    assert read("pull"), "files of earlier releases say no task"


def some_nodes() -> Nodes:
    error = torch.linspace(1, 0, STEPS)
    return Nodes(torch.arange(STEPS).flip(0), error, torch.rand(STEPS), torch.rand(STEPS))


def test_nodes_come_back_and_files_of_earlier_releases_have_none(checkpoint: Path) -> None:
    save(checkpoint, calibration())
    old = load_policy(checkpoint)
    assert old.calibrations["ddim", 8].nodes is None
    with pytest.raises(InputError, match=r"needs nodes.*ddim with 8 steps.*calibrate again"):
        old.sampler("collocation", scheduler="ddim", steps=8)
    made = dataclasses.replace(calibration(), nodes=some_nodes())
    save(checkpoint, made)
    read = load_policy(checkpoint).calibrations["ddim", 8].nodes
    assert read is not None
    assert made.nodes is not None
    for part in ("order", "error", "sensitivity", "defect"):
        assert torch.equal(getattr(read, part), getattr(made.nodes, part))
    unchecked = dataclasses.replace(some_nodes(), defect=None)
    save(checkpoint, dataclasses.replace(calibration(), nodes=unchecked))
    read = load_policy(checkpoint).calibrations["ddim", 8].nodes
    assert read is not None
    assert read.defect is None, "as in files of an earlier release"
    with pytest.warns(
        UserWarning, match="ddim with 8 steps is of an earlier release: 'collocation'"
    ):
        load_policy(checkpoint).sampler("collocation", scheduler="ddim", steps=8)


def test_nodes_of_other_steps_are_refused(checkpoint: Path) -> None:
    few = Nodes(torch.arange(3), torch.zeros(3), torch.zeros(3))
    save(checkpoint, dataclasses.replace(calibration(), nodes=few))
    with pytest.raises(CheckpointError, match=r"nodes.order is \(3,\); this policy needs \(8,\)"):
        load_policy(checkpoint)


@pytest.mark.parametrize("part", ["order", "error", "sensitivity"])
def test_damaged_nodes_are_refused(checkpoint: Path, part: str) -> None:
    path = save(checkpoint, dataclasses.replace(calibration(), nodes=some_nodes()))
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    for change in (None, torch.full((STEPS,), -1.0)):
        tensors = load_file(path)
        tensors.pop(f"nodes.{part}", None)
        if change is not None:
            tensors[f"nodes.{part}"] = change
        if part == "order" and change is None:
            continue  # a file without nodes
        save_file(tensors, path, facts)
        with pytest.raises(CheckpointError, match="calibrate again"):
            load_policy(checkpoint)


def test_there_may_be_one_for_each_scheduler_and_step_count(checkpoint: Path) -> None:
    assert load_policy(checkpoint).calibrations == {}
    for scheduler in ("ddim", "ddpm", "dpmsolver++"):
        save(checkpoint, calibration(scheduler))
    policy = load_policy(checkpoint)
    assert set(policy.calibrations) == {(kind, 8) for kind in ("ddim", "ddpm", "dpmsolver++")}
    assert load_policy(checkpoint, calibrated=False).calibrations == {}


@pytest.mark.parametrize("name", ["ddim_8 (copy).safetensors", "ddim_8_old.safetensors"])
def test_a_copy_beside_the_file_is_not_taken_for_it(checkpoint: Path, name: str) -> None:
    """The last one by its name was used, without a word."""
    path = save(checkpoint, dataclasses.replace(calibration(), cases=5))
    path.rename(path.with_name(name))
    save(checkpoint, calibration())
    with pytest.raises(CheckpointError, match=r"looked for in 'ddim_8\.safetensors': rename"):
        load_policy(checkpoint)
    path.with_name(name).unlink()
    assert load_policy(checkpoint).calibrations["ddim", 8].cases == calibration().cases


def test_saving_again_replaces_the_file_and_leaves_nothing_else(checkpoint: Path) -> None:
    save(checkpoint, calibration(scale=0.1))
    path = save(checkpoint, dataclasses.replace(calibration(), cases=18))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert load_policy(checkpoint).calibrations["ddim", 8].cases == 18


def test_double_precision_and_views_are_saved_too(checkpoint: Path) -> None:
    made = calibration()
    guess = LinearGuess(made.guess.weight.double(), made.guess.bias.double())
    save(checkpoint, dataclasses.replace(made, matrices=made.matrices.double().mT, guess=guess))
    read = load_policy(checkpoint).calibrations["ddim", 8]
    assert torch.equal(read.matrices, made.matrices.mT)
    assert read.guess.weight.dtype == torch.float32


def test_the_factors_of_a_large_jacobian_come_back_too(checkpoint: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    left = 0.1 * torch.randn(STEPS, SAMPLE, 5, generator=generator)
    right = 0.1 * torch.randn(STEPS, 5, SAMPLE, generator=generator)
    save(checkpoint, dataclasses.replace(calibration(), matrices=(left, right)))
    policy = load_policy(checkpoint)
    read = policy.calibrations["ddim", 8].matrices
    assert isinstance(read, tuple)
    assert torch.equal(read[0], left)
    assert torch.equal(read[1], right)
    obs, options = random_observations(2), {"scheduler": "ddim", "steps": STEPS, "seed": [0, 1]}
    result = policy.sample(obs, sampler="chord", **options)
    np.testing.assert_allclose(result.sample, policy.sample(obs, **options).sample, atol=0.05)


def fact(**changes: Any) -> Callable[[Path], None]:
    return edit(facts=lambda facts: facts.update(changes))


def without(name: str) -> Callable[[Path], None]:
    return edit(facts=lambda facts: facts.pop(name))


def tensor(name: str, value: Tensor) -> Callable[[Path], None]:
    return edit(tensors=lambda tensors: tensors.update({name: value}))


def factors(**shapes: tuple[int, ...]) -> Callable[[Path], None]:
    def replace(tensors: dict[str, Tensor]) -> None:
        del tensors["matrices"]
        tensors.update({name: torch.zeros(shape) for name, shape in shapes.items()})

    return edit(tensors=replace)


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "other weights": (fact(weights_sha256="0" * 64), "other weights.*000.*calibrate again"),
    "other schedule": (
        edit(facts=lambda facts: facts["noise_scheduler"].update(beta_schedule="linear")),
        "other noise_scheduler.*linear",
    ),
    "other clipping": (
        edit(facts=lambda facts: facts["noise_scheduler"].update(clip_sample=False)),
        "other noise_scheduler",
    ),
    "newer format": (fact(format_version=2), "format_version 2.*reads 1"),
    "other step count": (fact(steps=9), r"matrices is \(8, 32, 32\).*\(9, 32, 32\)"),
    "small matrices": (tensor("matrices", torch.zeros(8, 16, 16)), "matrices is"),
    "flat matrices": (tensor("matrices", torch.zeros(8, 1024)), "matrices is"),
    "other inputs": (tensor("guess.weight", torch.zeros(35, 32)), r"guess.weight is \(35, 32\)"),
    "other bias": (tensor("guess.bias", torch.zeros(31)), "guess.bias is"),
    "no matrices": (edit(tensors=lambda t: t.pop("matrices")), "no calibration.*KeyError"),
    "no guess": (edit(tensors=lambda t: t.pop("guess.bias")), "no calibration.*guess.bias"),
    "one factor": (factors(left=(8, 32, 4)), "no calibration.*right"),
    "other ranks": (factors(left=(8, 32, 4), right=(8, 5, 32)), "right is"),
    "other step count of a factor": (factors(left=(9, 32, 4), right=(8, 4, 32)), "left is"),
    "a factor that is one number": (factors(left=(), right=(8, 4, 32)), "left"),
    "NaN": (edit(tensors=lambda t: t["matrices"][3, 1].fill_(math.nan)), "NaN.*matrices"),
    "infinite guess": (edit(tensors=lambda t: t["guess.bias"].fill_(math.inf)), "NaN.*guess.bias"),
    "truncated": (rewrite(lambda content: content[:-50]), "truncated"),
    "half a header": (rewrite(lambda content: content[:100]), "truncated"),
    "empty": (rewrite(lambda content: b""), "truncated"),
    "no metadata": (edit(metadata=lambda facts: None), "no calibration.*calibrate again"),
    "other metadata": (edit(metadata=lambda facts: {"format": "pt"}), "no calibration"),
    "no JSON": (edit(metadata=lambda facts: {"calibration": "{"}), "no calibration"),
    "a list": (edit(metadata=lambda facts: {"calibration": "[1, 2]"}), "no calibration"),
    "no steps": (without("steps"), "no calibration.*steps"),
    "no variants": (without("variants"), "no calibration.*variants"),
    "no weights": (without("weights_sha256"), "weights"),
    "no schedule": (without("noise_scheduler"), "noise_scheduler"),
    "steps are text": (fact(steps="many"), "calibrat"),
    "tolerance is text": (fact(tolerance="small"), "calibrat"),
    "broken variants": (fact(variants=[{"sampler": "x0", "rounds": "few"}]), "rounds"),
    "unnamed variant": (fact(variants=[{"rounds": 3}]), "sampler"),
    "no reference": (fact(variants=[]), "variants|sequential"),
    "no rounds": (fact(variants=[{"sampler": "sequential"}]), "rounds|variants"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_calibration_that_cannot_be_trusted_is_refused(
    checkpoint: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = save(checkpoint, calibration())
    load_policy(checkpoint)
    damage(path)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        load_policy(checkpoint)
    assert str(path) in str(caught.value)
    load_policy(checkpoint, calibrated=False)


def test_new_weights_make_an_old_calibration_useless(checkpoint: Path) -> None:
    save(checkpoint, calibration())
    save_tiny_checkpoint(checkpoint, train_timesteps=20, seed=1)
    with pytest.raises(CheckpointError, match=r"other weights.*calibrate again, or delete"):
        load_policy(checkpoint)


@pytest.mark.parametrize(
    ("name", "scheduler", "steps", "message"),
    [
        ("chord", "ddim", 7, r"ddim with 7 steps.*there: ddim 8.*--scheduler ddim --steps 7"),
        ("chord", "ddpm", 8, r"ddpm with 8 steps.*there: ddim 8.*--scheduler ddpm --steps 8"),
        ("chord", None, None, r"ddpm with 20 steps.*--scheduler ddpm --steps 20"),
        ("auto", "ddpm", 8, r"'auto' needs a calibration.*para-policy calibrate"),
    ],
)
def test_what_was_not_calibrated_names_the_command(
    checkpoint: Path, name: str, scheduler: str | None, steps: int | None, message: str
) -> None:
    save(checkpoint, calibration())
    with pytest.raises(InputError, match=message):
        load_policy(checkpoint).sampler(name, scheduler=scheduler, steps=steps)


def test_without_any_calibration_the_message_says_so(checkpoint: Path) -> None:
    obs = {name: values[0] for name, values in random_observations(1).items()}
    with pytest.raises(InputError, match=r"'chord' needs.*there: none"):
        load_policy(checkpoint).sample(obs, sampler="chord")


@pytest.mark.parametrize("scale", [0.0, 0.3, 1e3, 1e30])
@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "dpmsolver++"])
def test_a_useless_calibration_costs_rounds_and_no_accuracy(
    checkpoint: Path, scheduler: str, scale: float
) -> None:
    save(checkpoint, calibration(scheduler, scale))
    policy = load_policy(checkpoint)
    obs, options = random_observations(4), {"scheduler": scheduler, "steps": STEPS}
    expected = policy.sample(obs, seed=range(4), **options)
    sampler = policy.sampler("chord", tolerance=1e-4, **options)
    result = policy.sample(obs, sampler=sampler, seed=range(4), **options)
    assert result.stats.converged.all()
    assert result.stats.rounds.max() <= STEPS
    np.testing.assert_allclose(result.sample, expected.sample, atol=1e-3)


LATENCY = LatencyTable((1, 8, 20), (0.5, 0.6, 0.7))


def test_latencies_are_kept_by_device(checkpoint: Path) -> None:
    assert read_latencies(checkpoint) == {}
    path = save_latency(checkpoint, "cpu (Z80), 1 thread(s)", LATENCY)
    assert path == checkpoint / "calibration" / "latency.json"
    save_latency(checkpoint, "cuda (Voodoo 2)", LatencyTable((1,), (0.01,)))
    better = LatencyTable((1, 8), (0.1, 0.2))
    save_latency(checkpoint, "cpu (Z80), 1 thread(s)", better)
    expected = {
        "cpu (Z80), 1 thread(s)": better,
        "cuda (Voodoo 2)": LatencyTable((1,), (0.01,)),
    }
    assert load_policy(checkpoint).runtime.latencies == expected
    assert [file.name for file in path.parent.iterdir()] == ["latency.json"]
    assert load_policy(checkpoint, calibrated=False).runtime.latencies == {}


def test_a_device_without_a_table_is_measured(checkpoint: Path) -> None:
    save_latency(checkpoint, "cuda (Voodoo 2)", LATENCY)
    policy: DiffusionPolicy = load_policy(checkpoint)
    table = policy.runtime.latency(20)
    assert table != LATENCY
    assert table.rows[0] == 1
    assert table.rows[-1] >= 20
    assert policy.runtime.latency(20) is table


SIZES = (Size(1, 1), Size(24, 2))


def test_sizes_are_kept_by_device_and_engine_and_used_there(checkpoint: Path) -> None:
    pytest.importorskip("openvino")
    assert read_sizes(checkpoint) == {}
    here = load_policy(checkpoint, engine="openvino").runtime.expected_key
    path = save_sizes(checkpoint, here, SIZES)
    assert path == checkpoint / "calibration" / "engine.json"
    save_sizes(checkpoint, "cuda (Voodoo 2), cuda-graph", (Size(3),))
    assert read_sizes(checkpoint) == {here: SIZES, "cuda (Voodoo 2), cuda-graph": (Size(3),)}
    for engine in ("openvino", "auto"):
        assert load_policy(checkpoint, engine=engine).runtime.engine.config.sizes == SIZES
    given = EngineConfig("openvino", sizes=(Size(5),))
    assert load_policy(checkpoint, engine=given).runtime.engine.config == given
    for policy in (
        load_policy(checkpoint),
        load_policy(checkpoint, engine="openvino", calibrated=False),
        load_policy(checkpoint, engine="onnxruntime"),
    ):
        assert policy.runtime.engine.config.sizes == EngineConfig().sizes


def test_what_was_measured_of_another_network_is_not_used(tmp_path: Path) -> None:
    """Fine-tuned weights take as long as the ones before; a network of another size does not."""
    pytest.importorskip("openvino")
    one = load_policy(save_tiny_checkpoint(tmp_path / "one"), engine="openvino").runtime
    for name, network, known in (
        ("fine-tuned", {"seed": 1}, True),
        ("larger", {"down_dims": THREE_LEVELS}, False),
    ):
        directory = save_tiny_checkpoint(tmp_path / name, **network)
        save_sizes(directory, one.expected_key, SIZES)
        save_latency(directory, one.expected_key, LatencyTable((1, 2, 24), (0.1, 0.2, 0.2)))
        found = load_policy(directory, engine="openvino").runtime
        assert (found.engine.config.sizes == SIZES) is known
        assert (found.expected_key in found.latencies) is known
        told = describe(directory, engine="openvino")["latency"]
        assert ("this device, engine and network" in told) is known


def test_broken_sizes_are_named(checkpoint: Path) -> None:
    path = save_sizes(checkpoint, "cpu", SIZES)
    path.write_text('{"cpu": [{"rows": 0}]}')
    with pytest.raises(CheckpointError, match=r"engine.json.*batch size is 0.*calibrate again"):
        load_policy(checkpoint)


BROKEN = {
    "no JSON": b"{",
    "binary": b"\xff\xfe\x00",
    "a list": b"[1]",
    "no table": b'{"cpu": 3}',
    "no seconds": b'{"cpu": {"rows": [1, 2]}}',
    "unequal": b'{"cpu": {"rows": [1, 2], "seconds": [0.1]}}',
    "decreasing": b'{"cpu": {"rows": [2, 1], "seconds": [0.1, 0.2]}}',
    "negative": b'{"cpu": {"rows": [1], "seconds": [-0.1]}}',
    "NaN": b'{"cpu": {"rows": [1], "seconds": [NaN]}}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_latency_file_is_named(checkpoint: Path, content: bytes) -> None:
    path = save_latency(checkpoint, "cpu", LATENCY)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="calibrate again") as caught:
        load_policy(checkpoint)
    assert str(path) in str(caught.value)


def test_a_broken_latency_file_is_replaced_when_it_is_measured_again(checkpoint: Path) -> None:
    """Reading says: calibrate again. So that must help."""
    path = save_latency(checkpoint, "cpu", LATENCY)
    path.write_bytes(b"{")
    save_latency(checkpoint, "cpu", LATENCY)
    assert read_latencies(checkpoint) == {"cpu": LATENCY}


def test_a_file_that_is_overwritten_in_place_leaves_what_was_read(checkpoint: Path) -> None:
    """As `cp` does beside a robot that runs; the numbers of a mapped file would be others from there on."""
    path = save(checkpoint, dataclasses.replace(calibration(), nodes=some_nodes()))
    policy = load_policy(checkpoint)
    read = policy.calibrations["ddim", 8]
    before = [read.matrices.clone(), read.guess.weight.clone()]  # type: ignore[union-attr]
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * (path.stat().st_size // 2))
    assert read.nodes is not None
    assert read.nodes.order.tolist() == some_nodes().order.tolist()
    assert torch.equal(read.matrices, before[0])  # type: ignore[arg-type]
    assert torch.equal(read.guess.weight, before[1])
