"""One process of a policy: what it holds, and that nothing of it is used for another one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import DiffusionPolicy, Process, load_policy, samplers
from para_policy.errors import InputError
from para_policy.samplers import RoundInfo, SampleResult, as_sampler
from tests.checkpoint import (
    calibrate_tiny_checkpoint,
    random_observations,
    save_tiny_checkpoint,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROCESSES = [
    (scheduler, steps) for scheduler in ("ddpm", "ddim", "dpmsolver++") for steps in (8, 10)
]


def one() -> dict[str, np.ndarray]:
    return {name: values[0] for name, values in random_observations(1).items()}


@pytest.mark.parametrize("name", ["x0", "paradigms", "sequential"])
@pytest.mark.parametrize("used_with", PROCESSES)
@pytest.mark.parametrize("made_for", PROCESSES)
def test_a_sampler_runs_on_the_process_that_it_was_made_for_and_on_no_other(
    policy: DiffusionPolicy,
    name: str,
    made_for: tuple[str, int],
    used_with: tuple[str, int],
) -> None:
    """Some of these processes are calibrated and some are not."""
    sampler = policy.sampler(name, scheduler=made_for[0], steps=made_for[1])
    chain = policy.chain(*used_with)
    if made_for == used_with:
        assert chain.sample(one(), sampler=sampler).stats.converged
        return
    both = f"'{name}' was made for {made_for[0]} with {made_for[1]} steps, and this is "
    with pytest.raises(InputError, match=r"policy\.sampler\(\.\.\., scheduler=, steps=\)") as error:
        policy.sample(one(), sampler=sampler, scheduler=used_with[0], steps=used_with[1])
    assert f"{both}{used_with[0]} with {used_with[1]} steps" in str(error.value)


def test_a_certificate_of_one_process_is_never_given_for_another(policy: DiffusionPolicy) -> None:
    """The default process is not the one that the sampler was made for."""
    sampler = policy.sampler("x0", scheduler="ddim", steps=8)
    assert sampler.certificate is not None
    with pytest.raises(InputError, match=r"made for ddim with 8 steps, and this is ddpm with 20"):
        policy.sample(one(), sampler=sampler)


@pytest.mark.parametrize("name", ["x0", "collocation"])
def test_a_certificate_of_one_network_is_never_given_for_another(
    tmp_path: Path, policy: DiffusionPolicy, name: str
) -> None:
    """Nor are the nodes on which `collocation` relies; those of the same weights, read again, may be used."""
    process = {"scheduler": "ddim", "steps": 8}
    made = policy.sampler(name, **process)
    other = load_policy(save_tiny_checkpoint(tmp_path, 20, seed=1))
    for there in ("none", "its own"):
        with pytest.raises(InputError, match=f"'{name}' was calibrated with other weights"):
            other.sample(one(), sampler=made, **process)
        exact = policy.sampler("sequential", **process)
        assert other.sample(one(), sampler=exact, **process).stats.error_bound.max() == 0, there
        calibrate_tiny_checkpoint(tmp_path, "ddim", 8)
        other = load_policy(tmp_path)
    mine = other.sampler(name, **process)
    again = load_policy(tmp_path).sample(one(), sampler=mine, **process)
    assert (
        again.stats.error_bound == other.sample(one(), sampler=mine, **process).stats.error_bound
    ).all()


def test_a_sampler_made_by_hand_fits_every_process(policy: DiffusionPolicy) -> None:
    sampler = samplers.get("x0")
    for scheduler, steps in PROCESSES:
        stats = policy.sample(one(), sampler=sampler, scheduler=scheduler, steps=steps).stats
        assert stats.converged
        assert np.isnan(stats.error_bound).all()


def test_processes_of_another_noise_level_are_other_processes() -> None:
    config = {"_class_name": "DDIMScheduler", "num_train_timesteps": 20}
    made = {eta: Process.from_scheduler(config, 8, eta=eta) for eta in (0.0, 0.5)}
    assert not made[0.0].agrees_with(made[0.5].fingerprint)
    for clip in ({"clip_sample": False}, {"clip_sample_range": 2.0}):
        assert not made[0.0].agrees_with(Process.from_scheduler({**config, **clip}, 8).fingerprint)
    assert made[0.0].agrees_with(Process.from_scheduler(config, 8).fingerprint)
    moved = made[0.0].to("cpu", torch.float32)
    assert moved.agrees_with(made[0.0].fingerprint)
    assert str(made[0.0]) == "ddim with 8 steps"


@pytest.mark.parametrize("column", ["timesteps", "A", "B", "R", "c", "signal", "x0_from_x"])
@pytest.mark.parametrize("s", [0, 3, 7])
def test_no_change_of_a_step_leaves_the_fingerprint_as_it_was(column: str, s: int) -> None:
    config = {"_class_name": "DDIMScheduler", "num_train_timesteps": 20}
    process = Process.from_scheduler(config, 8, eta=0.5)
    values = getattr(process, column).clone()
    values[s] += 1 if column == "timesteps" else 0.01
    other = dataclasses.replace(process, **{column: values}, fingerprint=())
    assert not process.agrees_with(other.fingerprint)


@pytest.mark.parametrize("column", ["timesteps", "A", "B", "R", "c", "signal", "x0_from_x"])
def test_steps_in_another_order_have_another_fingerprint(column: str) -> None:
    config = {"_class_name": "DDIMScheduler", "num_train_timesteps": 20}
    process = Process.from_scheduler(config, 8, eta=0.5)
    values = getattr(process, column).clone()
    values[[2, 5]] = values[[5, 2]]
    other = dataclasses.replace(process, **{column: values}, fingerprint=())
    assert not process.agrees_with(other.fingerprint)


def test_rounding_does_not_change_the_fingerprint() -> None:
    """Two machines may compute a table with other last digits."""
    process = Process.from_scheduler({"_class_name": "DDPMScheduler", "num_train_timesteps": 50})
    rounded = {name: getattr(process, name).float().double() for name in ("A", "B", "c", "signal")}
    assert process.agrees_with(dataclasses.replace(process, **rounded, fingerprint=()).fingerprint)


def test_a_calibration_of_another_step_table_is_refused(policy: DiffusionPolicy) -> None:
    measured = policy.calibrations["ddim", 8]
    assert measured.fingerprint == policy.process("ddim", 8).fingerprint
    policy.calibrations["ddim", 8] = dataclasses.replace(
        measured, fingerprint=policy.process("dpmsolver++", 8).fingerprint
    )
    with pytest.raises(InputError, match="on other steps than this process takes"):
        policy.sample(one(), sampler="x0", scheduler="ddim", steps=8)
    # Calibrations of earlier releases do not say what they were measured on.
    policy.calibrations["ddim", 8] = dataclasses.replace(measured, fingerprint=())
    assert policy.sample(one(), sampler="x0", scheduler="ddim", steps=8).stats.converged


def test_a_policy_is_a_short_way_to_its_chains(policy: DiffusionPolicy) -> None:
    chain = policy.chain("ddim", 8)
    assert policy.chain("ddim", 8) is chain
    assert (chain.key, chain.process) == (("ddim", 8), policy.process("ddim", 8))
    assert chain.calibration is policy.calibrations["ddim", 8]
    for sampler in ("sequential", "chord"):
        direct = chain.sample(one(), sampler=sampler, seed=3)
        short = policy.sample(one(), sampler=sampler, seed=3, scheduler="ddim", steps=8)
        assert np.array_equal(direct.actions, short.actions)
    made = chain.sampler("chord", tolerance=1e-3)
    short_made = policy.sampler("chord", scheduler="ddim", steps=8, tolerance=1e-3)
    assert made.made_for is short_made.made_for is chain.process
    assert (made.options(), made.certificate) == (short_made.options(), short_made.certificate)


def test_whatever_is_called_like_a_sampler_is_one(policy: DiffusionPolicy) -> None:
    """Neither a base class nor an attribute is needed."""
    reference = samplers.get("sequential")

    def mine(*problem: Any, **given: Any) -> SampleResult:
        return reference(*problem, **given)

    found = policy.sample(one(), sampler=mine)  # type: ignore[arg-type]
    assert np.array_equal(found.actions, policy.sample(one()).actions)
    assert as_sampler(mine).name == "mine"
    assert as_sampler(reference) is reference
    with pytest.raises(InputError, match="sampler is 3; expected a sampler, or its name"):
        policy.sample(one(), sampler=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sequential", "paradigms", "parataa", "x0", "chord", "asd"])
def test_rounds_are_counted_one_by_one(policy: DiffusionPolicy, name: str) -> None:
    seen: list[RoundInfo] = []
    result = policy.sample(one(), sampler=name, callback=seen.append)
    assert [info.round for info in seen] == list(range(1, int(result.stats.rounds) + 1))


def test_the_former_names_are_still_understood(policy: DiffusionPolicy) -> None:
    with pytest.warns(DeprecationWarning, match=r"Prior\(\) or FromCleanSample"):
        former: Any = samplers.CleanSample  # type: ignore[attr-defined]
    assert former() == samplers.Prior()
    with pytest.warns(DeprecationWarning, match="is now ResidualBelow"):
        assert samplers.DefectBelow is samplers.ResidualBelow  # type: ignore[attr-defined]
    seen: list[RoundInfo] = []
    policy.sample(one(), sampler="x0", callback=seen.append)
    with pytest.warns(DeprecationWarning, match="accepted"):
        assert torch.equal(seen[0].frozen, seen[0].accepted)
