"""Rounds are recorded when a fleet is prepared, not while robots move, and nothing waits for callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from para_policy import Noise, Process, load_policy, samplers
from para_policy.diffusion.denoiser import Denoiser
from para_policy.planning.fleet import Fleet
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.solver import Cancelled
from para_policy.planning.statistics import recording_facts
from para_policy.samplers import Callback, SampleResult, as_sampler
from tests.checkpoint import random_observations, save_tiny_checkpoint
from tests.inference.rounds import Device
from tests.planning.fake_policy import DT, T0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), 20)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device.everywhere(monkeypatch)


NAMES = ("left", "right", "lift")


def fleet(directory: Path, sampler: str, names: tuple[str, ...] = NAMES, **options: Any) -> Fleet:
    policy = load_policy(directory)
    made = policy.sampler(sampler)
    settings = PlannerSettings(
        sampler=made, scheduler=None, steps=None, dt_ns=DT, max_age_ns=5 * DT, **options
    )
    return Fleet(policy, settings, 5, names)


def drive(robots: Fleet, due: dict[int, tuple[str, ...]]) -> list[Any]:
    """Let robots observe at every step, and become due together with others as told."""
    observations, plans = random_observations(1, seed=3), []
    for step, names in sorted(due.items()):
        for name in names:
            for k, stamp in enumerate((T0 + (step - 1) * DT, T0 + step * DT)):
                for key, values in observations.items():
                    robots.planners[name].observe(key, stamp, values[0, k])
        plans += robots.plan(T0 + step * DT).values()
    return plans


DUE = {
    1: ("left",),
    8: ("left", "right"),
    15: ("right", "lift"),
    22: ("right", "lift"),
    29: NAMES,
    36: NAMES,
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"warm_start": True},
        {"warm_start": True, "real_time_chunking": "hard"},
        {"warm_start": True, "real_time_chunking": "soft", "deadline_s": 60.0, "anytime": True},
        {"lockstep": True},
    ],
    ids=["cold", "warm", "hard", "soft with a deadline", "lockstep"],
)
@pytest.mark.parametrize("sampler", ["x0", "paradigms"])
def test_nothing_is_recorded_after_the_fleet_was_prepared(
    directory: Path, device: Device, sampler: str, options: dict[str, Any]
) -> None:
    robots = fleet(directory, sampler, **options)
    robots.warm_up()
    before, replayed = device.recorded, device.replayed
    plans = drive(robots, DUE)
    assert {plan.batch for plan in plans} >= {1, 2}
    assert not any(isinstance(plan, Exception) for plan in plans)
    if options.get("warm_start"):
        assert any(plan.executed is not None for plan in plans)
    assert device.recorded == before > 0
    assert device.replayed > replayed
    facts = recording_facts(robots.settings.sampler)
    assert facts["chunks_not_recorded"] == 0
    assert facts["recordings_memory_mib"] == pytest.approx(device.memory_bytes() / 2**20)


def test_what_does_not_fit_into_the_memory_is_solved_as_usual(
    directory: Path, device: Device
) -> None:
    device.room = 1
    robots = fleet(directory, "x0", warm_start=True, real_time_chunking="hard")
    robots.warm_up()
    before = device.recorded
    plans = drive(robots, DUE)
    assert not any(isinstance(plan, Exception) for plan in plans)
    assert device.recorded == before
    facts = recording_facts(robots.settings.sampler)
    assert facts["recordings"] == 1
    assert facts["chunks_not_recorded"] > 0


def test_another_sampler_is_prepared_when_it_is_set(directory: Path, device: Device) -> None:
    robots = fleet(directory, "x0", warm_start=True)
    robots.warm_up()
    policy = load_policy(directory)
    robots = Fleet(policy, robots.settings, 5, NAMES)
    robots.change(replace(robots.settings, sampler=policy.sampler("paradigms")))
    before = device.recorded
    drive(robots, DUE)
    assert device.recorded == before > 0


@pytest.mark.parametrize("sampler", ["sequential", "x0"])
def test_no_callback_keeps_a_fleet_from_recorded_blocks(
    directory: Path, device: Device, sampler: str
) -> None:
    robots = fleet(directory, sampler, ("",))
    robots.warm_up()
    device.events.clear()
    (plan,) = drive(robots, {1: ("",)})
    launches = device.events.count("launch")
    if sampler == "sequential":
        assert launches == 1  # all steps
    else:
        # A block of two rounds; the stop test of a launch is read after the next one.
        assert device.events[:3] == ["launch", "launch", "wait"]
        assert plan.stats.rounds <= launches + 1 <= plan.stats.rounds + 1


def test_a_cancelled_fleet_launches_no_further_round(directory: Path, device: Device) -> None:
    robots = fleet(directory, "x0", ("",))
    robots.warm_up()
    device.events.clear()
    watch = device.watch

    def cancelling(number: Tensor) -> Callable[[], int]:
        robots.cancel()
        return watch(number)

    device.watch = cancelling  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        drive(robots, {1: ("",)})
    assert device.events == ["launch"]


def test_callables_that_know_no_poll_are_polled_after_every_round() -> None:
    asked: list[int] = []

    def mine(
        denoiser: Denoiser, process: Process, noise: Noise, *, callback: Callback | None = None
    ) -> SampleResult:
        return samplers.get("x0")(denoiser, process, noise, callback=callback)

    def poll() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise Cancelled("enough")

    process = Process.from_flow(np.linspace(1, 0, 9))
    noise = Noise.from_seeds([0], (4, 2), 8)
    denoiser = Denoiser(lambda x, t: (3 * x).sin())
    seen: list[int] = []
    with pytest.raises(Cancelled):
        as_sampler(mine)(
            denoiser, process, noise, poll=poll, callback=lambda info: seen.append(info.round)
        )
    assert (seen, denoiser.rounds) == ([1], 2)
