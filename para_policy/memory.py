"""Memory and disk that a large request would take, compared with what there is before it begins."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from para_policy.errors import DataError, InputError

_GIB = 2**30
# torch and the engines have no type of their own for it.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "not enough memory")
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_memory(what: str, needed: int) -> None:
    """Raise InputError if no more than `what` takes more memory than this machine, or container, has.

    Args:
        what: the request as the user made it, for the message: "--cases 100000000".
        needed: bytes at least.
    """
    _compare(what, needed, _memory(), "memory")


def check_available(what: str, needed: int) -> None:
    """Raise DataError if `needed` bytes do not fit into the memory that is available now."""
    available = _available()
    if available is not None and needed > available:
        raise DataError(
            f"{what} take {needed / _GIB:.1f} GiB, {available / _GIB:.1f} GiB of memory are available; "
            "use fewer of them, or a larger machine"
        )


def check_disk(what: str, needed: int, folder: Path) -> None:
    """Raise InputError if `what` takes more than is free on the disk of `folder`, which exists."""
    _compare(what, needed, shutil.disk_usage(folder).free, "free disk")


def is_out_of_memory(error: Exception) -> bool:
    """Whether less at once might work, whatever the library calls that."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(t in str(error).lower() for t in _OUT_OF_MEMORY)
    )


def _compare(what: str, needed: int, there: int, kind: str) -> None:
    if needed > there:
        raise InputError(
            f"{what} takes at least {needed / _GIB:.3g} GiB; there are {there / _GIB:.3g} GiB of "
            f"{kind}. Ask for less"
        )


def _memory() -> int:
    """Bytes of this machine, or container."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in _LIMITS:
        with suppress(OSError, ValueError):  # no Linux, no container, or no limit: "max"
            there = min(there, int(Path(file).read_text()))
    return there


def _available() -> int | None:
    """Bytes that can be used without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    return next((1024 * int(words[1]) for words in lines if words[0] == "MemAvailable:"), None)
