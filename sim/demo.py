"""Demo of `make demo`: a diffusion policy drives PushT over ROS 2, its chunks sampled in parallel.

Then the same episodes are played in one process, in parallel and in sequence, to show that neither
ROS nor the parallel sampler changes what the robot does. The second half, if its checkpoint is there, is
a policy that sees the board as sensor_msgs/Image.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from para_policy import comparison, load_policy
from para_policy.checkpoints.observations import read_observations
from para_policy.cli.inputs import OfCheckpoint
from para_policy.errors import InputError
from para_policy.files import check_output_folder, write_text
from para_policy.files import replace as replace_file
from para_policy.inference.config import Precision
from para_policy.policies.policy import DiffusionPolicy
from para_policy.terminal import answers, progress_bars, run
from sim.plots import COLORS, STYLE, colors, new_panels, pyplot
from sim.pusht.env import CONTROL_DT, MAX_STEPS, legacy_start_state
from sim.pusht.task import PUSHT
from sim.ros.closed_loop import LoopSettings, play_episodes
from sim.tasks.episode import Episode
from sim.tasks.rollout import rollout
from sim.video import encoder, write_mp4

REFERENCE = comparison.REFERENCE
IMAGE_CHECKPOINT = "checkpoints/pusht_image"
"""Of the second half."""
_BROAD: dict[str, Any] = {"linewidth": 5, "alpha": 0.35}
_THIN: dict[str, Any] = {"linewidth": 1.2}


@dataclass(frozen=True, kw_only=True)
class Arguments(OfCheckpoint):
    """Drive PushT over ROS 2 with parallel sampling and compare with sequential sampling.

    The checkpoint is by default checkpoints/pusht_state, and then checkpoints/pusht_image for one
    episode, if it is there, into the folder image of --output."""

    sampler: str = "chord"
    """The parallel sampler."""
    episodes: int = 3
    """Episodes, each from its own start state."""
    seed: int = 100000
    """Seed of the first episode."""
    observations: int = 12
    """Observations for the comparison chunk by chunk."""
    output: Path = Path("outputs/demo")
    """Receives demo.mp4, demo.png and demo.json."""
    engine: str = "eager"
    """How the network runs, over ROS 2 and in process; auto: the fastest way that works here."""
    precision: Precision = "float32"
    """Of the network's arithmetic."""
    domain_id: int = 77
    """ROS domain of the run; that of ROS_DOMAIN_ID is not taken, as it may be a robot's."""

    default: ClassVar[str | None] = "checkpoints/pusht_state"


@dataclass(frozen=True)
class Played:
    """The same episodes three times."""

    over_ros: list[Episode]
    in_process: list[Episode]
    sequential: list[Episode]

    @property
    def path_difference(self) -> float:
        """Largest difference in pixels or radians between the ROS run and the one in process."""
        pairs = zip(self.over_ros, self.in_process, strict=True)
        return max(
            float(np.abs(a.states - b.states).max()) if a.steps == b.steps else float("inf")
            for a, b in pairs
        )

    @property
    def latency_ms(self) -> dict[str, float]:
        """Medians over the chunks of the ROS run: of the whole, and of what the observation took."""
        chunks = [chunk for episode in self.over_ros for chunk in episode.chunks]
        return {
            "chunk": 1e3 * float(np.median([chunk.batch_wall_s for chunk in chunks])),
            "encoder": 1e3 * float(np.median([chunk.encode_s for chunk in chunks])),
        }


def demos(arguments: Arguments, console: Console) -> None:
    """One demo of the checkpoint that was given; without one, both halves."""
    demo(arguments, console)
    if arguments.given() is None and Path(IMAGE_CHECKPOINT).is_dir():
        output = arguments.output / "image"
        demo(replace(arguments, checkpoint=IMAGE_CHECKPOINT, episodes=1, output=output), console)


def demo(arguments: Arguments, console: Console) -> None:
    """Play, compare, and write everything to `arguments.output`."""
    if arguments.episodes < 1:
        raise InputError(f"--episodes is {arguments.episodes}; expected at least 1")
    for seed in (arguments.seed, arguments.seed + arguments.episodes - 1):
        legacy_start_state(seed)
    benchmark = comparison.Benchmark(
        (REFERENCE, arguments.sampler), None, None, arguments.observations
    )
    check_output_folder(arguments.output)
    PUSHT.require()
    pyplot()
    encoder()
    checkpoint = arguments.directory()
    policy = load_policy(checkpoint, engine=arguments.engine, precision=arguments.precision)
    PUSHT.check_policy(policy.config)
    observations = read_observations(checkpoint, policy.config)
    benchmark.make(policy, observations)
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    console.print(
        f"[bold]{arguments.named()}[/bold] drives PushT: pusht_sim, policy_node and "
        f"chunk_executor are three processes that talk over ROS 2 topics. Chunks are sampled "
        f"with [bold]{arguments.sampler}[/bold], in simulated time."
    )
    played = _play(arguments, checkpoint, policy, seeds, console)
    console.print(f"Comparing {arguments.observations} chunks with the same observation and noise")
    report = comparison.make_report(benchmark, policy, observations)
    console.print(comparison.table(report))
    console.print(_reward_table(arguments.sampler, played))
    median = played.latency_ms
    console.print(
        f"Over ROS 2 a chunk took {median['chunk']:.1f} ms (median), of which the observation, camera "
        f"encoders included, took {median['encoder']:.1f} ms"
    )
    _write(arguments, played, report)
    for name in ("demo.mp4", "demo.png", "demo.json"):
        console.print(f"  {arguments.output / name}")


def _play(
    arguments: Arguments,
    checkpoint: Path,
    policy: DiffusionPolicy,
    seeds: Sequence[int],
    console: Console,
) -> Played:
    with progress_bars(console) as progress:

        def bar(description: str) -> Callable[[int], None]:
            task = progress.add_task(description, total=MAX_STEPS * len(seeds))
            return lambda steps: progress.advance(task, steps)

        total = bar(f"{arguments.sampler}, over ROS 2")
        reached: dict[int, int] = {}

        def on_ros(seed: int, steps: int) -> None:
            total(steps - reached.get(seed, 0))
            reached[seed] = steps

        settings = LoopSettings(
            checkpoint=str(checkpoint),
            sampler=arguments.sampler,
            engine=arguments.engine,
            precision=arguments.precision,
            domain_id=arguments.domain_id,
        )
        over_ros = list(play_episodes(settings, seeds, on_progress=on_ros))
        total(MAX_STEPS * len(seeds) - sum(reached.values()))
        # One at a time, as the node plays them: the shape of a batch changes the last bits.
        advance = bar(f"{arguments.sampler}, in process")
        in_process = [
            rollout(policy, [seed], sampler=arguments.sampler, on_progress=advance)[0]
            for seed in seeds
        ]
        sequential = rollout(policy, seeds, sampler=REFERENCE, on_progress=bar(f"{REFERENCE}"))
    return Played(over_ros, in_process, sequential)


def _reward_table(sampler: str, played: Played) -> Table:
    difference = played.path_difference
    table = Table(
        title=f"Max reward (1 = success). Largest difference of the path over ROS 2 to the same "
        f"run in process: {difference:.1e} px"
    )
    table.add_column("start state")
    for heading in (f"{sampler} over ROS 2", f"{sampler} in process", REFERENCE):
        table.add_column(heading, justify="right")
    for ros, own, exact in zip(played.over_ros, played.in_process, played.sequential, strict=True):
        cells = [f"{e.max_reward:.3f} in {e.steps * CONTROL_DT:.0f} s" for e in (ros, own, exact)]
        table.add_row(str(ros.seed), *cells)
    return table


def _write(arguments: Arguments, played: Played, report: dict[str, Any]) -> None:
    best = max(played.over_ros, key=lambda episode: episode.max_reward)
    write_mp4({f"{arguments.sampler}, over ROS 2": best}, arguments.output / "demo.mp4")
    _plot(arguments, played, arguments.output / "demo.png")
    runs = {
        f"{arguments.sampler}_over_ros": played.over_ros,
        f"{arguments.sampler}_in_process": played.in_process,
        f"{REFERENCE}_in_process": played.sequential,
    }
    document = {
        "comparison": report,
        "largest_path_difference_ros_to_in_process": played.path_difference,
        "median_latency_over_ros_ms": played.latency_ms,
        "max_reward": {
            name: {episode.seed: episode.max_reward for episode in episodes}
            for name, episodes in runs.items()
        },
    }
    write_text(arguments.output / "demo.json", json.dumps(document, indent=2) + "\n")


def _plot(arguments: Arguments, played: Played, path: Path) -> None:
    """Reward over time of every episode, and the rounds of every chunk."""
    plt = pyplot()
    with plt.rc_context(STYLE):
        title = (
            f"PushT over ROS 2, {arguments.sampler}: a colour for each start state; the goal reached is "
            "the end"
        )
        figure, ((left, right),) = new_panels(title, 1, 2, 10, 3.8)
        each = colors(str(episode.seed) for episode in played.over_ros)
        for ros, exact in zip(played.over_ros, played.sequential, strict=True):
            # The reference is broad and pale, so that it shows where both are the same.
            for episode, line in ((exact, _BROAD), (ros, _THIN)):
                seconds = CONTROL_DT * np.arange(1, episode.steps + 1)
                left.plot(seconds, episode.rewards, color=each[str(ros.seed)], **line)
        left.plot([], [], color="gray", label=f"{REFERENCE}, in process", **_BROAD)
        left.plot([], [], color="gray", label=f"{arguments.sampler}, over ROS 2", **_THIN)
        left.set(xlabel="time, s", ylabel="reward", ylim=(0, 1.03))
        left.legend(loc="lower right")
        rounds = [chunk.rounds for episode in played.over_ros for chunk in episode.chunks]
        right.hist(rounds, bins=np.arange(0.5, max(rounds) + 1.5), color=COLORS[0])
        steps = played.sequential[0].chunks[0].rounds
        right.axvline(steps, color="gray", linestyle=":", label=f"{REFERENCE}: {steps}")
        right.yaxis.get_major_locator().set_params(integer=True)
        right.set(xlabel="network calls in a row, per chunk", ylabel="chunks", xlim=(0, steps + 5))
        right.legend()
        replace_file(path, lambda unfinished: figure.savefig(unfinished, format="png", dpi=130))
        plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = tyro.cli(Arguments, args=argv, prog="python -m sim.demo")
    return run(lambda: demos(arguments, answers()))


if __name__ == "__main__":
    sys.exit(main())
