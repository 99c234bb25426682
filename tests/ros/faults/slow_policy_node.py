"""policy_node whose policy does not come back, in the thread that the environment names."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from typing import Any

from para_policy import DiffusionPolicy
from para_policy.ros.policy_node import main

_sample = DiffusionPolicy.sample


def _sample_for_ever(*arguments: Any, **options: Any) -> Any:
    if threading.current_thread().name == os.environ["SLOW_THREAD"]:
        print("computing", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # native, like a network: minutes
    return _sample(*arguments, **options)


if __name__ == "__main__":
    DiffusionPolicy.sample = _sample_for_ever  # type: ignore[method-assign]
    sys.exit(main())
