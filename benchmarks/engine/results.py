"""Filler of docs/performance.md from the files of `benchmarks.engine`; its places are `DEVICE TABLE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import pages
from benchmarks.common import Document
from benchmarks.engine import network, roofline
from benchmarks.engine.report import TABLES, facts
from para_policy.errors import InputError
from para_policy.files import write_text
from para_policy.terminal import run
from sim.evaluation import tables

FILES = {"cpu": "engine.json", "gpu": "engine_gpu.json"}
NOTHING = "Not measured."
_PLOTS = {"network_plot": network.figure, "roofline_plot": roofline.figure}


def fill(page: str, documents: dict[str, Document], images: Path) -> str:
    """The page with all places filled; saves the plots in `images`.

    Args:
        documents: by device, "cpu" or "gpu"; those that are missing were not measured.

    Raises:
        InputError: if the page names something that is not measured here.
    """

    def part(place: str) -> str:
        device, _, name = place.partition(" ")
        if device not in FILES or name not in (*TABLES, *_PLOTS, "facts"):
            raise InputError(
                f"the page has a place {place!r}; expected one of {list(FILES)} "
                f"and one of {[*TABLES, *_PLOTS, 'facts']}"
            )
        if device not in documents:
            return NOTHING
        return _part(documents[device], name, device, images)

    return pages.fill(page, part)


def _part(document: Document, name: str, device: str, images: Path) -> str:
    if name == "facts":
        return facts(document)
    if name in _PLOTS:
        file = f"engine_{device}_{name.removesuffix('_plot')}"
        return pages.picture(_PLOTS[name], document, images, file, name)
    columns, rows = TABLES[name]
    found = rows(document)
    return tables.markdown(columns, found) if found else NOTHING


def main(folder: Path, page: Path) -> None:
    """Write the page anew, in place."""
    documents: dict[str, Any] = {
        device: json.loads((folder / name).read_text(encoding="utf-8"))
        for device, name in FILES.items()
        if (folder / name).exists()
    }
    write_text(page, fill(page.read_text(encoding="utf-8"), documents, pages.images_beside(page)))
    print(f"page: {page}")


if __name__ == "__main__":
    sys.exit(run(lambda: main(Path(sys.argv[1]), Path(sys.argv[2]))))
