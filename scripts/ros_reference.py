"""Writer of the parameter tables of docs/ros2_reference.md: `python -m scripts.ros_reference`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import pages
from para_policy.files import write_text
from para_policy.ros.parameters import executor, policy
from para_policy.ros.parameters.declare import Parameter
from sim.ros import pusht_sim, sensors, simulator

PAGE = Path(__file__).resolve().parents[1] / "docs" / "ros2_reference.md"
TABLES: dict[str, Sequence[Parameter]] = {
    "policy_node": policy.PARAMETERS,
    "chunk_executor": executor.PARAMETERS,
    "pusht_sim": (*simulator.PARAMETERS, *sensors.PARAMETERS, *pusht_sim.IMAGE_PARAMETERS),
}


def table(parameters: Sequence[Parameter]) -> str:
    """Name, default, range and meaning of each; a star for those that may change at any time."""
    rows = ["| parameter | default | range | meaning |", "| --- | --- | --- | --- |"]
    for one in parameters:
        low_high = "" if one.limits is None else f"{one.limits[0]:g} to {one.limits[1]:g}"
        star = " *" if one.live else ""
        text = one.description.replace("|", "\\|")
        rows.append(f"| `{one.name}`{star} | {_default(one.default)} | {low_high} | {text} |")
    return "\n".join(rows)


def with_tables(page: str) -> str:
    """The page with its places filled, each `parameters of NODE`."""
    filled = []

    def part(place: str) -> str | None:
        node = place.removeprefix("parameters of ")
        filled.append(node)
        return table(TABLES[node])

    page = pages.fill(page, part)
    if sorted(filled) != sorted(TABLES):
        raise SystemExit(f"{PAGE}: places of {filled}; expected one of each of {list(TABLES)}")
    return page


def _default(value: object) -> str:
    if value == [""]:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_default, value))}]"
    return str(value) if value != "" else "empty"


if __name__ == "__main__":
    write_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
    sys.exit(0)
