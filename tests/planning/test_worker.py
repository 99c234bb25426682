from __future__ import annotations

import os
import threading

import pytest

from para_policy.errors import InputError
from para_policy.planning.worker import Worker


def test_only_the_worker_thread_is_pinned() -> None:
    before = os.sched_getaffinity(0)
    cpu, seen, done = max(before), set[int](), threading.Event()

    def work() -> None:
        seen.update(os.sched_getaffinity(0))
        done.set()

    worker = Worker(work, "pinned", [cpu])
    worker.wake()
    assert done.wait(5)
    assert worker.stop()
    assert seen == {cpu}
    assert os.sched_getaffinity(0) == before


def test_a_cpu_that_is_not_there_is_refused_before_a_thread_starts() -> None:
    threads = threading.active_count()
    with pytest.raises(InputError, match=r"cpu_affinity is \[0, 4095\]; this process may run on"):
        Worker(lambda: None, "pinned", [0, 4095])
    assert threading.active_count() == threads


def test_wakes_during_a_call_become_one() -> None:
    calls, begun, go_on = [], threading.Event(), threading.Event()

    def work() -> None:
        calls.append(None)
        begun.set()
        go_on.wait(5)

    worker = Worker(work, "counting")
    worker.wake()
    assert begun.wait(5)
    begun.clear()
    for _ in range(1000):
        worker.wake()
    go_on.set()
    assert begun.wait(5)
    worker.stop()
    assert len(calls) == 2


def test_a_call_that_does_not_return_is_left_behind_and_ends_later() -> None:
    calls, begun, go_on = [], threading.Event(), threading.Event()

    def work() -> None:
        calls.append(None)
        begun.set()
        go_on.wait(30)

    worker = Worker(work, "hanging")
    worker.wake()
    assert begun.wait(5)
    worker.wake()
    assert not worker.stop(patience_s=0.01)
    go_on.set()
    assert worker.stop(patience_s=5)
    assert len(calls) == 1  # it does not work on after its call has returned
