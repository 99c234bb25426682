"""Terminal side of all command lines: progress bars and short errors."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from para_policy.errors import ParaPolicyError


def run(command: Callable[[], None]) -> int:
    """Exit code of `command`: 0, or 2 with one line on stderr for bad input."""
    try:
        command()
    except ParaPolicyError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
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
