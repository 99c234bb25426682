"""Messages of robot clients: what the protocol needs is read, everything else refused."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
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


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_observations_are_read(protocol: int) -> None:
    found = read(pickle.dumps(OBSERVATION, protocol), dict)
    assert found.keys() == OBSERVATION.keys()
    for name, value in OBSERVATION.items():
        assert np.array_equal(found[name], value)


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
