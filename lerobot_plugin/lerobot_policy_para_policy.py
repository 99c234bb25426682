"""Plug-in of LeRobot: policies that are loaded to act solve their denoising steps in parallel.

LeRobot's programs import it by its name. It wraps `from_pretrained` of all policies. A policy is changed
at its first observation, and only if it proves there that it answers the same, faster; it is never changed
in a training. `PARA_POLICY=off` in the environment turns it off, and `undo()` in the program.
"""

from __future__ import annotations

import atexit
import functools
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from huggingface_hub import try_to_load_from_cache
from lerobot.policies.pretrained import PreTrainedPolicy

if TYPE_CHECKING:
    from para_policy.adapters.account import Account

LOG = logging.getLogger("para_policy")
TRAINING = "lerobot.scripts.lerobot_train"

accounts: list[Account] = []
"""What became of the policies that this process has loaded."""

_loaded: WeakSet[PreTrainedPolicy] = WeakSet()
_wrapped: list[tuple[type[PreTrainedPolicy], Any]] = []
"""Classes with the `from_pretrained` that they had."""


def _in_training() -> bool:
    """Whether this is `lerobot-train`, however it was started."""
    return TRAINING in sys.modules or Path(sys.argv[0]).stem == TRAINING.rpartition(".")[2]


def _on_load(policy: PreTrainedPolicy, checkpoint: str | Path, revision: str | None) -> None:
    # A class may call the method that it overrides, and both are wrapped.
    if policy in _loaded or _in_training():
        return
    _loaded.add(policy)
    try:
        from para_policy.adapters.guard import guard
    except ImportError as error:  # a broken installation is no reason for a robot to stand still
        LOG.warning("para_policy: %s is left as it is: %s", type(policy).__name__, error)
        return
    directory = Path(checkpoint)
    if not directory.is_dir():
        cached = try_to_load_from_cache(str(checkpoint), "config.json", revision=revision)
        directory = Path(cached).parent if isinstance(cached, str) else None
    account = guard(policy, directory)
    if account is not None:
        accounts.append(account)


def _wrap(kind: type[PreTrainedPolicy]) -> None:
    """Wrap the `from_pretrained` that a class has of its own."""
    if "from_pretrained" not in vars(kind):
        return
    original = vars(kind)["from_pretrained"]
    load = original.__func__

    @functools.wraps(load)
    def from_pretrained(
        cls: type, pretrained_name_or_path: str | Path, *args: Any, **kwargs: Any
    ) -> Any:
        policy = load(cls, pretrained_name_or_path, *args, **kwargs)
        _on_load(policy, pretrained_name_or_path, kwargs.get("revision"))
        return policy

    kind.from_pretrained = classmethod(from_pretrained)
    _wrapped.append((kind, original))


def _wrap_all(kind: type[PreTrainedPolicy]) -> None:
    """Those that are imported, and those that will be."""
    _wrap(kind)
    for derived in kind.__subclasses__():
        _wrap_all(derived)


def undo() -> None:
    """Leave policies that are loaded from now on as they are; `policy.para_policy.undo()` is for one."""
    while _wrapped:
        kind, original = _wrapped.pop()
        kind.from_pretrained = original
    PreTrainedPolicy.__init_subclass__ = _begin


@atexit.register
def _finish() -> None:
    if accounts:
        from para_policy.adapters.account import finish

        finish(accounts, ("lerobot", "lerobot_policy_para_policy"))


def _wrap_new(cls: type[PreTrainedPolicy], **kwargs: Any) -> None:
    _begin.__func__(cls, **kwargs)
    _wrap(cls)


_begin = vars(PreTrainedPolicy)["__init_subclass__"]
_wrap_all(PreTrainedPolicy)
PreTrainedPolicy.__init_subclass__ = classmethod(_wrap_new)
