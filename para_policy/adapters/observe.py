"""Conditions of a policy's network, from recorded observations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions import METHOD, Convention
from para_policy.errors import InputError


@torch.no_grad()
def calls_for(
    policy: Any, owner: Any, convention: Convention, observations: Iterable[Mapping[str, Any]]
) -> list[Call]:
    """Push observations through the policy's own public method and encoder, without sampling.

    Args:
        observations: as for `accelerate`.

    Returns:
        At least one call of the sampling method, with its condition.

    Raises:
        InputError: if observations are of another kind, or none led to a call.
    """
    entry, what = getattr(policy, convention.entry, None), f"{convention.entry} takes it"
    if entry is None:
        raise InputError(
            f"a {type(policy).__name__} has no {convention.entry} to give observations to; "
            "accelerate the whole policy"
        )
    found: list[Call] = []

    def record(*args: Any, **kwargs: Any) -> Tensor:
        call = convention.read(owner, *args, **kwargs)
        found.append(call.without_noise())
        return torch.zeros(call.shape, dtype=call.dtype, device=call.device)

    reset = getattr(policy, "reset", None) or (lambda: None)
    before = {key: value for key, value in vars(owner).items() if key == METHOD}
    vars(owner)[METHOD] = record
    try:
        reset()
        for one in observations:
            if not isinstance(one, Mapping):
                raise InputError(
                    f"an observation is a {type(one).__name__}; expected a list of mappings, each "
                    f"as {what}"
                )
            entry(dict(one))
    finally:
        del vars(owner)[METHOD]
        vars(owner).update(before)
        reset()
    if not found:
        raise InputError(f"there are no observations; expected at least one, as {what}")
    return found
