"""docs/results.md is filled from measurements; what was not measured stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import pages
from para_policy.errors import InputError
from scripts import results_page
from sim.plots import pyplot

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
TWO_ARMS = (ROOT / "docs" / "aloha.md").read_text(encoding="utf-8")


def _places(page: str) -> list[str]:
    places: list[str] = []
    pages.fill(page, lambda name: places.append(name))
    return places


def test_places_are_filled_and_the_text_around_them_stays() -> None:
    page = "# A\n<!-- one -->\nold\n<!-- end -->\ntext\n<!-- the second one -->\n<!-- end -->\n"
    texts = {"one": "new", "the second one": "| 1 |\n"}
    filled = (
        "# A\n<!-- one -->\nnew\n<!-- end -->\ntext\n<!-- the second one -->\n| 1 |\n<!-- end -->\n"
    )
    assert pages.fill(page, texts.__getitem__) == filled
    assert pages.fill(filled, texts.__getitem__) == filled
    assert pages.fill(page, lambda name: None) == page


def test_every_part_has_its_place_and_none_has_two_on_a_page(tmp_path: Path) -> None:
    places, two_arms = _places(PAGE), _places(TWO_ARMS)
    assert len(places) == len(set(places))
    assert len(two_arms) == len(set(two_arms))
    assert {*places, *two_arms} == set(results_page.PARTS)
    filled, kept = results_page.fill(PAGE, results_page.Results(tmp_path, tmp_path))
    assert filled == PAGE
    assert kept == places


def test_a_page_may_have_few_places_and_pictures_of_its_own(tmp_path: Path) -> None:
    results = results_page.Results(tmp_path, tmp_path, "aloha_")
    filled, kept = results_page.fill(TWO_ARMS, results)
    assert filled == TWO_ARMS
    assert "evaluate" in kept
    drawn = results.picture(lambda document: pyplot().figure(), {}, "rounds")
    assert "aloha_rounds.png" in drawn
    assert (tmp_path / "aloha_rounds.png").exists()


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
    assert set(_places(PAGE)) - set(kept) == {"residuals"}
    present = filled.splitlines()
    assert all(line in present or line.startswith("- ") for line in PAGE.splitlines())


def test_a_page_with_an_unknown_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'speed'; expected one of"):
        results_page.fill("<!-- speed -->\n<!-- end -->", results_page.Results(tmp_path, tmp_path))
