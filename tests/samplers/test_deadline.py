"""Time is never measured here: the clock is ours, and moves only when a network call says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from para_policy import Denoiser, Noise, samplers
from para_policy.errors import InputError
from para_policy.samplers import SampleResult, Status
from para_policy.samplers import deadline as deadlines
from para_policy.samplers.deadline import Deadline, LatencyTable
from tests.far import FAR, FarDevice
from tests.problems import Problem, problem

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@dataclass
class Clock:
    """Stands in for the module `time`."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (deadlines,):
        monkeypatch.setattr(module, "time", clock)
    return clock


@st.composite
def tables(draw: st.DrawFn) -> LatencyTable:
    rows = sorted(draw(st.sets(st.integers(1, 500), min_size=1, max_size=6)))
    times = draw(st.lists(st.floats(1e-4, 2.0), min_size=len(rows), max_size=len(rows)))
    return LatencyTable(tuple(rows), tuple(sorted(times)))


@settings(max_examples=200, deadline=None)
@given(tables(), st.floats(1, 2000), st.floats(1, 2000))
def test_more_rows_are_never_expected_to_take_less_time(
    table: LatencyTable, a: float, b: float
) -> None:
    few, many = sorted((a, b))
    assert 0 < table.predict(few) <= table.predict(many) * (1 + 1e-12)


@settings(max_examples=100, deadline=None)
@given(tables())
def test_a_measured_size_is_predicted_as_it_was_measured(table: LatencyTable) -> None:
    for rows, seconds in zip(table.rows, table.seconds, strict=True):
        assert table.predict(rows) == pytest.approx(seconds)
    assert table.predict(3 * table.rows[-1]) == pytest.approx(3 * table.seconds[-1])


@pytest.mark.parametrize(
    ("rows", "seconds", "message"),
    [
        ((), (), "0 rows and 0 times"),
        ((1, 2), (0.1,), "2 rows and 1 times"),
        ((2, 1), (0.1, 0.2), "increasing"),
        ((1, 1), (0.1, 0.2), "increasing"),
        ((0, 1), (0.1, 0.2), "from 1"),
        ((1, 2), (0.1, 0.0), "above 0"),
        ((1, 2), (0.1, -1.0), "above 0"),
        ((1, 2), (0.1, math.nan), "above 0"),
        ((1, 2), (0.1, math.inf), "above 0"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(
    rows: tuple[int, ...], seconds: tuple[float, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        LatencyTable(rows, seconds)


def test_measuring_takes_the_median_and_more_rows_never_cost_less(clock: Clock) -> None:
    calls: list[int] = []
    first_try = {1: 5.0, 2: 5.0, 4: 5.0}  # warming up does not count

    def call(rows: int) -> None:
        calls.append(rows)
        usual = {1: 0.25, 2: 0.125, 4: 0.5}[rows]
        outlier = 10.0 if len(calls) % 5 == 4 else usual
        clock.now += first_try.pop(rows, outlier)

    table = LatencyTable.measure(call, (1, 2, 4), repeats=3)
    assert table == LatencyTable((1, 2, 4), (0.25, 0.25, 0.5))
    assert calls == [1] * 4 + [2] * 4 + [4] * 4


@pytest.mark.parametrize(
    "seconds", [0, 0.0, -1.0, math.nan, math.inf, -math.inf, True, "0.1", None, [1.0]], ids=repr
)
def test_a_deadline_that_is_no_time_to_come_is_refused(seconds: Any) -> None:
    with pytest.raises(InputError, match=r"deadline is .* expected a number above 0"):
        Deadline.after(seconds)


def test_a_deadline_is_counted_from_now(clock: Clock) -> None:
    table = LatencyTable((1,), (0.1,))
    assert Deadline.after(0.5, table) == Deadline(1000.5, table)
    assert Deadline.after(2) == Deadline(1002.0, None)
    assert Deadline.after(2, reserve=0.25) == Deadline(1001.5, None)


@dataclass
class Timed:
    """A network that takes `cost(rows)` seconds of the clock."""

    inner: Callable[[Tensor, Tensor], Tensor]
    clock: Clock
    cost: Callable[[int], float]
    rows: list[int] = field(default_factory=list)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.rows.append(len(x))
        self.clock.now += self.cost(len(x))
        return self.inner(x, t)


SOLVED: Problem = problem("ddim", 20)
NOISE: Noise = SOLVED.noise(batch=2)
TABLE = LatencyTable((1, 41), (1.0, 5.0))  # 0.9 s and 0.1 s for each row
PARALLEL = {
    "paradigms": samplers.get("paradigms", tolerance=1e-6, window=8),
    "parataa": samplers.get("parataa", tolerance=1e-6, relative_tolerance=0.0),
    "x0": samplers.get("x0", tolerance=1e-6),
    "x0 in a window": samplers.get("x0", tolerance=1e-6, window=6, lookahead=3),
}


def solve(
    clock: Clock,
    sampler: samplers.Sampler,
    seconds: float | None,
    table: LatencyTable | None = TABLE,
    cost: Callable[[int], float] = TABLE.predict,
) -> tuple[SampleResult, list[int]]:
    """The result, and the rows of each network call."""
    timed = Timed(SOLVED.network, clock, cost)
    deadline = None if seconds is None else Deadline.after(seconds, table)
    result = sampler(Denoiser(timed), SOLVED.process, NOISE, deadline=deadline)
    return result, timed.rows


@pytest.mark.parametrize("sampler", PARALLEL.values(), ids=PARALLEL)
def test_a_solve_stops_at_the_last_round_that_fits(clock: Clock, sampler: Any) -> None:
    _, rows = solve(clock, sampler, None)
    assert len(rows) > 5
    for k in (2, len(rows) // 2, len(rows) - 1):
        until = sum(TABLE.predict(n) for n in rows[:k])
        following = TABLE.predict(rows[k])
        for share, expected in ((0.01, k), (0.99, k), (1.01, k + 1)):
            result, called = solve(clock, sampler, until + share * following)
            assert called == rows[:expected]
            assert result.rounds.max() == expected
            if expected < len(rows):
                assert Status.DEADLINE in result.status


@pytest.mark.parametrize("sampler", PARALLEL.values(), ids=PARALLEL)
@pytest.mark.parametrize("seconds", [1e-9, 0.5])
def test_the_first_round_always_runs(clock: Clock, sampler: Any, seconds: float) -> None:
    """Without it there is no answer at all."""
    result, rows = solve(clock, sampler, seconds)
    assert len(rows) == 1
    assert result.rounds.tolist() == [1, 1]
    assert set(result.status) == {Status.DEADLINE}
    assert not result.converged.any()
    assert result.residual.isfinite().all()
    assert result.sample.isfinite().all()
    assert result.trajectory.isfinite().all()
    assert torch.equal(result.trajectory[:, -1], result.sample)


@pytest.mark.parametrize("sampler", PARALLEL.values(), ids=PARALLEL)
@pytest.mark.parametrize("table", [TABLE, None], ids=["table", "no table"])
def test_a_generous_deadline_changes_nothing(
    clock: Clock, sampler: Any, table: LatencyTable | None
) -> None:
    free, expected = solve(clock, sampler, None)
    result, rows = solve(clock, sampler, 1e6, table)
    assert rows == expected
    assert torch.equal(result.trajectory, free.trajectory)
    assert torch.equal(result.residual, free.residual)
    assert result.status == free.status == (Status.CONVERGED,) * 2


@pytest.mark.parametrize("slower", [1.0, 1.7, 20.0])
@pytest.mark.parametrize("seconds", [2.0, 9.0, 17.5, 40.0])
@pytest.mark.parametrize("table", [TABLE, None], ids=["table", "no table"])
def test_a_slow_machine_is_noticed_after_one_round(
    clock: Clock, table: LatencyTable | None, seconds: float, slower: float
) -> None:
    """Whatever the table says, only the first round may end too late."""
    start = clock.now
    sampler = PARALLEL["x0"]
    _, rows = solve(clock, sampler, seconds, table, lambda n: slower * TABLE.predict(n))
    assert clock.now - start <= seconds or len(rows) == 1
    without = solve(clock, sampler, None)[1]
    if len(rows) < len(without):  # the next round would have been too late
        largest = max(TABLE.predict(n) for n in without)
        assert clock.now + slower * largest - start > seconds


def test_one_slow_round_makes_it_careful(clock: Clock) -> None:
    """The third call takes five times as long as the table says; it may happen again."""
    flat = LatencyTable((1, 1000), (1.0, 1.0))
    times = iter([1.0, 1.0, 5.0] + [1.0] * 20)
    assert len(solve(clock, PARALLEL["x0"], 11.5, flat, lambda n: next(times))[1]) == 3
    assert len(solve(clock, PARALLEL["x0"], 6.5, flat, lambda n: 1.0)[1]) == 6


def test_a_quick_machine_is_not_trusted(clock: Clock) -> None:
    """Rounds are expected to take as long as the table says, however quick the last ones were."""
    flat = LatencyTable((1, 1000), (1.0, 1.0))
    assert len(solve(clock, PARALLEL["x0"], 1.25, flat, lambda n: 0.1)[1]) == 3


class Queue(FarDevice):
    """A device that works on while the host does: whoever reads from it waits for what was launched."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.launched = clock, Clock(0.0)

    def read(self) -> None:
        self.clock.now += self.launched.now
        self.launched.now = 0.0


@pytest.mark.parametrize("table", [None, LatencyTable((1, 41), (0.5, 0.5))])
@pytest.mark.parametrize("sampler", PARALLEL.values(), ids=PARALLEL)
def test_a_round_lasts_until_the_device_has_finished_it(
    clock: Clock, sampler: Any, table: LatencyTable | None
) -> None:
    _, expected = solve(clock, sampler, 6.5, table, lambda n: 1.0)
    assert len(expected) == 6
    begun = clock.now
    with Queue(clock) as queue:
        timed = Timed(SOLVED.network, queue.launched, lambda n: 1.0)
        noise = Noise(NOISE.initial.to(FAR), NOISE.steps.to(FAR))
        deadline = Deadline.after(6.5, table)
        result = sampler(Denoiser(timed), SOLVED.process, noise, deadline=deadline)
    assert timed.rows == expected
    assert clock.now - begun <= 6.5
    assert Status.DEADLINE in result.status


def test_samples_that_are_done_in_time_have_converged(clock: Clock) -> None:
    """One sample is easy: it starts from its own solution."""
    exact = SOLVED.solve(samplers.get("sequential"), NOISE)
    states = exact.trajectory.clone()
    states[1] += 0.3 * torch.randn(states.shape[1:], generator=torch.Generator().manual_seed(0))
    sampler, guess = samplers.get("x0", tolerance=1e-4), samplers.Trajectory(states)
    timed = Timed(SOLVED.network, clock, lambda n: 1.0)
    deadline = Deadline.after(2.5, LatencyTable((1, 100), (1.0, 1.0)))
    result = sampler(Denoiser(timed), SOLVED.process, NOISE, guess=guess, deadline=deadline)
    assert result.status == (Status.CONVERGED, Status.DEADLINE)
    assert result.converged.tolist() == [True, False]
    torch.testing.assert_close(result.sample[0], exact.sample[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["sequential", "asd"])
def test_samplers_without_an_early_answer_refuse_a_deadline(name: str) -> None:
    solved = problem("ddpm", 10)
    sampler, noise = samplers.get(name), solved.noise()
    with pytest.raises(InputError, match=f"{name}.*no deadline with it"):
        solved.solve(sampler, noise, deadline=Deadline.after(1e6))
