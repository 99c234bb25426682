"""Check of the checkpoint, its inputs, and its speed here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from para_policy.checkpoints.load import load_policy, read_checkpoint, resolve
from para_policy.checkpoints.observations import read_observations
from para_policy.errors import ParaPolicyError
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.worker import check_cpus
from para_policy.ros.doctor.case import Case
from para_policy.ros.doctor.report import Finding, fail, ok, skipped, warn
from para_policy.ros.messages.input_files import PolicyInputs, load_inputs
from para_policy.ros.parameters.policy import cpu_numbers
from para_policy.ros.serving.loading import LoadedPolicy, load
from para_policy.ros.serving.planner_settings import make_settings, unmixed
from para_policy.ros.serving.topics import chunk_format

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy

_SOLVES = 7
_LONGEST_S = 10.0
_NO_CHECKPOINT = "give --checkpoint DIR, or a --params-file that names one"


def check_inputs(case: Case) -> Iterator[Finding]:
    """The inputs file against the checkpoint. Fills in `case.config` and `case.inputs`."""
    if not case.values["checkpoint"]:
        yield skipped("inputs file", "no checkpoint to compare it with", _NO_CHECKPOINT)
        return
    try:
        case.config = read_checkpoint(resolve(case.values["checkpoint"])).config
    except ParaPolicyError:
        yield skipped("inputs file", "the checkpoint cannot be read, see below")
        return
    if not case.values["inputs_file"]:
        advice = "`para-policy init-ros CHECKPOINT` writes one; give it as --inputs-file"
        yield skipped("inputs file", "none given", advice)
        return
    try:
        case.inputs = load_inputs(case.values["inputs_file"], case.config.inputs)
    except ParaPolicyError as error:
        advice = "correct it; `para-policy init-ros CHECKPOINT` writes one to begin with"
        yield fail("inputs file", str(error), advice)
        return
    for name, mapping in case.inputs.items():
        yield ok(name, f"shape {case.inputs.shapes[name]} from {mapping.topic}, {mapping.type}")


def check(case: Case) -> Iterator[Finding]:
    """The policy as the node would load it, and a few solves."""
    values = case.values
    if not values["checkpoint"]:
        yield skipped("checkpoint", "none given", _NO_CHECKPOINT)
        return
    with _threads(values["torch_threads"]):  # engines are prepared for so many
        loaded = _load(case)
    policy = loaded.policy
    yield ok("checkpoint", f"{values['checkpoint']} loads on {policy.device}")
    yield ok("network", f"engine {policy.runtime.in_use.label}")
    yield from _refused(lambda: chunk_format(values, policy.config))
    yield from _refused(lambda: check_cpus(cpu_numbers(values)))
    settings = make_settings(loaded, values)
    for warning in unmixed(settings, policy.config):
        yield warn("coordinates", warning, "see Coordinates in docs/ros2.md")
    yield _calibration(policy, values)
    with _threads(values["torch_threads"]):
        latency_s = measure(policy, settings, case)
    yield from judge(latency_s, settings, policy)


def _load(case: Case) -> LoadedPolicy:
    """As the node does, or without topics where these are not known and reported as such."""
    if case.inputs is not None:
        return load(case.values)
    values = case.values
    policy = load_policy(
        values["checkpoint"],
        device=values["device"],
        engine=values["engine"],
        precision=values["precision"],
    )
    policy.warm_up()
    return LoadedPolicy(policy, "", PolicyInputs())


def _refused(step: Callable[[], object]) -> Iterator[Finding]:
    """A step of policy_node's configuration that fails; the others are tried all the same."""
    try:
        step()
    except ParaPolicyError as error:
        yield fail("parameters", str(error), "policy_node refuses to configure with this value")


def _calibration(policy: DiffusionPolicy, values: Mapping[str, Any]) -> Finding:
    """A sampler that needs a calibration has been made by now, or refused."""
    kind, steps = policy.chain(values["scheduler"] or None, values["steps"] or None).key
    process, name = f"{kind} with {steps} steps", values["sampler"]
    if (kind, steps) in policy.calibrations:
        return ok("sampler", f"{name}; the checkpoint is calibrated for {process}")
    return ok("sampler", f"{name}, without error bounds: no calibration for {process}")


def measure(policy: DiffusionPolicy, settings: PlannerSettings, case: Case) -> list[float]:
    """Seconds of some solves from a cold start, after one that pays for initialisation."""
    observations = _observations(policy, case)
    seconds: list[float] = []
    for index in range(_SOLVES + 1):
        started = time.perf_counter()
        policy.sample(
            observations[index % len(observations)],
            sampler=settings.sampler,
            seed=index,
            scheduler=settings.scheduler,
            steps=settings.steps,
        )
        seconds.append(time.perf_counter() - started)
        if len(seconds) > 1 and sum(seconds) > _LONGEST_S:
            break
    return seconds[1:]


def judge(
    seconds: list[float], settings: PlannerSettings, policy: DiffusionPolicy
) -> Iterator[Finding]:
    """Latency against the time that a chunk lasts, and against the deadline."""
    dt_s = settings.dt_ns / 1e9
    steps = settings.replan_steps or settings.n_action_steps or policy.config.n_action_steps
    middle, worst, lasts = statistics.median(seconds), max(seconds), steps * dt_s
    found = (
        f"{_ms(middle)}, at most {_ms(worst)}, of {len(seconds)} cold starts; "
        f"a chunk lasts {_ms(lasts)} ({steps} actions at {1 / dt_s:g} Hz)"
    )
    faster = "use a faster sampler (chord, fewer steps), a GPU, more torch_threads, or more actions"
    if middle > lasts:
        yield fail("latency", f"{found}: the robot waits between chunks", faster)
    elif middle > lasts / 2:
        yield warn("latency", f"{found}: over half of it", faster)
    else:
        yield ok("latency", found)
    if not settings.deadline_s:
        return
    against = f"{_ms(middle)} against deadline_ms {1e3 * settings.deadline_s:g}"
    if middle <= settings.deadline_s:
        yield ok("deadline", against)
    elif settings.anytime:
        advice = "raise deadline_ms or tolerance; warm starts may need less"
        yield warn("deadline", f"{against}: cold starts are cut short", advice)
    else:
        advice = f"raise deadline_ms, or use chord or x0; {settings.sampler_name} cannot stop early"
        yield fail("deadline", f"{against}: every chunk is late", advice)


def _observations(policy: DiffusionPolicy, case: Case) -> list[dict[str, np.ndarray]]:
    """Recorded ones where they lie beside the checkpoint: zeros may solve faster or slower."""
    config = policy.config
    try:
        recorded = read_observations(resolve(case.values["checkpoint"]), config)
    except ParaPolicyError:
        kinds = {name: np.uint8 if name in config.cameras else np.float64 for name in config.inputs}
        shapes = {name: (config.n_obs_steps, *shape) for name, shape in config.inputs.items()}
        return [{name: np.zeros(shapes[name], kinds[name]) for name in shapes}]
    count = min(_SOLVES, len(next(iter(recorded.values()))))
    return [{name: rows[index] for name, rows in recorded.items()} for index in range(count)]


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """The number of threads that the node would use."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.01 else f"{1e3 * seconds:.1f} ms"
