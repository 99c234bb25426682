"""Sizes for which the memory does not suffice."""

from __future__ import annotations

import pytest
import torch

from para_policy.inference import static_batch
from tests.inference.fakes import Fake, from_rows, use
from tests.inference.test_fallbacks import engine, one_warning, right


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("full"),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_sizes_without_memory_are_dropped(
    monkeypatch: pytest.MonkeyPatch, error: Exception, backend: str
) -> None:
    fake = Fake(prepare=from_rows(8, error))
    use(monkeypatch, fake)
    runs = engine(backend)
    assert right(runs, 1)
    with one_warning("8 rows at once", "more than 4 are split"):
        for rows in (8, 5, 13, 8):
            assert right(runs, rows)
    assert runs.backend == "openvino"
    assert [size.rows for size in runs.sizes] == [1, 4]
    assert sorted(fake.prepared) == [1, 4]


def test_warming_up_survives_the_end_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(prepare=from_rows(4, MemoryError("full")))
    use(monkeypatch, fake)
    runs = engine()
    with one_warning("4 rows at once", "more than 1 are split"):
        runs.warm_up(*runs.body.inputs(1))
    assert fake.prepared == [1]
    assert right(runs, 3)


def test_memory_that_a_capture_gives_back_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It empties the allocator's cache, which others have filled."""
    use(monkeypatch, Fake())
    runs = engine()
    reserved = iter(range(100, 0, -1))
    monkeypatch.setattr(static_batch, "_reserved", lambda device: 2**20 * next(reserved))
    runs.warm_up(*runs.body.inputs(1))
    expected = sum(v.nbytes for size in runs.sizes for v in runs.body.inputs(size.rows))
    assert runs.memory_bytes == expected > 0
