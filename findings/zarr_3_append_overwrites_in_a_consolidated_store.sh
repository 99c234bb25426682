#!/usr/bin/env bash
# zarr 3.1: in a store with consolidated metadata each append that goes through the group overwrites the one before.
#
# zarr 3 reads consolidated metadata wherever it finds some, when a group is opened for writing as well. An array
# that is reached through the group has the shape it had when they were written; append() begins there and leaves
# them as they are. So a recorder that opens the store, appends an episode, and does so again, writes all
# episodes to one place. The file counts one of them, readers of the group none, and arrays that are made later are
# not listed. zarr 2 took consolidated metadata only if it was asked to (open_consolidated), so the same
# program, on a data set that somebody consolidated for downloads, was right before the upgrade. Open with
# use_consolidated=False.
#
# Seen: 4 rows, then episodes 1, 2 and 3 of 2 rows each: the array ends with 3 3, the group says 4 rows, in both
# formats; with use_consolidated=False 1 1 2 2 3 3.
#
# Needs Python 3.11 or later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numcodecs==0.16.5 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import zarr

START, EPISODE, EPISODES = 4, 2, 3


def recorded(zarr_format: int, **options: bool) -> tuple[list[float], int, list[str]]:
    """What the file holds after three episodes were appended, the rows that the group tells, and its arrays."""
    path = f"format_{zarr_format}_{len(options)}.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    root.create_array("data/state", data=np.zeros((START, 1), np.float32))
    zarr.consolidate_metadata(path)
    for episode in range(1, EPISODES + 1):
        state = zarr.open_group(path, mode="a", **options)["data/state"]
        state.append(np.full((EPISODE, 1), episode, np.float32))
    zarr.open_group(path, mode="a", **options)["data"].create_array("reward", shape=(1,), dtype="f4")
    group = zarr.open_group(path, mode="r", **options)
    held = zarr.open_array(f"{path}/data/state", mode="r")[START:, 0].tolist()
    return held, group["data/state"].shape[0], sorted(group["data"])


for zarr_format in (2, 3):
    plain, asked = recorded(zarr_format), recorded(zarr_format, use_consolidated=False)
    print(f"format {zarr_format}: {plain}; with use_consolidated=False: {asked}")
    assert plain == ([3, 3], START, ["state"])
    assert asked == ([1, 1, 2, 2, 3, 3], START + EPISODES * EPISODE, ["reward", "state"])
PY
