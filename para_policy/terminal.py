"""Terminal side of all command lines: what they say while they work, and how they end.

Answers go to stdout. Progress, warnings and errors go to stderr, so that answers can be piped.
"""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import tyro

from para_policy.errors import ParaPolicyError
from para_policy.memory import is_out_of_memory
from para_policy.stopping import Stopped, stoppable

# Rich is imported where something is drawn: `para-policy --help` draws nothing.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress

_CLOSED_PIPE = 141
_BAD_INPUT = 2


@dataclass(frozen=True)
class Manner:
    """What is told on stderr, besides errors."""

    quiet: Annotated[bool, tyro.conf.arg(aliases=("-q",))] = False
    """Answers and errors only: no progress, no warnings."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=("-v",))] = False
    """Also the stages of the work with their times, the log, and where an error came from."""


class _State:
    """What the terminal of this process shows now."""

    manner = Manner()
    started = time.monotonic()
    spinner: Live | None = None
    unread = False
    """Who read the answers has closed the pipe."""


def set_manner(manner: Manner) -> None:
    """Set how much this process tells from now on, and start its clock."""
    _State.manner, _State.started = manner, time.monotonic()
    if manner.verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    if manner.quiet:
        warnings.simplefilter("ignore")


def run(command: Callable[[], None]) -> int:
    """Exit code of `command`: 0, or another one and a line on stderr that says why.

    2: bad input, or a file or the machine that does not do what was asked; 130 and 143: SIGINT
    (Ctrl-C) and SIGTERM; 141: who read the output has closed the pipe, about which nobody is told.
    """
    _prepare_streams()
    _State.unread = False
    try:
        try:
            with stoppable():
                command()
        finally:
            end_stage()
            sys.stdout.flush()
    except ParaPolicyError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        _discard(sys.stdout)
        return _CLOSED_PIPE
    except OSError as error:
        where = f"'{os.fsdecode(error.filename)}': " if error.filename else ""
        return _refuse(f"{where}{error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _refuse(f"not enough memory ({error or 'on this machine'}); ask for less at once")
    except KeyboardInterrupt as error:
        stop = Stopped.of(error)
        if _speaks():
            print(stop, file=sys.stderr)
        return stop.exit_code
    return _CLOSED_PIPE if _State.unread else 0


def _refuse(reason: str) -> int:
    with suppress(OSError):  # nobody hears it: stderr is full, or closed
        if _State.manner.verbose:
            traceback.print_exc()
        print(f"error: {' '.join(reason.split())}", file=sys.stderr)
    return _BAD_INPUT


def _prepare_streams() -> None:
    """Replace streams that are closed, and let the others escape what their encoding lacks.

    Python has None for a closed one (`>&-`), which not every library expects. File names need not
    be UTF-8.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  for as long as the process
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard(stream: TextIO) -> None:
    """Point a stream nowhere, so that the interpreter can flush it when it ends."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def stage(text: str) -> None:
    """Say on stderr what the command does now, until the next stage, progress bar or answer.

    A spinner on a terminal, or a line on one that cannot go back; a line with the time since the
    start for `Manner.verbose`.
    """
    end_stage()
    if _State.manner.verbose:
        print(f"{time.monotonic() - _State.started:6.1f} s  {text}", file=sys.stderr)
    elif not _State.manner.quiet and sys.stderr.isatty():
        from rich.live import Live
        from rich.spinner import Spinner

        console = notes()
        if console.is_dumb_terminal:
            print(text, file=sys.stderr)
            return
        # Redirected, answers on stdout would be printed on stderr.
        _State.spinner = Live(
            Spinner("dots", text), console=console, transient=True, redirect_stdout=False
        )
        _State.spinner.start(refresh=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A `stage` that ends with the block: for what may be called outside of a command line."""
    stage(text)
    try:
        yield
    finally:
        end_stage()


def end_stage() -> None:
    """Take the spinner away, if there is one."""
    spinner, _State.spinner = _State.spinner, None
    if spinner is not None:
        spinner.stop()


def answers() -> Console:
    """What prints on stdout."""
    return _console()


def notes() -> Console:
    """What prints on stderr: nothing for `Manner.quiet`."""
    return _console(stderr=True, quiet=_State.manner.quiet)


def _console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that falls silent where nobody reads it any more; the work goes on: there may be files to
    write."""
    from rich.console import Console

    class Patient(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            _State.unread |= not stderr
            _discard(sys.stderr if stderr else sys.stdout)

    end_stage()
    return Patient(stderr=stderr, quiet=quiet)


def show(answer: Any) -> None:
    """Print one answer on stdout: text as it is, or something that rich draws."""
    if not _speaks():
        return
    if isinstance(answer, str):
        end_stage()
        print(answer)
    else:
        answers().print(answer)


def _speaks() -> bool:
    """Whether what all processes of a training say is said by this one: of `torchrun` the first."""
    return "LOCAL_RANK" not in os.environ or os.environ.get("RANK", "0") == "0"


def progress_bars(console: Console | None = None, *, hidden: bool = False) -> Progress:
    """Bars on stderr that tell what is done, how far it is, and the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console or notes(),
        disable=hidden,
        redirect_stdout=False,
    )
