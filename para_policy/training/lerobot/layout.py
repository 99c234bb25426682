"""Layout of a LeRobotDataset: its files, what `meta/info.json` says, and where each video is.

    version 2.0, 2.1                                        version 3.0
    data/chunk-000/episode_000007.parquet                   data/chunk-000/file-000.parquet
    videos/chunk-000/CAMERA/episode_000007.mp4              videos/CAMERA/chunk-000/file-000.mp4

A file of version 3.0 holds many episodes; `meta/episodes/` says where in it each one begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from para_policy.checkpoints.files import read_json, summarise
from para_policy.checkpoints.hub import looks_like_hub_id, snapshot
from para_policy.errors import CheckpointError, DataError

INFO_FILE = "meta/info.json"
EPISODE_FILES = "meta/episodes/*/*.parquet"
DATA_FILES = "data/*/*.parquet"

_PATHS_2 = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
_PATHS_3 = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_PATHS = {"v2.0": _PATHS_2, "v2.1": _PATHS_2, "v3.0": _PATHS_3}

Size = Annotated[int, Field(ge=1, le=2**31)]


class Feature(BaseModel):
    """One recorded quantity.

    Attributes:
        dtype: of numbers, as numpy calls it; "string"; of a camera "image" (stored one by one) or
            "video".
        shape: of one step.
        names: of its parts; for a camera the axes of `shape`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    dtype: str
    shape: tuple[Size, ...] = Field(max_length=5)
    names: Any = None
    info: dict[str, Any] | None = None

    @property
    def is_camera(self) -> bool:
        return self.dtype in ("image", "video")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a camera with three colours.

        Raises:
            ValueError: for anything else.
        """
        depth = any(
            key.endswith("is_depth_map") and value for key, value in (self.info or {}).items()
        )
        if not self.is_camera or len(self.shape) != 3 or depth:
            raise ValueError(f"{self.dtype} of shape {self.shape} is no colour image")
        axes = self.names if isinstance(self.names, list) and self.names else ["height"]
        first = str(axes[0]).startswith("channel")
        channels, *size = self.shape if first else (self.shape[2], *self.shape[:2])
        if channels != 3:
            raise ValueError(f"{self.dtype} of shape {self.shape} is no colour image")
        return size[0], size[1]


class Info(BaseModel):
    """What `meta/info.json` says, as far as reading needs it.

    Attributes:
        fps: steps per second.
        chunks_size: episodes in a folder (2.x).
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    codebase_version: str
    fps: float = Field(ge=1e-3, le=1e6, allow_inf_nan=False)
    features: dict[str, Feature] = Field(min_length=1)
    total_episodes: int = Field(ge=0)
    total_frames: int = Field(ge=0)
    chunks_size: Size = 1000
    data_path: str
    video_path: str | None = None

    @field_validator("features")
    @classmethod
    def _plain_names(cls, value: dict[str, Feature]) -> dict[str, Feature]:
        strange = [name for name in value if "/" in name or name in ("", ".", "..")]
        if strange:  # they are names of folders
            raise ValueError(f"names of features must not be empty or hold '/', got {strange}")
        return value

    @property
    def is_2(self) -> bool:
        """Whether each episode has files of its own."""
        return _PATHS[self.codebase_version] is _PATHS_2

    @property
    def cameras(self) -> list[str]:
        return [name for name, feature in self.features.items() if feature.is_camera]


class Folder:
    """The folder of a data set, on this machine or on the Hugging Face Hub.

    Of the Hub, files arrive when they are asked for, all of the revision that came first.
    """

    def __init__(self, path: str | Path) -> None:
        self._hub = str(path) if looks_like_hub_id(path) else None
        self.name = str(path)
        self._root = (
            Path(path)
            if self._hub is None
            else snapshot(self._hub, ["meta/*", "data/*"], kind="dataset")
        )

    def __contains__(self, file: str) -> bool:
        return (self._root / file).is_file()

    def matching(self, pattern: str) -> list[Path]:
        """Files in their order; hidden ones are no part of a data set."""
        found = (path for path in self._root.glob(pattern) if not path.name.startswith("."))
        return sorted(path for path in found if path.is_file())

    def files(self, names: Iterable[str]) -> dict[str, Path]:
        """The file of each name.

        Raises:
            DataError: if one is missing.
        """
        wanted = sorted(set(names))
        missing, refused = [name for name in wanted if name not in self], None
        if missing and self._hub is not None:
            try:  # without a network some releases of huggingface_hub raise, others give what is there
                snapshot(self._hub, missing, kind="dataset", revision=self._root.name)
            except DataError as error:
                refused = error
            missing = [name for name in missing if name not in self]
        if missing:
            raise DataError(
                f"'{self.name}' has no file {missing[0]}"
                + (f", nor {len(missing) - 1} others" if missing[1:] else "")
                + (f" ({refused})" if refused else "")
                + "; copy the data set again"
            ) from refused
        return {name: self._root / name for name in wanted}


def is_lerobot(path: str | Path) -> bool:
    """Whether there is a LeRobotDataset, or a name of the Hub, where nothing else can be."""
    return looks_like_hub_id(path) or (Path(path) / INFO_FILE).is_file()


def read_info(folder: Folder) -> Info:
    """Read `meta/info.json`.

    Raises:
        DataError: if it is missing or broken, or of a version that is not read.
    """
    path = folder.files([INFO_FILE])[INFO_FILE]
    try:
        content = read_json(path)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    version = content.get("codebase_version")
    if not isinstance(version, str) or version not in _PATHS:
        raise DataError(
            f"'{folder.name}' has codebase_version {version!r}; read are {', '.join(_PATHS)}. Convert "
            "it with LeRobot, or update para_policy"
        )
    try:
        info = Info.model_validate(content)
    except ValidationError as error:
        raise DataError(f"'{path}': {summarise(error)}; copy the data set again") from error
    for key, layout in _PATHS[version].items():
        said = getattr(info, key)
        if said not in (None, layout):
            raise DataError(
                f"'{path}' has {key}={said[:200]!r}; LeRobot writes {layout!r} in version {version}"
            )
    return info


def video_name(info: Info, camera: str, chunk: int, number: int) -> str:
    """Name of a video: of episode `number` (2.x), or of the file `number` of its chunk (3.0)."""
    return _PATHS[info.codebase_version]["video_path"].format(
        video_key=camera,
        episode_chunk=chunk,
        episode_index=number,
        chunk_index=chunk,
        file_index=number,
    )
