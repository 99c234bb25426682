"""Optional packages: an import that fails ends with the one line that says how to install them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from para_policy.errors import MissingPackageError


def install(extra: str) -> str:
    """How to install the packages of an extra; this package itself is on no index.

    >>> install("plots")
    "pip install '.[plots]' in the checkout of para_policy"
    """
    return f"pip install '.[{extra}]' in the checkout of para_policy"


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Guard the imports of packages that the extra `name` brings and that `what` needs.

    Raises:
        MissingPackageError: if one of them is not installed.

    >>> with extra("plots", "drawing"):
    ...     import no_colours
    Traceback (most recent call last):
    para_policy.errors.MissingPackageError: drawing needs no_colours; pip install '.[plots]' in the
    checkout of para_policy
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{what} needs {error.name}; {install(name)}") from error


def require_ros() -> None:
    """Raise MissingPackageError where ROS 2 cannot be imported; call before `para_policy.ros` is."""
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        raise MissingPackageError(
            f"ROS 2 is not available ({error}); source its setup.bash, or install the wheels: "
            "pip install -r requirements-ros.txt in the checkout of para_policy"
        ) from error
