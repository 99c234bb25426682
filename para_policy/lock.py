"""Lock of what a long command writes: one at a time, others are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from para_policy.errors import InputError


@contextmanager
def sole_writer(output: Path, lock: Path | None = None) -> Iterator[None]:
    """Holds the file `lock`, which stays there; the system frees it when the process dies.

    Args:
        output: what is protected.
        lock: by default `.NAME.lock` beside the output, whose folder is there.

    Raises:
        InputError: if another process holds it, it cannot be made, or the output is a device or pipe.
    """
    if output.exists() and not (
        output.is_file() or output.is_dir()
    ):  # nothing is left beside those
        raise InputError(f"output '{output}' is a device or pipe; choose another")
    lock = lock or output.with_name(f".{output.name}.lock")
    try:
        held = FileLock(lock).acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"another run is writing to '{output}'; wait for its end, or choose another output"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot lock '{lock}' ({error.strerror}); choose another output"
        ) from error
    with held:
        yield
