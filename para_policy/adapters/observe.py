"""Conditions of a policy's network, from recorded observations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions import Convention
from para_policy.errors import InputError


@torch.no_grad()
def calls_for(convention: Convention, observations: Iterable[Mapping[str, Any]]) -> list[Call]:
    """Push observations through the policy's own public method and encoder, without sampling.

    Args:
        convention: bound to the policy.
        observations: as for `accelerate`.

    Returns:
        At least one call of the sampling method, with its condition.

    Raises:
        InputError: if observations are of another kind, or none led to a call.
    """
    policy, owner, method = convention.policy, vars(convention.owner), convention.method
    entry, what = getattr(policy, convention.entry, None), f"{convention.entry} takes it"
    if entry is None:
        raise InputError(
            f"a {type(policy).__name__} has no {convention.entry} to give observations to; "
            "accelerate the whole policy"
        )
    found: list[Call] = []

    def record(call: Call) -> Tensor:
        found.append(call.without_noise())
        return torch.zeros(call.shape, dtype=call.dtype, device=call.device)

    reset = getattr(policy, "reset", None) or (lambda: None)
    before = {key: value for key, value in owner.items() if key == method}
    original = getattr(convention.owner, method)
    owner[method] = lambda *args, **kwargs: convention.sample(record, original, *args, **kwargs)
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
        del owner[method]
        owner.update(before)
        reset()
    if not found:
        raise InputError(f"there are no observations; expected at least one, as {what}")
    return found
