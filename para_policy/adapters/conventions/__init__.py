"""Calling conventions of the policy objects of other projects, recognised by their shape alone.

One module per project; a project is read from its sources, and never imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from para_policy.adapters.conventions.convention import Convention as Convention
from para_policy.adapters.conventions.euler_loop import EO1, Pi0, Pi05, SmolVLA
from para_policy.adapters.conventions.evo1 import EVO1
from para_policy.adapters.conventions.lerobot import LeRobotDiffusion
from para_policy.adapters.conventions.lerobot_dit import LeRobotDiT, LeRobotFlowDiT
from para_policy.adapters.conventions.original import OriginalTransformer, OriginalUnet
from para_policy.adapters.conventions.refused import REFUSED
from para_policy.errors import InputError

CONVENTIONS: Sequence[type[Convention]] = (
    *(LeRobotDiffusion, LeRobotDiT, LeRobotFlowDiT),
    *(Pi0, Pi05, SmolVLA, EO1, EVO1),
    *(OriginalUnet, OriginalTransformer),
)


def recognise(policy: Any) -> Convention:
    """The convention of a policy's project, bound to the policy.

    Raises:
        InputError: if `policy` is of no known kind, with all that was looked for.
    """
    kind = type(policy)
    name = getattr(kind, "name", None)
    if isinstance(name, str) and name in REFUSED:
        raise InputError(f"cannot accelerate a LeRobot policy of type {name}: {REFUSED[name]}")
    titles: dict[str, list[str]] = {}
    for convention in CONVENTIONS:
        try:
            return convention(policy)
        except InputError as error:
            titles.setdefault(str(error), []).append(convention.title.removeprefix("a "))
    reasons = [f"no {' or '.join(alike)} ({reason})" for reason, alike in titles.items()]
    raise InputError(
        f"cannot accelerate a {kind.__module__}.{kind.__qualname__}: it is {'; '.join(reasons)}. "
        "For a network of your own use para_policy.sample; a policy from load_policy has "
        "policy.sample(obs, sampler=...)"
    )
