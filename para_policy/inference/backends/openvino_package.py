"""The package OpenVINO, as all of this process use it."""

from __future__ import annotations

import sys
import threading
from functools import cache
from typing import Any

from para_policy.extras import install
from para_policy.inference.failures import UnavailableError

_LOCK = threading.Lock()


def openvino_package() -> Any:
    """The package. Imported as it is, it reports to its vendor over the network; it does not where
    the part that does so is missing.

    Raises:
        UnavailableError: if it is not installed, or cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(
            f"it needs the package openvino ({error}); {install('openvino')}"
        ) from error
    return openvino


def openvino_core() -> Any:
    """The one `Core` of this process, with its plug-ins, which is never freed.

    The CPU plug-in puts the signals of the thread that loads it on a stack of its own. When it is
    freed, with the last network that it has compiled, it unmaps that stack, in whichever thread this
    happens: the next signal to the first one, such as Ctrl-C, would end the process without a word
    (OpenVINO 2026.4).
    """
    openvino = openvino_package()
    with _LOCK:
        return _core(openvino)


@cache
def _core(openvino: Any) -> Any:
    return openvino.Core()
