"""Terminal side of all command lines: progress bars and short errors."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from para_policy.errors import ParaPolicyError
from para_policy.stopping import Stopped, stoppable


def run(command: Callable[[], None]) -> int:
    """Exit code of `command`: 0, or one line on stderr and 2 for bad input, 130 or 143 for a signal."""
    try:
        with stoppable():
            command()
    except ParaPolicyError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        stop = Stopped.of(error)
        print(stop, file=sys.stderr)
        return stop.exit_code
    return 0


def progress_bars(console: Console | None = None, *, hidden: bool = False) -> Progress:
    """Bars that tell what is done, how far it is, and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=hidden,
    )
