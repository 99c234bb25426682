"""Record observations of a policy while it plays."""

from __future__ import annotations

from collections import deque

import numpy as np

from para_policy.policies.policy import DiffusionPolicy
from para_policy.rollout.environment import Environment
from para_policy.terminal import progress_bars

_ROBOTS = 8
"""Episodes that are played at a time."""
_FIRST_SEED = 200_000
"""Of the episodes; evaluations begin at 100000, so none is shared."""

_MOST = 4
"""Episodes go on until so many times the wanted observations were made; some never end."""

Observation = dict[str, np.ndarray]


def record(policy: DiffusionPolicy, environment: str, count: int = 256) -> dict[str, np.ndarray]:
    """Play whole episodes, and return `count` of the observations that the network was asked about.

    Args:
        environment: as `Environment`.

    Returns:
        {name: (count, To, *shape)} in physical units, images uint8, in the order of time.

    Raises:
        MissingPackageError, InputError: as `Environment`.
    """
    robots = [_Robot(Environment(environment, policy.config), policy) for _ in range(_ROBOTS)]
    seen: list[Observation] = []
    seed = _FIRST_SEED
    try:
        with progress_bars() as progress:
            bar = progress.add_task("playing", total=count)
            while len(seen) < count:
                for robot in robots:
                    robot.reset(seed)
                    seed += 1
                while (playing := [r for r in robots if not r.done]) and len(seen) < _MOST * count:
                    seen += _act(policy, playing, first_seed=len(seen))
                    progress.update(bar, completed=min(len(seen), count))
    finally:
        for robot in robots:
            robot.environment.close()
    chosen = np.linspace(0, len(seen) - 1, count).astype(np.int64)
    return {
        name: np.stack([seen[index][name] for index in chosen]) for name in policy.config.inputs
    }


class _Robot:
    """An environment and what was seen in it lately."""

    def __init__(self, environment: Environment, policy: DiffusionPolicy) -> None:
        self.environment = environment
        self.done = False
        self._history: deque[Observation] = deque(maxlen=policy.config.n_obs_steps)

    def reset(self, seed: int) -> None:
        first = self.environment.reset(seed)
        self.done = False
        self._history.extend([first] * (self._history.maxlen or 1))

    def observation(self) -> Observation:
        """{name: (To, *shape)}."""
        return {
            name: np.stack([seen[name] for seen in self._history]) for name in self._history[-1]
        }

    def act(self, actions: np.ndarray) -> None:
        """Take actions (n, A) until the episode is over."""
        for action in actions:
            if not self.done:
                seen, self.done = self.environment.step(action)
                self._history.append(seen)


def _act(policy: DiffusionPolicy, robots: list[_Robot], first_seed: int) -> list[Observation]:
    """Play one chunk of each robot; returns what each had observed before."""
    observed = [robot.observation() for robot in robots]
    batch = {name: np.stack([seen[name] for seen in observed]) for name in observed[0]}
    chunks = policy.sample(batch, seed=range(first_seed, first_seed + len(robots))).actions
    for robot, actions in zip(robots, np.asarray(chunks), strict=True):
        robot.act(actions)
    return observed
