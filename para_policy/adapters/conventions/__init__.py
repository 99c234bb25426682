"""Calling conventions of the policy objects of other projects, recognised by their shape alone.

One module per project; a project is read from its sources, and never imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from para_policy.adapters.conventions.convention import Convention as Convention
from para_policy.adapters.conventions.lerobot import LeRobotDiffusion
from para_policy.adapters.conventions.original import OriginalTransformer, OriginalUnet
from para_policy.errors import InputError

CONVENTIONS: Sequence[type[Convention]] = (LeRobotDiffusion, OriginalUnet, OriginalTransformer)


def recognise(policy: Any) -> Convention:
    """The convention of a policy's project, bound to the policy.

    Raises:
        InputError: if `policy` is of no known kind, with all that was looked for.
    """
    reasons = []
    for convention in CONVENTIONS:
        try:
            return convention(policy)
        except InputError as error:
            reasons.append(f"no {convention.title.removeprefix('a ')} ({error})")
    kind = type(policy)
    raise InputError(
        f"cannot accelerate a {kind.__module__}.{kind.__qualname__}: it is {'; '.join(reasons)}. "
        "For a network of your own use para_policy.sample; a policy from load_policy has "
        "policy.sample(obs, sampler=...)"
    )
