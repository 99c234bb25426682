"""A process that runs commands while packages seem not to be installed; see test_extras.py.

Reads [[hidden packages, module, arguments], ...] from stdin as JSON and prints [[code, stderr], ...].
Nothing of ours stays imported from one command to the next.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import Any

OURS = ("para_policy", "sim")


class FewerPackages(PathFinder):
    """The finder of installed packages, which misses some of them."""

    hidden: frozenset[str] = frozenset()

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in cls.hidden:
            return None
        return super().find_spec(fullname, path, target)


def run(hidden: Sequence[str], module: str, arguments: Sequence[str]) -> tuple[object, str]:
    """Exit code and stderr of `python -m module arguments`."""
    FewerPackages.hidden = frozenset(hidden)
    for name in list(sys.modules):
        if name.partition(".")[0] in (*OURS, *hidden):
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.argv = [module, *arguments]
    code: object = None
    with (
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code
    return code, stderr.getvalue()


if __name__ == "__main__":
    sys.meta_path = [FewerPackages if f is PathFinder else f for f in sys.meta_path]
    print(json.dumps([run(*case) for case in json.load(sys.stdin)]))
