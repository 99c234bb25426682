"""Notebooks of the documentation run from top to bottom, on the shipped checkpoint."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_shows_what_it_shows(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    stored = [len(cell.get("outputs", ())) for cell in notebook.cells]
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=folder).execute()
    assert [len(cell.get("outputs", ())) for cell in notebook.cells] == stored
    assert not any(
        output.get("name") == "stderr"
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS
