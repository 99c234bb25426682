"""Pages of docs whose figures are filled in: what stands between `<!-- PLACE -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable

_PLACE = re.compile(r"(<!-- (\w+(?: \w+)*) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def fill(page: str, part: Callable[[str], str | None]) -> str:
    """The page with its places filled.

    Args:
        page: its text.
        part: text for a place, by name; None leaves what is there.
    """

    def place(match: re.Match[str]) -> str:
        begin, name, present, end = match.groups()
        text = part(name)
        return begin + (present if text is None else text.strip() + "\n") + end

    return _PLACE.sub(place, page)
