"""Videos of episodes: mp4 for the report, a small GIF or a strip of frames for a README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sim.drawing import draw, moments
from sim.env import CONTROL_DT
from sim.episode import Episode

Frame = NDArray[np.uint8]
FPS = round(1 / CONTROL_DT)
"""Videos run in the robot's real time."""
HOLD_FRAMES = FPS
"""The last frame stays for a second."""


def frames(episodes: Mapping[str, Episode], size: int = 480) -> Iterator[Frame]:
    """One frame per action, the episodes side by side; the first to end waits for the others."""
    shown = [moments(episode, label) for label, episode in episodes.items()]
    for step in range(max(map(len, shown))):
        panels = [draw(panel[min(step, len(panel) - 1)], size) for panel in shown]
        yield np.concatenate(panels, axis=1)


def write_mp4(episodes: Mapping[str, Episode], path: Path, size: int = 480) -> None:
    """H.264 video that every browser plays. `episodes`: label -> episode, shown side by side."""
    pictures = list(frames(episodes, size))
    pictures += [pictures[-1]] * HOLD_FRAMES
    height, width, _ = pictures[0].shape
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=FPS,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=8,
        ffmpeg_log_level="error",
        output_params=["-movflags", "+faststart"],
    )
    writer.send(None)
    for picture in pictures:
        writer.send(np.ascontiguousarray(picture))
    writer.close()


def write_gif(
    episodes: Mapping[str, Episode], path: Path, size: int = 360, every: int = 2, fps: int = 12
) -> None:
    """Small looping GIF: every `every`-th frame, and the last one for two seconds."""
    pictures = list(frames(episodes, size))
    kept = [*pictures[::every], pictures[-1]]
    # One palette for all frames: no flicker, and unchanged areas cost nothing.
    palette = Image.fromarray(kept[len(kept) // 2]).quantize(64, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in kept
    ]
    durations = [1000 // fps] * (len(images) - 1) + [2000]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True
    )


def write_strip(episode: Episode, label: str, path: Path, count: int = 5, size: int = 240) -> None:
    """PNG of `count` boards from start to end, left to right, without captions."""
    shown = moments(episode, label)
    picked = np.linspace(0, len(shown) - 1, count).round().astype(int)
    strip = np.concatenate([draw(shown[index], size)[:size] for index in picked], axis=1)
    Image.fromarray(strip).save(path, optimize=True)


def write_videos(runs: Mapping[str, Sequence[Episode]], folder: Path, count: int) -> list[Path]:
    """The first `count` episodes: one video per sampler, and one with all of them side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(min(count, *(len(episodes) for episodes in runs.values()))):
        together = {name: episodes[index] for name, episodes in runs.items()}
        shows = [{name: episode} for name, episode in together.items()]
        if len(together) > 1:
            shows.append(together)
        for show in shows:
            seed = next(iter(show.values())).seed
            path = folder / f"pusht_{seed}_{'_vs_'.join(show)}.mp4"
            write_mp4(show, path)
            written.append(path)
    return written
