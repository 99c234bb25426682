"""docs/ros2_reference.md says what the code says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from para_policy.execution.chunk import ActionChunk
from para_policy.execution.timing import CommandTiming
from para_policy.planning.chunks import PlannedChunk
from para_policy.ros.messages.diagnostics import describe_plan
from para_policy.ros.messages.inputs import InputMapping
from scripts.ros_reference import PAGE, TABLES, with_tables
from tests.planning.fake_policy import LOCKSTEP

CONFIG = PAGE.parents[1] / "config" / "ros" / "policy.yaml"


def test_the_parameter_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert with_tables(page) == page, "run: python -m scripts.ros_reference"


@pytest.mark.parametrize("node", sorted(TABLES.keys() - {"pusht_sim"}))
def test_the_shipped_parameter_file_has_every_parameter(node: str) -> None:
    text = CONFIG.read_text().split(f"/**/{node}:")[1].split("/**/")[0]
    lacking = [one.name for one in TABLES[node] if f" {one.name}:" not in text]
    # The launch file and lifecycle managers decide about this one.
    assert lacking in ([], ["autostart"])


def test_every_number_and_key_is_explained() -> None:
    stats = SimpleNamespace(
        rounds=1,
        evals=1,
        residual=0.0,
        error_bound=np.zeros(2),
        converged=True,
        encode_s=0.0,
        status="",
    )
    chunk = ActionChunk(0, 100, np.zeros((2, 1)))
    plan = PlannedChunk(chunk, stats, LOCKSTEP, 0, 0.1, 0, 0, None, None, 1, 0, {}, withheld=False)
    keys = [*describe_plan(plan, 0), *CommandTiming(0.1).values(), *InputMapping.model_fields]
    page = PAGE.read_text()
    assert [key for key in keys if f"`{key}`" not in page] == []
