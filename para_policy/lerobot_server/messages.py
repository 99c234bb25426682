"""Messages of LeRobot's robot client, unpickled without running what they might name.

LeRobot's protocol is made of pickles. A pickle is a program that names functions and calls them; here
the few names that the protocol needs are known, and every other one is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from para_policy.errors import InputError, shown

_MOST_BYTES = 2**28
_NUMPY = {"multiarray": ("_reconstruct", "scalar"), "numeric": ("_frombuffer",)}
_KNOWN = {
    ("lerobot.async_inference.helpers", "RemotePolicyConfig"),
    ("lerobot.async_inference.helpers", "TimedObservation"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    # numpy 1 and 2, pickle protocols 4 and 5
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, names in _NUMPY.items()
        for name in names
    ),
}

KindT = TypeVar("KindT")


class Part(Protocol):
    """A piece of a message, as gRPC gives it."""

    data: bytes


def read(message: bytes, kind: type[KindT]) -> KindT:
    """Unpickle a message of numbers, text, containers, numpy arrays and the protocol's two classes.

    Raises:
        InputError: if it is damaged, names anything else, or is of another kind.
    """
    try:
        found = _Unpickler(io.BytesIO(message)).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"a message of {len(message)} bytes is no pickled {kind.__name__} ({error}); use a robot "
            "client of the LeRobot version that is installed here"
        ) from error
    if not isinstance(found, kind):
        raise InputError(f"a message holds {shown(found)}; expected a {kind.__name__}")
    return found


def joined(parts: Iterable[Part]) -> bytes:
    """One message from the pieces that it came in.

    Raises:
        InputError: if there is more than any robot observes.
    """
    message = bytearray()
    for part in parts:
        message += part.data
        if len(message) > _MOST_BYTES:
            raise InputError(
                f"an observation has more than {_MOST_BYTES} bytes; send smaller images"
            )
    return bytes(message)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise InputError(
                f"a message names {shown(f'{module}.{name}')}, which is not unpickled; observations are "
                "numbers, text and numpy arrays"
            )
        return super().find_class(module, name)
