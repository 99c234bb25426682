"""Videos of episodes: mp4, a small GIF, or a strip of frames.

`python -m sim.video DIR --samplers sequential,chord --output episode.gif`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from para_policy import load_policy
from para_policy.cli.inputs import OfCheckpoint
from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.files import check_output_file, check_output_folder, replace
from para_policy.inference.config import Precision
from para_policy.policies.sampler_spec import split_samplers
from para_policy.terminal import run
from sim.evaluation.variants import Variant
from sim.pusht.drawing import draw, moments
from sim.pusht.env import CONTROL_DT
from sim.pusht.episode import Episode

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


def encoder() -> Any:
    """The package that encodes videos."""
    with extra("video", "writing a video"):
        import imageio_ffmpeg
    return imageio_ffmpeg


def write_mp4(episodes: Mapping[str, Episode], path: Path, size: int = 480) -> None:
    """H.264 video that every browser plays. `episodes`: label -> episode, shown side by side."""
    pictures = list(frames(episodes, size))
    pictures += [pictures[-1]] * HOLD_FRAMES
    replace(path, lambda unfinished: _encode(pictures, unfinished))


def _encode(pictures: Sequence[Frame], path: Path) -> None:
    ffmpeg = encoder()
    height, width, _ = pictures[0].shape
    writer = ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=FPS,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=8,
        ffmpeg_log_level="error",
        output_params=["-f", "mp4", "-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture))
        writer.close()
        whole = ffmpeg.count_frames_and_secs(path)[0] == len(pictures)
    except (OSError, RuntimeError):  # with all of ffmpeg's command in the message
        whole = False
    if not whole:  # ffmpeg's exit code is not passed on
        raise OSError("ffmpeg could not write it whole")


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
    options = {"duration": durations, "loop": 0, "optimize": True}
    replace(
        path,
        lambda unfinished: images[0].save(
            unfinished, "GIF", save_all=True, append_images=images[1:], **options
        ),
    )


def write_strips(
    episodes: Mapping[str, Episode], path: Path, size: int = 240, count: int = 5
) -> None:
    """PNG with one row per episode: `count` boards from start to end, without captions."""
    rows = []
    for label, episode in episodes.items():
        shown = moments(episode, label)
        picked = np.linspace(0, len(shown) - 1, count).round().astype(int)
        rows.append(np.concatenate([draw(shown[at], size)[:size] for at in picked], axis=1))
    image = Image.fromarray(np.concatenate(rows))
    replace(path, lambda unfinished: image.save(unfinished, "PNG", optimize=True))


def write_videos(runs: Mapping[str, Sequence[Episode]], folder: Path, count: int) -> list[Path]:
    """The first `count` episodes: one video per sampler, and one with all of them side by side."""
    check_output_folder(folder)
    written = []
    for index in range(min(count, *(len(episodes) for episodes in runs.values()))):
        together = {name: episodes[index] for name, episodes in runs.items()}
        shows = [{name: episode} for name, episode in together.items()]
        if len(together) > 1:
            shows.append(together)
        for show in shows:
            seed = next(iter(show.values())).seed
            names = "_vs_".join(show).replace("+", "-")  # plus means a space in web addresses
            path = folder / f"pusht_{seed}_{names}.mp4"
            write_mp4(show, path)
            written.append(path)
    return written


@dataclass(frozen=True, kw_only=True)
class Arguments(OfCheckpoint):
    """Play one episode with each sampler and show them side by side."""

    output: Path
    """File to write: .mp4, .gif, or .png for a row of boards per sampler."""
    samplers: str = "sequential,x0"
    """Names, separated by commas; NAME+guess or NAME+guess+noise starts from the last chunk."""
    seed: int = 100000
    """Start state and noise."""
    scheduler: str | None = None
    """Noise scheduler (default: the checkpoint's)."""
    steps: int | None = None
    """Sampling steps (default: the checkpoint's)."""
    engine: str = "eager"
    """How the network runs; auto: the fastest way that works here."""
    precision: Precision = "float32"
    """Of the network's arithmetic."""


def film(args: Arguments) -> None:
    """Play the episodes and write the picture that the suffix of the output asks for."""
    writers = {".mp4": write_mp4, ".gif": write_gif, ".png": write_strips}
    if args.output.suffix not in writers:
        raise InputError(f"output {args.output} must end in one of {', '.join(writers)}")
    check_output_file(args.output)
    if args.output.suffix == ".mp4":
        encoder()
    variants = [Variant.parse(name) for name in split_samplers(args.samplers)]
    policy = load_policy(args.directory(), engine=args.engine, precision=args.precision)
    episodes = {
        variant.name: variant.play(policy, [args.seed], args.scheduler, args.steps)[0]
        for variant in variants
    }
    writers[args.output.suffix](episodes, args.output)


if __name__ == "__main__":
    arguments = tyro.cli(Arguments)
    sys.exit(run(lambda: film(arguments)))
