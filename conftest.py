"""Collection rules that hold for tests and doctests alike."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a property; how long an example takes says nothing about it.
settings.register_profile(
    "any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any_machine")

# Checks shared by several test files show values when they fail, as those in the files do.
pytest.register_assert_rewrite("tests.samplers.drafts")

# Modules that import rclpy cannot even be collected on a machine without ROS 2.
collect_ignore_glob: list[str] = []
if importlib.util.find_spec("rclpy") is None:
    if os.environ.get("PARA_POLICY_REQUIRE_ROS"):
        raise RuntimeError(
            "PARA_POLICY_REQUIRE_ROS is set, but rclpy is not installed; run make setup"
        )
    collect_ignore_glob += ["para_policy/ros/*", "sim/ros/*"]
# Nor those that import LeRobot.
if importlib.util.find_spec("lerobot") is None:
    found = Path(__file__).parent.glob("para_policy/lerobot_server/*.py")
    collect_ignore_glob += [str(p) for p in found if "\nfrom lerobot." in p.read_text("utf-8")]
