"""What must not be in a soak."""

from __future__ import annotations

from typing import Any


def broken_limits(max_growth_percent: float, document: dict[str, Any]) -> list[str]:
    """Sentences about what must not be; empty when all is well."""
    broken = [
        f"{name} grew by {memory['growth_percent']:.2f} %, the limit is {max_growth_percent:g} %"
        for name, memory in document["memory"].items()
        if memory["growth_percent"] > max_growth_percent
    ]
    broken += [
        f"{name} missed {missed} heartbeats"
        for name, missed in document["missed_heartbeats"].items()
        if missed
    ]
    if len(document["missed_heartbeats"]) < 2:
        broken.append(f"heartbeats of {list(document['missed_heartbeats'])} only")
    broken += [f"a node reported: {error}" for error in document["errors"][:3]]
    broken += [
        f"{name} ended with code {code}" for name, code in document["exit_codes"].items() if code
    ]
    return broken
