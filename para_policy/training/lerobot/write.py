"""Writer of a LeRobotDataset 3.0 without cameras, as LeRobot 0.6 lays it out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from para_policy.errors import DataError
from para_policy.extras import extra
from para_policy.training.lerobot.layout import INFO_FILE

with extra("lerobot", "writing a LeRobotDataset"):
    import pyarrow as pa
    import pyarrow.parquet as pq

_PLACE = "chunk-000/file-000.parquet"
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_TASKS_AS_PANDAS = {
    "index_columns": ["task"],
    "column_indexes": [
        {
            "name": None,
            "field_name": None,
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": {"encoding": "UTF-8"},
        }
    ],
    "columns": [
        {
            "name": name,
            "field_name": name,
            "pandas_type": pandas_type,
            "numpy_type": numpy_type,
            "metadata": None,
        }
        for name, pandas_type, numpy_type in (
            ("task_index", "int64", "int64"),
            ("task", "unicode", "object"),
        )
    ],
    "attributes": {},
    "pandas_version": "2.3.3",
}
"""LeRobot reads tasks with pandas, which needs all of it, and looks them up in the index."""

Episode = Mapping[str, np.ndarray]
"""Features (steps, width) by name."""


def write_dataset(
    folder: Path,
    episodes: Sequence[Episode],
    names: Mapping[str, Sequence[str]],
    fps: int,
    task: str,
) -> None:
    """Write episodes into a folder that is not there yet.

    Args:
        episodes: all with the same features, float32 or float64.
        names: of the parts of each feature.
        fps: steps per second.
        task: what is done, in words.

    Raises:
        DataError: if the features of the episodes are not those in `names`.
        MissingPackageError: if pyarrow is not installed.
    """
    for number, episode in enumerate(episodes):
        found = {name: values.shape[1:] for name, values in episode.items()}
        expected = {name: (len(parts),) for name, parts in names.items()}
        if found != expected:
            raise DataError(f"episode {number} has features {found}; expected {expected}")
    tables = [_columns(episode, number, fps) for number, episode in enumerate(episodes)]
    ends = np.cumsum([len(table["index"]) for table in tables])
    for table, end in zip(tables, ends, strict=True):
        table["index"] += end - len(table["index"])
    whole = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    _write_table(folder / "data" / _PLACE, pa.table({n: _column(v) for n, v in whole.items()}))
    rows = [
        {
            "episode_index": number,
            "tasks": [task],
            "length": len(table["index"]),
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": int(end) - len(table["index"]),
            "dataset_to_index": int(end),
            **{
                f"stats/{name}/{key}": value
                for name, values in table.items()
                for key, value in _statistics(values).items()
            },
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for number, (table, end) in enumerate(zip(tables, ends, strict=True))
    ]
    _write_table(folder / "meta" / "episodes" / _PLACE, pa.Table.from_pylist(rows))
    tasks = pa.table({"task_index": np.array([0]), "task": [task]})
    _write_table(folder / "meta" / "tasks.parquet", _described(tasks, {"pandas": _TASKS_AS_PANDAS}))
    statistics = {name: _statistics(values) for name, values in whole.items()}
    _write_json(folder / "meta" / "stats.json", statistics)
    _write_json(folder / INFO_FILE, _info(whole, names, fps, len(episodes)))


def _columns(episode: Episode, number: int, fps: int) -> dict[str, np.ndarray]:
    """The features of one episode and what LeRobot adds to them; `index` begins at 0."""
    steps = np.arange(len(next(iter(episode.values()))))
    return {
        **episode,
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(steps), number),
        "index": steps.copy(),
        "task_index": np.zeros(len(steps), np.int64),
    }


def _column(values: np.ndarray) -> Any:
    """One number a row where the width is 1, as LeRobot stores it."""
    flat = pa.array(values.ravel())
    wide = values.ndim == 2 and values.shape[1] > 1
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat


def _statistics(values: np.ndarray) -> dict[str, list[Any]]:
    """Over the steps, for each part."""
    parts = values.reshape(len(values), -1).astype(np.float64)
    found = {
        "min": parts.min(axis=0),
        "max": parts.max(axis=0),
        "mean": parts.mean(axis=0),
        "std": parts.std(axis=0),
        "count": np.array([len(parts)]),
        **{key: np.quantile(parts, level, axis=0) for key, level in _QUANTILES.items()},
    }
    return {key: value.tolist() for key, value in found.items()}


def _info(
    whole: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]], fps: int, episodes: int
) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "fps": fps,
        "features": {
            name: {
                "dtype": str(values.dtype),
                "shape": [len(names.get(name, [name]))],
                "names": list(names[name]) if name in names else None,
            }
            for name, values in whole.items()
        },
        "total_episodes": episodes,
        "total_frames": len(whole["index"]),
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "robot_type": None,
        "splits": {"train": f"0:{episodes}"},
    }


def _described(table: Any, metadata: Mapping[str, Any]) -> Any:
    return table.replace_schema_metadata(
        {key: json.dumps(value) for key, value in metadata.items()}
    )


def _write_table(path: Path, table: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")
