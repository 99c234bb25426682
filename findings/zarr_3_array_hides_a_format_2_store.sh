#!/usr/bin/env bash
# zarr 3.1 to 3.4: one array written into a store of format 2 hides all the others.
#
# Demonstrations of Diffusion Policy are zarr stores of format 2. zarr.create_array(path, name="data/reward"),
# like zarr.save_array, zarr.array and zarr.open_array(path, path=..., mode="a"), writes an array of format 3
# and, without a word, makes groups of format 3 of all folders above it. Where both formats are, zarr reads
# format 3, and a group of format 3 has no members of format 2: states, actions and episode ends are gone
# until these zarr.json files are deleted. Groups that already exist are not asked for their format, though
# root["data"].create_array("reward", ...) and root.create_array("data/reward", ...) follow it.
#
# Seen: data: action, state and meta: episode_ends before; data: reward and nothing else after, with
# root["data/state"] a KeyError; all four through the group. zarr 3.4.2 on Python 3.12 does the same.
#
# Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numcodecs==0.16.5 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import warnings
from pathlib import Path

import numpy as np
import zarr

STEPS = np.arange(10.0).reshape(5, 2)
REWARD = np.ones(5)


def demonstrations(path: str) -> str:
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for name, values in {
        "data/action": STEPS,
        "data/state": STEPS,
        "meta/episode_ends": np.array([2, 5]),
    }.items():
        root.create_array(name, data=values)
    return path


def arrays(path: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Both zarr.json (Zarr format 3) and .zgroup exist"
        root = zarr.open_group(path, mode="r")
        return sorted(name for name, _ in root.members(max_depth=None) if "/" in name)


BEFORE = ["data/action", "data/state", "meta/episode_ends"]
WRITERS = {
    "create_array": lambda path: zarr.create_array(path, name="data/reward", data=REWARD),
    "save_array": lambda path: zarr.save_array(path, REWARD, path="data/reward"),
    "array": lambda path: zarr.array(REWARD, store=path, path="data/reward"),
    "open_array": lambda path: zarr.open_array(
        path, path="data/reward", mode="a", shape=(5,), dtype="f8"
    ),
}
for name, write in WRITERS.items():
    path = demonstrations(f"{name}.zarr")
    assert arrays(path) == BEFORE
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # so it writes without a warning
        write(path)
    print(f"zarr.{name}: {BEFORE} -> {arrays(path)}")
    assert arrays(path) == ["data/reward"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        zarr.open_group("create_array.zarr", mode="r")["data/state"]
    except KeyError as error:
        print("data/state: KeyError", error)
    else:
        raise AssertionError("data/state was found")
for folder in ("", "data"):
    Path("create_array.zarr", folder, "zarr.json").unlink()
assert arrays("create_array.zarr") == BEFORE

path = demonstrations("group.zarr")
zarr.open_group(path, mode="a")["data"].create_array("reward", data=REWARD)
print(f"through the group: {arrays(path)}")
assert arrays(path) == sorted([*BEFORE, "data/reward"])
PY
