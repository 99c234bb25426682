"""Nothing in a pickle is run, whatever it asks for."""

from __future__ import annotations

import builtins
import copyreg
import os
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from para_policy.checkpoints.original.read import read_original
from para_policy.checkpoints.original.unpickle import plain, read_pickle
from para_policy.errors import CheckpointError
from tests.checkpoints.forgery import Call, dumps, forge
from tests.checkpoints.original_goldens import GOLDENS

UNET = GOLDENS / "original_unet.ckpt"


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that attacks try to make; none may succeed."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def text(value: str) -> bytes:
    """The opcode of a string."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


CALLS: list[tuple[Callable[[str], Any], str]] = [
    (lambda canary: Call(os.system, f"touch {canary}"), r"posix\.system"),
    (lambda canary: Call(builtins.eval, f"open({canary!r}, 'w')"), r"(builtins|__builtin__)\.eval"),
    (lambda canary: Call(builtins.exec, f"open({canary!r}, 'w')"), r"(builtins|__builtin__)\.exec"),
    (lambda canary: Call(builtins.getattr, os, "system"), r"builtins\.getattr"),
    (lambda canary: Call(open, canary, "w"), r"io\.open"),
    (
        lambda canary: Call(pickle.loads, dumps(Call(open, canary, "w"))),
        r"(_pickle|cPickle|pickle)\.loads",
    ),
]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(("attack", "name"), CALLS)
def test_calls_are_refused_by_name(
    attack: Callable[[str], Any], name: str, protocol: int, tmp_path: Path, canary: Path
) -> None:
    if "getattr" in name:
        program = b"\x80\x02cbuiltins\ngetattr\n" + text("x") + text("system") + b"\x86R."
    else:
        program = dumps({"cfg": attack(str(canary)), "state_dicts": {}}, protocol)
    with pytest.raises(CheckpointError, match=f"asks for '{name}': refused.*--trust-pickle"):
        read_original(forge(tmp_path / "evil.ckpt", program))


PROGRAMS: list[tuple[bytes, str]] = [
    # dill's ways to make functions, modules and types.
    (b"cdill._dill\n_create_function\n.", "'dill._dill._create_function'"),
    (b"cdill._dill\n_import_module\n.", "'dill._dill._import_module'"),
    (b"cdill._dill\n_create_type\n.", "'dill._dill._create_type'"),
    # Attributes of what is allowed.
    (b"\x80\x04" + text("collections") + text("OrderedDict.__init__") + b"\x93.", "__init__'"),
    (
        b"\x80\x04" + text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.",
        "glob",
    ),
    (b"ccollections\ndefaultdict.__init__.__globals__\n.", "__globals__'"),
    # Old ways to make objects.
    (b"(" + text("touch /tmp/x") + b"ios\nsystem\n.", "'os.system'"),
    (b"(cos\nsystem\n" + text("touch /tmp/x") + b"o.", "'os.system'"),
    (b"\x80\x02cos\nsystem\n)\x81.", "'os.system'"),
    (b"\x82\x01.", "EXT1"),
    (b"\x83\x01\x00.", "EXT2"),
    (b"\x84\x01\x00\x00\x00.", "EXT4"),
    # Changes to what is allowed.
    (b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("a") + text("b") + b"sb.", "sets attributes"),
    (b"ccollections\nOrderedDict\nN}" + text("_call") + b"Ns\x86b.", "sets attributes"),
    (b"comegaconf.dictconfig\nDictConfig\n}" + text("a") + text("b") + b"sb.", "forged"),
    (b"ctorch\nFloatStorage\nN}" + text("itemsize") + b"Ns\x86b.", "forged"),
    # Calls of what is allowed, with what it is not made for.
    (b"c_codecs\nencode\n" + text("abc") + text("rot13") + b"\x86R.", "encodes a text"),
    (b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"NNNNt" + b"R.", "made of NoneType"),
    (b"ctorch._utils\n_rebuild_parameter\n(" + text("x") + b"NNtR.", "made of str"),
    (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "TypeError"),
    (b"ctyping\nAny\n)R.", "forged"),
    (b"ctorch\nFloatStorage\n)R.", "forged"),
    (b"ccollections\nOrderedDict\n]\x85R.", "TypeError"),
    (b"comegaconf.nodes\nAnyNode\n" + text("x") + b"\x85\x81.", "TypeError"),
    (b"comegaconf.nodes\nAnyNode\n)\x81Nb.", "TypeError"),
    # References to something else than storages.
    (b"Pabc\n.", "refers to"),
    (text("storage") + b"Q.", "refers to"),
    (b"(" + text("module") + b"NNNNtQ.", "refers to"),
    (b"(" + text("storage") + text("float") + text("0") + text("cpu") + b"K\x01tQ.", "refers to"),
    # Room for 2 ** 32 objects.
    (b"]r\xff\xff\xff\xff.", "makes room for 4294967295 objects"),
    (b"]p4294967295\n.", "makes room for"),
    # No whole pickle.
    (b"", "damaged"),
    (b"\x80\x02}q", "damaged"),
    (b"0", "damaged"),
    (b"\x80\x7f].", "damaged"),
    (b"B\xff\xff\xff\xffabc.", "damaged"),
    (b"g7\n.", "damaged"),
    (b"s.", "damaged"),
]


@pytest.mark.parametrize(("program", "words"), PROGRAMS)
def test_pickles_that_do_more_than_hold_data_are_refused(
    program: bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_pickle(forge(tmp_path / "evil.ckpt", program))


def test_a_registered_extension_is_refused(tmp_path: Path, canary: Path) -> None:
    copyreg.add_extension("posix", "system", 77)  # type: ignore[no-untyped-call]
    try:
        program = b"\x80\x02\x82\x4d" + text(f"touch {canary}") + b"\x85R."
        with pytest.raises(CheckpointError, match="EXT1"):
            read_pickle(forge(tmp_path / "evil.ckpt", program))
    finally:
        copyreg.remove_extension("posix", "system", 77)  # type: ignore[no-untyped-call]


def test_functions_that_are_allowed_stay_as_they_are(tmp_path: Path) -> None:
    change = b"ctorch._utils\n_rebuild_tensor_v2\nN}" + text("_call") + b"cos\nsystem\ns\x86b."
    with pytest.raises(CheckpointError, match=r"'os\.system'"):
        read_pickle(forge(tmp_path / "evil.ckpt", change))
    assert read_original(UNET).config.horizon == 16


def test_the_pickles_in_a_checkpoint_stay_bytes(tmp_path: Path, canary: Path) -> None:
    inner = dumps(Call(open, str(canary), "w"))
    program = dumps({"cfg": {}, "state_dicts": {}, "pickles": {"epoch": inner}})
    payload = read_pickle(forge(tmp_path / "evil.ckpt", program))
    assert payload["pickles"]["epoch"] == inner


def test_configurations_without_end_are_refused(tmp_path: Path) -> None:
    wide = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(40)) + b"."
    deep = b"]" * 5000 + b"a" * 4999 + b"."
    endless = b"]q\x00h\x00a."
    for program, words in (
        (wide, "100000 entries"),
        (deep, "RecursionError"),
        (endless, "RecursionError"),
    ):
        held = read_pickle(forge(tmp_path / "evil.ckpt", program))
        with pytest.raises(CheckpointError, match=words):
            plain(tmp_path, held)


@pytest.mark.parametrize("payload", [3, [], {}, {"cfg": {}}, "cfg state_dicts"])
def test_payloads_of_another_kind_are_refused(payload: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a dictionary with 'cfg' and 'state_dicts'"):
        read_original(forge(tmp_path / "other.ckpt", dumps(payload)))


@pytest.mark.parametrize("whole_file", [True, False])
def test_random_damage_ends_in_clear_errors(whole_file: bool, tmp_path: Path) -> None:
    """Either the file, or the pickle in it, where checksums do not notice."""
    rng, path = random.Random(5), tmp_path / "damaged.ckpt"
    with ZipFile(UNET) as file:
        program = file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))
        names = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    refused = 0
    for _ in range(150):
        damaged = bytearray(UNET.read_bytes() if whole_file else program)
        for _ in range(rng.choice((1, 3, 30))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if whole_file:
            path.write_bytes(damaged)
        else:
            forge(path, bytes(damaged), {k: v for k, v in names.items() if k != "data.pkl"})
        try:
            read_original(path)
        except CheckpointError:
            refused += 1
    assert refused > 75


def test_attributes_of_state_dicts_are_dropped(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3))
    torch.save({"model": module.state_dict()}, tmp_path / "module.pt")
    state = read_pickle(tmp_path / "module.pt")["model"]
    assert isinstance(state, dict)
    assert not hasattr(state, "_metadata")
    assert torch.equal(state["0.weight"].read(), module[0].weight)


def test_configurations_become_plain() -> None:
    cfg = plain(UNET, read_pickle(UNET)["cfg"])
    assert type(cfg) is dict
    assert cfg["policy"]["model"]["down_dims"] == [8, 16]
    assert cfg["training"]["use_ema"] is True
    assert cfg["training"]["max_train_steps"] is None
    assert cfg["optimizer"]["lr"] == 1e-4
    assert cfg["policy"]["noise_scheduler"]["beta_schedule"] == "squaredcos_cap_v2"


def nested(depth: int) -> Any:
    value: Any = 1
    for i in range(depth):
        value = (value,) if i % 2 else (i, value)
    return value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_tuples_may_be_nested_a_hundred_deep(tmp_path: Path, protocol: int) -> None:
    found = read_pickle(forge(tmp_path / "deep.ckpt", dumps({"a": nested(99)}, protocol)))
    assert found == {"a": nested(99)}
    path = forge(tmp_path / "deeper.ckpt", dumps({"a": nested(103)}, protocol))
    with pytest.raises(CheckpointError, match="nested more than 100 deep"):
        read_pickle(path)
