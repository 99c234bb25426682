"""LeRobotDatasets that are written here: as LeRobot writes them, and read by it where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from para_policy.errors import DataError
from para_policy.training.demonstrations import open_demonstrations
from para_policy.training.lerobot.write import write_dataset

GOLDEN = Path(__file__).parent / "goldens" / "v3.0"
NAMES = {
    "observation.state": ("x", "y", "z"),
    "observation.environment_state": ("angle", "speed"),
    "next.reward": ("reward",),
    "action": ("x", "y"),
}
LENGTHS = (30, 1, 19)
FPS = 10
TASK = "push the t"
CHUNK = 16


def episodes() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        {
            name: random.uniform(-300, 300, (length, len(parts))).astype(np.float32)
            for name, parts in NAMES.items()
        }
        for length in LENGTHS
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "moves"
    write_dataset(folder, episodes(), NAMES, FPS, TASK)
    return folder


def whole(name: str) -> np.ndarray:
    return np.concatenate([episode[name] for episode in episodes()])


def test_what_is_written_is_read(written: Path) -> None:
    read = open_demonstrations(written)
    assert read.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert read.control_hz == FPS
    for name in NAMES:
        np.testing.assert_array_equal(read.array(name), whole(name))


def test_pandas_is_told_as_much_of_the_tasks_as_lerobot_tells_it(written: Path) -> None:
    """With less, LeRobot does not open the data set."""
    ours, theirs = (
        json.loads(pq.read_schema(root / "meta" / "tasks.parquet").metadata[b"pandas"])
        for root in (written, GOLDEN)
    )
    assert ours == {key: value for key, value in theirs.items() if key != "creator"}


def test_other_features_are_refused(tmp_path: Path) -> None:
    (first, *others) = episodes()
    first["action"] = first["action"][:, :1]
    with pytest.raises(DataError, match=r"episode 0 has features .*'action': \(1,\)"):
        write_dataset(tmp_path / "moves", [first, *others], NAMES, FPS, TASK)
    assert not (tmp_path / "moves").exists()


def opened(root: Path, **options: Any) -> Any:
    pytest.importorskip("datasets")  # the extra of LeRobot for its data sets
    module = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    return module.LeRobotDataset("me/moves", root=root, video_backend="pyav", **options)


@pytest.mark.lerobot
def test_lerobot_reads_it(written: Path) -> None:
    data = opened(written)
    assert (len(data), data.num_episodes, data.fps) == (sum(LENGTHS), len(LENGTHS), FPS)
    items = [data[i] for i in range(len(data))]
    for name in NAMES:
        found = np.stack([np.asarray(item[name]) for item in items])
        # LeRobot gives a feature of one number without its axis.
        np.testing.assert_array_equal(found.reshape(len(data), -1), whole(name))
    assert {item["task"] for item in items} == {TASK}
    assert [int(item["frame_index"]) for item in items] == [i for n in LENGTHS for i in range(n)]


@pytest.mark.lerobot
def test_lerobot_gives_chunks_of_it(written: Path) -> None:
    """Windows end with their episode, and say so."""
    from torch.utils.data import DataLoader

    ahead = [step / FPS for step in range(CHUNK)]
    data = opened(written, delta_timestamps={"action": ahead, "observation.state": [-1 / FPS, 0.0]})
    batches = list(DataLoader(data, batch_size=sum(LENGTHS)))
    assert len(batches) == 1
    (batch,) = batches
    ends = np.repeat(np.cumsum(LENGTHS), LENGTHS)
    steps = np.arange(len(data))[:, None] + np.arange(CHUNK)
    np.testing.assert_array_equal(batch["action_is_pad"], steps >= ends[:, None])
    clamped = np.minimum(steps, ends[:, None] - 1)
    np.testing.assert_array_equal(batch["action"], whole("action")[clamped])
    assert batch["observation.state"].shape == (sum(LENGTHS), 2, 3)


@pytest.mark.lerobot
def test_statistics_are_those_that_lerobot_computes(written: Path) -> None:
    statistics = opened(written).meta.stats
    compute = pytest.importorskip("lerobot.datasets.compute_stats")
    for name in NAMES:
        values = whole(name)
        theirs = compute.get_feature_stats(values, axis=0, keepdims=False)
        for key in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(statistics[name][key], theirs[key], rtol=1e-4, err_msg=key)
        # Ours are of the whole data; LeRobot's are read from a histogram of each episode.
        for key, share in (("q01", 0.01), ("q99", 0.99)):
            np.testing.assert_allclose(
                statistics[name][key], np.quantile(values, share, axis=0), rtol=1e-5
            )


@pytest.mark.lerobot
def test_the_description_is_that_of_lerobots_own_writer(written: Path, tmp_path: Path) -> None:
    """Also that there are no videos."""
    pytest.importorskip("datasets")
    module = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    features = {
        name: {"dtype": "float32", "shape": (len(parts),), "names": list(parts)}
        for name, parts in NAMES.items()
    }
    data = module.LeRobotDataset.create(
        "me/moves", fps=FPS, features=features, root=tmp_path / "own", use_videos=False
    )
    for episode in episodes():
        for step in range(len(episode["action"])):
            data.add_frame(
                {name: values[step] for name, values in episode.items()} | {"task": TASK}
            )
        data.save_episode()
    data.finalize()
    ours, theirs = (
        json.loads((root / "meta" / "info.json").read_text())
        for root in (written, tmp_path / "own")
    )
    assert ours == theirs
    ours, theirs = (
        {path.relative_to(root): pq.read_schema(path) for path in root.rglob("*.parquet")}
        for root in (written, tmp_path / "own")
    )
    assert set(ours) == set(theirs)
    for file, schema in theirs.items():
        assert set(ours[file].names) == set(schema.names), file
        for field in schema:
            assert str(ours[file].field(field.name).type) == str(field.type), (file, field.name)


@pytest.mark.lerobot
@pytest.mark.slow
def test_lerobot_trains_with_it(written: Path, tmp_path: Path) -> None:
    opened(written)
    pytest.importorskip("accelerate")  # the extra of LeRobot for training
    pytest.importorskip("lerobot.policies.diffusion.modeling_diffusion")
    subprocess.run(
        [
            *(sys.executable, "-m", "lerobot.scripts.lerobot_train"),
            *("--dataset.repo_id=me/moves", f"--dataset.root={written}"),
            *("--policy.type=diffusion", "--policy.device=cpu", "--policy.push_to_hub=false"),
            *("--policy.down_dims=[16,32]", "--policy.n_groups=4"),
            *("--steps=2", "--batch_size=4", "--num_workers=0", "--save_freq=2"),
            f"--output_dir={tmp_path / 'out'}",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PARA_POLICY": "off"},
        check=True,
    )
    (saved,) = (tmp_path / "out").rglob("000002/pretrained_model/model.safetensors")
    assert saved.stat().st_size > 0
