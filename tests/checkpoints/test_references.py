"""References `${...}` are resolved as by OmegaConf, without running what stands in them."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from para_policy.checkpoints.original.references import resolve
from para_policy.errors import CheckpointError

ROOT: dict[str, Any] = {
    "n_obs_steps": 2,
    "horizon": 16,
    "as_cond": True,
    "task": {"obs_dim": 20, "action_dim": 2, "obs": {"camera": {"shape": [3, 96, "${horizon}"]}}},
}
RESOLVED: list[tuple[Any, Any]] = [
    ("${horizon}", 16),
    ("${task.obs_dim}", 20),
    ("${task.obs.camera}", {"shape": [3, 96, 16]}),
    ("${task.obs.camera.shape[2]}", 16),
    ("run_${horizon}_${n_obs_steps}", "run_16_2"),
    ("${.beside}", 1),
    ("${..horizon}", 16),
    (["${horizon}", {"a": "${as_cond}"}], [16, {"a": True}]),
    ("${eval:'${task.obs_dim} * ${n_obs_steps} if ${as_cond} else None'}", 40),
    ("${eval: ${task.action_dim} if not ${as_cond} else ${task.obs_dim} + ${task.action_dim}}", 22),
    ("${eval:${n_obs_steps}-1}", 1),
    ("${eval:-${horizon} // 3 % 5}", -6 % 5),
    ("${eval:None if ${horizon} > 15 and False or ${horizon} == 16 else 1}", None),
    ("no reference", "no reference"),
    (None, None),
    (0.5, 0.5),
]
LEFT = [
    "${missing}",
    "${task.missing}",
    "${horizon.deeper}",
    "${.......far}",
    "${policy.value}",
    "${task.obs.camera.shape[9]}",
    "${now:%Y}",
    "${oc.env:HOME}",
    "${}",
    "x ${task} y",
    "${eval:}",
    "${eval:__import__('os').getcwd()}",
    "${eval:().__class__}",
    "${eval:'a' * 3}",
    "${eval:9 ** 9}",
    "${eval:1 / 0}",
    "${eval:1 << 9}",
    "${eval:print}",
    "${eval:" + "(" * 300 + "1" + ")" * 300 + "}",
    "${eval:[1, 2]}",
    "${missing} ${horizon}",
    "${",
]


@pytest.mark.parametrize(("value", "expected"), RESOLVED)
def test_references_are_resolved(value: Any, expected: Any) -> None:
    found = resolve({**ROOT, "policy": {"beside": 1, "value": value}})["policy"]["value"]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("text", LEFT)
def test_what_cannot_be_resolved_stays(text: str) -> None:
    assert resolve({**ROOT, "policy": {"value": text}})["policy"]["value"] == text


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(alphabet="${}.:[]aeval1+* '", max_size=40),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ae1"), inner, max_size=3)
        ),
        max_leaves=20,
    )
)
def test_any_configuration_is_resolved_or_left(config: Any) -> None:
    assert type(resolve(config)) in (type(config), type(None), bool, int, float, str, list, dict)


@pytest.mark.parametrize("value", ["${k%d}${k%d}", {"a": "${k%d}", "b": "${k%d}"}])
def test_configurations_cannot_grow_without_end(value: Any) -> None:
    def filled(i: int) -> Any:
        if isinstance(value, str):
            return value % (i, i)
        return {key: text % i for key, text in value.items()}

    config = {f"k{i}": filled(i + 1) for i in range(60)} | {"k60": "x"}
    start = time.process_time()
    with contextlib.suppress(CheckpointError):
        assert len(str(resolve(config))) < 1_000_000
    assert time.process_time() - start < 20
