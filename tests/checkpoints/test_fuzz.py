"""Ten thousand damaged configurations and files: each is read, or refused in words."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from para_policy.checkpoints.load import read_checkpoint
from para_policy.checkpoints.original.read import read_original
from para_policy.errors import ParaPolicyError
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoint import save_tiny_checkpoint
from tests.checkpoints.golden import save as save_lerobot

GOLDENS = Path(__file__).parent / "goldens"
PARTS, CASES = 20, 500

JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 16, 10**6, 10**30, 0.5, -0.5, 1e308, 1e-300),
    *(
        float("inf"),
        float("nan"),
        "",
        "x",
        "16",
        "../x",
        "\0",
        "é" * 300,
        [],
        [1],
        [0, 0],
        [16, 32],
    ),
    *([10**9] * 3, [[1]], {}, {"a": 1}, {"type": "VISUAL", "shape": [3, 8, 8]}, "MEAN_STD", "DDIM"),
]


def save_original(directory: Path) -> Path:
    directory.mkdir()
    name = "original_unet.ckpt"
    (directory / name).write_bytes((GOLDENS / name).read_bytes())
    return directory


SOURCES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "native": (save_tiny_checkpoint, 6),
    "LeRobot": (lambda directory: save_lerobot("states", directory), 6),
    "LeRobot, mean and deviation": (lambda directory: save_lerobot("mean_std", directory), 3),
    "LeRobot 2024": (lambda directory: save_lerobot("2024_states", directory), 3),
    "original": (save_original, 4),
}


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON document."""
    if path:
        yield path
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield from places(value, (*path, key))


def damage_json(content: bytes, rng: random.Random) -> bytes:
    document = json.loads(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        found = list(places(document))
        if not found:
            break
        *parents, last = rng.choice(found)
        holder = document
        for key in parents:
            holder = holder[key]
        if rng.random() < 0.2:
            del holder[last]
        elif rng.random() < 0.8 or not isinstance(holder, dict):
            holder[last] = json.loads(json.dumps(rng.choice(JUNK)))
        else:
            holder[rng.choice(["x", "type", "action", "units", "vision"])] = holder[last]
    return json.dumps(document).encode()


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 3, 10])):
        if rng.random() < 0.3:
            damaged = damaged[: rng.randrange(len(damaged))] or bytearray(b"x")
        else:  # headers are at the beginning, a directory of an archive at the end
            reach = min(len(damaged), rng.choice([200, 10**9]))
            place = rng.randrange(reach)
            damaged[place if rng.random() < 0.7 else -1 - place] = rng.randrange(256)
    return bytes(damaged)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("fuzz")
    return {name: save(root / str(i)) for i, (name, (save, _)) in enumerate(SOURCES.items())}


def outcome(directory: Path, file: Path) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = read_original(file) if file.suffix == ".ckpt" else read_checkpoint(directory)
            DiffusionPolicy(found.config, found.state, found.normalizers)
    except ParaPolicyError as error:
        return "refused" if len(str(error)) > 20 else "refused without a reason"
    return "read"


@pytest.mark.parametrize("part", range(PARTS))
def test_damage_ends_in_clear_errors_only(sources: dict[str, Path], part: int) -> None:
    rng = random.Random(part)
    counts = {"read": 0, "refused": 0}
    names = [name for name, (_, weight) in SOURCES.items() for _ in range(weight)]
    for _ in range(CASES):
        directory = sources[rng.choice(names)]
        file = rng.choice(sorted(directory.iterdir()))
        content = file.read_bytes()
        structured = file.suffix == ".json" and rng.random() < 0.85
        damage = damage_json if structured else damage_bytes
        file.write_bytes(damage(content, rng))
        try:
            counts[outcome(directory, file)] += 1
        except Exception as error:
            kept = file.read_bytes()[:2000]
            raise AssertionError(f"{file.name} with {kept!r}") from error
        finally:
            file.write_bytes(content)
    assert counts["refused"] > CASES / 4
    assert counts["read"] > 0, "undamaged parts must still be read"
