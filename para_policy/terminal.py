"""Terminal side of all command lines: checked output paths, progress bars and short errors."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from para_policy.errors import InputError, ParaPolicyError
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


def check_output_file(path: Path) -> None:
    """Raise InputError unless `path` can be written; makes its folder. Call before the long work."""
    if path.is_dir():
        raise InputError(f"output {path} is a folder; expected a file name")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"output {path} exists and cannot be overwritten; choose another path")
    check_output_folder(path.parent)


def check_output_folder(path: Path) -> None:
    """Raise InputError unless files can be created in the folder `path`, which is made if needed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write in folder {path} ({error.strerror}); choose another output path"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
