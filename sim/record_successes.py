"""Demonstrations by the policy itself, where it succeeded: `python -m sim.record_successes --help`."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tyro
from numpy.typing import NDArray

from para_policy.cli.common import ChainOptions, EngineOptions, ThreadOptions, training_config
from para_policy.cli.inputs import OfCheckpoint
from para_policy.errors import DataError, InputError
from para_policy.files import check_output_folder
from para_policy.inference.device import set_threads
from para_policy.lock import sole_writer
from para_policy.policies.config import PolicyConfig
from para_policy.stopping import keeping
from para_policy.terminal import progress_bars, run
from para_policy.training.config import LARGEST_SEED, TrainConfig
from para_policy.training.dataset import read_features
from para_policy.training.demonstrations import open_demonstrations
from sim.evaluation.batches import Sampling, Task, play
from sim.evaluation.provenance import sampling_identity
from sim.evaluation.seams import executed_actions
from sim.tasks.demonstrations import (
    Demonstration,
    check_packages,
    check_settings,
    load_episodes,
    make_anew,
    save_episodes,
    write_replay_buffer,
)
from sim.tasks.episode import Episode
from sim.tasks.rollout import SEQUENTIAL
from sim.tasks.task import Scene


@dataclass(frozen=True, kw_only=True)
class Arguments(EngineOptions, ChainOptions, ThreadOptions, OfCheckpoint):
    """Play episodes with `sequential` and write those that succeeded, to train the next policy on.

    In the output: demonstrations.zarr, a replay buffer in which each input has the name that the policy
    gives it; and episodes, from which it is made. A run that was stopped goes on with the same command,
    and one with more --episodes adds to them.
    """

    output: Path
    """Folder to write."""
    episodes: int = 2000
    """Episodes to play, in whole batches."""
    seed: int = 1_000_000
    """Start state and noise of the first episode; evaluations begin at 100000, so none is shared."""
    batch: int = 50
    """Episodes that share each call of the network."""
    config: Path | None = None
    """Training configuration whose demonstrations come first."""
    data: str | None = None
    """Where those are, if not where the configuration says."""

    LIMITS: ClassVar = {"episodes": (1, 100_000), "batch": (1, 10_000)}

    def __call__(self) -> None:
        for name, (least, most) in self.LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"--{name} is {getattr(self, name)}; expected {least} to {most:,}")
        largest = LARGEST_SEED + 1 - self.batch * math.ceil(self.episodes / self.batch)
        if not 0 <= self.seed <= largest:
            raise InputError(
                f"--seed is {self.seed}; expected 0 to {largest:,}, as every episode of all batches takes "
                "one more"
            )
        if self.data is not None and self.config is None:
            raise InputError("--data is given, but no --config that says what it holds")
        check_packages()
        set_threads(self.threads)
        check_output_folder(self.output / "episodes")
        with sole_writer(self.output / "settings.json"):
            self._write()

    def _write(self) -> None:
        sampling = Sampling(
            self.directory(), self.device, self.engine, self.precision, self.scheduler, self.steps
        )
        policy = sampling.load()
        if policy.config.cameras:
            raise InputError(
                f"the policy sees {sorted(policy.config.cameras)}; expected one without a camera, as "
                "frames of thousands of episodes are not kept"
            )
        first = self._demonstrations(policy.config)
        identity = sampling_identity(policy, sampling)
        settings = {**identity, "seed": self.seed, "batch": self.batch}
        buffer = self.output / "demonstrations.zarr"
        check_settings(self.output, settings, [buffer.name])
        scene = sampling.simulated(policy).scene(policy.config.inputs)
        played, shown = 0, list[Demonstration]()
        folder = self.output / "episodes"
        keeps = keeping(lambda: f"episodes are kept in '{folder}'; the same command goes on")
        with keeps, progress_bars() as progress:
            bar = progress.add_task("episodes", total=self.episodes)
            while played < self.episodes:
                begin = self.seed + played
                path = folder / f"{begin:010d}.npz"
                kept = load_episodes(path)
                if kept is None:
                    seeds = tuple(range(begin, begin + self.batch))
                    episodes = play(policy, sampling, Task(SEQUENTIAL, seeds))
                    kept = _named([_shown(one, scene) for one in episodes if one.success])
                    save_episodes(path, kept)
                shown += _one_by_one(kept)
                played += self.batch
                progress.update(bar, completed=min(played, self.episodes))
        if not first and not shown:
            raise DataError(f"none of {played} episodes succeeded: there is nothing to write")
        make_anew(buffer, partial(write_replay_buffer, shown=[*first, *shown]))
        steps = sum(len(one["action"]) for one in shown)
        print(f"{len(shown)} of {played} episodes succeeded, {steps} steps", end="")
        print(f", after {len(first)} demonstrations in {buffer}" if first else f", in {buffer}")

    def _demonstrations(self, policy: PolicyConfig) -> list[Demonstration]:
        """Those of the configuration; [] without one."""
        if self.config is None:
            return []
        data = TrainConfig.from_yaml(training_config(self.config)).data
        source = open_demonstrations(self.data or data.path)
        features = read_features(source, data.observations, data.action, policy)
        parts = {
            name: np.split(values, source.episode_ends[:-1]) for name, values in features.items()
        }
        return [
            {name: episodes[i] for name, episodes in parts.items()}
            for i in range(len(source.episode_ends))
        ]


def _shown(episode: Episode, scene: Scene) -> Demonstration:
    """What was seen before each action, and the action."""
    seen = [scene.place(state) for state in episode.states[:-1]]
    inputs = {name: np.array([one[name].ravel() for one in seen], np.float32) for name in seen[0]}
    return {**inputs, "action": np.concatenate(executed_actions(episode)).astype(np.float32)}


def _named(shown: Sequence[Demonstration]) -> dict[str, NDArray[Any]]:
    """All arrays of a batch; NAME/i is one of episode i."""
    return {f"{name}/{i}": values for i, one in enumerate(shown) for name, values in one.items()}


def _one_by_one(arrays: Mapping[str, NDArray[Any]]) -> list[Demonstration]:
    """The episodes that were `_named`."""
    found: dict[int, Demonstration] = {}
    for key, values in arrays.items():
        name, _, i = key.rpartition("/")
        found.setdefault(int(i), {})[name] = values
    return [found[i] for i in sorted(found)]


def main(argv: Sequence[str] | None = None) -> int:
    return run(tyro.cli(Arguments, args=argv))


if __name__ == "__main__":
    sys.exit(main())
