"""LeRobotDatasets are read as LeRobot reads them; what is damaged is named in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from para_policy.errors import DataError
from para_policy.training.demonstrations import open_demonstrations
from para_policy.training.lerobot.dataset import LeRobotDataset
from tests.training.lerobot import datasets
from tests.training.lerobot.datasets import FILMED, STORED, Layout, write_dataset

GOLDENS = Path(__file__).parent / "goldens"
VERSIONS = ("v2.1", "v3.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_data_sets_of_lerobot_hold_what_lerobot_reads(version: str) -> None:
    """Written and read by LeRobot itself, see `goldens/make_datasets.py`."""
    data, expected = open_demonstrations(GOLDENS / version), np.load(GOLDENS / f"{version}.npz")
    assert (len(data), data.episode_ends.tolist(), data.control_hz) == (14, [5, 7, 14], 10.0)
    for name in ("observation.state", "observation.environment_state", "action", "next.reward"):
        found = data.array(name).astype(np.float32)  # LeRobot's float64 becomes float32, too
        np.testing.assert_array_equal(found.reshape(expected[name].shape), expected[name])
    assert data.array("observation.environment_state").shape == (14, 2, 3)
    for name in (FILMED, STORED):
        frames = np.moveaxis(expected[name], 1, -1)
        # Two builds of FFmpeg may round a colour differently.
        assert np.abs(data.frames(name).astype(int) - frames).max() <= (2 if name == FILMED else 0)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_steps_come_in_their_order_with_their_frames(
    version: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    layout = Layout(
        version, lengths, data.draw(st.sampled_from((5, 30))), data.draw(st.integers(1, 3))
    )
    read = open_demonstrations(write_dataset(tmp_path_factory.mktemp("data"), layout))
    total = sum(lengths)
    assert read.episode_ends.tolist() == np.cumsum(lengths).tolist()
    assert read.control_hz == layout.fps
    for name, values in datasets.arrays(total).items():
        np.testing.assert_array_equal(read.array(name), values)
    chosen = np.array(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=8)))
    for camera in layout.cameras:
        frames = read.frames(camera, chosen)
        assert frames.dtype == np.uint8
        assert datasets.steps_of(frames).tolist() == (chosen % 20).tolist()


def test_frames_are_found_far_into_a_video(tmp_path: Path) -> None:
    """Nearer ones are decoded on the way, for others the reader jumps."""
    data = LeRobotDataset(
        write_dataset(tmp_path / "d", Layout(lengths=(90, 60), cameras=(FILMED,)))
    )
    chosen = np.array([0, 3, 40, 89, 90, 149])
    assert datasets.steps_of(data.frames(FILMED, chosen)).tolist() == (chosen % 20).tolist()
    assert datasets.steps_of(data.frames(FILMED)).tolist() == (np.arange(150) % 20).tolist()


def test_rows_in_another_order_are_sorted(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "d", Layout(episodes_per_file=3, cameras=(STORED,)))
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), file)
    data = open_demonstrations(path)
    assert data.array("next.reward")[:, 0].tolist() == list(range(20))
    assert datasets.steps_of(data.frames(STORED, np.array([2, 15]))).tolist() == [2, 15]


Edit = Callable[[Path], object]


def edit_info(**changes: Any) -> Edit:
    def edit(root: Path) -> None:
        path = root / "meta" / "info.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def edit_feature(name: str, **changes: Any) -> Edit:
    def edit(root: Path) -> None:
        path = root / "meta" / "info.json"
        info = json.loads(path.read_text())
        info["features"][name].update(changes)
        path.write_text(json.dumps(info))

    return edit


def edit_column(name: str, values: Callable[[pa.Table], Any], file: str = "data") -> Edit:
    def edit(root: Path) -> None:
        path = sorted((root / file).rglob("*.parquet"))[0]
        table = pq.read_table(path)
        index = table.column_names.index(name)
        pq.write_table(table.set_column(index, name, values(table)), path)

    return edit


def on(pattern: str, change: Callable[[Path], object]) -> Edit:
    return lambda root: change(sorted(root.glob(pattern))[0])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def picture(**changes: Any) -> Callable[[pa.Table], Any]:
    return lambda table: pa.array([{"path": "a.png", "bytes": None, **changes}] * len(table))


def small(table: pa.Table) -> Any:
    return picture(bytes=datasets.png(np.zeros((8, 8, 3), np.uint8)))(table)


def grey(table: pa.Table) -> Any:
    return picture(bytes=datasets.png(np.zeros(datasets.SIZE, np.uint8)))(table)


def film(count: int, size: tuple[int, int]) -> Callable[[Path], object]:
    return lambda path: datasets.write_video(path, [np.zeros((*size, 3), np.uint8)] * count, 10)


PARQUET, VIDEO = "data/*/*.parquet", "videos/*/*/*.mp4"
DAMAGE: dict[str, tuple[Edit, str]] = {
    "version": (edit_info(codebase_version="v1.6"), "codebase_version 'v1.6'; read are v2.0"),
    "no version": (edit_info(codebase_version=None), "codebase_version None"),
    "version is a list": (edit_info(codebase_version=[]), r"codebase_version \[\]"),
    "no json": (on("meta/info.json", lambda p: p.write_text("{")), "not valid JSON"),
    "fps": (edit_info(fps=0), "fps: .*greater than or equal to 0.001, got 0"),
    "fps is tiny": (edit_info(fps=1e-308), "fps: "),
    "starts beyond all": (
        edit_column(
            f"videos/{FILMED}/from_timestamp", lambda t: pa.array([1e308] * len(t)), "meta"
        ),
        "has no frame at",
    ),
    "fps is nan": (edit_info(fps=float("nan")), "fps: "),
    "features": (edit_info(features=[]), "features: "),
    "paths": (edit_info(video_path="../../{video_key}.mp4"), "video_path='../../.*LeRobot writes"),
    "camera is a path": (
        edit_info(features={"../x": {"dtype": "video", "shape": [1, 1, 3]}}),
        "names of features",
    ),
    "counts": (edit_info(total_frames=21), "holds 20 steps, its info.json says 21"),
    "parquet gone": (on(PARQUET, Path.unlink), "holds 7 steps, its info.json says 20"),
    "parquet truncated": (on(PARQUET, truncate), "truncated or no parquet file"),
    "parquet is text": (on(PARQUET, lambda p: p.write_text("x")), "truncated or no parquet file"),
    "rows twice": (edit_column("frame_index", lambda t: pa.array([0] * len(t))), "of episode 0"),
    "episodes are text": (
        edit_column("episode_index", lambda t: pa.array(["a"] * len(t))),
        "episode_index is string; expected numbers",
    ),
    "episodes are fractions": (
        edit_column("episode_index", lambda t: pa.array([0.5] * len(t))),
        "episode_index is .*; expected whole numbers",
    ),
    "no column": (
        edit_info(features={"observation.speed": {"dtype": "float32", "shape": [1]}}),
        "has no column observation.speed",
    ),
    "nulls": (
        edit_column("next.reward", lambda t: pa.array([None] * len(t), pa.float32())),
        "next.reward is float",
    ),
    "ragged": (
        edit_column("observation.state", lambda t: pa.array([[1.0]] + [[1.0, 2.0]] * (len(t) - 1))),
        r"observation.state is list.*shape \(3,\)",
    ),
    "widths": (edit_feature("observation.state", shape=[4]), r"expected numbers of shape \(4,\)"),
    "huge": (edit_feature("observation.state", shape=[2**31] * 3), "GiB of memory"),
    "timestamps": (
        edit_column("timestamp", lambda t: pa.array([float("nan")] * len(t))),
        "timestamps that are not finite",
    ),
    "late": (
        edit_column("timestamp", lambda t: pa.array([1e6] * len(t))),
        "has no frame at 1000000.* it ends before",
    ),
    "early": (
        edit_column(f"videos/{FILMED}/from_timestamp", lambda t: pa.array([-5.0] * len(t)), "meta"),
        "has no frame at -5.000 s: it goes on at",
    ),
    "episodes unknown": (
        edit_column("episode_index", lambda t: pa.array([7] * len(t)), "meta"),
        "do not say where in the videos",
    ),
    "episodes gone": (
        lambda root: shutil.rmtree(root / "meta" / "episodes"),
        "do not say where in the videos",
    ),
    "video gone": (on(VIDEO, Path.unlink), "has no file videos/"),
    "video truncated": (on(VIDEO, truncate), "truncated or no video"),
    "video is text": (on(VIDEO, lambda p: p.write_text("x" * 999)), "truncated or no video"),
    "video short": (on(VIDEO, film(3, datasets.SIZE)), "has no frame at 0.300 s"),
    "video small": (on(VIDEO, film(20, (16, 16))), "16 x 16 pixels; the data set says 40 x 48"),
    "channels first": (
        edit_feature(FILMED, shape=[3, 40, 49], names=["channels", "height", "width"]),
        "40 x 48 pixels; the data set says 40 x 49",
    ),
    "no names": (edit_feature(FILMED, names=[], shape=[40, 49, 3]), "the data set says 40 x 49"),
    "depth": (edit_feature(FILMED, info={"is_depth_map": True}), "no colour image"),
    "one channel": (edit_feature(FILMED, shape=[40, 48, 1]), "no colour image"),
    "huge frames": (edit_feature(FILMED, shape=[2**31, 2**31, 3]), "GiB of memory"),
    "pictures gone": (edit_column(STORED, picture()), "holds no image in row 0"),
    "pictures are text": (edit_column(STORED, picture(bytes=b"x")), "step 0 is damaged, or no PNG"),
    "pictures small": (edit_column(STORED, small), "8 x 8 pixels.*40 x 48"),
    "pictures grey": (edit_column(STORED, grey), "mode L.*RGB"),
    "pictures are numbers": (
        edit_column(STORED, lambda t: pa.array([1] * len(t))),
        "expected stored images",
    ),
}


def read_all(path: Path) -> None:
    data = open_demonstrations(path)
    info = json.loads((path / "meta" / "info.json").read_text())
    for name, feature in info["features"].items():
        if feature["dtype"] in ("image", "video"):
            data.frames(name)
        else:
            data.array(name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_dataset(tmp_path_factory.mktemp("whole"))
    read_all(path)
    return path


@pytest.mark.parametrize(("edit", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(whole: Path, tmp_path: Path, edit: Edit, message: str) -> None:
    path = Path(shutil.copytree(whole, tmp_path / "damaged"))
    edit(path)
    with pytest.raises(DataError, match=message):
        read_all(path)


def test_what_is_asked_for_must_be_there(whole: Path) -> None:
    data = open_demonstrations(whole)
    with pytest.raises(DataError, match=r"has no observation\.speed; it holds \['action'"):
        data.array("observation.speed")
    with pytest.raises(DataError, match=r"observation\.image is a camera"):
        data.array(FILMED)
    with pytest.raises(DataError, match=f"no colour image; its cameras are .*{STORED}"):
        data.frames("action")


def test_a_data_set_of_the_hub_is_read_from_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a download; what is not in the cache cannot be fetched without a network."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "datasets--someone--moves"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = write_dataset(repository / "snapshots" / commit)
    data = open_demonstrations("someone/moves")
    assert datasets.steps_of(data.frames(FILMED, np.array([3, 14]))).tolist() == [3, 14]
    on(VIDEO, Path.unlink)(snapshot)
    with pytest.raises(DataError, match=r"^'someone/moves' has no file videos/"):
        open_demonstrations("someone/moves").frames(FILMED)
    with pytest.raises(DataError, match="'someone/else' is no local directory"):
        open_demonstrations("someone/else")
