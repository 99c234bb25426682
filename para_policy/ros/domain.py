"""ROS domain: only nodes with the same number see each other."""

from __future__ import annotations

import os
import re

from para_policy.errors import InputError

HIGHEST = 232
"""DDS has no ports for more."""


def is_domain(text: str) -> bool:
    """Whether it is the number of a domain, as ROS_DOMAIN_ID names it."""
    return re.fullmatch("[0-9]{1,3}", text) is not None and int(text) <= HIGHEST


def check_domain(domain_id: int | None = None) -> None:
    """Raise InputError where no node could be made: Fast DDS would end the process, without a word of ours.

    Args:
        domain_id: None for that of the environment.
    """
    text = os.environ.get("ROS_DOMAIN_ID") or "0" if domain_id is None else str(domain_id)
    if not is_domain(text):
        named = "ROS_DOMAIN_ID" if domain_id is None else "ROS domain"
        raise InputError(f"{named} is {text!r}; expected 0 to {HIGHEST}, the same for all nodes")
