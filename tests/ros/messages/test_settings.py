"""What a policy node says of itself, and how it is read back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from para_policy import DiffusionPolicy, load_policy
from para_policy.errors import DataError
from para_policy.inference import EngineConfig, Size
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.ros.bags.comparison import circumstances
from para_policy.ros.messages.input_files import read_inputs
from para_policy.ros.messages.settings import read_settings, settings_text
from para_policy.ros.parameters.policy import PARAMETERS
from tests.ros.graph import CONFIG

VALUES = {parameter.name: parameter.default for parameter in PARAMETERS}
REST: dict[str, Any] = {"topics": {}, "dt_ns": 100_000_000, "deadline_s": None, "options": {}}


@pytest.fixture
def text(checkpoint: Path) -> str:
    inputs = read_inputs(CONFIG / "pusht_inputs.yaml")
    values = {**VALUES, "checkpoint": str(checkpoint), "control_rate_hz": 10.0}
    return settings_text(load_policy(checkpoint), values, inputs, "ab" * 32, **REST)


def test_settings_come_back(text: str, checkpoint: Path) -> None:
    settings = read_settings(text)
    assert settings.inputs == read_inputs(CONFIG / "pusht_inputs.yaml")
    assert (settings.checkpoint, settings.weights_sha256) == (str(checkpoint), "ab" * 32)
    assert settings.dt_ns == 100_000_000
    assert settings.values["cpu_affinity"] == [-1]
    assert settings.id == json.loads(text)["id"]
    assert settings.calibration


def test_the_id_changes_with_any_value(checkpoint: Path, text: str) -> None:
    policy, inputs = load_policy(checkpoint), read_settings(text).inputs
    values = {**VALUES, "checkpoint": str(checkpoint), "control_rate_hz": 10.0}
    assert settings_text(policy, values, inputs, "ab" * 32, **REST) == text
    other = settings_text(policy, {**values, "tolerance": 0.1}, inputs, "ab" * 32, **REST)
    assert read_settings(other).id != read_settings(text).id


def test_the_engine_is_told_and_a_difference_is_a_reason(text: str, checkpoint: Path) -> None:
    recorded = read_settings(text)
    assert recorded.engine == EngineConfig()
    policy = load_policy(checkpoint)
    assert circumstances(policy, "ab" * 32, recorded) == []
    policy.runtime = policy.runtime.on(EngineConfig("eager", "bfloat16"))
    (reason,) = circumstances(policy, "ab" * 32, recorded)
    assert reason == "engine eager, bfloat16, recorded eager"
    sizes = dataclasses.replace(recorded.engine, sizes=(Size(3),))
    other = recorded.model_copy(update={"engine": sizes})
    policy.runtime = policy.runtime.on(EngineConfig())
    assert "other batch sizes" in circumstances(policy, "ab" * 32, other)[0]


def test_other_pcm_weights_are_a_reason(checkpoint: Path) -> None:
    def policy_with(sha256: str) -> DiffusionPolicy:
        policy = load_policy(checkpoint)
        model = PicardConsistencyModel("ddpm", 10, "identity", 1, 1, {}, sha256)
        policy.consistency_models = {("ddpm", 10, "identity"): model}
        return policy

    inputs = read_inputs(CONFIG / "pusht_inputs.yaml")
    values = {**VALUES, "sampler": "pcm", "sampler_options": "{splitting: identity}"}
    rest = {**REST, "options": {"splitting": "identity"}}
    text = settings_text(policy_with("a" * 64), values, inputs, "ab" * 32, **rest)
    recorded = read_settings(text)
    assert circumstances(policy_with("a" * 64), "ab" * 32, recorded) == []
    assert circumstances(policy_with("b" * 64), "ab" * 32, recorded) == [
        "the checkpoint's PCM weights are other ones"
    ]
    older = recorded.model_copy(update={"consistency": None})
    assert circumstances(policy_with("b" * 64), "ab" * 32, older) == []


def test_recordings_from_before_there_were_engines_are_eager(text: str) -> None:
    content = json.loads(text)
    del content["engine"]
    assert read_settings(json.dumps(content)).engine == EngineConfig()


def test_unknown_keys_of_newer_versions_are_ignored(text: str) -> None:
    content = json.loads(text)
    content["colour"] = "blue"
    content["inputs"]["agent_pos"]["smell"] = "rose"
    assert read_settings(json.dumps(content)) == read_settings(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 0}, "threads: Input should be greater than or equal to 1, got 0"),
        ({"inputs": {"x": {"topic": "a", "type": "b"}}}, "inputs.x.type: Value error, 'b' is not"),
        ({"engine": {"backend": "magic"}}, "engine: Value error, engine is 'magic'"),
        ({"id": None}, "id: Input should be a valid string"),
    ],
)
def test_wrong_keys_are_named(text: str, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match="settings message") as raised:
        read_settings(json.dumps({**json.loads(text), **change}))
    assert message in str(raised.value)


@pytest.mark.parametrize("broken", ["", "{", "[]", "3", '{"inputs": 3}'])
def test_what_is_no_settings_message_is_refused(broken: str) -> None:
    with pytest.raises(DataError, match="settings message"):
        read_settings(broken)
