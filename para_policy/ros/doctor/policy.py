"""Check of the checkpoint, its inputs, and its speed here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from para_policy.checkpoints.load import load_policy, read_checkpoint, resolve
from para_policy.checkpoints.observations import read_observations
from para_policy.errors import ParaPolicyError
from para_policy.planning.chunks import ChunkRequest
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.solver import Solver
from para_policy.planning.worker import check_cpus
from para_policy.ros.doctor.case import Case
from para_policy.ros.doctor.report import Finding, fail, ok, skipped, warn
from para_policy.ros.messages.input_files import PolicyInputs, load_inputs
from para_policy.ros.parameters.policy import cpu_numbers, robot_names
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
    yield from judge(latency_s, settings, policy, on_arrival=values["stamp_mode"] == "zero")


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
    """Seconds of some solves from a cold start, after one that pays for initialisation.

    Each for all `robots` at once: no robot has to wait longer.
    """
    observations = _observations(policy, case)
    whole = replace(settings, deadline_s=0.0)
    solver, robots = Solver(policy), len(robot_names(case.values))
    seconds: list[float] = []
    for index in range(_SOLVES + 1):
        started = time.perf_counter()
        requests = [
            ChunkRequest(
                settings=whole,
                observation=observations[number % len(observations)],
                stamp_ns=0,
                index=index,
                seed=number,
                started_s=started,
                previous=None,
            )
            for number in range(index * robots, (index + 1) * robots)
        ]
        solver.solve(requests)
        seconds.append(time.perf_counter() - started)
        if len(seconds) > 1 and sum(seconds) > _LONGEST_S:
            break
    return seconds[1:]


def judge(
    seconds: list[float],
    settings: PlannerSettings,
    policy: DiffusionPolicy,
    on_arrival: bool = False,
) -> Iterator[Finding]:
    """Latency against the time that the actions of a chunk last, and against the deadline.

    While the next chunk is planned the one before is played, of which a part was past when it came, by
    just that latency: a chunk must last twice as long, or the robot waits.

    Args:
        on_arrival: chunks begin when they come (`stamp_mode` zero): once is enough.
    """
    dt_s = settings.dt_ns / 1e9
    actions = settings.n_action_steps or policy.config.n_action_steps
    middle, worst = (
        _ready_s(taken, settings) for taken in (statistics.median(seconds), max(seconds))
    )
    lasts = actions * dt_s + settings.offset_ns / 1e9
    found = (
        f"{_ms(middle)}, at most {_ms(worst)}, of {len(seconds)} cold starts; "
        f"a chunk lasts {_ms(lasts)} ({actions} actions at {1 / dt_s:g} Hz)"
    )
    faster = "use a faster sampler (chord, fewer steps), a GPU, more torch_threads, or more actions"
    if settings.lockstep:
        yield ok("latency", f"{found}; lockstep waits for it")
        return
    if middle > lasts:
        why = "the robot waits between chunks" if on_arrival else "all of it is past when it comes"
        yield fail("latency", f"{found}: {why}", faster)
    elif middle > lasts / 2 and not on_arrival:
        waits = f"{found}: over half of it, so that the robot waits between chunks"
        if settings.warm_start:
            yield warn("latency", f"{waits} unless warm starts are faster", faster)
        else:
            yield fail("latency", waits, faster)
    else:
        yield ok("latency", found)
    wanted = settings.replan_steps * dt_s
    if wanted and middle > wanted:
        rarer = f"a chunk is wanted every {_ms(wanted)}, and takes {_ms(middle)}: they come that much later"
        yield warn("replan_steps", rarer, f"{faster}; or accept that the robot reacts later")
    if not settings.deadline_s:
        return
    needs = statistics.median(seconds) + settings.added_latency_s
    against = f"{_ms(needs)} against deadline_ms {1e3 * settings.deadline_s:g}"
    if needs <= settings.deadline_s:
        yield ok("deadline", against)
    elif settings.anytime:
        advice = "raise deadline_ms or tolerance; warm starts may need less"
        yield warn("deadline", f"{against}: cold starts are cut short", advice)
    else:
        advice = f"raise deadline_ms, or use chord or x0; {settings.sampler_name} cannot stop early"
        yield fail("deadline", f"{against}: every chunk is late", advice)


def _ready_s(taken_s: float, settings: PlannerSettings) -> float:
    """Seconds until a chunk is out whose solve would take `taken_s` to its end."""
    if settings.deadline_s and settings.anytime:
        taken_s = min(taken_s, settings.deadline_s)
    return taken_s + settings.added_latency_s


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
