"""Unpickler for files of `torch.save` that runs nothing that they contain.

A pickle is a program that names functions and calls them. Here the few names that weights and an
OmegaConf configuration need stand for harmless objects of this package, and every other name is
refused.

`torch.load(weights_only=True)` has the same purpose, but does not know OmegaConf, and before
PyTorch 2.6 it could be made to run code and to read beyond the end of a storage.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch

from para_policy.checkpoints.original.steps import check_steps
from para_policy.checkpoints.original.torch_archive import (
    Archive,
    Sealed,
    Storage,
    StoredTensor,
    refusing,
)
from para_policy.errors import CheckpointError, shown

_MOST_ENTRIES = 100_000


def read_pickle(path: Path) -> Any:
    """Unpickle a file of `torch.save`.

    Returns:
        What was saved, with every tensor a `StoredTensor`; give OmegaConf objects to `plain`.

    Raises:
        CheckpointError: if the file is missing, damaged, of another kind, or names anything but
            tensors, dictionaries and OmegaConf containers.
    """
    archive = Archive.open(path)
    with refusing(path):
        program = archive.read("data.pkl")
        check_steps(path, program)
        return _Unpickler(archive, program).load()


def plain(path: Path, config: Any) -> Any:
    """Turn OmegaConf objects from `read_pickle` into dictionaries, lists and values.

    Raises:
        CheckpointError: if they contain themselves, or are too many for a configuration.
    """
    with refusing(path):
        return _plain(config, count())


def _plain(value: Any, visited: Iterator[int]) -> Any:
    # A list that holds one list twice, which holds another twice and so on, has no end in practice.
    if next(visited) > _MOST_ENTRIES:
        raise CheckpointError(f"the configuration has more than {_MOST_ENTRIES} entries")
    if isinstance(value, _OmegaConf):
        inner = "_content" if "_content" in value.state else "_val"
        return _plain(value.state[inner], visited)
    if isinstance(value, dict):
        return {key: _plain(item, visited) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, visited) for item in value]
    return value


class _Function(Sealed):
    """A function of this module under the name of another one."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


class _OmegaConf:
    """Any object of OmegaConf: keeps the attributes that it was pickled with."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


class _Dict(dict[Any, Any]):
    """An OrderedDict or defaultdict; their attributes, such as `_metadata`, are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise CheckpointError(f"a tensor is made of {type(storage).__name__}, not of a storage")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _parameter(tensor: Any, *_: Any) -> StoredTensor:
    if not isinstance(tensor, StoredTensor):
        raise CheckpointError(f"a parameter is made of {type(tensor).__name__}, not of a tensor")
    return tensor


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if encoding != "latin1":
        raise CheckpointError("the pickle encodes a text in another way than bytes are pickled")
    return text.encode("latin1")


_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_NODES = ("Any", "Boolean", "Bytes", "Float", "Integer", "InterpolationResult", "String")
_OMEGACONF = (
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(f"omegaconf.nodes.{kind}Node" for kind in _NODES),
)
_ALLOWED: dict[str, Any] = {
    "_codecs.encode": _Function(_latin1),
    "collections.OrderedDict": _Function(lambda: _Dict()),
    "collections.defaultdict": _Function(lambda factory: _Dict()),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    **{f"torch.{kind}Storage": dtype for kind, dtype in _STORAGES.items()},
    **dict.fromkeys(_OMEGACONF, _OmegaConf),
    # Types, which OmegaConf notes about its containers and nobody here asks for.
    "dill._dill._load_type": _Function(lambda name: None),
    "typing.Any": None,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: Archive, program: bytes) -> None:
        super().__init__(io.BytesIO(program))
        self._archive = archive

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in _ALLOWED:
            raise CheckpointError(
                f"'{self._archive.path}' asks for {shown(full)}: refused, because weights and a "
                "configuration do not need it and it may run code. Only if you trust those who "
                "made the file, load it with --trust-pickle"
            )
        return _ALLOWED[full]

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str() as key, str(), int() as numel):
                return Storage(self._archive, key, dtype, numel)
        raise CheckpointError(f"'{self._archive.path}' refers to something that is no storage")
