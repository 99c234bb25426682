"""Signals end commands with one line and the code that shells know."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest

from para_policy.stopping import Stopped, deferred, keeping, stoppable
from para_policy.terminal import run

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_command_ends_with_one_line_and_its_handlers_are_put_back(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(one) for one, _ in SIGNALS]

    def command() -> None:
        with keeping(lambda: "3 of 4 are kept"):
            signal.raise_signal(number)

    assert run(command) == code
    name = signal.Signals(number).name
    assert capsys.readouterr().err == f"stopped by {name}; 3 of 4 are kept\n"
    assert [signal.getsignal(one) for one, _ in SIGNALS] == before


def test_what_says_most_about_what_is_kept_is_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        with keeping(lambda: "all"), keeping(lambda: "a part"):
            interrupt()

    assert run(command) == 130
    assert capsys.readouterr().err == "stopped by SIGINT; a part\n"
    assert run(interrupt) == 130
    assert capsys.readouterr().err == "stopped by SIGINT\n"


def test_deferred_work_ends_where_it_wants_to() -> None:
    with stoppable(), deferred() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        with pytest.raises(Stopped, match="stopped by SIGTERM; all") as caught:
            stop.end("all")
    assert caught.value.exit_code == 143


def test_the_second_signal_does_not_wait() -> None:
    with stoppable(), deferred():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_that_a_launcher_repeats_is_one_stop() -> None:
    with stoppable(), deferred(patience_s=0.2) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGINT
        time.sleep(0.2)
        with pytest.raises(Stopped, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("context", [stoppable, deferred])
def test_threads_which_get_no_signals_may_use_it(context: Callable[[], object]) -> None:
    found: list[object] = []

    def work() -> None:
        with context():  # type: ignore[attr-defined]
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
