#!/usr/bin/env bash
# datasets 5.2: in numpy and torch format a float64 column comes in float32; a number of a single row stays float64.
#
# Dataset.with_format("numpy") makes float32 of every array of floats, so a column or batch of time stamps
# in seconds since 1970 has steps of 128 s: all frames of an episode have one time, differences are 0, and a
# tolerance check of time stamps passes. ds[0]["timestamp"] shows the exact number, so a look at one row does
# not tell. In torch format that is float32 as well. dtype="float64", or dtype=torch.float64, keeps all. Arrow, pandas
# and no format keep float64; the file itself is exact.
#
# Seen: times 0.1 s apart: differences of the column 0.0 in numpy and torch, 0.1 with dtype, without format and
# row by row in numpy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
import numpy as np
import torch
from datasets import Dataset

START, STEP, FRAMES = 1_796_000_000, 0.1, 5
ds = Dataset.from_dict({"timestamp": (START + STEP * np.arange(FRAMES)).tolist()})
assert ds.features["timestamp"].dtype == "float64"


def steps(times) -> list[float]:
    return np.round(np.diff(np.asarray(times, np.float64)), 3).tolist()


def column(kind: str | None, **options) -> list[float]:
    return steps(ds.with_format(kind, **options)[:]["timestamp"])


def rows(kind: str) -> list[float]:
    formatted = ds.with_format(kind)
    return steps([formatted[frame]["timestamp"] for frame in range(FRAMES)])


EXACT, LOST = [STEP] * (FRAMES - 1), [0.0] * (FRAMES - 1)
found = {
    "no format": (column(None), EXACT),
    "numpy": (column("numpy"), LOST),
    "numpy, row by row": (rows("numpy"), EXACT),
    "numpy, dtype": (column("numpy", dtype="float64"), EXACT),
    "torch": (column("torch"), LOST),
    "torch, row by row": (rows("torch"), LOST),
    "torch, dtype": (column("torch", dtype=torch.float64), EXACT),
}
for name, (seen, expected) in found.items():
    print(f"{name}: {seen}")
    assert seen == expected, name
PY
