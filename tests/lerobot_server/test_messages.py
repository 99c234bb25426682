"""Messages of robot clients: what the protocol needs is read, everything else refused."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from para_policy.errors import InputError
from para_policy.lerobot_server import messages
from para_policy.lerobot_server.messages import joined, read

OBSERVATION = {
    "x": 0.5,
    "y": np.float32(0.25),
    "top": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
    "side": np.zeros((4, 6))[:, ::2],
    "task": "push",
    "ready": True,
}

SHARED: list[int] = []


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_observations_are_read(protocol: int) -> None:
    found = read(pickle.dumps(OBSERVATION, protocol), dict)
    assert found.keys() == OBSERVATION.keys()
    for name, value in OBSERVATION.items():
        assert np.array_equal(found[name], value)


def test_what_is_read_can_be_written_to() -> None:
    read(pickle.dumps(OBSERVATION), dict)["top"][0] = 1


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "code", ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
)
def test_all_plain_numbers_are_read(protocol: int, code: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(code)
    sent = {"C": array, "F": np.asfortranarray(array), "turned": array.T, "one": array[1, 2, 3]}
    sent |= {"axes": array.transpose(1, 0, 2), "nothing": array[:0]}
    found = read(pickle.dumps(sent, protocol), dict)
    for name, value in sent.items():
        assert (found[name].dtype, type(found[name])) == (value.dtype, type(value))
        np.testing.assert_array_equal(found[name], value)


def test_containers_and_the_same_text_again_are_read() -> None:
    sent = {"a": [1, [2.5, None]], "b": ("x", ()), "c": {"x": "x" * 300}, "d": 2**200, "e": b"x"}
    size = (2, 3)
    sent |= {"f": size, "g": size}
    assert read(pickle.dumps(sent), dict) == sent


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array(["push"]), "numpy.dtype"),
        (np.array([None]), "numpy.dtype"),
        (np.zeros(1, "c8"), "numpy.dtype"),
        (np.zeros(1, "f4,i4"), "numpy.dtype"),
        (np.zeros(1, "M8[s]"), "numpy.dtype"),
        (np.zeros(2, ">f4"), "dtype f4 with"),
        (np.zeros((1,) * 9), r"shape \(1, 1, 1.* with 8 bytes"),
        (np.dtype("f4"), r"dtype\('float32'\) as a value"),
        (np.ndarray, "numpy.ndarray.* as a value"),
        ((np.ndarray, 1), "numpy.ndarray.* as a value"),
        ({1: 2}, "the key 1; expected text"),
        ({1}, "instruction EMPTY_SET"),
        ([SHARED, SHARED], "the same list twice"),
        ([0] * 100_001, "more than 100000 items"),
    ],
)
def test_other_data_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(pickle.dumps({"x": value}, 4), dict)


@dataclass
class Seen:
    """As the protocol has them."""

    step: int
    time: float
    values: dict[str, float]


def test_a_data_class_is_made_of_its_fields() -> None:
    seen = Seen(1, 2.0, {"x": 0.5})
    assert read(pickle.dumps(seen), Seen) == seen


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"step": 1, "time": 2.0}, r"expected \['step', 'time', 'values'\]"),
        ({"step": 1, "time": 2.0, "values": {}, "get": 1}, "a Seen has"),
        ({"step": 1.5, "time": 2.0, "values": {}}, "Seen.step is 1.5; expected int"),
        ((None, {"step": 1}), "a Seen has"),
        (None, "without its state"),
    ],
)
def test_a_data_class_is_made_of_nothing_else(state: Any, message: str) -> None:
    forged = io.BytesIO()
    pickler = pickle.Pickler(forged)
    pickler.dispatch_table = {Seen: lambda _: (copyreg.__newobj__, (Seen,), state)}  # type: ignore[attr-defined]
    pickler.dump(Seen(1, 2.0, {}))
    with pytest.raises(InputError, match=message):
        read(forged.getvalue(), Seen)


def test_the_class_itself_is_not_changed() -> None:
    forged = pickle.dumps(Seen)[:-1] + pickle.dumps({"step": 5})[2:-1] + pickle.BUILD + pickle.STOP
    with pytest.raises(InputError, match="sets the state of"):
        read(forged, Seen)
    assert "step" not in vars(Seen)


class _Call:
    def __init__(self, call: Any, *args: Any) -> None:
        self._made = call, args

    def __reduce__(self) -> Any:
        return self._made


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (_Call(os.getcwd), "posix.getcwd"),
        (_Call(eval, "1"), "builtins.eval"),
        (_Call(getattr, "", "join"), "builtins.getattr"),
        (torch.zeros(2), "torch._utils._rebuild_tensor_v2"),
        (OrderedDict(), "collections.OrderedDict"),
        (np.load, "numpy.load"),
    ],
)
def test_nothing_else_is_named(value: Any, name: str) -> None:
    with pytest.raises(InputError, match=name):
        read(pickle.dumps({"x": value}), dict)


@given(st.integers(0, len(pickle.dumps(OBSERVATION)) - 1))
def test_damaged_messages_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="is no pickled dict"):
        read(pickle.dumps(OBSERVATION)[:size], dict)


def test_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"holds \[1\]; expected a dict"):
        read(pickle.dumps([1]), dict)


def test_parts_are_joined_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [SimpleNamespace(data=b"ab"), SimpleNamespace(data=b"c")]
    assert joined(parts) == b"abc"
    monkeypatch.setattr(messages, "_MOST_BYTES", 2)
    with pytest.raises(InputError, match="more than 2 bytes"):
        joined(parts)
