"""Records what LeRobot writes, and what it reads of that, for test_dataset.py.

Run once for each version, with that version on PYTHONPATH:

    python -m tests.training.lerobot.goldens.make_datasets v3.0     LeRobot 0.6.1, Python 3.12
    python -m tests.training.lerobot.goldens.make_datasets v2.1     LeRobot 0.3.3, datasets 3.6

0.3.3 decodes with torchvision's VideoReader, which torchvision 0.26 lost: its `decode_video_frames` was
replaced by `decode_video_frames_pyav` of 0.6.1. Folders `images/`, which 0.3.3 leaves behind and does
not read, were deleted.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LENGTHS = (5, 2, 7)
AXES = ["height", "width", "channels"]
FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
    "observation.environment_state": {"dtype": "float32", "shape": (2, 3), "names": None},
    "observation.image": {"dtype": "video", "shape": (48, 64, 3), "names": AXES},
    "observation.images.wrist": {"dtype": "image", "shape": (8, 10, 3), "names": AXES},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "action": {"dtype": "float64", "shape": (2,), "names": ["a", "b"]},
}


def frames() -> list[list[dict[str, Any]]]:
    """The episodes."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    episodes, k = [], 0
    for length in LENGTHS:
        episodes.append([])
        for i in range(length):
            colours = ((3 * x + 5 * k) % 256, (4 * y + 7 * k) % 256, np.full_like(x, 6 * k % 256))
            episodes[-1].append(
                {
                    "observation.state": random.normal(size=3).astype(np.float32),
                    "observation.environment_state": random.normal(size=(2, 3)).astype(np.float32),
                    "observation.image": np.stack(colours, axis=-1).astype(np.uint8),
                    "observation.images.wrist": random.integers(0, 256, (8, 10, 3), np.uint8),
                    "next.reward": np.array([k], np.float32),
                    "next.done": np.array([i == length - 1]),
                    "action": random.normal(size=2),
                }
            )
            k += 1
    return episodes


def main(version: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = HERE / version
    data = LeRobotDataset.create("me/moves", fps=10, features=FEATURES, root=root)
    for episode in frames():
        for frame in episode:
            if "task" in inspect.signature(data.add_frame).parameters:
                data.add_frame(frame, task="move")
            else:
                data.add_frame({**frame, "task": "move"})
        data.save_episode()
    if hasattr(data, "finalize"):
        data.finalize()
    read = LeRobotDataset("me/moves", root=root, video_backend="pyav")
    items = [read[i] for i in range(len(read))]
    columns = {name: np.stack([np.asarray(item[name]) for item in items]) for name in FEATURES}
    for name, feature in FEATURES.items():
        if feature["dtype"] in ("image", "video"):
            columns[name] = np.round(255 * columns[name]).astype(np.uint8)
    np.savez_compressed(HERE / f"{version}.npz", **columns)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1])
