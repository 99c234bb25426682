"""Observations for `bench`, from the policy's own rollouts: `python -m sim.record_observations --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from para_policy import load_policy
from para_policy.checkpoints.observations import OBSERVATIONS_FILE, save_observations
from para_policy.cli.inputs import OfCheckpoint
from para_policy.errors import InputError
from para_policy.files import check_output_file
from para_policy.policies.config import PolicyConfig
from para_policy.terminal import run
from sim.tasks.choice import task_of
from sim.tasks.rollout import rollout


@dataclass(frozen=True, kw_only=True)
class Arguments(OfCheckpoint):
    """Play episodes and store observations at random moments of them beside the weights.

    In observations.safetensors of the checkpoint's directory."""

    count: int = 256
    """Observations to keep."""
    episodes: int = 16
    """Episodes to draw them from."""
    seed: int = 200000
    """Start state of the first episode; evaluations begin at 100000, so none is shared."""

    def __call__(self) -> None:
        if self.count < 1 or self.episodes < 1:
            raise InputError(f"count is {self.count}, episodes {self.episodes}; both must be >= 1")
        directory = self.directory()
        there = directory / OBSERVATIONS_FILE
        check_output_file(there)
        if there.exists():
            raise InputError(f"'{there}' is there already; delete it to record anew")
        policy = load_policy(directory)
        episodes = rollout(policy, range(self.seed, self.seed + self.episodes))
        windows = np.concatenate([_windows(e.states, policy.config.n_obs_steps) for e in episodes])
        generator = np.random.default_rng(self.seed)
        chosen = generator.choice(len(windows), min(self.count, len(windows)), replace=False)
        save_observations(directory, _observe(windows[chosen], policy.config))
        print(f"{len(chosen)} observations from {len(episodes)} episodes in {directory}")


def _windows(states: NDArray[np.float64], n_obs_steps: int) -> NDArray[np.float64]:
    """All runs of `n_obs_steps` states (n, To, width)."""
    view = np.lib.stride_tricks.sliding_window_view(states, n_obs_steps, axis=0)
    return np.moveaxis(view, -1, 1)


def _observe(windows: NDArray[np.float64], config: PolicyConfig) -> dict[str, NDArray[Any]]:
    scene = task_of(config).scene(config.inputs)
    seen = [[scene.place(state) for state in window] for window in windows]
    return {
        name: np.array([[observation[name] for observation in row] for row in seen])
        for name in seen[0][0]
    }


def main(argv: Sequence[str] | None = None) -> int:
    return run(tyro.cli(Arguments, args=argv))


if __name__ == "__main__":
    sys.exit(main())
