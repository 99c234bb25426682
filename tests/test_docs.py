"""README.md and the documentation: links lead somewhere, every page is in the index, figures agree."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    """A page without its fenced code, in which brackets mean something else."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page to a file or a heading that does not exist."""
    found = []
    for link in LINK.findall(text_of(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (heading and heading not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `heading`\n[web](https://a.b) [self](#a-heading) [page](page.md#a-heading)\n"
        "[file](gone.md) [part](page.md#gone)\n```\n[code](gone.py)\n```\n"
    )
    assert broken_links(page) == ["gone.md", "page.md#gone"]


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {
        (index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(text_of(index))
    }
    pages = {*PAGES, *(ROOT / "docs").rglob("*.ipynb")} - {*ROOT.glob("*.md"), index}
    assert pages - linked == set()


def missing_names(page: Path) -> list[str]:
    """What the Python of a page imports of this project, and it does not have."""
    wanted = [
        (node.module, name.name)
        for block in PYTHON.findall(page.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("para_policy")
        for name in node.names
    ]
    return [
        f"{module}.{name}"
        for module, name in wanted
        if not hasattr(importlib.import_module(str(module)), name)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_is_python_and_imports_what_there_is(page: Path) -> None:
    assert missing_names(page) == []


def test_an_import_of_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nfrom para_policy import accelerate, hurry\nimport torch\n```\n")
    assert missing_names(page) == ["para_policy.hurry"]


NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def table_rows(page: Path) -> list[list[str]]:
    """Cells of all table rows of a page, without their marks."""
    lines = (line.strip() for line in page.read_text(encoding="utf-8").splitlines())
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.replace("*", "").replace("\\", "").strip() for cell in row] for row in rows]


def numbers(cells: list[str]) -> set[float]:
    return {float(number) for cell in cells for number in NUMBER.findall(cell)}


def unfounded(headline: list[list[str]], measured: list[list[str]]) -> list[str]:
    """Numbers of the first page that no table has in a row of that sampler."""
    found = []
    for name, *cells in headline:
        sampler = re.findall(r"`([\w]+)`", name)[0]
        rows = [row for row in measured if sampler in re.findall(r"\w+", row[0])]
        known = set().union(*(numbers(row[1:]) for row in rows))
        found += [f"{sampler}: {number:g}" for number in sorted(numbers(cells) - known)]
    return found


def test_figures_of_the_first_page_are_those_of_the_documentation() -> None:
    headline = [row for row in table_rows(ROOT / "README.md") if len(row) == 6 and "`" in row[0]]
    measured = [
        row
        for name in ("results", "performance", "summary")
        for row in table_rows(ROOT / "docs" / f"{name}.md")
    ]
    assert len(headline) == 5
    assert unfounded(headline, measured) == []


def test_a_figure_that_was_never_measured_is_found() -> None:
    measured = [["chord", "5.3 / 7 / 15", "1.1e-03"], ["x0", "6.3", "295"]]
    assert unfounded([["**`chord`** (ours)", "**5.3**", "1.1e-3"]], measured) == []
    assert unfounded([["`chord`", "6.3", "-0.1"]], measured) == ["chord: -0.1", "chord: 6.3"]
