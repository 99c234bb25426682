"""Writer of the parameter tables of docs/ros2_reference.md: `python -m scripts.ros_reference`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from para_policy.ros.parameters import executor as executor_parameters
from para_policy.ros.parameters import policy as policy_parameters
from para_policy.ros.parameters.declare import Parameter
from para_policy.terminal import write_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "ros2_reference.md"
TABLES: dict[str, Sequence[Parameter]] = {
    "policy_node": policy_parameters.PARAMETERS,
    "chunk_executor": executor_parameters.PARAMETERS,
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
    """The page with the text between each pair of marks replaced."""
    for name, parameters in TABLES.items():
        begin, end = f"<!-- parameters of {name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        content = f"{begin}\n{table(parameters)}\n{end}"
        page, count = pattern.subn(lambda _, content=content: content, page)
        if count != 1:
            raise SystemExit(f"{PAGE}: {count} places marked {begin}; expected one")
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
