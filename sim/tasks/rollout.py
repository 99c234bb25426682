"""Closed-loop episodes in one vectorised batch: one call of the policy per replan for all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from para_policy.errors import InputError
from para_policy.memory import check_memory
from para_policy.planning.seeding import chunk_seed
from para_policy.policies.chain import Chain
from para_policy.policies.config import PolicyConfig
from para_policy.policies.policy import ActionResult, DiffusionPolicy
from para_policy.samplers import Sampler
from sim.tasks.choice import task_of
from sim.tasks.episode import Chunk, Episode
from sim.tasks.live import LiveEpisode
from sim.tasks.task import Observation, SimulatedTask

Start = Literal["cold", "guess", "guess+noise"]
STARTS: tuple[Start, ...] = get_args(Start)
SEQUENTIAL = "sequential"
Progress = Callable[[int], None]
_OTHER_SEEDS = 2**32
"""Episodes count from 0, and seeds of start states end at 2**32 - 1."""


@dataclass(frozen=True)
class Control:
    """A harmless change of all chunks of an episode: what a sampler's error is compared with.

    Attributes:
        redraw: the noise is that of another episode; the start state stays.
        perturb: to each chunk a random vector is added, whose largest coordinate is so large;
            normalised action units. It depends on the episode and the chunk alone.
    """

    redraw: bool = False
    perturb: float = 0.0

    def noise_seed(self, seed: int, index: int) -> int:
        """Noise seed of chunk `index` in the episode of `seed`."""
        return chunk_seed(seed + _OTHER_SEEDS * self.redraw, index)

    def offset(self, seed: int, index: int, like: NDArray[Any]) -> NDArray[np.float64]:
        """What is added to the chunk (horizon, action_dim), normalised action units."""
        generator = np.random.default_rng([seed, index])
        direction = generator.standard_normal(like.shape)
        return self.perturb * direction / np.abs(direction).max()


def rollout(
    policy: DiffusionPolicy,
    seeds: Sequence[int],
    *,
    sampler: str | Sampler = SEQUENTIAL,
    start: Start = "cold",
    control: Control = Control(),
    scheduler: str | None = None,
    steps: int | None = None,
    task: SimulatedTask | None = None,
    max_steps: int | None = None,
    check_errors: bool = False,
    on_progress: Progress | None = None,
) -> list[Episode]:
    """Play one episode per seed, all replanning together every `n_action_steps` actions.

    A seed fixes the start state and, through `chunk_seed`, the noise of every chunk, so the same
    seed with another sampler is a paired experiment. An episode does not depend on the others in
    its batch, up to the rounding of batched arithmetic.

    Args:
        start: what a chunk takes over from the one before.
            "cold": nothing.
            "guess": its sample, shifted to the present, is the initial guess. The noise is that of
            "cold", and so is the answer, within the sampler's tolerance.
            "guess+noise": its noise too is shifted along the horizon. The chunks of an episode
            then have another joint law, each chunk by itself the same.
        control: a change on purpose, for control arms.
        task: what is played; what fits the policy, if None.
        max_steps: length of an episode that does not succeed; as the task says, if None.
        check_errors: solve every chunk again with `sequential`, which costs its N network calls,
            and record the error.
        on_progress: called with increments that add up to `max_steps` per episode.

    Raises:
        InputError: for an unknown start, a policy that fits no task, or what `policy.sample` refuses.
    """
    task = task_of(policy.config, None if task is None else task.name)
    max_steps = task.max_steps if max_steps is None else max_steps
    if start not in STARTS:
        raise InputError(f"start is {start!r}; expected one of {', '.join(STARTS)}")
    states = policy.process(scheduler, steps).num_steps * policy.config.horizon * task.action_dim
    check_memory(f"a batch of {len(seeds)} episodes", 4 * states * len(seeds))
    # Made once, as a robot would, and not in the time of each chunk.
    solver = (
        policy.sampler(sampler, scheduler=scheduler, steps=steps)
        if isinstance(sampler, str)
        else sampler
    )
    chain = policy.chain(scheduler, steps)
    robots = [_Robot(task, seed, policy.config, max_steps) for seed in seeds]
    live = robots
    previous: ActionResult | None = None
    for index, step in enumerate(range(0, max_steps, policy.config.n_action_steps)):
        n_actions = min(policy.config.n_action_steps, max_steps - step)
        started = time.perf_counter()
        sample = partial(
            policy.sample,
            _stack([robot.history for robot in live]),
            seed=[control.noise_seed(robot.seed, index) for robot in live],
            scheduler=scheduler,
            steps=steps,
            previous=previous,
            shift_noise=start == "guess+noise" and previous is not None,
        )
        result = _changed(sample(sampler=solver), control, chain, [r.seed for r in live], index)
        wall_s = time.perf_counter() - started
        exact = sample(sampler=SEQUENTIAL) if check_errors else None
        for row, robot in enumerate(live):
            chunk = _chunk(result, row, step, policy.config.first_action, len(live), wall_s)
            if exact is not None:
                error = float(np.abs(result.sample[row] - exact.sample[row]).max())
                chunk = replace(chunk, error=error)
            robot.add_chunk(chunk, result.sample[row])
            robot.execute(result.actions[row, :n_actions])
        if on_progress is not None:
            skipped = max_steps - step - n_actions
            on_progress(sum(n_actions + skipped * robot.done for robot in live))
        rows = [row for row, robot in enumerate(live) if not robot.done]
        live = [live[row] for row in rows]
        if not live:
            break
        if start != "cold":
            previous = result.select(rows)
    return [robot.episode() for robot in robots]


def _changed(
    result: ActionResult,
    control: Control,
    chain: Chain,
    seeds: Sequence[int],
    index: int,
) -> ActionResult:
    """The chunks of a batch with what a control arm adds to them."""
    if not control.perturb:
        return result
    offset = np.stack(
        [control.offset(seed, index, result.sample[row]) for row, seed in enumerate(seeds)]
    )
    sample = (result.sample + offset).astype(result.sample.dtype)
    prediction, actions = chain.physical(torch.from_numpy(sample))
    return replace(result, actions=actions, prediction=prediction, sample=sample)


class _Robot:
    """One scene with its observation history and its chunks."""

    def __init__(
        self, task: SimulatedTask, seed: int, config: PolicyConfig, max_steps: int
    ) -> None:
        self.seed = seed
        self._task = task
        self._live = LiveEpisode(task, config.inputs, max_steps)
        first = self._live.begin(seed)
        length = config.n_obs_steps
        self.history: deque[Observation] = deque([first] * length, maxlen=length)
        self._chunks: list[Chunk] = []
        self._first_sample: NDArray[np.float64] | None = None

    @property
    def done(self) -> bool:
        return self._live.done

    def add_chunk(self, chunk: Chunk, sample: NDArray[np.float32]) -> None:
        self._chunks.append(chunk)
        if self._first_sample is None:
            self._first_sample = sample.astype(np.float64)

    def execute(self, actions: NDArray[np.float32]) -> None:
        for action in actions:
            self.history.append(self._live.step(action))
            if self.done:
                return

    def episode(self) -> Episode:
        assert self._first_sample is not None
        return Episode(
            task=self._task,
            seed=self.seed,
            states=np.stack(self._live.states),
            scores=np.asarray(self._live.scores),
            chunks=tuple(self._chunks),
            first_sample=self._first_sample,
        )


def _stack(histories: Sequence[deque[Observation]]) -> dict[str, NDArray[Any]]:
    """Histories of B robots as one observation, each input (B, n_obs_steps, ...)."""
    return {
        name: np.stack([[observation[name] for observation in history] for history in histories])
        for name in histories[0][0]
    }


def _chunk(
    result: ActionResult, row: int, step: int, first_action: int, batch_size: int, wall_s: float
) -> Chunk:
    stats = result.stats
    residual = float(stats.residual[row])
    curve = stats.residuals[:, row]
    in_flight = curve[np.isfinite(curve)]
    measured = in_flight if in_flight.any() else ()  # zeros: the sampler has none, as `sequential`
    return Chunk(
        step=step,
        rounds=int(stats.rounds[row]),
        evals=int(stats.evals[row]),
        residual=residual if np.isfinite(residual) else None,
        converged=bool(stats.converged[row]),
        residuals=tuple(float(f"{value:.3g}") for value in measured),
        batch_size=batch_size,
        batch_wall_s=wall_s,
        prediction=result.prediction[row].astype(np.float64),
        first_action=first_action,
        encode_s=stats.encode_s,
    )
