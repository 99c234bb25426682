"""Messages of LeRobot's robot client.

LeRobot's protocol is made of pickles, which are programs. Here they are read as data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from para_policy.errors import InputError, shown
from para_policy.lerobot_server.pickles import unpickled

_MOST_BYTES = 2**28

KindT = TypeVar("KindT")


class Part(Protocol):
    """A piece of a message, as gRPC gives it."""

    data: bytes


def read(message: bytes, kind: type[KindT]) -> KindT:
    """Read a message of numbers, text, containers, numpy arrays, and `kind` if that is a data class.

    Raises:
        InputError: if it is damaged, holds anything else, or is of another kind.
    """
    try:
        found = unpickled(message, kind)
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
