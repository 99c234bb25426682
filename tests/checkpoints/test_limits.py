"""Configurations that cannot be meant are refused alike, whichever format they come in."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from para_policy.checkpoints.files import summarise
from para_policy.checkpoints.lerobot.config import read_policy
from para_policy.checkpoints.original.config import convert
from para_policy.checkpoints.original.unpickle import plain, read_pickle
from para_policy.diffusion.schedule_options import MOST_TIMESTEPS
from para_policy.errors import CheckpointError
from para_policy.policies.config import PolicyConfig
from tests.checkpoint import tiny_config
from tests.checkpoints.forged_files import FORGED, MIB
from tests.checkpoints.golden import read_golden
from tests.checkpoints.original_goldens import GOLDENS

Document = dict[str, Any]


def read_native(document: Document) -> None:
    try:
        PolicyConfig.model_validate(json.loads(json.dumps(document)))
    except ValidationError as error:
        raise CheckpointError(summarise(error)) from error


UNET = GOLDENS / "original_unet.ckpt"
NATIVE: Document = tiny_config(100).model_dump(mode="json")
LEROBOT: Document = json.loads(read_golden("states").facts["files"]["config.json"])
ORIGINAL: Document = plain(UNET, read_pickle(UNET)["cfg"])

Format = tuple[Document, Callable[[Document], object], str]
FORMATS: dict[str, Format] = {
    "native": (NATIVE, read_native, "noise_scheduler."),
    "LeRobot": (LEROBOT, lambda document: read_policy(Path("x"), document, 10.0), ""),
    "original": (ORIGINAL, lambda document: convert(UNET, document), "policy.noise_scheduler."),
}


def refusal(form: Format, key: str, value: object) -> str:
    """The one line that refuses another value of an option."""
    document, read, _ = form
    document = copy.deepcopy(document)
    *parents, last = key.split(".")
    inner = document
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    with pytest.raises(CheckpointError) as caught:
        read(document)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_the_documents_can_be_read(form: Format) -> None:
    form[1](copy.deepcopy(form[0]))


NO_NUMBERS: tuple[object, ...] = (None, True, "100", [], {}, math.nan)
SCHEDULE: dict[str, tuple[object, ...]] = {
    "num_train_timesteps": (0, -1, 2.5, math.inf, MOST_TIMESTEPS + 1, 10**30, *NO_NUMBERS),
    "clip_sample_range": (0, -1.0, math.inf, -math.inf, 1e-9, 1e30, *NO_NUMBERS),
    "beta_start": (0, -0.1, 1, math.inf, *NO_NUMBERS),
    "beta_end": (0, -0.1, 1.5, math.inf, *NO_NUMBERS),
    "clip_sample": (None, "yes", 1.5, []),
}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("option", SCHEDULE)
def test_schedules_that_cannot_be_meant_are_refused(form: Format, option: str) -> None:
    for value in SCHEDULE[option]:
        message = refusal(form, form[2] + option, value)
        assert option in message, value
        assert len(message) < 500, value


BETAS: list[object] = [
    [0.1] * 99,
    [0.1] * 101,
    [],
    [0.1] * 99 + [1.1],
    [0.1] * 99 + [0.0],
    [0.1] * 99 + [math.nan],
    [0.1] * 99 + ["0.1"],
    [[0.1]] * 100,
    "x" * 100,
    3,
]


@pytest.mark.parametrize("name", ["native", "original"])
def test_betas_of_another_length_or_out_of_range_are_refused(name: str) -> None:
    form = FORMATS[name]
    for betas in BETAS:
        message = refusal(form, f"{form[2]}trained_betas", betas)
        assert "trained_betas" in message, betas
        assert len(message) < 600, betas  # with the path of the file


SIZES: list[tuple[Mapping[str, object], str]] = [
    ({"horizon": 8192}, "horizon"),
    ({"n_obs_steps": 10**6, "first_action": 0}, "n_obs_steps"),
    ({"horizon": 16.5}, "horizon"),
    ({"horizon": True}, "horizon"),
    ({"horizon": "16"}, "horizon"),
    ({"control_hz": 0.0}, "control_hz"),
    ({"control_hz": -1.0}, "control_hz"),
    ({"control_hz": math.inf}, "control_hz"),
    ({"control_hz": 1e-300}, "control_hz"),
    ({"control_hz": math.nan}, "control_hz"),
    ({"control_hz": True}, "control_hz"),
    ({"inputs": {"a": [100_000] * 8}}, "an observation"),
    ({"inputs": {"a": [1] * 9}}, "inputs.a"),
    ({"inputs": {str(i): [100_000] for i in range(6)}}, "a condition"),
    ({"action_names": [str(i) for i in range(10_000)]}, "a chunk"),
    ({"horizon": 2048, "action_names": ["a"] * 10, "num_train_timesteps": 10_000}, "a solve"),
    ({"network": {"kind": "transformer", "n_layer": 1000}}, "n_layer"),
    ({"network": {"kind": "transformer", "n_cond_layers": 1000}}, "n_cond_layers"),
    ({"vision": {"cameras": [str(i) for i in range(17)]}}, "cameras"),
    ({"vision": {"cameras": ["a"], "resize": [100_000, 100_000]}}, "resize"),
    ({"vision": {"cameras": ["a"], "crop": [100_000, 100_000]}}, "crop"),
]


@pytest.mark.parametrize(("changes", "named"), SIZES)
def test_sizes_beyond_the_limits_are_refused(changes: Mapping[str, object], named: str) -> None:
    document = copy.deepcopy(NATIVE)
    for key, value in changes.items():
        holder = document["noise_scheduler"] if key == "num_train_timesteps" else document
        holder[key] = value
    with pytest.raises(CheckpointError, match=named) as caught:
        read_native(document)
    assert len(str(caught.value)) < 600


@given(
    st.dictionaries(
        st.sampled_from([*SCHEDULE, "trained_betas", "steps_offset", "_note", "prediction_type"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=9),
            st.lists(st.floats(), max_size=4),
            st.recursive(st.floats(), lambda inner: st.lists(inner, max_size=2), max_leaves=9),
        ),
        min_size=1,
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_schedule_says_it_is_read_or_refused_in_words(options: Document) -> None:
    document = copy.deepcopy(NATIVE)
    document["noise_scheduler"].update(options)
    refused = ""
    try:
        read_native(document)
    except CheckpointError as error:
        refused = str(error)
    assert len(refused) < 1000


def test_files_that_are_forged_take_neither_time_nor_memory(tmp_path: Path) -> None:
    for name, (make, _) in FORGED.items():
        make(tmp_path / name)
    sizes = {
        path.stem: sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
        for path in tmp_path.iterdir()
    }
    command = [sys.executable, "-m", "tests.checkpoints.forged_files", str(tmp_path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for name, (_, words) in FORGED.items():
        outcome, mib, seconds = found[name]
        assert words in outcome, name
        assert len(outcome) < 5000, name
        assert mib < 4 * sizes[name] / MIB + 200, name
        assert seconds < 5, name
