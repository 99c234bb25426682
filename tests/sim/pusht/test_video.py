"""Pictures and videos of an episode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from para_policy.errors import InputError
from sim.pusht.drawing import AGENT, EXECUTED, REST, draw, moments
from sim.pusht.env import PushT, legacy_start_state
from sim.pusht.task import PUSHT
from sim.tasks.episode import Chunk, Episode
from sim.video import (
    Arguments,
    caption_height,
    film,
    frames,
    write_gif,
    write_mp4,
    write_strips,
    write_videos,
)
from tests.full_disk import full_disk


def straight_line(seed: int, steps: int) -> Episode:
    """An episode in which the agent is told to walk to the middle."""
    env = PushT()
    env.reset(legacy_start_state(seed))
    states, coverage = [env.state()], []
    path = np.linspace(states[0][:2], (256.0, 256.0), 17)[1:]
    for step in range(steps):
        coverage.append(env.step(path[step % 8]).score)
        states.append(env.state())
    chunks = tuple(
        Chunk(step, 1, 1, None, True, (), 1, 0.1, prediction=path, first_action=1)
        for step in range(0, steps, 8)
    )
    return Episode(PUSHT, seed, np.stack(states), np.array(coverage), chunks, np.zeros((16, 2)))


@pytest.fixture(scope="module")
def episode() -> Episode:
    return straight_line(100000, 12)


def test_moments(episode: Episode) -> None:
    shown = moments(episode)
    assert len(shown) == 13
    assert [moment.chunk.step for moment in shown] == [0] * 8 + [8] * 5
    assert [moment.n_actions for moment in shown] == [8] * 8 + [4] * 5
    assert [moment.step for moment in shown] == list(range(13))


def test_frame_shows_agent_and_chunk(episode: Episode) -> None:
    frame = draw(moments(episode)[0], 240)
    assert frame.shape == (240, 240, 3)
    colors = {tuple(color) for color in frame.reshape(-1, 3).tolist()}

    def near(wanted: tuple[int, ...], tolerance: int) -> bool:
        return any(np.abs(np.subtract(color, wanted)).max() <= tolerance for color in colors)

    assert near(AGENT, 0)
    assert near(EXECUTED, 25)
    assert near(REST, 60)


def test_mp4(episode: Episode, tmp_path: Path) -> None:
    other = straight_line(100001, 20)
    path = tmp_path / "x.mp4"
    write_mp4({"sequential": episode, "paradigms": other}, path, size=160)
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    assert facts["codec"] == "h264"
    assert facts["pix_fmt"].startswith("yuv420p")
    assert facts["size"] == (320, 160 + caption_height(160))
    assert len(list(reader)) == 21 + PUSHT.frames_per_s


@pytest.mark.parametrize("size", [160, 240, 320, 360, 480])
def test_sides_are_even(episode: Episode, size: int) -> None:
    height, width, _ = next(frames({"a": episode, "b": episode}, size)).shape
    assert height % 2 == width % 2 == 0


def test_a_long_name_leaves_the_caption_room(episode: Episode) -> None:
    label = "paradigms:window=10,tolerance=1e-2+guess+noise"
    named, nameless = (
        next(frames({text: episode}))[-caption_height(480) :] for text in (label, "")
    )
    name = np.flatnonzero((named != nameless).any(axis=(0, 2)))
    state = np.flatnonzero((nameless != 255).any(axis=(0, 2)))
    assert name[0] < 20
    assert name[-1] < state[0]


def test_gif_and_strips(episode: Episode, tmp_path: Path) -> None:
    write_gif({"sequential": episode}, tmp_path / "x.gif", size=160, every=2)
    with Image.open(tmp_path / "x.gif") as gif:
        assert gif.size == (160, 160 + caption_height(160))
        assert 2 <= gif.n_frames <= 8
    write_strips({"a": episode, "b": episode}, tmp_path / "x.png", size=100, count=4)
    with Image.open(tmp_path / "x.png") as strip:
        assert strip.size == (400, 200)


@pytest.mark.parametrize("write", [write_mp4, write_gif, write_strips])
def test_a_full_disk_leaves_no_half_of_a_picture(
    episode: Episode, tmp_path: Path, write: Callable[..., None]
) -> None:
    with full_disk(), pytest.raises(InputError, match="cannot write"):
        write({"sequential": episode}, tmp_path / "x", size=160)
    assert not list(tmp_path.iterdir())


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.avi"):
        film(Arguments(checkpoint=tmp_path, output=tmp_path / "x.avi"))


@pytest.mark.parametrize("name", ["x.gif", "x.GIF"])
def test_unknown_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected x0, x0"):
        film(Arguments(checkpoint=tmp_path, output=tmp_path / name, samplers="x0, x0+noise"))


@pytest.mark.parametrize("samplers", ["", " , ", "x0,x0"])
def test_samplers_are_some_and_different(tmp_path: Path, samplers: str) -> None:
    with pytest.raises(InputError, match="must name one or more different samplers"):
        film(Arguments(checkpoint=tmp_path, output=tmp_path / "x.gif", samplers=samplers))


def test_names_of_many_samplers_are_none_of_a_file(episode: Episode, tmp_path: Path) -> None:
    runs = {f"parataa:tolerance=1e-3,max_rounds=1{k},window=none": [episode] for k in range(5)}
    assert write_videos(runs, tmp_path, count=1)[-1].name == "pusht_100000_5_samplers.mp4"


def test_file_names_hold_no_plus(episode: Episode, tmp_path: Path) -> None:
    runs = {"sequential": [episode], "x0+guess+noise": [episode]}
    names = [path.name for path in write_videos(runs, tmp_path, count=1)]
    assert names == [
        "pusht_100000_sequential.mp4",
        "pusht_100000_x0-guess-noise.mp4",
        "pusht_100000_sequential_vs_x0-guess-noise.mp4",
    ]
