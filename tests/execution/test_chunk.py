from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from para_policy.errors import InputError, NonFiniteError
from para_policy.execution.chunk import ActionChunk

STAMP = 1_700_000_000 * 10**9


@given(st.integers(1, 16), st.integers(1, 10**9), st.integers(-(10**10), 2 * 10**10))
def test_action_i_is_due_for_one_dt(steps: int, dt_ns: int, offset: int) -> None:
    chunk = ActionChunk(STAMP, dt_ns, np.arange(steps, dtype=float)[:, None])
    action = chunk.action_at(STAMP + offset)
    if 0 <= offset < steps * dt_ns:
        assert action is not None
        assert action[0] * dt_ns <= offset < (action[0] + 1) * dt_ns
    else:
        assert action is None


def test_the_caller_cannot_change_a_chunk() -> None:
    actions = np.zeros((2, 1))
    chunk = ActionChunk(STAMP, 1, actions)
    actions[:] = 1
    assert chunk.actions.sum() == 0
    with pytest.raises(ValueError, match="read-only"):
        chunk.actions[0] = 1


@pytest.mark.parametrize(
    ("actions", "dt_ns", "error", "message"),
    [
        (np.zeros(3), 1, InputError, r"shape \(steps, dimension\), got \(3,\)"),
        (np.zeros((0, 2)), 1, InputError, r"got \(0, 2\)"),
        (np.zeros((3, 2)), 0, InputError, "positive, got 0 ns"),
        (np.array([[0.0], [np.nan]]), 1, NonFiniteError, "action 1"),
    ],
)
def test_invalid_chunks_are_refused(
    actions: np.ndarray, dt_ns: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ActionChunk(STAMP, dt_ns, actions)
