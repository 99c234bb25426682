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
from PIL import Image, ImageDraw, ImageFont

from para_policy import load_policy
from para_policy.cli.inputs import OfCheckpoint
from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.files import check_output_file, check_output_folder, replace
from para_policy.inference.config import Precision
from para_policy.terminal import run
from sim.evaluation.variants import variants_of
from sim.tasks.choice import task_of
from sim.tasks.episode import Episode
from sim.tasks.task import SimulatedTask

Frame = NDArray[np.uint8]
_LONGEST_NAMES = 200
"""Characters of samplers in the name of a file, of which file systems take 255."""
_LONGEST_STATE = "step 000   reward 0.00   best 0.00   success"
_INK, _MUTED = (38, 42, 48), (110, 116, 124)


def frames(episodes: Mapping[str, Episode], size: int = 480) -> Iterator[Frame]:
    """The episodes side by side, `frames_per_s` for each second of the robot's time; the first to end
    waits for the others."""
    task = _task(episodes)
    every = round(1 / (task.control_dt * task.frames_per_s))
    shown = []
    for label, episode in episodes.items():
        steps = [*range(0, episode.steps, every), episode.steps]
        pictures = task.pictures(episode, steps, size)
        shown.append(
            [_captioned(p, episode, label, at) for p, at in zip(pictures, steps, strict=True)]
        )
    for number in range(max(map(len, shown))):
        yield np.concatenate([panel[min(number, len(panel) - 1)] for panel in shown], axis=1)


def _task(episodes: Mapping[str, Episode]) -> SimulatedTask:
    return next(iter(episodes.values())).task


def caption_height(size: int) -> int:
    """Even, because H.264 needs even sides."""
    return 2 * round(size / 22)


def _captioned(picture: Frame, episode: Episode, label: str, step: int) -> Frame:
    """A picture of the episode after `step` actions, with a strip below that tells where it is."""
    size, width, _ = picture.shape
    frame = Image.new("RGB", (width, size + caption_height(size)), "white")
    frame.paste(Image.fromarray(picture))
    canvas = ImageDraw.Draw(frame)
    large, small = ImageFont.load_default(size / 28), ImageFont.load_default(size / 33)
    middle, margin = size + caption_height(size) / 2, size / 34
    room = width - 3 * margin - small.getlength(_LONGEST_STATE)
    if large.getlength(label) > room:
        large = ImageFont.load_default(size / 28 * room / large.getlength(label))
    canvas.text((margin, middle), label, fill=_INK, font=large, anchor="lm")
    rewards = np.concatenate([[0.0], episode.rewards])
    ending = "   success" if episode.success and step == episode.steps else ""
    text = (
        f"step {step:3d}   reward {rewards[step]:.2f}   "
        f"best {rewards[: step + 1].max():.2f}{ending}"
    )
    canvas.text((width - margin, middle), text, fill=_MUTED, font=small, anchor="rm")
    return np.asarray(frame)


def encoder() -> Any:
    """The package that encodes videos."""
    with extra("video", "writing a video"):
        import imageio_ffmpeg
    return imageio_ffmpeg


def write_mp4(episodes: Mapping[str, Episode], path: Path, size: int = 480) -> None:
    """H.264 video that every browser plays. `episodes`: label -> episode, shown side by side."""
    pictures = list(frames(episodes, size))
    fps = _task(episodes).frames_per_s
    pictures += [pictures[-1]] * fps  # the last one stays for a second
    replace(path, lambda unfinished: _encode(pictures, fps, unfinished))


def _encode(pictures: Sequence[Frame], fps: int, path: Path) -> None:
    ffmpeg = encoder()
    height, width, _ = pictures[0].shape
    writer = ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
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
    """PNG with one row per episode: `count` pictures from start to end, without captions."""
    rows = []
    for episode in episodes.values():
        picked = np.linspace(0, episode.steps, count).round().astype(int).tolist()
        rows.append(np.concatenate(episode.task.pictures(episode, picked, size), axis=1))
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
            first = next(iter(show.values()))
            names = "_vs_".join(show)
            if len(show) > 1 and len(names) > _LONGEST_NAMES:
                names = f"{len(show)}_samplers"
            names = names.replace("+", "-")  # plus means a space in web addresses
            path = folder / f"{first.task.name}_{first.seed}_{names}.mp4"
            write_mp4(show, path)
            written.append(path)
    return written


@dataclass(frozen=True, kw_only=True)
class Arguments(OfCheckpoint):
    """Play one episode with each sampler and show them side by side."""

    output: Path
    """File to write: .mp4, .gif, or .png for a row of pictures per sampler."""
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
    suffix = args.output.suffix.lower()
    if suffix not in writers:
        raise InputError(f"output {args.output} must end in one of {', '.join(writers)}")
    check_output_file(args.output)
    if suffix == ".mp4":
        encoder()
    variants = variants_of(args.samplers)
    policy = load_policy(args.directory(), engine=args.engine, precision=args.precision)
    task_of(policy.config).check_drawing()
    episodes = {
        variant.name: variant.play(policy, [args.seed], args.scheduler, args.steps)[0]
        for variant in variants
    }
    writers[suffix](episodes, args.output)


if __name__ == "__main__":
    arguments = tyro.cli(Arguments)
    sys.exit(run(lambda: film(arguments)))
