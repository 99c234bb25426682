from __future__ import annotations

import numpy as np
import pytest

from para_policy.execution.timing import CommandTiming


def test_rate_and_jitter_are_those_of_the_last_thousand_periods() -> None:
    timing = CommandTiming(period_s=0.01)
    assert np.isnan(timing.values()["measured_rate_hz"])
    for index in range(5000):
        late = 0.002 if index % 10 == 0 else 0.0
        timing.record(0.01 * index + late, sent=index >= 4500)
    values = timing.values()
    assert values["measured_rate_hz"] == pytest.approx(50, rel=0.01)
    assert values["jitter_ms_p50"] == pytest.approx(0, abs=1e-6)
    assert values["jitter_ms_p95"] == pytest.approx(2, abs=1e-6)
