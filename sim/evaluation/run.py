"""A paired evaluation from its options to its files; see `sim.evaluate`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from para_policy.errors import InputError, ParaPolicyError
from para_policy.files import check_distinct, check_output_file, check_output_folder, write_text
from para_policy.lock import sole_writer
from para_policy.policies.policy import DiffusionPolicy
from para_policy.stopping import Stopped
from para_policy.terminal import answers
from para_policy.versions import versions
from sim import plots
from sim.evaluation.batches import Sampling, Task, make_tasks, paired_runs, play
from sim.evaluation.cluster import check_cluster, play_on_cluster
from sim.evaluation.partial import PartialResults, partial_path
from sim.evaluation.processes import play_in_processes
from sim.evaluation.progress import EvaluationProgress, print_results
from sim.evaluation.provenance import circumstances, sampling_identity
from sim.evaluation.statistics import check_margin
from sim.evaluation.summary import Runs, summarize
from sim.evaluation.variants import Variant, variants_of
from sim.report import write_html
from sim.tasks.choice import task_named
from sim.tasks.episode import Episode
from sim.tasks.rollout import Control, Progress
from sim.tasks.task import SimulatedTask
from sim.video import encoder, write_videos

if TYPE_CHECKING:
    from sim.evaluate import Evaluate

WARM_UP_CHUNKS = 3
LIMITS = {
    "episodes": (1, 100_000),
    "batch": (1, 10_000),
    "jobs": (1, 1_000),
    "latency_chunks": (0, 100_000),
    "video_episodes": (1, 100_000),
}
"""Least and most of each count: more than anybody plays, less than fills the memory."""


def sampler_names(args: Evaluate) -> list[str]:
    """The samplers that are compared, each by its full name."""
    return [variant.name for variant in variants_of(args.samplers)]


def sampling_of(args: Evaluate) -> Sampling:
    """How every batch of episodes samples."""
    return Sampling(
        args.directory(),
        args.device,
        args.engine,
        args.precision,
        args.scheduler,
        args.steps,
        args.check_errors,
        args.env,
    )


def evaluate(args: Evaluate, console: Console) -> dict[str, Any]:
    """Run the evaluation, print it, write all outputs and return the JSON document.

    Raises:
        Stopped, ParaPolicyError: when what is finished by then is printed and written, marked as
            partial.
        InputError: for wrong options, or if another evaluation writes these results.
    """
    _check(args)
    with sole_writer(args.json):
        return _evaluate(args, console)


def _evaluate(args: Evaluate, console: Console) -> dict[str, Any]:
    names = sampler_names(args)
    sampling = sampling_of(args)
    policy = sampling.load()
    task = sampling.simulated(policy)
    _check_task(args, task)
    if args.video is not None:
        task.check_drawing()
    identity = sampling_identity(policy, sampling)
    tasks = make_tasks(names, args.seed, args.episodes, args.batch)
    identities = _identities(args, policy, identity)
    partial = PartialResults(partial_path(args.json), Episode.reader(task), identities, set(tasks))
    finished = partial.load()
    latencies: dict[str, list[float]] = {name: [] for name in names}

    def document(runs: Runs, *, stopped: bool = False) -> dict[str, Any]:
        return {
            "partial": stopped,
            "episodes": len(runs[names[0]]),
            "seed": args.seed,
            **identity,
            **circumstances(policy, sampling.checkpoint),
            "jobs": None if args.cluster else args.jobs or 1,
            "cluster": args.cluster,
            "batch": args.batch,
            "margin": args.margin,
            "latency_chunks": args.latency_chunks,
            **summarize(runs, latencies, args.margin),
        }

    try:
        _play_all(args, sampling, policy, tasks, finished, partial, console)
        console.print("Measuring the latency of one robot ...")
        for name in latencies:
            latencies[name] = _latencies_ms(policy, args, name, task)
    except (KeyboardInterrupt, ParaPolicyError) as error:
        kept = "no batch was finished by all samplers"
        if runs := paired_runs(tasks, finished):
            part = document(runs, stopped=True)
            print_results(answers(), part)
            _write(args, part)
            kept = f"'{args.json}' is partial"
        if partial.path.exists():
            kept += f", finished batches are kept in '{partial.path}'"
        kept += "; give the same command again to go on"
        if isinstance(error, KeyboardInterrupt):
            raise Stopped(Stopped.of(error).number, kept) from error
        if not finished:
            raise
        raise type(error)(f"{error}; {kept}") from error
    runs = paired_runs(tasks, finished)
    results = document(runs)
    print_results(answers(), results)  # first: the disk may be full by now
    _write(args, results)
    if args.video is not None:
        write_videos(runs, args.video, args.video_episodes)
    partial.remove()
    return results


def _write(args: Evaluate, document: Mapping[str, Any]) -> None:
    write_text(args.json, json.dumps(document, indent=1, allow_nan=False))
    if args.report is not None:
        write_html(document, args.report)


def _identities(
    args: Evaluate, policy: DiffusionPolicy, identity: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """For each sampler, everything that its episodes depend on besides the seed."""
    identities = {}
    for name in sampler_names(args):
        variant = Variant.parse(name)
        sampler = variant.make(policy, args.scheduler, args.steps)
        # A sampler is a frozen dataclass: its repr lists all its options.
        identities[name] = {**identity, "sampler": repr(sampler), "start": variant.start}
        if variant.control != Control():
            identities[name]["control"] = repr(variant.control)
    return identities


def _check(args: Evaluate) -> None:
    """Everything that can be wrong, before the long work begins."""
    for name, (least, most) in LIMITS.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {value} must be from {least} to {most}")
    if args.video is None and args.video_episodes != 1:
        raise InputError(f"--video-episodes {args.video_episodes} is given, but no --video FOLDER")
    if args.cluster is not None:
        check_cluster(args.cluster, args.jobs, args.device)
    check_margin(args.margin)
    if args.env is not None:
        _check_task(args, task_named(args.env))
    variants_of(args.samplers)
    for path in (args.json, args.report):
        if path is not None:
            check_output_file(path)
    check_distinct(args.json, args.report, partial_path(args.json))
    if args.report is not None:
        plots.pyplot()
    if args.video is not None:
        check_output_folder(args.video)
        encoder()


def _check_task(args: Evaluate, task: SimulatedTask) -> None:
    task.require()
    for seed in (args.seed, args.seed + args.episodes - 1):
        task.start_state(seed)


def _play_all(
    args: Evaluate,
    sampling: Sampling,
    policy: DiffusionPolicy,
    tasks: Sequence[Task],
    finished: dict[Task, list[Episode]],
    partial: PartialResults[Episode],
    console: Console,
) -> None:
    """Add the tasks that are missing to `finished` and `partial`, as they are played."""
    if finished:
        console.print(f"Resuming: {len(finished)} of {len(tasks)} batches are already there.")
    if partial.others:
        console.print(
            f"{partial.others} batches in '{partial.path}' are of another checkpoint, sampler, engine, "
            "seeds, batch size or version: they stay there, and these are played anew."
        )
    todo = [task for task in tasks if task not in finished]
    max_steps = sampling.simulated(policy).max_steps
    with (
        EvaluationProgress(console, tasks, finished, max_steps) as progress,
        closing(_played(args, sampling, policy, todo, progress.advance)) as played,
    ):
        for task, episodes in played:
            finished[task] = episodes  # first: what a stop finds in the file, it has told
            partial.add(task, episodes)
            progress.finish(task, episodes)


def _played(
    args: Evaluate,
    sampling: Sampling,
    policy: DiffusionPolicy,
    tasks: Sequence[Task],
    advance: Progress,
) -> Generator[tuple[Task, list[Episode]]]:
    """Play the tasks where the options say; yield each as it finishes."""
    if not tasks:
        return
    if args.cluster is not None:
        # What "auto" chose here, lest each machine choose for itself.
        chosen = replace(sampling, engine=policy.runtime.backend)
        expected = versions(*sampling.simulated(policy).packages)
        yield from play_on_cluster(args.cluster, args.jobs, chosen, expected, tasks, advance)
    elif args.jobs is None or args.jobs == 1:
        for task in tasks:
            yield task, play(policy, sampling, task, advance)
    else:
        yield from play_in_processes(sampling, tasks, args.jobs, advance)


def _latencies_ms(
    policy: DiffusionPolicy, args: Evaluate, sampler: str, task: SimulatedTask
) -> list[float]:
    """Wall time per chunk of one robot in closed loop: observation in, actions out."""
    variant = Variant.parse(sampler)
    calls: list[float] = []
    wanted = args.latency_chunks + WARM_UP_CHUNKS if args.latency_chunks else 0
    seeds = itertools.cycle(range(args.seed, args.seed + args.episodes))
    while len(calls) < wanted:
        limit = (wanted - len(calls)) * policy.config.n_action_steps
        (episode,) = variant.play(
            policy,
            [next(seeds)],
            args.scheduler,
            args.steps,
            task=task,
            max_steps=min(limit, task.max_steps),
        )
        calls += [1e3 * chunk.batch_wall_s for chunk in episode.chunks]
    return calls[WARM_UP_CHUNKS:]
