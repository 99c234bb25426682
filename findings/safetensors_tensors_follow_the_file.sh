#!/usr/bin/env bash
# safetensors 0.8: torch tensors that were loaded from a file change when the file is overwritten in place, as `cp` does.
#
# On a CPU load_file and safe_open hand out views of the mapped file, not copies, and say nothing of it. The mapping is
# private, so writing to a tensor never reaches the file, which looks like independence; but what was not written to is
# still the file. Weights that a program loaded an hour ago are the new ones as soon as a new checkpoint is copied over the
# old, all at once or page by page. A module that copies in load_state_dict is safe; one that takes the tensors
# over with assign=True is not. The same file read as NumPy arrays stays what it was, and so do tensors whose file is
# replaced by os.replace, or that were cloned.
#
# Seen: ones become zeros in the tensors of load_file, of safe_open and in the module with assign=True; not in the
# other four.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import os
import shutil
from pathlib import Path

import safetensors.numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SIZE = 512


def opened(path: Path) -> torch.Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor("weight")


def module(path: Path, assign: bool) -> torch.Tensor:
    made = torch.nn.Linear(SIZE, SIZE, bias=False)
    made.load_state_dict(load_file(path), assign=assign)
    return made.weight.detach()


def after(read, write=shutil.copyfile) -> str:
    """What a weight of ones is after zeros were written over its file."""
    path, other = Path("policy.safetensors"), Path("new.safetensors")
    save_file({"weight": torch.ones(SIZE, SIZE)}, path)
    weight = read(path)
    save_file({"weight": torch.zeros(SIZE, SIZE)}, other)
    write(other, path)
    return "ones" if float(weight.sum()) == SIZE * SIZE else "changed"


found = {
    "load_file": after(lambda path: load_file(path)["weight"]),
    "safe_open": after(opened),
    "load_state_dict, assign=True": after(lambda path: module(path, assign=True)),
    "load_state_dict": after(lambda path: module(path, assign=False)),
    "NumPy": after(lambda path: safetensors.numpy.load_file(path)["weight"]),
    "load_file, os.replace": after(lambda path: load_file(path)["weight"], os.replace),
    "load_file, clone": after(lambda path: load_file(path)["weight"].clone()),
}
for name, value in found.items():
    print(f"{name}: {value}")
assert list(found.values()) == ["changed"] * 3 + ["ones"] * 4
PY
