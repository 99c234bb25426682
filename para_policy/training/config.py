"""Configuration of a training run, as written in `config/training/*.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from para_policy.checkpoints.files import summarise
from para_policy.diffusion.schedulers import is_flow
from para_policy.errors import InputError, shown
from para_policy.policies.config import PolicyConfig
from para_policy.strict_yaml import read_yaml
from para_policy.training.dataset import Columns, Feature, Vector

ConfigT = TypeVar("ConfigT", bound=BaseModel)


class DataConfig(BaseModel):
    """Where the demonstrations are and which recorded arrays make up each feature.

    Attributes:
        path: of a replay buffer or a LeRobotDataset, or the name of one on the Hugging Face Hub.
        observations: where each input is recorded; None: under the input's own name.
        sha256: of what is there, see `dataset.content_sha256`; filled in by the training, so that a run
            goes on with the same demonstrations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    action: Vector = Columns(array="action")
    observations: dict[str, Feature] | None = None
    validation_ratio: float = Field(0.0, ge=0.0, lt=1.0)
    sha256: str | None = None


Momentum: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Rate: TypeAlias = Annotated[float, Field(gt=0, le=1e20)]
"""Learning rate; steps with a larger one overflow single precision, whatever the momentum."""

MOST = 10**8 - 1
"""Largest count of a configuration: more than anybody trains. Names of states have eight digits."""

LARGEST_SEED = 2**32 - 1

Count: TypeAlias = Annotated[int, Field(ge=1, le=MOST)]

LENGTH = {"steps", "log_every", "checkpoint_every"}
"""Keys of `RunConfig` that may change when a run is resumed."""


class RunConfig(BaseModel):
    """Length, batches and records of any training run.

    Attributes:
        batch_size: examples of each step, on all processes together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: Count
    batch_size: Count
    precision: Literal["no", "bf16", "fp16"] = "no"
    seed: int = Field(42, ge=0, le=LARGEST_SEED)
    log_every: Count = 50
    checkpoint_every: Count = 1000

    @field_validator("precision", mode="before")
    @classmethod
    def _no_of_yaml(cls, value: Any) -> Any:
        """YAML 1.1 reads the word no as false."""
        return "no" if value is False else value


class Uniform(BaseModel):
    """All levels of noise alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    distribution: Literal["uniform"] = "uniform"


class Beta(BaseModel):
    """Levels of a flow, sigma = 1 - s (1 - u) with u of a beta distribution: by default more noise than
    not, with the numbers of LeRobot's `multi_task_dit`.

    Attributes:
        s: the least level is 1 - s.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    distribution: Literal["beta"]
    alpha: float = Field(1.5, ge=0.1, le=100)
    beta: float = Field(1.0, ge=0.1, le=100)
    s: float = Field(0.999, gt=0, le=1)


class OptimisationConfig(RunConfig):
    """AdamW with a cosine schedule over all steps, and the power-law EMA of the original project."""

    batch_size: Count = 256
    learning_rate: Rate = 1e-4
    betas: tuple[Momentum, Momentum] = (0.95, 0.999)
    weight_decay: float = Field(1e-6, ge=0, le=1)
    warmup_steps: int = Field(500, ge=0, le=MOST)
    ema_power: float = Field(0.75, gt=0)


class CloningConfig(OptimisationConfig):
    """How behaviour is cloned.

    Attributes:
        noise_levels: how levels of noise are drawn.
        evaluation_windows: how many windows the evaluation loss is measured on, in one batch.
        stored: numbers of the finished checkpoint's weights; "float16" halves the file, and rounds each
            weight to eleven bits.
    """

    noise_levels: Annotated[Uniform | Beta, Field(discriminator="distribution")] = Uniform()
    evaluation_windows: Count = 1024
    stored: Literal["float32", "float16"] = "float32"


class EncoderConfig(BaseModel):
    """Encoders of the cameras that were trained before, for example by `sim.pretrain_encoder`.

    Attributes:
        weights: safetensors file with the weights under the names of `model.safetensors` in a native
            checkpoint, which may be one itself.
        trainable: they are trained on with the policy. Otherwise they stay as they are, and each frame is
            encoded once, before training, so that a step costs no more than without a camera.
        sha256: of the file; filled in by the training, so that a run goes on with the same weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Path
    trainable: bool = False
    sha256: str | None = None


class TrainConfig(BaseModel):
    """A whole training run, as in `config/training/*.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: PolicyConfig
    data: DataConfig
    training: CloningConfig
    encoder: EncoderConfig | None = None

    @field_validator("policy")
    @classmethod
    def _without_text(cls, policy: PolicyConfig) -> PolicyConfig:
        if policy.task is not None:
            raise ValueError("training makes no features of a text: leave task away")
        return policy

    @model_validator(mode="after")
    def _levels_of_a_flow(self) -> TrainConfig:
        flow = is_flow(self.policy.noise_scheduler)
        named = self.policy.noise_scheduler["_class_name"]
        if isinstance(self.training.noise_levels, Beta) and not flow:
            raise ValueError(
                f"training.noise_levels is beta, which draws levels of a flow; {named} takes uniform"
            )
        return self

    @model_validator(mode="after")
    def _encoder_of_a_camera(self) -> TrainConfig:
        if self.encoder is not None and self.policy.vision is None:
            raise ValueError("encoder is given, but policy.vision names no camera: leave it away")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> TrainConfig:
        """Raises InputError if the file is missing, no YAML, or holds a wrong or unknown key."""
        return _from_yaml(path, cls)


class Recorded(BaseModel):
    """Of a training configuration what other commands take: its `data`. The rest may be missing."""

    data: DataConfig

    @classmethod
    def from_yaml(cls, path: str | Path) -> Recorded:
        """Raises InputError as `TrainConfig.from_yaml`."""
        return _from_yaml(path, cls)


def _from_yaml(path: str | Path, kind: type[ConfigT]) -> ConfigT:
    try:
        return kind.model_validate(read_yaml(Path(path).read_text()))
    except OSError as error:
        raise InputError(
            f"cannot read the training configuration '{path}': {error.strerror}"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"'{path}' is not valid YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is no text file: {error}") from error
    except ValidationError as error:
        raise InputError(f"'{path}': {summarise(error)}") from error


def differences(begun: BaseModel, now: BaseModel, changeable: Any) -> list[str]:
    """What is other `now` than a run was `begun` with, each in words; [] if it may go on.

    Args:
        changeable: parts that may be other, as pydantic excludes them.
    """
    before, after = (_entries(config.model_dump(exclude=changeable)) for config in (begun, now))
    found = []
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        section, _, key = name.rpartition(".")
        if one == other or (key == "sha256" and one is None):  # releases before noted no hash
            continue
        if key == "sha256":
            found.append(f"the content of {section} (sha256 {shown(one)}, now {shown(other)})")
        else:
            found.append(f"{name} ({shown(one)}, now {shown(other)})")
    return found


def _entries(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of a nested configuration by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= _entries(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
