"""Which batch sizes are prepared."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.backends.compile import cpu_threads
from para_policy.inference.config import affordable
from para_policy.inference.engine import weight_bytes
from para_policy.inference.sizes import choose_sizes, measure_sizes
from tests.inference.bodies import Plain, make
from tests.inference.fakes import Fake, use

candidates = st.dictionaries(
    st.builds(Size, st.integers(1, 130), st.one_of(st.none(), st.integers(1, 4))),
    st.floats(1e-6, 1.0),
    min_size=1,
)


@given(candidates)
def test_padding_and_threads_cost_at_most_a_tenth_each(seconds: dict[Size, float]) -> None:
    chosen = choose_sizes(seconds)
    rows = [size.rows for size in chosen]
    assert rows == sorted(set(rows))
    assert rows[-1] == max(size.rows for size in seconds)
    assert rows[0] == min(size.rows for size in seconds)
    for size, alone in seconds.items():
        used = next(other for other in chosen if other.rows >= size.rows)
        assert seconds[used] <= 1.1**2 * alone


@given(candidates)
def test_every_choice_pays(seconds: dict[Size, float]) -> None:
    chosen = choose_sizes(seconds)
    for size, larger in itertools.pairwise(chosen[1:]):
        assert seconds[larger] > 1.1 * seconds[size]
    for size in chosen:
        alike = {other: s for other, s in seconds.items() if other.rows == size.rows}
        assert seconds[size] <= 1.1 * min(alike.values())
        fewer = [s for other, s in alike.items() if (other.threads or 0) < (size.threads or 0)]
        assert all(s > 1.1 * seconds[size] for s in fewer)


@pytest.mark.parametrize("steps", [16, 100])
def test_all_steps_at_once_are_not_filled_up(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    fake = Fake()
    use(monkeypatch, fake)
    body = make(Plain)
    Engine(body, EngineConfig("openvino"))(*body.inputs(steps))
    assert fake.prepared == [steps]


def test_flat_latencies_need_few_sizes() -> None:
    seconds = {Size(1, 1): 1.0, Size(8, 1): 1.05, Size(64, 1): 3.0, Size(64, 2): 1.08}
    assert choose_sizes(seconds) == (Size(1, 1), Size(64, 2)), "one row is always prepared"
    assert choose_sizes({**seconds, Size(1, 1): 0.5}) == (Size(1, 1), Size(64, 2))


@given(st.sets(st.integers(1, 200), min_size=1), st.integers(0, 30))
def test_what_is_affordable_spans_the_range(rows: set[int], count: int) -> None:
    sizes = tuple(Size(n) for n in sorted(rows))
    kept = affordable(sizes, count)
    assert len(kept) == min(max(count, 1), len(sizes))
    assert set(kept) <= set(sizes)
    assert list(kept) == sorted(set(kept), key=lambda size: size.rows)
    assert kept[0] == sizes[0]
    if len(kept) > 1:
        assert kept[-1] == sizes[-1]


@pytest.mark.parametrize(("repacks", "expected"), [(True, [1, 4, 8]), (False, [1, 2, 4, 6, 8])])
def test_repacked_weights_stay_below_the_limit(
    monkeypatch: pytest.MonkeyPatch, repacks: bool, expected: list[int]
) -> None:
    """A third of a MiB fits three times into one."""
    body = make(lambda: Plain(width=6500))  # type: ignore[arg-type]
    assert 3 <= 2**20 / weight_bytes(body) < 4
    use(monkeypatch, Fake(repacks=repacks))
    sizes = tuple(Size(rows) for rows in (1, 2, 4, 6, 8))
    engine = Engine(body, EngineConfig("openvino", sizes=sizes, memory_limit_mib=1))
    engine.warm_up(*body.inputs(1))
    assert [size.rows for size in engine.sizes] == expected
    buffers = sum(v.nbytes for v in body.inputs(1)) * sum(expected)
    copies = len(expected) if repacks else 0
    assert engine.memory_bytes == buffers + copies * weight_bytes(body)
    assert copies * weight_bytes(body) <= 2**20


def test_every_size_is_measured_with_every_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Fake("openvino")
    use(monkeypatch, fake)
    body = make(Plain)
    config = EngineConfig("auto", sizes=(Size(1), Size(4), Size(9)))
    chosen, seconds = measure_sizes(body, body.inputs(3), config, threads=(1, 2), repeats=2)
    assert set(seconds) == {Size(rows, threads) for rows in (1, 4, 9) for threads in (1, 2)}
    assert all(value > 0 for value in seconds.values())
    assert chosen == choose_sizes(seconds)
    assert sorted(fake.prepared) == [1, 1, 4, 4, 9, 9]


def test_sizes_without_memory_are_no_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(size: Size) -> None:
        if size.rows > 4:
            raise MemoryError("full")

    use(monkeypatch, Fake("openvino", prepare=prepare))
    body = make(Plain)
    config = EngineConfig("openvino", sizes=(Size(1), Size(4), Size(9)))
    with pytest.warns(UserWarning, match="9 rows at once"):
        _, seconds = measure_sizes(body, body.inputs(1), config, threads=(1,), repeats=1)
    assert set(seconds) == {Size(1, 1), Size(4, 1)}


def test_threads_of_a_size_are_used_for_it_only() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    class Watching(Plain):
        def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(x, shift)

    body = make(Watching)
    with cpu_threads(before + 1, torch.device("cpu")):
        body(*body.inputs(1))
    body(*body.inputs(1))
    assert seen == [before + 1, before]
