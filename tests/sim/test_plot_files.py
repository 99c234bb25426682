"""Figures reach their files whole, or are refused before anything is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from para_policy.errors import InputError
from sim import plots
from sim.plots import Document
from tests.full_disk import full_disk


def line(document: Document) -> Figure:
    figure, axes = plots.new_figure("Values")
    axes.plot(document["values"])
    return figure


@pytest.mark.parametrize(
    ("suffix", "begin"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")]
)
def test_the_suffix_says_the_format(tmp_path: Path, suffix: str, begin: bytes) -> None:
    path = tmp_path / f"figure.{suffix}"
    plots.check_output(path)
    plots.save(line, {"values": [1, 2]}, path)
    assert path.read_bytes().startswith(begin)


@pytest.mark.parametrize("name", ["figure", "figure.txt", "figure.png.zip"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"must end with one of .*\.png"):
        plots.check_output(tmp_path / name)


def test_a_full_disk_leaves_no_half_of_a_figure(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(InputError, match="cannot write"):
        plots.save(line, {"values": [1, 2]}, tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())
