"""What commands work on: a checkpoint, and observations of its policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import tyro

from para_policy.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from para_policy.policies.config import PolicyConfig
    from para_policy.policies.policy import DiffusionPolicy
    from para_policy.training.config import DataConfig
    from para_policy.training.demonstrations import Demonstrations

OfCheckpointT = TypeVar("OfCheckpointT", bound="OfCheckpoint")
Part = Literal["first half", "second half", "all"]
_SHARES = {"first half": (0.0, 0.5), "second half": (0.5, 1.0), "all": (0.0, 1.0)}

_PUSHT = Path("config/training/pusht_state.yaml")


@dataclass(frozen=True, kw_only=True)
class OfCheckpoint:
    """A command about a checkpoint, which is given by position or by name.

    Attributes:
        default: the checkpoint of a command that was given none; None where one is needed.
    """

    default: ClassVar[str | None] = None

    checkpoint: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[CHECKPOINT]")
    ] = None
    """Directory of a native or LeRobot checkpoint, or its name on the Hugging Face Hub."""
    checkpoint_option: Annotated[
        str | None, tyro.conf.arg(name="checkpoint", metavar="CHECKPOINT")
    ] = None
    """The same, as an option."""

    def given(self) -> str | None:
        """The checkpoint as it was given. Raises InputError if two were."""
        found = [name for name in (self.checkpoint, self.checkpoint_option) if name is not None]
        if len(found) > 1:
            raise InputError(
                f"two checkpoints given, '{found[0]}' and --checkpoint '{found[1]}'; give one"
            )
        return found[0] if found else None

    def named(self) -> str:
        """The checkpoint as it was given, or the default. Raises InputError without either."""
        name = self.given() or self.default
        if name is None:
            raise InputError(
                "no checkpoint given; expected a directory, or a name of the Hugging Face Hub such as "
                "lerobot/diffusion_pusht"
            )
        return name

    def directory(self) -> Path:
        """Where the checkpoint is; one of the Hub is downloaded. Raises CheckpointError without it."""
        from para_policy.checkpoints.load import resolve

        return resolve(self.named())

    def located(self: OfCheckpointT) -> OfCheckpointT:
        """The same command on its directory: what runs for hours asks the Hub once."""
        return replace(self, checkpoint=str(self.directory()), checkpoint_option=None)


@dataclass(frozen=True, kw_only=True)
class OnObservations(OfCheckpoint):
    """A command that puts a policy in front of observations; by default those beside the checkpoint."""

    data: str | None = None
    """Demonstrations to take observations from: folder of a LeRobotDataset, its name on the Hugging
    Face Hub, or a replay buffer of the original project (zarr)."""
    config: Path | None = None
    """YAML whose section `data` says under which names --data holds the policy's inputs, as in a training
    configuration; by default under their own, or as config/training/pusht_state.yaml says in PushT's
    replay buffer."""
    task: str | None = None
    """What the robot is to do, in words, for a LeRobot policy that takes a text (multi_task_dit)."""
    rollout: str | None = None
    """Gymnasium environment to play in first, as gym_pusht/PushT-v0:obs_type=pixels_agent_pos. What
    the policy meets there is kept beside the checkpoint, where other commands find it, too."""

    def observed(
        self, policy: DiffusionPolicy, count: int, shipped: Part, demonstrated: Part
    ) -> dict[str, np.ndarray]:
        """Observations {name: (n, To, *shape)}.

        Args:
            count: how many of demonstrations.
            shipped, demonstrated: which part to use of those beside the checkpoint, or of `data`.

        Raises:
            InputError, DataError, CheckpointError: if they cannot be read or recorded.
        """
        if self.data is not None and self.rollout is not None:
            raise InputError("--data and --rollout were given; give one of them")
        if self.config is not None and self.data is None:
            raise InputError(
                f"--config {self.config} says what --data holds, which is not given; give both or none"
            )
        if self.data is not None:
            return _demonstrated(
                policy.config, self.config, self.data, count, _SHARES[demonstrated]
            )
        from para_policy.checkpoints.observations import read_observations

        directory = self.directory()
        if self.rollout is not None:
            _record(policy, self.rollout, directory)
        found = read_observations(directory, policy.config)
        size = len(next(iter(found.values())))
        begin, end = (int(share * size) for share in _SHARES[shipped])
        return {name: values[begin:end] for name, values in found.items()}


def _demonstrated(
    config: PolicyConfig, path: Path | None, data: str, count: int, part: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Observations of demonstrations, read as in training: {name: (n, To, *shape)}."""
    from para_policy.cli.common import training_config
    from para_policy.training.config import Recorded
    from para_policy.training.dataset import observation_windows
    from para_policy.training.demonstrations import open_demonstrations

    demonstrations = open_demonstrations(data)
    columns = (
        _columns(config, demonstrations)
        if path is None
        else Recorded.from_yaml(training_config(path)).data
    )
    return observation_windows(
        demonstrations, columns.observations, columns.action, config, count, part
    )


def _columns(config: PolicyConfig, demonstrations: Demonstrations) -> DataConfig:
    """Where the inputs are in demonstrations that come without a configuration.

    Raises:
        InputError: if they are not there under their own names, and are not PushT's.
    """
    from para_policy.training.config import DataConfig, TrainConfig

    held = demonstrations.names
    missing = sorted({*config.inputs, "action"} - held)
    if not missing:
        return DataConfig.model_validate({"path": demonstrations.path})
    if {"state", "action"} <= held and _PUSHT.exists():
        pusht = TrainConfig.from_yaml(_PUSHT)
        if set(config.inputs) == set(pusht.policy.inputs):
            return pusht.data
    raise InputError(
        f"'{demonstrations.path}' has no {', '.join(missing)}; it holds {sorted(held)}. Give --config with "
        "a YAML file whose data.observations says which of them are the inputs of the policy, as in "
        "docs/guides/original.md"
    )


def _record(policy: DiffusionPolicy, environment: str, directory: Path) -> None:
    """Play in `environment`, and keep what was observed beside the checkpoint, which has nothing yet."""
    from para_policy.checkpoints.observations import OBSERVATIONS_FILE, save_observations
    from para_policy.files import check_output_folder
    from para_policy.rollout import record

    there = directory / OBSERVATIONS_FILE
    if there.exists():
        raise InputError(
            f"'{there}' is there already; leave --rollout out to use it, or delete it to record anew"
        )
    check_output_folder(directory)
    save_observations(directory, record(policy, environment))
