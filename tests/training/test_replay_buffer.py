"""Demonstrations are read as recorded, and another layout is refused with what was expected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import zarr

from para_policy.errors import DataError
from para_policy.training.replay_buffer import ReplayBuffer
from tests.training.demonstrations import circles, real_demonstrations, write_group


def test_arrays_come_back_as_written(zarr_path: Path) -> None:
    arrays, ends = circles()
    buffer = ReplayBuffer(zarr_path)
    assert len(buffer) == ends[-1]
    assert buffer.episode_ends.tolist() == ends.tolist()
    for name, values in arrays.items():
        np.testing.assert_array_equal(buffer.array(name), values)


def test_a_string_path_will_do(zarr_path: Path) -> None:
    assert len(ReplayBuffer(str(zarr_path))) == 95


def test_a_missing_data_set_says_what_may_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.zarr.*LeRobotDataset.*replay buffer.*OWNER/NAME"):
        ReplayBuffer(tmp_path / "absent.zarr")


def test_an_array_that_is_not_there_lists_those_that_are(zarr_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data/img.*action.*state.*training configuration"):
        ReplayBuffer(zarr_path).array("img")


def a_text_file(path: Path) -> None:
    path.write_text("not zarr")


def an_empty_folder(path: Path) -> None:
    path.mkdir()


def an_array(path: Path) -> None:
    zarr.open_array(str(path), mode="w", shape=(3,), dtype="f4", zarr_format=2)


def without_meta(path: Path) -> None:
    shutil.rmtree(write_group(path, *circles()) / "meta")


def without_data(path: Path) -> None:
    shutil.rmtree(write_group(path, *circles()) / "data")


def without_ends(path: Path) -> None:
    shutil.rmtree(write_group(path, *circles()) / "meta" / "episode_ends")


def data_is_an_array(path: Path) -> None:
    without_data(path)
    group = zarr.open_group(str(path), mode="a")
    group.create_array("data", shape=(3,), dtype="f4")


def too_few_steps(path: Path) -> None:
    arrays, ends = circles()
    write_group(path, {**arrays, "action": arrays["action"][:-1]}, ends)


def ends_that_fall(path: Path) -> None:
    write_group(path, circles()[0], np.array([30, 25, 95]))


def ends_that_start_at_zero(path: Path) -> None:
    write_group(path, circles()[0], np.array([0, 30, 95]))


def no_episodes(path: Path) -> None:
    write_group(path, circles()[0], np.array([], dtype=np.int64))


def ends_in_two_dimensions(path: Path) -> None:
    write_group(path, circles()[0], np.array([[30, 95]]))


def ends_that_are_fractions(path: Path) -> None:
    write_group(path, circles()[0], np.array([30.5, 60.5, 95.0]))


def scalar_array(path: Path) -> None:
    write_group(path, *circles())
    group = zarr.open_group(str(path), mode="a")
    group["data"].create_array("version", shape=(), dtype="f4")


@pytest.mark.parametrize(
    "make",
    [
        a_text_file,
        an_empty_folder,
        an_array,
        without_meta,
        without_data,
        without_ends,
        data_is_an_array,
        too_few_steps,
        ends_that_fall,
        ends_that_start_at_zero,
        no_episodes,
        ends_in_two_dimensions,
        ends_that_are_fractions,
        scalar_array,
    ],
)
def test_another_layout_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "other.zarr"
    make(path)
    with pytest.raises(DataError, match=r"other\.zarr"):
        ReplayBuffer(path)


def test_a_damaged_chunk_is_named_when_it_is_read(zarr_path: Path) -> None:
    chunk = zarr_path / "data" / "action" / "2.0"
    assert chunk.is_file()
    chunk.write_bytes(chunk.read_bytes()[:10])
    buffer = ReplayBuffer(zarr_path)
    assert buffer.array("state").shape == (95, 5)
    with pytest.raises(DataError, match=r"demo\.zarr.*data/action.*damaged"):
        buffer.array("action")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_of_the_fill_value_need_not_be_stored(
    tmp_path: Path, zarr_format: Literal[2, 3]
) -> None:
    """What zarr does by default: a gripper that stays open for a while is not written at all."""
    arrays, ends = circles()
    gripper = np.zeros((len(arrays["state"]), 1), np.float32)
    gripper[80:] = 1
    path = write_group(tmp_path / "demo.zarr", {**arrays, "gripper": gripper}, ends, zarr_format)
    with pytest.warns(UserWarning, match=r"5 of 6 chunks of data/gripper .*read as 0\.0"):
        found = ReplayBuffer(path).array("gripper")
    np.testing.assert_array_equal(found, gripper)


def test_a_missing_chunk_that_nothing_stands_for_is_damage(tmp_path: Path) -> None:
    path = write_group(tmp_path / "demo.zarr", *circles())
    description = path / "data" / "action" / ".zarray"
    facts = json.loads(description.read_text())
    description.write_text(json.dumps({**facts, "fill_value": None}))
    assert ReplayBuffer(path).array("action").shape == (95, 2)
    (path / "data" / "action" / "2.0").unlink()
    with pytest.raises(DataError, match="1 of 6 chunks of data/action are missing"):
        ReplayBuffer(path).array("action")


def test_a_lost_chunk_is_no_silence(zarr_path: Path) -> None:
    """It is filled with zeros: the robot would be told to go to (0, 0)."""
    (zarr_path / "data" / "action" / "2.0").unlink()
    with pytest.warns(UserWarning, match="1 of 6 chunks of data/action are not stored"):
        ReplayBuffer(zarr_path).array("action")


def test_the_published_demonstrations_are_read() -> None:
    buffer = ReplayBuffer(real_demonstrations())
    assert (len(buffer), len(buffer.episode_ends)) == (25650, 206)
    assert buffer.array("action").shape == (25650, 2)
    assert buffer.array("state").shape == (25650, 5)
    assert np.isfinite(buffer.array("state")).all()
