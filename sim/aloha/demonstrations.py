"""Demonstrations of AlohaTransferCube: `python -m sim.aloha.demonstrations --help`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tyro

from para_policy.errors import InputError
from para_policy.files import check_output_folder
from para_policy.lock import sole_writer
from para_policy.stopping import keeping
from para_policy.terminal import progress_bars, run
from sim.aloha.env import ACTION_NAMES, CONTROL_DT, FULL_REWARD, Aloha
from sim.aloha.task import ALOHA
from sim.tasks.demonstrations import (
    Demonstration,
    check_packages,
    check_settings,
    load_episodes,
    make_anew,
    save_episodes,
    write_replay_buffer,
)
from sim.tasks.task import Array

LONGEST = 400
"""Actions of a demonstration that takes the cube twice."""
HOLD = 20
"""Actions in which the cube must be held at the end."""
JOLT_STEPS = 20
CUBE_NAMES = ("x", "y", "z", "qw", "qx", "qy", "qz")
TASK_IN_WORDS = "Pick up the cube with the right arm and hand it to the left arm."


@dataclass(frozen=True)
class Jolts:
    """What disturbs a demonstration, so that it shows how to recover.

    The arms are told something else than what is recorded: a bump in all joints that rises and falls
    within JOLT_STEPS actions. What is recorded leads back, and takes a cube again that was missed.
    """

    jolts: int = 3
    """Bumps in each episode; 0: none."""
    jolt_rad: float = 0.05
    """Standard deviation of their height, radians."""

    def draw(self, seed: int) -> Array:
        """Offsets (LONGEST, 14) of the actions of an episode; grippers are left alone."""
        random = np.random.default_rng([seed, 1])
        offsets = np.zeros((LONGEST, len(ACTION_NAMES)))
        bump = np.sin(np.pi * np.arange(1, JOLT_STEPS) / JOLT_STEPS)
        for _ in range(self.jolts):
            begin = random.integers(0, ALOHA.max_steps - 100)
            heights = random.normal(0.0, self.jolt_rad, len(ACTION_NAMES))
            offsets[begin : begin + len(bump)] += bump[:, None] * heights
        offsets[:, [6, 13]] = 0.0
        return offsets


@dataclass(frozen=True, kw_only=True)
class Arguments(Jolts):
    """Play the scripted expert, and write what it did where it held the cube in the end.

    In the output: demonstrations.zarr, a replay buffer as training reads it; lerobot, the same as a
    LeRobotDataset; and episodes, from which both are made. A run that was stopped goes on with the
    same command, and one with more --episodes adds to them.
    """

    output: Path
    """Folder to write."""
    episodes: int = 200
    """Demonstrations."""
    seed: int = 0
    """Of the first episode; evaluations begin at 100000, so none is shared."""

    def __call__(self) -> None:
        if not 1 <= self.episodes <= 10_000:
            raise InputError(f"--episodes {self.episodes} must be from 1 to 10000")
        if not 0 <= self.jolts <= LONGEST or not 0 <= self.jolt_rad <= 1:
            raise InputError(
                f"--jolts is {self.jolts}, --jolt-rad {self.jolt_rad}; expected 0 to {LONGEST}, and 0 to 1"
            )
        for seed in (self.seed, self.seed + 2 * self.episodes):
            ALOHA.start_state(seed)
        check_packages()
        import_module("para_policy.training.lerobot.write")  # or all episodes are played in vain
        check_output_folder(self.output / "episodes")
        with sole_writer(self.output / "settings.json"):
            self._write()

    def _write(self) -> None:
        settings = {**asdict(Jolts(self.jolts, self.jolt_rad)), "seed": self.seed}
        settings |= {package: version(package) for package in ALOHA.packages}
        check_settings(self.output, settings, ("demonstrations.zarr", "lerobot"))
        folder = self.output / "episodes"
        keeps = keeping(lambda: f"episodes are kept in '{folder}'; the same command goes on")
        kept: list[Demonstration] = []
        with keeps, progress_bars() as progress:
            bar = progress.add_task("episodes", total=self.episodes, completed=0)
            scene: Aloha | None = None  # where all episodes are there already it is not needed
            for seed in itertools.count(self.seed):
                path = folder / f"{seed:010d}.npz"
                shown = load_episodes(path)
                if shown is None:
                    scene = Aloha() if scene is None else scene
                    shown = demonstrate(scene, seed, self.draw(seed))
                    if shown is None:
                        continue
                    save_episodes(path, shown)
                kept.append(shown)
                progress.advance(bar)
                if len(kept) == self.episodes:
                    break
        make_anew(self.output / "demonstrations.zarr", partial(write_replay_buffer, shown=kept))
        make_anew(self.output / "lerobot", partial(write_lerobot, shown=kept))
        steps = sum(len(one["action"]) for one in kept)
        print(f"{len(kept)} demonstrations, {steps} steps, in {self.output}")


def demonstrate(scene: Aloha, seed: int, offsets: Array) -> Demonstration | None:
    """One episode of the expert, or None where the cube is not held in the end.

    Args:
        offsets: (LONGEST, 14), added to what the arms are told, and not to what is recorded.
    """
    from sim.aloha.expert import Expert

    observation = scene.begin(seed)
    expert = Expert(scene)
    seen, rewards, left = [], [], HOLD
    for offset in offsets:
        action = expert.action(scene)
        seen.append({**observation, "action": action})
        result = scene.step(action + offset)
        observation = result.observation
        rewards.append(result.score)
        left -= expert.done
        if left == 0:
            break
    if left or min(rewards[-HOLD:]) < FULL_REWARD:
        return None
    arrays = {name: np.array([one[name] for one in seen], np.float32) for name in seen[0]}
    return {**arrays, "reward": np.array(rewards, np.float32)[:, None]}


def write_lerobot(path: Path, shown: Sequence[Demonstration]) -> None:
    """A LeRobotDataset with the names that its policies use."""
    from para_policy.training.lerobot.write import write_dataset

    names = {
        "agent_pos": ("observation.state", ACTION_NAMES),
        "environment_state": ("observation.environment_state", CUBE_NAMES),
        "action": ("action", ACTION_NAMES),
        "reward": ("next.reward", ("reward",)),
    }
    episodes = [{names[key][0]: values for key, values in one.items()} for one in shown]
    write_dataset(path, episodes, dict(names.values()), round(1 / CONTROL_DT), TASK_IN_WORDS)


def main(argv: Sequence[str] | None = None) -> int:
    return run(tyro.cli(Arguments, args=argv))


if __name__ == "__main__":
    sys.exit(main())
