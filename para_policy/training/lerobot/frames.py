"""Frames of cameras: from mp4 files through PyAV, from stored pictures through Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from para_policy.errors import DataError
from para_policy.extras import extra

with extra("lerobot", "reading a LeRobotDataset"):
    import av

_FAR = 1.0
"""Frames that are nearer than this, seconds, are decoded on the way rather than looked for."""


def read_video(
    path: Path,
    times: np.ndarray,
    fps: float,
    frames: np.ndarray,
    rows: np.ndarray,
    done: Callable[[], object],
) -> None:
    """Decode the frames that are nearest to `times`.

    Args:
        times: (n,) seconds in the file, increasing; a frame must be within half a period of each.
        frames: receives them, uint8 (., height, width, 3), in `rows` (n,).
        done: called for each.

    Raises:
        DataError: if the file is damaged, or its frames are of another size or time.
    """
    try:
        # An absolute path: FFmpeg would take "a:b" for a protocol.
        with av.open(str(path.absolute())) as container:
            if not container.streams.video or container.streams.video[0].time_base is None:
                raise DataError(f"'{path}' holds no video; copy the data set again")
            _check_size(path, container.streams.video[0], frames)
            for row, frame in zip(rows, _nearest(path, container, times, fps), strict=True):
                _check_size(path, frame, frames)
                frames[row] = frame.to_ndarray(format="rgb24")
                done()
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"'{path}' is truncated or no video ({error}); copy the data set again"
        ) from error


def read_picture(content: bytes, frame: np.ndarray, what: str) -> None:
    """Decode a stored PNG or JPEG into `frame`, uint8 (height, width, 3).

    Raises:
        DataError: if it is damaged, or of another size or kind.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            found = (image.height, image.width, len(image.getbands()))
            if found != frame.shape or image.mode != "RGB":
                raise DataError(
                    f"{what} is a picture of {found[0]} x {found[1]} pixels and mode {image.mode}; "
                    f"the data set says {frame.shape[0]} x {frame.shape[1]}, RGB"
                )
            frame[:] = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{what} is damaged, or no PNG or JPEG picture; copy the data set again"
        ) from error


def _check_size(path: Path, seen: Any, frames: np.ndarray) -> None:
    if (seen.height, seen.width) != frames.shape[1:3]:
        raise DataError(
            f"'{path}' has frames of {seen.height} x {seen.width} pixels; the data set says "
            f"{frames.shape[1]} x {frames.shape[2]}"
        )


def _nearest(path: Path, container: Any, times: np.ndarray, fps: float) -> Iterator[Any]:
    """For each time the frame nearest to it."""
    stream, half = container.streams.video[0], 0.5 / fps
    stream.thread_type = "AUTO"
    decoded: Iterator[Any] = iter(())
    frame, at = None, -np.inf
    for time in times.tolist():
        if frame is None or time - at > _FAR:
            # A frame earlier, as time stamps may be rounded; the seek lands on a key frame before it.
            before = (time - 2 * half) / float(stream.time_base)
            container.seek(int(min(max(before, 0), 2**62)), stream=stream)
            decoded = container.decode(stream)
            at = -np.inf
        while at < time - half:
            frame = next(decoded, None)
            if frame is None:
                break
            at = at if frame.time is None else frame.time
        if frame is None or at > time + half:
            found = "ends before" if frame is None else f"goes on at {at:.3f} s"
            raise DataError(
                f"'{path}' has no frame at {time:.3f} s: it {found}; copy the data set again"
            )
        yield frame
