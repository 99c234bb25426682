"""Files that are forged to take time or memory.

`python -m tests.checkpoints.forged_files FOLDER` reads all that lie in a folder, each in a process of
its own, and prints what it took: the error, MiB and seconds.
"""

from __future__ import annotations

import collections
import json
import multiprocessing
import resource
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import torch

from para_policy.checkpoints.load import read_checkpoint
from para_policy.checkpoints.original.read import read_original
from para_policy.errors import CheckpointError
from tests.checkpoint import save_tiny_checkpoint
from tests.checkpoints.forgery import Call, Persistent, dumps, forge
from tests.checkpoints.golden import save as save_lerobot
from tests.checkpoints.original_goldens import GOLDENS

MIB = 2**20
Forge = Callable[[Path], Path]


def padded_json(path: Path) -> Path:
    directory = save_tiny_checkpoint(path)
    (directory / "config.json").write_text("[" + "[]," * (10 * MIB) + "[]]")
    return directory


def nested_json(path: Path) -> Path:
    directory = save_tiny_checkpoint(path)
    (directory / "config.json").write_text('{"a":' * MIB + "1" + "}" * MIB)
    return directory


def many_tensors(path: Path) -> Path:
    directory = save_tiny_checkpoint(path)
    empty = '"dtype":"F32","shape":[0],"data_offsets":[0,0]'
    header = ("{" + ",".join(f'"{i}":{{{empty}}}' for i in range(400_000)) + "}").encode()
    header += b" " * (-len(header) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return directory


def huge_name(path: Path) -> Path:
    directory = save_tiny_checkpoint(path)
    header = b'{"' + b"n" * (12 * MIB) + b'":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    header += b" " * (-len(header) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return directory


def odd_numbers(path: Path) -> Path:
    directory = save_tiny_checkpoint(path)
    header = b'{"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}'
    header += b" " * (-len(header) % 8)
    content = struct.pack("<Q", len(header)) + header + bytes(8)
    (directory / "model.safetensors").write_bytes(content)
    return directory


def packed_average(path: Path) -> Path:
    save_lerobot("states", path / "pretrained_model")
    state = path / "training_state" / "ema_state.pt"
    state.parent.mkdir()
    torch.save({"shadow_params": [torch.zeros(64 * MIB // 4)]}, state)
    content = {}
    with ZipFile(state) as stored:
        content = {name: stored.read(name) for name in stored.namelist()}
    with ZipFile(state, "w", ZIP_DEFLATED) as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    return path


def view(numel: int) -> Call:
    storage = Persistent(("storage", torch.FloatStorage, "0", "cpu", numel))
    hooks: Any = collections.OrderedDict()
    return Call(torch._utils._rebuild_tensor_v2, storage, 0, (numel,), (1,), False, hooks)


def cfg() -> Any:
    """A configuration that is in order, so that weights are read."""
    from para_policy.checkpoints.original.unpickle import plain, read_pickle

    path = GOLDENS / "original_unet.ckpt"
    return plain(path, read_pickle(path)["cfg"])


def aliased(path: Path) -> Path:
    numel = 4 * MIB
    weights = {f"model.{i}": view(numel) for i in range(200)}
    program = dumps({"cfg": cfg(), "state_dicts": {"ema_model": weights}})
    return forge(path.with_suffix(".ckpt"), program, {"data/0": bytes(4 * numel)})


def small_views(path: Path) -> Path:
    """Each of so many tensors would read the whole storage."""
    numel = 4 * MIB
    storage = Persistent(("storage", torch.FloatStorage, "0", "cpu", numel))
    hooks: Any = collections.OrderedDict()
    weights = {
        f"model.{i}": Call(torch._utils._rebuild_tensor_v2, storage, i, (1,), (1,), False, hooks)
        for i in range(5_000)
    }
    program = dumps({"cfg": cfg(), "state_dicts": {"ema_model": weights}})
    return forge(path.with_suffix(".ckpt"), program, {"data/0": bytes(4 * numel)})


def huge_key(path: Path) -> Path:
    weights = {"k" * (20 * MIB): view(1)}
    program = dumps({"cfg": cfg(), "state_dicts": {"ema_model": weights}})
    return forge(path.with_suffix(".ckpt"), program, {"data/0": bytes(4)})


def huge_integer(path: Path) -> Path:
    changed = cfg()
    changed["policy"]["horizon"] = 1 << 80_000
    program = dumps({"cfg": changed, "state_dicts": {}})
    return forge(path.with_suffix(".ckpt"), program)


def many_records(path: Path, *, long: bool = False) -> Path:
    """Records that lie nowhere, but are listed; the size of the list may be said in two places."""
    path = path.with_suffix(".ckpt")
    with ZipFile(path, "w") as file:
        for i in range(70_000):
            file.writestr(f"archive/data/{i}", b"")
    if long:  # the size in the last record is not read where there is a longer one
        content = bytearray(path.read_bytes())
        content[-10:-6] = bytes(4)
        path.write_bytes(content)
    return path


def pickle(program: bytes) -> Forge:
    return lambda path: forge(path.with_suffix(".ckpt"), program)


def configuration(entry: bytes) -> Forge:
    """A whole checkpoint whose configuration is this part of a pickle."""
    named = b"X\x0b\x00\x00\x00state_dicts" + b"}s"
    return pickle(b"\x80\x02}" + b"X\x03\x00\x00\x00cfg" + entry + b"s" + named + b".")


FORGED: dict[str, tuple[Forge, str]] = {
    "padded JSON": (padded_json, "bytes of JSON"),
    "nested JSON": (nested_json, "not valid JSON"),
    "many tensors": (many_tensors, "bytes of JSON"),
    "huge name": (huge_name, "has unknown"),
    "odd numbers": (odd_numbers, "expected plain numbers"),
    "packed average": (packed_average, "no state of averaged weights"),
    "aliased storages": (aliased, "same numbers again and again"),
    "small views": (small_views, "it does not hold the policy"),
    "huge key": (huge_key, "it does not hold the policy"),
    "huge integer": (huge_integer, "horizon"),
    "many records": (many_records, "lists more records"),
    "many records, said elsewhere": (partial(many_records, long=True), "lists more records"),
    "nested lists": (configuration(b"]" * 200_000 + b"a" * 199_999), "forged"),
    "nested tuples": (configuration(b")" + b"\x85" * 200), "nested more than"),
    "nested keys": (pickle(b"\x80\x02})" + b"\x85" * 200 + b"Ns."), "nested more than"),
    "nested and kept": (pickle(b"\x80\x02})" + b"\x85q\x00" * 200 + b"Ns."), "nested more"),
    "many steps": (pickle(b"\x80\x02" + b"N0" * (5 * MIB) + b"N."), "more than"),
    "many objects": (pickle(b"\x80\x02]" + b"]a" * (5 * MIB) + b"."), "more than"),
}


def read(path: Path) -> str:
    """What becomes of a file: the error, or "read"."""
    try:
        if path.is_file():
            read_original(path)
        else:
            average = path / "pretrained_model"
            read_checkpoint(average, weights="ema") if average.exists() else read_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return "read"


def measured(path: Path, answers: Connection) -> None:
    """Read a file in this process, and tell what it took."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before, begun = _peak_mib(), time.process_time()
    outcome = read(path)
    answers.send((outcome, _peak_mib() - before, time.process_time() - begun))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    read(save_tiny_checkpoint(folder / "good"))
    read(GOLDENS / "original_unet.ckpt")
    found, context = {}, multiprocessing.get_context("fork")
    for path in sorted(folder.iterdir()):
        answers, answering = context.Pipe(duplex=False)
        process = context.Process(target=measured, args=(path, answering))
        process.start()
        answering.close()
        try:
            found[path.stem] = answers.recv()
        except EOFError:  # it was killed
            found[path.stem] = (f"ended with {process.exitcode}", 0.0, 0.0)
        process.join()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
