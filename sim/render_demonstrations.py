"""Images of recorded PushT states, for image policies: `python -m sim.render_demonstrations --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.files import make_folder, writing
from para_policy.memory import check_memory
from para_policy.stopping import keeping
from para_policy.terminal import progress_bars, run
from para_policy.training.replay_buffer import ReplayBuffer
from sim.pusht.env import PushT

_FRAMES_PER_CHUNK = 64


@dataclass(frozen=True)
class Arguments:
    """Draw every recorded state as gym-pusht draws it for image policies.

    The output is a replay buffer of its own, with the layout of the original project: data/img
    (steps, size, size, 3) uint8, data/state, data/action and meta/episode_ends. A run that was
    stopped goes on with the same command.
    """

    data: Path
    """Replay buffer with data/state (agent x, y, block x, y, angle) and data/action."""
    output: Path
    """Replay buffer to write."""
    size: int = 96
    """Side of the images, pixels."""

    def __call__(self) -> None:
        if self.size < 1:
            raise InputError(f"size is {self.size}; expected at least 1 pixel")
        check_memory(f"--size {self.size}", _FRAMES_PER_CHUNK * 3 * self.size**2)
        source = ReplayBuffer(self.data)
        frames = _open(self.output, source, self.size)
        states = source.array("state").astype(np.float64)
        board = PushT()
        first = frames.nchunks_initialized * _FRAMES_PER_CHUNK  # chunks are written in order
        keeps = keeping(lambda: f"frames are kept in '{self.output}'; the same command goes on")
        with keeps, progress_bars() as progress:
            bar = progress.add_task("frames", total=len(states), completed=min(first, len(states)))
            for begin in range(first, len(states), _FRAMES_PER_CHUNK):
                chunk = states[begin : begin + _FRAMES_PER_CHUNK]
                images = render(board, chunk, self.size)
                with writing(self.output):
                    frames[begin : begin + len(chunk)] = images
                progress.advance(bar, len(chunk))
        print(f"{len(states)} frames of {len(source.episode_ends)} episodes in {self.output}")


def render(board: PushT, states: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """States (n, 5) as images (n, size, size, 3)."""
    images = np.empty((len(states), size, size, 3), dtype=np.uint8)
    for image, state in zip(images, states, strict=True):
        board.place(state)
        image[:] = board.image(size)
    return images


def _open(path: Path, source: ReplayBuffer, size: int) -> Any:
    """The array of frames in the replay buffer at `path`, which is made if it is not there."""
    if not path.exists():
        make_folder(path, lambda folder: _create(folder, source, size))
    with extra("train", "writing images of demonstrations"):
        import zarr
    begun = ReplayBuffer(path)
    same = all(np.array_equal(begun.array(n), source.array(n)) for n in ("state", "action"))
    group: Any = zarr.open_group(str(path), mode="r+")
    frames = group["data"].get("img")
    shape = (len(source), size, size, 3)
    found = None if frames is None else (frames.shape, frames.chunks[0], frames.dtype)
    if not same or found != (shape, _FRAMES_PER_CHUNK, np.uint8):
        raise InputError(
            f"output {path} holds something else than frames of {size} x {size} pixels of "
            f"{source.path}; choose another output"
        )
    return frames


def _create(path: Path, source: ReplayBuffer, size: int) -> None:
    state, action = source.array("state"), source.array("action")
    if state.shape[1:] != (5,):
        raise InputError(
            f"{source.path} has data/state of shape {state.shape}; expected (steps, 5): agent x, y, "
            "block x, y, angle"
        )
    with extra("train", "writing images of demonstrations"):
        import zarr
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    for name, values in (
        ("data/state", state),
        ("data/action", action),
        ("meta/episode_ends", source.episode_ends),
    ):
        group.create_array(name, data=values)
    group.create_array(
        "data/img",
        shape=(len(source), size, size, 3),
        chunks=(_FRAMES_PER_CHUNK, size, size, 3),
        dtype=np.uint8,
        fill_value=None,  # otherwise frames that are still missing would be black ones
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run(tyro.cli(Arguments, args=argv))


if __name__ == "__main__":
    sys.exit(main())
