"""What the core loads: samplers without a scheduler library, `Process` with one only when it is asked."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECK = """
import sys
{}
loaded = [name for name in ("diffusers", "pydantic", "safetensors", "rclpy") if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import para_policy.samplers",
        "from para_policy import Denoiser, Noise, Process, samplers",
        "import para_policy.inference",
        "import para_policy.calibration",
    ],
)
def test_the_core_loads_no_library_of_schedulers_or_files(statement: str) -> None:
    subprocess.run([sys.executable, "-c", CHECK.format(statement)], check=True, timeout=100)
