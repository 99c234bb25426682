"""`--set KEY=VALUE` and `--unset KEY`: values of keys in configurations that cannot be edited."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from para_policy.checkpoints.changes import parse, read_changed
from para_policy.errors import CheckpointError, InputError

SOURCE = Path("given")
CONFIG: dict[str, Any] = {
    "policy": {"horizon": 16, "model": {"down_dims": [8, 16]}},
    "input_features": {"observation.state": {"shape": [3]}, "observation": {"old": 1}},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=0.5", 0.5),
        ("a=true", True),
        ("a=null", None),
        ("a=[8, 16]", [8, 16]),
        ("a={b: 1}", {"b": 1}),
        ("a=linear", "linear"),
        ("a=x=y", "x=y"),
        ("a=", None),
    ],
)
def test_values_are_yaml(text: str, value: Any) -> None:
    assert parse([text]) == {"a": value}


@pytest.mark.parametrize("texts", [["a"], ["=1"], ["a=[1"], ["a=1", "a=2"], ["a=!!python/name:os"]])
def test_other_forms_are_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="--set"):
        parse(texts)


@pytest.mark.parametrize("removed", [[""], ["a", "a"], ["b"]])
def test_a_key_is_removed_once_and_not_set_too(removed: list[str]) -> None:
    with pytest.raises(InputError, match="--unset"):
        parse(["b=1"], removed)


def test_a_key_is_taken_out() -> None:
    key = "input_features.observation.state"
    found = read_changed(SOURCE, CONFIG, parse([], [key]), lambda config: config)
    assert "observation.state" not in found["input_features"]
    assert "observation.state" in CONFIG["input_features"]
    for missing in ("policy.new", "input_features.observation.new", "new"):
        with pytest.raises(InputError, match=rf"--unset {missing}: .* no such key"):
            read_changed(SOURCE, CONFIG, parse([], [missing]), lambda config: config)
    with pytest.raises(InputError, match=r"--unset policy\.horizon\.x: .* which has no keys"):
        read_changed(SOURCE, CONFIG, parse([], ["policy.horizon.x"]), lambda config: config)
    with pytest.warns(UserWarning, match="--unset policy.horizon changes nothing"):
        read_changed(SOURCE, CONFIG, parse([], ["policy.horizon"]), lambda config: 1)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("policy.horizon", ["policy", "horizon"]),
        ("policy.model.down_dims", ["policy", "model", "down_dims"]),
        ("policy.new", ["policy", "new"]),
        ("new", ["new"]),
        (
            "input_features.observation.state.shape",
            ["input_features", "observation.state", "shape"],
        ),
        ("input_features.observation.old", ["input_features", "observation", "old"]),
    ],
)
def test_a_key_is_found_though_names_have_dots(key: str, place: list[str]) -> None:
    found = read_changed(SOURCE, CONFIG, {key: "there"}, lambda config: config)
    for name in place:
        found = found[name]
    assert found == "there"
    assert CONFIG["policy"]["horizon"] == 16


@pytest.mark.parametrize("key", ["policy.horizon.deeper", "policy.model.down_dims.0"])
def test_a_key_below_a_value_is_refused(key: str) -> None:
    with pytest.raises(InputError, match=rf"--set {key}: .* which has no keys"):
        read_changed(SOURCE, CONFIG, {key: 1}, lambda config: config)


def test_a_configuration_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="has no keys"):
        read_changed(SOURCE, None, {"a": 1}, lambda config: config)


def test_a_change_that_makes_no_difference_is_told() -> None:
    def read(config: Any) -> Any:
        if "horizon" not in config["policy"]:
            raise CheckpointError("no horizon")
        return config["policy"]["horizon"]

    with pytest.warns(UserWarning, match="--set horizon=8 changes nothing"):
        assert read_changed(SOURCE, CONFIG, {"policy.horizon": 4, "horizon": 8}, read) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_changed(SOURCE, CONFIG, {"policy.horizon": 4}, read) == 4
        assert read_changed(SOURCE, {"policy": {}}, {"policy.horizon": 4}, read) == 4
