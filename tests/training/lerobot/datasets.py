"""LeRobotDatasets as LeRobot writes them, from arrays: folders, parquet and mp4."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FILMED, STORED = "observation.image", "observation.images.wrist"
SIZE = (40, 48)
PATHS = {
    "v2.1": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    "v3.0": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}


@dataclass(frozen=True)
class Layout:
    """How a data set is written.

    Attributes:
        lengths: of the episodes.
        episodes_per_file: of version 3.0; of version 2.1 in a folder.
        changes: of info.json.
    """

    version: str = "v3.0"
    lengths: Sequence[int] = (12, 1, 7)
    fps: int = 10
    episodes_per_file: int = 2
    cameras: Sequence[str] = (FILMED, STORED)
    changes: Mapping[str, Any] = field(default_factory=dict)


def shade(step: int) -> int:
    """How bright the frames of a step are: 20 steps can be told apart."""
    return 12 * (step % 20)


def frame(step: int) -> np.ndarray:
    """uint8 (height, width, 3): the left half red, the right half blue."""
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[:, : SIZE[1] // 2, 0] = shade(step)
    picture[:, SIZE[1] // 2 :, 2] = shade(step)
    return picture


def steps_of(frames: np.ndarray) -> np.ndarray:
    """The step, modulo 20, that each frame (n, height, width, 3) shows."""
    quarter = SIZE[1] // 4
    left, right = frames[:, 8:-8, :quarter, 0], frames[:, 8:-8, -quarter:, 2]
    shown = np.stack([left.mean(axis=(1, 2)), right.mean(axis=(1, 2))], axis=1) / 12
    assert np.abs(shown - np.round(shown)).max() < 0.4
    assert (np.round(shown[:, 0]) == np.round(shown[:, 1])).all()
    return np.round(shown[:, 0]).astype(int)


def arrays(count: int) -> dict[str, np.ndarray]:
    """What is recorded besides images, as numbers of the step."""
    step = np.arange(count)
    return {
        "observation.state": np.stack([step, -step, 0 * step], axis=1).astype(np.float32),
        "observation.matrix": (step[:, None, None] + 0.1 * np.arange(6).reshape(2, 3)),
        "next.reward": step.astype(np.float32)[:, None],
        "next.done": np.zeros((count, 1), bool),
        "action": np.stack([2 * step, step + 0.5], axis=1),
    }


def write_dataset(root: Path, layout: Layout = Layout()) -> Path:
    """Write the data set and return its folder."""
    total = sum(layout.lengths)
    values = arrays(total)
    ends = np.cumsum(layout.lengths)
    write_info(root, layout, values)
    places = []
    for k, (end, length) in enumerate(zip(ends, layout.lengths, strict=True)):
        chunk, number = divmod(k, layout.episodes_per_file)
        if layout.version == "v3.0":
            chunk, number = 0, chunk
        else:
            number = k
        places.append((chunk, number, int(end - length), int(end)))
    files: dict[tuple[int, int], list[int]] = {}
    for episode, (chunk, number, *_) in enumerate(places):
        files.setdefault((chunk, number), []).append(episode)
    rows = []
    for (chunk, number), episodes in files.items():
        parts = [table(values, layout, k, *places[k][2:]) for k in episodes]
        write_table(root / name(layout, 0, chunk, number), pa.concat_tables(parts))
        start = 0.0
        for k in episodes:
            begin, end = places[k][2:]
            rows.append(
                {
                    "episode_index": k,
                    "tasks": ["play"],
                    "length": end - begin,
                    "data/chunk_index": chunk,
                    "data/file_index": number,
                    **{
                        f"videos/{FILMED}/{key}": value
                        for key, value in (
                            ("chunk_index", chunk),
                            ("file_index", number),
                            ("from_timestamp", start),
                            ("to_timestamp", start + (end - begin) / layout.fps),
                        )
                    },
                }
            )
            start += (end - begin) / layout.fps
        if FILMED in layout.cameras:
            first, last = places[episodes[0]][2], places[episodes[-1]][3]
            video = root / name(layout, 1, chunk, number, FILMED)
            write_video(video, [frame(step) for step in range(first, last)], layout.fps)
    if layout.version == "v3.0":
        write_table(root / "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(rows))
    else:
        lines = [{key: row[key] for key in ("episode_index", "tasks", "length")} for row in rows]
        (root / "meta" / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return root


def name(layout: Layout, which: int, chunk: int, number: int, camera: str = "") -> str:
    return PATHS[layout.version][which].format(
        episode_chunk=chunk,
        episode_index=number,
        chunk_index=chunk,
        file_index=number,
        video_key=camera,
    )


def write_info(root: Path, layout: Layout, values: Mapping[str, np.ndarray]) -> None:
    features = {
        key: {"dtype": str(value.dtype), "shape": list(value.shape[1:]), "names": None}
        for key, value in values.items()
    }
    for key in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        kind = "float32" if key == "timestamp" else "int64"
        features[key] = {"dtype": kind, "shape": [1], "names": None}
    for camera in layout.cameras:
        features[camera] = {
            "dtype": "video" if camera == FILMED else "image",
            "shape": [*SIZE, 3],
            "names": ["height", "width", "channels"],
        }
    data_path, video_path = PATHS[layout.version]
    info = {
        "codebase_version": layout.version,
        "robot_type": None,
        "total_episodes": len(layout.lengths),
        "total_frames": sum(layout.lengths),
        "chunks_size": layout.episodes_per_file if layout.version == "v2.1" else 1000,
        "fps": layout.fps,
        "data_path": data_path,
        "video_path": video_path,
        "features": features,
        **layout.changes,
    }
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))


def table(
    values: Mapping[str, np.ndarray], layout: Layout, episode: int, begin: int, end: int
) -> pa.Table:
    """The rows of one episode."""
    step = np.arange(begin, end)
    columns: dict[str, Any] = {key: _column(value[begin:end]) for key, value in values.items()}
    columns["timestamp"] = ((step - begin) / layout.fps).astype(np.float32)
    columns["frame_index"] = step - begin
    columns["episode_index"] = np.full(len(step), episode)
    columns["index"] = step
    columns["task_index"] = np.zeros(len(step), np.int64)
    if STORED in layout.cameras:
        columns[STORED] = [{"bytes": png(frame(k)), "path": f"frame-{k:06d}.png"} for k in step]
    return pa.table(columns)


def _column(values: np.ndarray) -> Any:
    if values.shape[1:] == (1,):
        return values[:, 0]
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.array(values.tolist())


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(path: Path, content: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)


def write_video(path: Path, pictures: Sequence[np.ndarray], fps: int) -> None:
    """A key frame every five frames, so that most frames need the ones before them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size, stream.bit_rate = 5, 4_000_000
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
