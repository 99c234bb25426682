"""Files and folders that appear whole or not at all: all of ours are written here.

An interrupted or failed write leaves the file as it was, and nothing beside it. What is no regular
file, such as a device or a pipe, is never written over.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from para_policy.errors import InputError


def replace(path: str | Path, write: Callable[[Path], object]) -> None:
    """Write a file in one step, so that a reader never sees half of it.

    A symbolic link stays one: the file that it leads to is written. The file has the permissions
    that the umask gives.

    Args:
        write: writes the content into the file at the path that it is given, which is another one
            in the same folder and has no suffix that says what it holds.

    Raises:
        InputError: if `path` leads to a folder, device or pipe, or the disk is full, read-only or
            gone; the file is as it was.
    """
    with writing(path):
        target = _target(path)
        unfinished = _unfinished(target)
        try:
            os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            mode = _permissions(unfinished)
            write(unfinished)
            # Some libraries make a file anew, and for its owner alone.
            if _permissions(unfinished) != mode:
                unfinished.chmod(mode)
            with unfinished.open("rb") as file:  # a full disk may only be noticed now
                os.fsync(file.fileno())
            unfinished.replace(target)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)


def make_folder(path: str | Path, fill: Callable[[Path], object]) -> None:
    """Make a folder that is not there yet, with what is in it, in one step.

    Args:
        fill: makes the folder at the path that it is given, and all that is in it.

    Raises:
        InputError: if it cannot be written; nothing is left of it.
    """
    check_output_folder(Path(path).parent)
    with writing(path):
        target = Path(os.path.realpath(path))
        unfinished = _unfinished(target)
        try:
            fill(unfinished)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one step, see `replace`."""
    replace(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def append_text(path: str | Path, text: str) -> None:
    """Add to the end of a text file, or begin one.

    Raises:
        InputError: as `replace`; part of the text may have been written.
    """
    with writing(path), _target(path).open("a", encoding="utf-8") as file:
        file.write(text)


def check_output_file(path: str | Path) -> None:
    """Raise InputError unless `path` can be written; makes its folder. Call before the long work."""
    with writing(path):
        target = _target(path)
    check_output_folder(target.parent)


def check_distinct(*paths: str | Path | None) -> None:
    """Raise InputError where two files of a command are one, whose second writing would lose the first.

    Args:
        paths: None for what is not asked for; pipes and devices may be given twice.
    """
    files = [Path(path).resolve() for path in paths if path is not None]
    for file in files:
        if files.count(file) > 1 and (file.is_file() or not file.exists()):
            raise InputError(f"'{file}' is given twice; expected a file of its own for each output")


def check_output_folder(path: str | Path) -> None:
    """Raise InputError unless files can be created in the folder `path`, which is made if needed."""
    import tempfile  # takes 5 % of the time of --help

    if Path(path).exists() and not Path(path).is_dir():
        raise InputError(f"output '{path}' is no folder; expected the name of one, or a new name")
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns what the operating system refuses into an InputError of one line that names `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write '{path}' ({error.strerror or error}); make room for it and check its "
            "permissions, or choose another output path"
        ) from error


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{os.urandom(8).hex()}.tmp")


def _target(path: str | Path) -> Path:
    """Where `path` leads; InputError unless a regular file is there, or nothing yet."""
    target = Path(os.path.realpath(path))
    try:
        found = target.stat()
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"output '{path}' is a folder; expected a file name")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"output '{path}' is a device or pipe; expected the name of a file")
    if not os.access(target, os.W_OK):
        raise InputError(f"output '{path}' exists and is read-only; choose another path")
    if _is_printed_to(found):
        raise InputError(
            f"output '{path}' receives what this program prints, which would be lost; choose "
            "another path"
        )
    return target


def _is_printed_to(found: os.stat_result) -> bool:
    for stream in (1, 2):
        with suppress(OSError):  # it is closed
            if os.path.samestat(found, os.fstat(stream)):
                return True
    return False


def _permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
