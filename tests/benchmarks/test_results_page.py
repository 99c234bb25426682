"""docs/results.md is filled from measurements; what was not measured stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import pages
from para_policy.errors import InputError
from scripts import results_page

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_places_are_filled_and_the_text_around_them_stays() -> None:
    page = "# A\n<!-- one -->\nold\n<!-- end -->\ntext\n<!-- the second one -->\n<!-- end -->\n"
    texts = {"one": "new", "the second one": "| 1 |\n"}
    filled = (
        "# A\n<!-- one -->\nnew\n<!-- end -->\ntext\n<!-- the second one -->\n| 1 |\n<!-- end -->\n"
    )
    assert pages.fill(page, texts.__getitem__) == filled
    assert pages.fill(filled, texts.__getitem__) == filled
    assert pages.fill(page, lambda name: None) == page


def test_every_part_has_one_place_on_the_page(tmp_path: Path) -> None:
    places: list[str] = []
    pages.fill(PAGE, lambda name: places.append(name))
    assert sorted(places) == sorted(results_page.PARTS)
    filled, kept = results_page.fill(PAGE, results_page.Results(tmp_path, tmp_path))
    assert filled == PAGE
    assert kept == places


def test_only_what_was_measured_changes(tmp_path: Path) -> None:
    facts = {
        "device": "a device",
        "cores": 3,
        "threads": 1,
        "dtype": "float32",
        "checkpoint": "a checkpoint",
        "checkpoint_sha256": "0" * 64,
        "versions": {"python": "3"},
        "date": "today",
        "seeds": [0, 3],
        "observations": 4,
    }
    curve = {"residual_per_round": {"p50": [1.0, 0.1], "p95": [2.0, 0.2]}}
    residuals = {**facts, "samplers": {"x0": curve}}
    (tmp_path / "residuals.json").write_text(json.dumps(residuals))
    filled, kept = results_page.fill(PAGE, results_page.Results(tmp_path, tmp_path))
    assert "- Device: a device, 3 cores, 1 thread(s), float32\n- Observations: 4" in filled
    assert (tmp_path / "residual_per_round.png").exists()
    assert set(results_page.PARTS) - set(kept) == {"residuals"}
    present = filled.splitlines()
    assert all(line in present or line.startswith("- ") for line in PAGE.splitlines())


def test_a_page_with_an_unknown_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'speed'; expected one of"):
        results_page.fill("<!-- speed -->\n<!-- end -->", results_page.Results(tmp_path, tmp_path))
