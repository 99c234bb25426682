"""Comparison of samplers on the same observations and the same noise, in one run."""

from para_policy.comparison.benchmark import REFERENCE, Benchmark, make_report, run
from para_policy.comparison.tables import COLUMNS, rows, table, title
from para_policy.inference.circumstances import describe_machine, describe_software

__all__ = [
    "COLUMNS",
    "REFERENCE",
    "Benchmark",
    "describe_machine",
    "describe_software",
    "make_report",
    "rows",
    "run",
    "table",
    "title",
]
