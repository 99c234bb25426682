"""Figures of the architecture: counted by hand on small examples, and on the shipped policy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scripts import house


def _package(folder: Path, **sources: str) -> Path:
    root = folder / "house_example"
    for name, source in {"__init__": "", "part/__init__": "", **sources}.items():
        file = root / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return root


def test_circles_are_found_wherever_the_import_stands(tmp_path: Path) -> None:
    root = _package(
        tmp_path,
        first="from house_example import second",
        second="def late():\n    from .part.third import f",
        **{"part/third": "from .. import first\nf = 1"},
        alone="import house_example.first, os",
    )
    running, typing = house.imports(root)
    assert running["house_example.alone"] == {"house_example.first"}
    assert not any(typing.values())
    circle = ["house_example.first", "house_example.part.third", "house_example.second"]
    assert house.circles(running) == [circle]


def test_imports_for_type_checking_are_apart(tmp_path: Path) -> None:
    condition = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import second"
    root = _package(tmp_path, first=condition, second="import house_example.first")
    running, typing = house.imports(root)
    assert house.circles(running) == []
    assert typing["house_example.first"] == {"house_example.second"}


def test_changes_of_module_on_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _package(
        tmp_path,
        first="from house_example.second import g, h\ndef f():\n    g()\n    h()",
        second="from house_example.third import k\ndef g(): return 1\ndef h(): return k()",
        third="def k(): return 2",
    )
    monkeypatch.syspath_prepend(tmp_path)
    import house_example.first

    events = house.watch(root, house_example.first.f)
    called = [event.module.rpartition(".")[2] for event in events if event.begins]
    assert called == ["first", "second", "second", "third"]
    running = [(event.running or "nothing").rpartition(".")[2] for event in events]
    assert " ".join(running) == "first second first second third second first nothing"


def test_run_of_the_tests(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(
        '<testsuites><testsuite time="2.5"><testcase classname="a" name="x" time="0.5"/>'
        '<testcase classname="b" name="y" time="1.5"><skipped/></testcase></testsuite></testsuites>'
    )
    figures = house.run_figures(report)
    slowest = [("b::y", 1.5), ("a::x", 0.5)]
    assert figures == {"tests": 2, "skipped": 1, "seconds": 2.5, "slowest": slowest}


def test_this_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    output = tmp_path / "house.json"
    house.main(["--json", str(output)])
    figures = json.loads(output.read_text())
    chord, sequential = figures["path"]["chord"], figures["path"]["sequential"]
    assert (chord["rounds"], sequential["rounds"]) == (5, 100)
    assert "para_policy.samplers" in chord["modules"]
    assert 0 < chord["calls"] < chord["changes"] < sequential["changes"]
    assert 0 < chord["frames_outside"] <= len(chord["frames"])
    assert figures["sizes"]["para_policy"]["files"] > figures["sizes"]["para_policy"]["short"] > 0
    assert figures["assertions"]["asserts"] > figures["assertions"]["raises"] > 0
    assert "Import circles of para_policy" in capsys.readouterr().out
