"""Executables of the nodes: one may be interrupted, and lack a package, before its imports are done."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType

CANNOT_IMPORT = 3
"""Exit code where a package is missing: starting the node again would not help."""


def start_node(module: str) -> int:
    """Import `module`, which takes seconds, and run its `main`.

    A node that is told to end while it imports ends at once, with code 0. Left to Python, Ctrl-C
    would print a traceback of whatever was being imported, or be swallowed by it.

    Returns:
        The exit code of the node; 3 (with one line on stderr) when it cannot be imported.
    """
    importing = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if importing:
            os._exit(0)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        main = importlib.import_module(module).main
    except ImportError as error:
        name = module.rpartition(".")[-1]
        print(
            f"error: {name} cannot start: {error} (Python: {sys.executable}); install what is missing "
            "there, `para-policy doctor` looks for it",
            file=sys.stderr,
        )
        return CANNOT_IMPORT
    importing = False
    return int(main())


def policy_node() -> int:
    return start_node("para_policy.ros.policy_node")


def chunk_executor() -> int:
    return start_node("para_policy.ros.chunk_executor")
