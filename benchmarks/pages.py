"""Pages of docs that are made from measurements: places that are filled, pictures, provenance.

A place is what stands between `<!-- PLACE -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from para_policy.files import check_output_folder
from sim import plots
from sim.plots import Document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def images_beside(page: Path) -> Path:
    """Folder of the pictures of a page; made if it is not there."""
    folder = page.parent / "images"
    check_output_folder(folder)
    return folder


def picture(
    plot: Callable[[Document], Figure],
    document: Document,
    images: Path,
    name: str,
    text: str | None = None,
) -> str:
    """Draw a plot into `images`, and show it; the text is the name unless another is given."""
    plots.save(plot, document, images / f"{name}.png")
    return f"![{(text or name).replace('_', ' ')}](images/{name}.png)"


def provenance(document: Document) -> list[str]:
    """Sentences about the checkpoint and the software that figures come from."""
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    sha = document["checkpoint_sha256"][:16]
    return [f"Checkpoint: {document['checkpoint']} (sha256 {sha}...)", f"Versions: {versions}"]
