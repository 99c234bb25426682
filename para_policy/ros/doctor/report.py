"""Report of the findings, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from rich.table import Table
from rich.text import Text

from para_policy.errors import ParaPolicyError


class Level(Enum):
    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


_COLOURS = {
    Level.OK: "green",
    Level.WARN: "yellow",
    Level.FAIL: "bold red",
    Level.SKIPPED: "dim",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        found: what it is like.
        advice: what to do about it; empty where nothing is to be done.
    """

    subject: str
    level: Level
    found: str
    advice: str = ""


def ok(subject: str, found: str) -> Finding:
    return Finding(subject, Level.OK, found)


def warn(subject: str, found: str, advice: str) -> Finding:
    return Finding(subject, Level.WARN, found, advice)


def fail(subject: str, found: str, advice: str) -> Finding:
    return Finding(subject, Level.FAIL, found, advice)


def skipped(subject: str, found: str, advice: str = "") -> Finding:
    return Finding(subject, Level.SKIPPED, found, advice)


@dataclass
class Report:
    """Findings by section, in the order of the checks."""

    sections: dict[str, list[Finding]] = field(default_factory=dict)

    def run(self, section: str, check: Callable[[], Iterable[Finding]]) -> None:
        """Keep what `check` finds; an error ends this check and none of the others."""
        findings = self.sections.setdefault(section, [])
        try:
            findings.extend(check())
        except ParaPolicyError as error:
            findings.append(fail(section, str(error), "the message names what to change"))
        except Exception as error:
            found = f"the check itself failed: {type(error).__name__}: {error}"
            findings.append(fail(section, found, "please report this"))

    @property
    def findings(self) -> list[Finding]:
        return [finding for findings in self.sections.values() for finding in findings]

    def count(self, level: Level) -> int:
        return sum(finding.level == level for finding in self.findings)

    @property
    def failed(self) -> bool:
        return self.count(Level.FAIL) > 0

    def summary(self) -> str:
        return ", ".join(f"{self.count(level)} {level.value}" for level in Level)

    def table(self) -> Table:
        """A line for each finding; what to do stands below it."""
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold", max_width=30)
        table.add_column(overflow="fold")
        for section, findings in self.sections.items():
            table.add_row("", Text(section, style="bold"), "")
            for finding in findings:
                words = Text(finding.found)
                if finding.advice:
                    words.append(f"\n-> {finding.advice}", style="cyan")
                level = Text(finding.level.value, style=_COLOURS[finding.level])
                table.add_row(level, finding.subject, words)
        return table

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "failed": self.failed,
            "counts": {level.value: self.count(level) for level in Level},
            "findings": [
                {"section": section, **asdict(finding), "level": finding.level.value}
                for section, findings in self.sections.items()
                for finding in findings
            ],
        }
