"""Reader of a LeRobotDataset."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import cached_property
from pathlib import Path

import numpy as np

from para_policy.errors import DataError
from para_policy.memory import check_available
from para_policy.terminal import progress_bars
from para_policy.training.lerobot.frames import read_picture, read_video
from para_policy.training.lerobot.layout import (
    DATA_FILES,
    EPISODE_FILES,
    Feature,
    Folder,
    read_info,
    video_name,
)
from para_policy.training.lerobot.table import Table

Done = Callable[[], object]


class LeRobotDataset:
    """Demonstrations of a LeRobotDataset, one after the other; a `Demonstrations`.

    Args:
        path: folder with `meta/info.json`, or the name of a data set on the Hugging Face Hub.

    Attributes:
        control_hz: steps per second.

    Raises:
        MissingPackageError: if pyarrow or PyAV is not installed, or huggingface_hub for a name.
        DataError: if it is missing, damaged or incomplete, or of a version that is not read.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = Folder(path)
        self.path = self._folder.name
        self._info = read_info(self._folder)
        self.control_hz: float | None = self._info.fps
        self._table = Table(self._folder.matching(DATA_FILES))
        if len(self._table) != self._info.total_frames or not len(self._table):
            raise DataError(
                f"'{self.path}' holds {len(self._table)} steps, its info.json says "
                f"{self._info.total_frames}; expected both alike and at least one: copy it again"
            )
        episode, frame = map(self._table.integers, ("episode_index", "frame_index"))
        self._order = np.lexsort((frame, episode))
        self._episode = episode[self._order]
        starts = np.flatnonzero(np.diff(self._episode, prepend=self._episode[0] - 1))
        self.episode_ends = np.append(starts[1:], len(self))
        counted = np.arange(len(self)) - np.repeat(starts, np.diff(starts, append=len(self)))
        if not np.array_equal(frame[self._order], counted):
            wrong = self._episode[np.flatnonzero(frame[self._order] != counted)[0]]
            raise DataError(
                f"'{self.path}': steps of episode {wrong} are missing or there twice; copy it again"
            )

    def __len__(self) -> int:
        return len(self._table)

    @property
    def names(self) -> Set[str]:
        """Of all features."""
        return self._info.features.keys()

    def array(self, name: str) -> np.ndarray:
        """Return feature `name` (steps, ...)."""
        feature = self._feature(name)
        if feature.is_camera:
            raise DataError(
                f"'{self.path}': {name} is a camera; name it as {{image: {name}}}, and in "
                "policy.vision.cameras"
            )
        return self._table.numbers(name, feature.shape)[self._order]

    def frames(self, name: str, steps: np.ndarray | None = None) -> np.ndarray:
        """Return frames of camera `name` at `steps`, in any order, uint8 (n, height, width, 3)."""
        feature = self._feature(name)
        try:
            size = feature.size
        except ValueError as error:
            raise DataError(
                f"'{self.path}': {name}: {error}; its cameras are {self._info.cameras}"
            ) from error
        chosen = np.arange(len(self)) if steps is None else steps
        check_available(f"{len(chosen)} frames of {name}", 3 * size[0] * size[1] * len(chosen))
        pictures = np.empty((len(chosen), *size, 3), np.uint8)
        with progress_bars() as progress:
            bar = progress.add_task(f"reading {name}", total=len(chosen))
            read = self._stored if feature.dtype == "image" else self._filmed
            read(name, chosen, pictures, lambda: progress.advance(bar))
        return pictures

    def _stored(self, name: str, steps: np.ndarray, pictures: np.ndarray, done: Done) -> None:
        for index, content in self._table.stored(name, self._order[steps]):
            what = f"'{self.path}': {name} of step {steps[index]}"
            read_picture(content, pictures[index], what)
            done()

    def _filmed(self, name: str, steps: np.ndarray, pictures: np.ndarray, done: Done) -> None:
        times = self._times[steps]
        episodes, of = np.unique(self._episode[steps], return_inverse=True)
        places = self._videos(name, episodes)
        files = self._folder.files(file for file, _ in places)
        names = np.array([file for file, _ in places])[of]
        times = times + np.array([start for _, start in places])[of]
        for file in dict.fromkeys(names):
            rows = np.flatnonzero(names == file)
            rows = rows[np.argsort(times[rows], kind="stable")]
            read_video(files[file], times[rows], self._info.fps, pictures, rows, done)

    def _videos(self, name: str, episodes: np.ndarray) -> list[tuple[str, float]]:
        """File of each episode's frames, and where in it they begin, seconds."""
        if self._info.is_2:
            size = self._info.chunks_size
            return [(video_name(self._info, name, int(e) // size, int(e)), 0.0) for e in episodes]
        table = Table(self._folder.matching(EPISODE_FILES))
        known, chunk, number = (
            table.integers(key)
            for key in ("episode_index", f"videos/{name}/chunk_index", f"videos/{name}/file_index")
        )
        start = table.numbers(f"videos/{name}/from_timestamp").astype(np.float64)
        rows = {episode: row for row, episode in enumerate(known.tolist())}
        chosen = [rows.get(episode, -1) for episode in episodes.tolist()]
        if -1 in chosen or not np.isfinite(start[chosen]).all():
            raise DataError(
                f"'{self.path}': {EPISODE_FILES} do not say where in the videos of {name} all "
                "episodes begin; copy it again"
            )
        return [
            (video_name(self._info, name, int(chunk[row]), int(number[row])), float(start[row]))
            for row in chosen
        ]

    @cached_property
    def _times(self) -> np.ndarray:
        """(steps,) seconds from the beginning of the episode."""
        times = self._table.numbers("timestamp")[self._order].astype(np.float64)
        if not np.isfinite(times).all():
            raise DataError(f"'{self.path}' has timestamps that are not finite; copy it again")
        return times

    def _feature(self, name: str) -> Feature:
        if name not in self._info.features:
            raise DataError(f"'{self.path}' has no {name}; it holds {sorted(self._info.features)}")
        return self._info.features[name]
