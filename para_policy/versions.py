"""Versions of what results depend on; machines that compute together have the same."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from para_policy.errors import InputError

_PYTHON = "python"
NOT_INSTALLED = "not installed"
_ALWAYS = (_PYTHON, "numpy", "torch", "diffusers")


def versions(*packages: str) -> dict[str, str]:
    """Of Python, the packages that every policy is computed with, and others."""
    return {name: _version(name) for name in (*_ALWAYS, *packages)}


def check_versions(expected: Mapping[str, str]) -> None:
    """Raise InputError in a worker of a cluster that has others than the command, with `expected`."""
    for name, wanted in expected.items():
        if (here := _version(name)) != wanted:
            raise InputError(
                f"{platform.node()}, a machine of the cluster, has {name} {here}; the command was given "
                f"where it is {wanted}: install the same on all of them"
            )


def _version(name: str) -> str:
    if name == _PYTHON:
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:
        return NOT_INSTALLED
