"""Tensors come back as they were saved, and every forged number is found out."""

from __future__ import annotations

import collections
import os
import struct
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch

from para_policy.checkpoints.original.read import read_original
from para_policy.checkpoints.original.torch_archive import StoredTensor
from para_policy.checkpoints.original.unpickle import read_pickle
from para_policy.errors import CheckpointError
from tests.checkpoints.forgery import Call, Persistent, dumps, forge
from tests.checkpoints.original_goldens import GOLDENS

UNET = GOLDENS / "original_unet.ckpt"


def test_tensors_come_back_as_they_were_saved(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    saved: dict[str, torch.Tensor] = {
        "whole": base,
        "view": base[1:3, ::2],
        "transposed": base.T,
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(base + 1),
        "bool": base > 5,
        "bytes": base.to(torch.uint8),
        "small": base.to(torch.int8),
        **{str(kind): base.to(kind) for kind in kinds},
    }
    torch.save(saved, tmp_path / "tensors.pt")
    found = read_pickle(tmp_path / "tensors.pt")
    for name, value in saved.items():
        stored = found[name]
        assert isinstance(stored, StoredTensor)
        assert stored.read().dtype == value.dtype
        assert torch.equal(stored.read(), value)


def tensor(
    numel: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    dtype: Any = torch.FloatStorage,
    key: Any = "0",
) -> Call:
    storage = Persistent(("storage", dtype, key, "cpu", numel))
    hooks: Any = collections.OrderedDict()
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, hooks)


TENSORS = [
    (tensor(4, 0, (1000,), (1,)), "beyond"),
    (tensor(4, 0, (2, 3), (3, 1)), "beyond"),
    (tensor(4, 3, (2,), (1,)), "beyond"),
    (tensor(4, 10**12, (1,), (1,)), "beyond"),
    (tensor(4, -1, (1,), (1,)), "beyond"),
    (tensor(4, 0, (2,), (-1,)), "beyond"),
    (tensor(4, 0, (-2,), (1,)), "beyond"),
    (tensor(4, 0, (10**12,), (0,)), "beyond"),
    (tensor(4, 0, (2**63, 2**63), (0, 0)), "beyond"),
    (tensor(4, 0, (2,), (1, 1)), "beyond"),
    (tensor(4, 0, (1,) * 1000, (1,) * 1000), "beyond"),
    (tensor(4, 0, ("a",), (1,)), "beyond"),
    (tensor(4, 0.5, (1,), (1,)), "beyond"),
    (tensor(4, 0, (2.0,), (1,)), "beyond"),
    (tensor(10**9, 0, (10**9,), (1,)), "has 16 bytes, not 1000000000 numbers"),
    (tensor(3, 0, (3,), (1,)), "has 16 bytes, not 3"),
    (tensor(-4, 0, (1,), (1,)), "beyond"),
    (tensor(4, 0, (4,), (1,), torch.DoubleStorage), "has 16 bytes, not 4"),
    (tensor(4, 0, (4,), (1,), key="1"), "lacks its record 'data/1'"),
    (tensor(4, 0, (4,), (1,), key="../data.pkl"), "lacks its record"),
]


@pytest.mark.parametrize(("value", "words"), TENSORS)
def test_tensors_that_do_not_lie_in_the_file_are_refused(
    value: Call, words: str, tmp_path: Path
) -> None:
    numbers = struct.pack("4f", 1, 2, 3, 4)
    path = forge(tmp_path / "evil.ckpt", dumps(value), {"data/0": numbers})
    with pytest.raises(CheckpointError, match=words):
        read_pickle(path).read()


def repacked(target: Path, compression: int = ZIP_STORED, **changes: bytes | None) -> Path:
    """A copy of a checkpoint with other records."""
    with ZipFile(UNET) as old, ZipFile(target, "w", compression) as new:
        root = old.namelist()[0].partition("/")[0]
        contents = {name: old.read(name) for name in old.namelist()}
        for name, content in changes.items():
            record = f"{root}/{name.replace('__', '/').replace('_pkl', '.pkl')}"
            contents.pop(record, None)
            if content is not None:
                new.writestr(record, content)
        for name, content in contents.items():
            new.writestr(name, content)
    return target


ARCHIVES: list[tuple[dict[str, Any], str]] = [
    ({"compression": ZIP_DEFLATED}, "neither compresses nor repeats"),
    ({"data_pkl": None}, "expected one data.pkl"),
    ({"more__data_pkl": b""}, "expected one data.pkl"),
    ({"constants_pkl": b""}, "no file of torch.save"),
    ({"byteorder": b"big"}, "big-endian"),
]


@pytest.mark.parametrize(("changes", "words"), ARCHIVES)
def test_archives_that_torch_does_not_write_are_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_original(repacked(tmp_path / "changed.ckpt", **changes))


def test_storages_that_are_missing_are_named(tmp_path: Path) -> None:
    weight = read_pickle(UNET)["state_dicts"]["ema_model"]["model.final_conv.1.bias"]
    path = repacked(tmp_path / "changed.ckpt", **{f"data__{weight.storage.key}": None})
    with pytest.raises(CheckpointError, match=f"lacks its record 'data/{weight.storage.key}'"):
        read_original(path)


def test_records_that_nothing_refers_to_change_nothing(tmp_path: Path) -> None:
    path = repacked(tmp_path / "changed.ckpt", data__evil=dumps(Call(os.system, "false")))
    assert read_original(path).config == read_original(UNET).config


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_repeated_records_are_refused(tmp_path: Path) -> None:
    path = repacked(tmp_path / "changed.ckpt")
    with ZipFile(path, "a") as file:
        file.writestr(file.namelist()[0], b"another")
    with pytest.raises(CheckpointError, match="neither compresses nor repeats"):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}.", b"PK\x05\x06", b"PK\x05\x06" + bytes(18)])
def test_files_of_another_kind_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"no file of torch\.save"):
        read_original(path)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.ckpt"):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            read_original(path)


def test_files_of_the_old_format_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({"cfg": 1}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"PyTorch 1\.6 or newer.*save it with a newer one"):
        read_original(path)


def test_files_that_end_early_are_refused(tmp_path: Path) -> None:
    content, path = UNET.read_bytes(), tmp_path / "short.ckpt"
    for part in (0.01, 0.3, 0.7, 0.99, 0.9999):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(CheckpointError, match=r"truncated|damaged"):
            read_original(path)
