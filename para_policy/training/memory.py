"""Memory that arrays of a data set would take, checked before they are made."""

from __future__ import annotations

from para_policy.errors import DataError


def check_memory(size: int, what: str) -> None:
    """Raise DataError if `size` bytes do not fit into the memory that is available now."""
    available = _available()
    if available is not None and size > available:
        raise DataError(
            f"{what} take {size / 2**30:.1f} GiB, {available / 2**30:.1f} GiB of memory are available; "
            "use fewer of them, or a larger machine"
        )


def _available() -> int | None:
    """Bytes that can be used without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    return next((1024 * int(words[1]) for words in lines if words[0] == "MemAvailable:"), None)
