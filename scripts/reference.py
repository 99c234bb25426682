"""Writer of the reference, a static site of all docstrings: `python -m scripts.reference FOLDER`."""

from __future__ import annotations

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import para_policy

_LEFT_OUT = ("para_policy.cli", "para_policy.__main__", "para_policy.lerobot_server")
"""Commands, which `--help` and docs/commands.md describe; the server's also needs LeRobot."""


def modules() -> list[str]:
    """All of the package. pdoc itself would follow `__all__`, which names no submodules."""
    found = pkgutil.walk_packages(para_policy.__path__, "para_policy.")
    return ["para_policy", *(m.name for m in found if not m.name.startswith(_LEFT_OUT))]


def write(folder: Path) -> None:
    # Names that are imported when they are first used; pdoc looks into the module only.
    for name in para_policy.__all__:
        setattr(para_policy, name, getattr(para_policy, name))
    # It also finds the submodules of packages without `__all__` by itself.
    warnings.filterwarnings("ignore", "The module specification .* has already been added")
    pdoc.render.configure(docformat="google", include_undocumented=False)
    pdoc.pdoc(*modules(), output_directory=folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    print(f"reference: {sys.argv[1]}/index.html")
