"""Rendered demonstrations are what an image policy observes at the same states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from para_policy.errors import DataError
from para_policy.training.dataset import Images
from para_policy.training.replay_buffer import ReplayBuffer
from sim import render_demonstrations
from sim.pusht.env import PushT, legacy_start_state
from tests.training.demonstrations import real_demonstrations, write_group

LENGTHS = (7, 4)
SIZE = 32


def play() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two episodes that push the block: states, actions, and what was observed before each."""
    board = PushT({"image": (3, SIZE, SIZE)})
    states, actions, seen = [], [], []
    for seed, length in enumerate(LENGTHS, start=100000):
        observation = board.reset(legacy_start_state(seed))
        for _ in range(length):
            target = board.state()[2:4]
            states.append(board.state())
            actions.append(target)
            seen.append(observation["image"])
            observation = board.step(target).observation
    arrays = {"state": np.array(states), "action": np.array(actions)}
    return arrays, np.array(seen)


@pytest.fixture(scope="module")
def played() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return play()


@pytest.fixture
def data(tmp_path: Path, played: tuple[dict[str, np.ndarray], np.ndarray]) -> Path:
    return write_group(tmp_path / "data.zarr", played[0], np.cumsum(LENGTHS))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_demonstrations, "_FRAMES_PER_CHUNK", 4)


def render(data: Path, output: Path, size: int = SIZE) -> int:
    return render_demonstrations.main(
        ["--data", str(data), "--output", str(output), "--size", str(size)]
    )


def test_frames_are_what_was_observed(
    data: Path, tmp_path: Path, played: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    assert render(data, tmp_path / "images.zarr") == 0
    buffer = ReplayBuffer(tmp_path / "images.zarr")
    arrays, seen = played
    frames = Images(image="img").read(buffer)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, seen)
    assert len({frame.tobytes() for frame in frames}) == len(frames)  # something moved in each
    np.testing.assert_array_equal(buffer.array("state"), arrays["state"])
    np.testing.assert_array_equal(buffer.array("action"), arrays["action"])
    np.testing.assert_array_equal(buffer.episode_ends, np.cumsum(LENGTHS))
    group = zarr.open_group(str(tmp_path / "images.zarr"), mode="r")
    assert group.metadata.zarr_format == 2


def test_real_first_frames_are_those_after_a_reset() -> None:
    """Episode i was begun with the start state of seed i, set in the legacy order."""
    buffer = ReplayBuffer(real_demonstrations())
    first = np.concatenate([[0], buffer.episode_ends[:-1]])
    states = buffer.array("state")[first].astype(np.float64)
    frames = render_demonstrations.render(PushT(), states, 96)
    board = PushT()
    for seed, (state, frame) in enumerate(zip(states, frames, strict=True)):
        board.reset(legacy_start_state(seed))
        np.testing.assert_allclose(board.state()[:4], state[:4], atol=1e-4)
        # States are recorded as float32, which now and then moves a corner by a pixel of 512.
        assert (board.image(96) != frame).any(axis=-1).sum() <= 10


def test_a_stopped_run_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    render(data, whole)
    drawn: list[int] = []
    draw = render_demonstrations.render

    def stop_at_the_second(board: PushT, states: np.ndarray, size: int) -> Any:
        drawn.append(len(states))
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(board, states, size)

    monkeypatch.setattr(render_demonstrations, "render", stop_at_the_second)
    assert render(data, parts) == 130
    with pytest.raises(DataError, match="2 of 3 chunks of data/img are missing"):
        ReplayBuffer(parts).array("img")
    assert render(data, parts) == 0
    assert drawn == [4, 4, 4, 3]  # the first four are not drawn again
    frames = [ReplayBuffer(path).array("img") for path in (whole, parts)]
    np.testing.assert_array_equal(*frames)
    assert render(data, parts) == 0
    assert len(drawn) == 4


@pytest.mark.parametrize("size", [SIZE + 1, 0])
def test_another_size_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    render(data, tmp_path / "images.zarr")
    before = ReplayBuffer(tmp_path / "images.zarr").array("img")
    assert render(data, tmp_path / "images.zarr", size) == 2
    assert str(size) in capsys.readouterr().err
    np.testing.assert_array_equal(ReplayBuffer(tmp_path / "images.zarr").array("img"), before)


def test_other_demonstrations_are_not_overwritten(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(data, data) == 2
    assert "choose another output" in capsys.readouterr().err
    render(data, tmp_path / "images.zarr")
    arrays, ends = {"state": np.ones((11, 5)), "action": np.ones((11, 2))}, np.array([11])
    other = write_group(tmp_path / "other.zarr", arrays, ends)
    assert render(other, tmp_path / "images.zarr") == 2
    assert "choose another output" in capsys.readouterr().err


def test_states_of_another_task_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {"state": np.ones((5, 3)), "action": np.ones((5, 2))}
    path = write_group(tmp_path / "other.zarr", arrays, np.array([5]))
    assert render(path, tmp_path / "images.zarr") == 2
    assert "(5, 3)" in capsys.readouterr().err
    assert not (tmp_path / "images.zarr").exists()
