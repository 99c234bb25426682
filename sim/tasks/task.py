"""A simulated task as rollouts and evaluations see it; `sim.tasks.choice` lists those that exist."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from para_policy.errors import InputError
from para_policy.policies.config import PolicyConfig

if TYPE_CHECKING:
    from sim.tasks.episode import Episode

Array = NDArray[np.float64]
Observation = dict[str, NDArray[Any]]
Inputs = Mapping[str, tuple[int, ...]]
"""Shape of one observation of each input, as in the configuration of a policy."""


@dataclass(frozen=True)
class Score:
    """What a task measures after each action, and what that is worth.

    Attributes:
        name: for tables and JSON, where the last one of an episode is `final_NAME`.
        full: the value that is worth a reward of 1.
        success_above: an episode ends in success once the value is above this.
    """

    name: str
    full: float
    success_above: float

    def rewards(self, values: ArrayLike) -> Array:
        """Rewards of some values, 0 to 1."""
        return np.asarray(np.clip(np.asarray(values) / self.full, 0.0, 1.0))

    def success(self, value: float) -> bool:
        return value > self.success_above


@dataclass(frozen=True)
class StepResult:
    """What one action led to."""

    observation: Observation
    score: float
    """See `SimulatedTask.score`."""


class Scene(Protocol):
    """One simulator of a task, which observes the inputs that it was made for."""

    def begin(self, seed: int) -> Observation:
        """Start an episode. Raises InputError when the seed is out of range."""
        ...

    def step(self, action: ArrayLike) -> StepResult:
        """Play one action (action_dim,) for `control_dt` seconds. Raises InputError if it is none."""
        ...

    def state(self) -> Array:
        """All that a picture shows, as one vector; `place` takes it back."""
        ...

    def place(self, state: ArrayLike) -> Observation:
        """Show a recorded state."""
        ...

    def observation(self) -> Observation:
        """All inputs now."""
        ...

    def image(self, height: int, width: int | None = None) -> NDArray[np.uint8]:
        """What the camera sees, (height, width, 3) RGB; a square if there is no width."""
        ...


class SimulatedTask(ABC):
    """A task; all its objects are equal, and it is no running simulator: that is its `scene`.

    Attributes:
        name: on command lines, in JSON and in names of files.
        title: for people.
        packages: whose versions results depend on.
        control_dt: time between two actions, seconds.
        max_steps: length of an episode that does not succeed, in actions.
        action_dim: coordinates of an action.
        actions: what they are, for messages.
        unit: of the actions.
        starts: what the start states of its seeds are called, for reports.
        score: what is measured after each action.
        reward_note: what the reward is, as a sentence.
        frames_per_s: of videos, which run in the robot's time.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    control_dt: ClassVar[float]
    max_steps: ClassVar[int]
    action_dim: ClassVar[int]
    actions: ClassVar[str]
    unit: ClassVar[str]
    starts: ClassVar[str]
    score: ClassVar[Score]
    reward_note: ClassVar[str]
    frames_per_s: ClassVar[int]

    @abstractmethod
    def require(self) -> None:
        """Raise MissingPackageError where its simulator is not installed."""

    @abstractmethod
    def check_inputs(self, inputs: Inputs) -> None:
        """Raise InputError unless a scene can observe every input."""

    @abstractmethod
    def start_state(self, seed: int) -> Array:
        """What the seed draws. Raises InputError when it is out of range."""

    @abstractmethod
    def scene(self, inputs: Inputs) -> Scene:
        """A simulator that observes these inputs.

        Raises:
            InputError: for an input that it does not have.
            MissingPackageError: if it is not installed.
        """

    def check_drawing(self) -> None:
        """Raise InputError where `pictures` cannot be drawn; call before the long work."""
        return

    @abstractmethod
    def pictures(
        self, episode: Episode, steps: Sequence[int], size: int
    ) -> list[NDArray[np.uint8]]:
        """The states after so many actions, 0 to `episode.steps` each: (size, width, 3) RGB.

        The width is even if the size is.
        """

    def check_policy(self, config: PolicyConfig) -> None:
        """Raise InputError unless the policy observes and acts as this task does."""
        self.check_inputs(config.inputs)
        if config.action_dim != self.action_dim:
            raise InputError(
                f"this checkpoint has {config.action_dim} actions "
                f"({', '.join(config.action_names)}); {self.title} has {self.action_dim}, "
                f"{self.actions}"
            )
        # A checkpoint that does not say was trained on recordings of this very task.
        if config.control_hz not in (None, 1 / self.control_dt):
            raise InputError(
                f"this checkpoint acts at {config.control_hz} Hz, {self.title} at "
                f"{1 / self.control_dt} Hz"
            )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))
