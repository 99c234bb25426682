"""Goals of the engine against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.common import Document
from benchmarks.engine.chunks import DDIM_16, DDPM_100, LEAST_CHUNKS, find
from benchmarks.engine.loop import DEADLINE_S
from para_policy.comparison import REFERENCE

BEST = "best"
"""Stands for the engine that `document["best"]` names."""

_DDPM, _DDIM = DDPM_100.label, DDIM_16.label
_LARGE = "65.8 M"
_PARALLEL = ("x0", "chord", "collocation")
_ROBOTS = 8

Number = Callable[[Document], float | None]


@dataclass(frozen=True)
class Goal:
    """A limit for one number.

    Attributes:
        device: "cpu" or "cuda", where it counts.
        text: what the number is.
        limit, at_least: the number must not be above `limit`, or with `at_least` not below it.
        number: reads it from the document; None where it was not measured.
    """

    device: str
    text: str
    limit: float
    at_least: bool
    number: Number

    def verdict(self, document: Document) -> str:
        """ "reached", "missed" or "not measured"."""
        value = self.value(document)
        if value is None:
            return "not measured"
        reached = value >= self.limit if self.at_least else value <= self.limit
        return "reached" if reached else "missed"

    def value(self, document: Document) -> float | None:
        return self.number(document) if document["device"].startswith(self.device) else None

    def row(self, document: Document) -> list[str]:
        """One row of COLUMNS."""
        value, words = self.value(document), "at least" if self.at_least else "at most"
        shown = "-" if value is None else f"{value:.3g}"
        return [
            self.text,
            f"{words} {self.limit:g}",
            shown,
            self.verdict(document),
        ]


COLUMNS = ("goal", "limit", "measured", "")


def _p50(part: str, process: str, sampler: str, engine: str) -> Number:
    """Median chunk in ms: of the shipped policy ("chunks"), or of the large network ("cut_chunks").

    One of the shipped policy that stands for few chunks is none to judge by.
    """

    def number(document: Document) -> float | None:
        entries = document[part]
        if part == "cut_chunks":
            entries = [entry for entry in entries if entry["network"] == _LARGE]
        entry = find(entries, process, sampler, _engine(document, engine))
        if entry is None or (part == "chunks" and entry["chunks"] < LEAST_CHUNKS):
            return None
        return float(entry["latency_ms"]["p50"])

    return number


def _ratio(slow: Number, fast: Number) -> Number:
    def number(document: Document) -> float | None:
        above, below = slow(document), fast(document)
        return None if above is None or below is None else above / below

    return number


def _error(document: Document) -> float | None:
    entry = find(document["chunks"], _DDPM, "chord", document["best"])
    return None if entry is None else float(entry["error"]["p100"])


def _loop_p99(sampler: str) -> Number:
    def number(document: Document) -> float | None:
        entry = find(document["loop"], _DDPM, sampler, document["best"])
        return None if entry is None else float(entry["latency_ms"]["p99"])

    return number


def _round(document: Document) -> float | None:
    found = (
        entry["times_roof"]
        for entry in document["rounds"]
        if (entry["network"], entry["engine"]) == (_LARGE, document["best"])
    )
    return next(found, None)


def _engine(document: Document, engine: str) -> str:
    return str(document["best"]) if engine == BEST else engine


def _chunk(process: str, sampler: str, engine: str = BEST) -> Number:
    return _p50("chunks", process, sampler, engine)


def _fastest(process: str, engine: str = BEST) -> Number:
    """The fastest parallel sampler."""
    return _least([_chunk(process, sampler, engine) for sampler in _PARALLEL])


def _least(numbers: Sequence[Number]) -> Number:
    def number(document: Document) -> float | None:
        return min((v for one in numbers if (v := one(document)) is not None), default=None)

    return number


def _converged(document: Document) -> float | None:
    """Share of the chunks with a deadline that had converged, of the sampler with the most."""
    found = [
        float(entry["converged_rate"])
        for entry in document["loop"]
        if (entry["process"], entry["engine"]) == (_DDPM, document["best"])
    ]
    return max(found, default=None)


def _batch_ms(sampler: str) -> Number:
    """Milliseconds a chunk, of `_ROBOTS` robots in one batch."""

    def number(document: Document) -> float | None:
        found = (
            1e3 / entry["chunks_per_s"]
            for entry in document["robots"]
            if (entry["process"], entry["sampler"], entry["robots"]) == (_DDPM, sampler, _ROBOTS)
            and entry["engine"] == document["best"]
        )
        return next(found, None)

    return number


def _large(process: str, sampler: str, engine: str = BEST) -> Number:
    return _p50("cut_chunks", process, sampler, engine)


_BASELINE = _chunk(_DDPM, REFERENCE)
_LARGE_CHORD = _large(_DDPM, "chord")
_DEADLINE_MS = 1e3 * DEADLINE_S

GOALS: Sequence[Goal] = (
    Goal(
        "cpu",
        "DDPM-100: `sequential` eager / on the best engine",
        limit=1.5,
        at_least=True,
        number=_ratio(_chunk(_DDPM, REFERENCE, "eager"), _BASELINE),
    ),
    Goal(
        "cpu",
        "DDPM-100: `sequential` / the fastest parallel sampler, eager",
        limit=6.5,
        at_least=True,
        number=_ratio(_chunk(_DDPM, REFERENCE, "eager"), _fastest(_DDPM, "eager")),
    ),
    Goal(
        "cpu",
        "DDPM-100: `sequential` / the fastest parallel sampler, best engine",
        limit=2.8,
        at_least=True,
        number=_ratio(_BASELINE, _fastest(_DDPM)),
    ),
    Goal(
        "cpu",
        "DDPM-100: `chord` / the fastest parallel sampler, best engine",
        limit=1.8,
        at_least=True,
        number=_ratio(_chunk(_DDPM, "chord"), _fastest(_DDPM)),
    ),
    Goal(
        "cpu",
        "DDIM-16: `sequential` / the fastest parallel sampler, best engine",
        limit=1.25,
        at_least=True,
        number=_ratio(_chunk(_DDIM, REFERENCE), _fastest(_DDIM)),
    ),
    Goal(
        "cpu",
        f"{_ROBOTS} robots in one batch, DDPM-100: `sequential` / the fastest parallel sampler",
        limit=1.5,
        at_least=True,
        number=_ratio(_batch_ms(REFERENCE), _least([_batch_ms(sampler) for sampler in _PARALLEL])),
    ),
    Goal(
        "cpu",
        f"DDPM-100 with a deadline of {_DEADLINE_MS:g} ms: share of converged chunks",
        limit=0.85,
        at_least=True,
        number=_converged,
    ),
    Goal(
        "cpu",
        f"DDPM-100 with a deadline of {_DEADLINE_MS:g} ms, `auto`: p99, ms",
        limit=_DEADLINE_MS,
        at_least=False,
        number=_loop_p99("auto"),
    ),
    Goal(
        "cuda",
        f"{_LARGE}, DDPM-100: chunk, ms",
        limit=3.0,
        at_least=False,
        number=_LARGE_CHORD,
    ),
    Goal(
        "cuda",
        "DDPM-100: largest error of `chord`, shipped network",
        limit=1e-2,
        at_least=False,
        number=_error,
    ),
    Goal(
        "cuda",
        f"{_LARGE}, DDPM-100: `sequential` / `chord`, both on the best engine",
        limit=12.0,
        at_least=True,
        number=_ratio(_large(_DDPM, REFERENCE), _LARGE_CHORD),
    ),
    Goal(
        "cuda",
        f"{_LARGE}, DDPM-100: `sequential` eager / `chord`",
        limit=100.0,
        at_least=True,
        number=_ratio(_large(_DDPM, REFERENCE, "eager"), _LARGE_CHORD),
    ),
    Goal(
        "cuda",
        f"{_LARGE}, DDIM-16: `sequential` / `chord`, both on the best engine",
        limit=3.0,
        at_least=True,
        number=_ratio(_large(_DDIM, REFERENCE), _large(_DDIM, "chord")),
    ),
    Goal(
        "cuda",
        f"{_LARGE}, DDPM-100: one round of all rows / roofline",
        limit=4.0,
        at_least=False,
        number=_round,
    ),
)


def rows(document: Document, device: str | None = None) -> list[list[str]]:
    """One row of COLUMNS per goal, of all devices or of one."""
    return [goal.row(document) for goal in GOALS if device in (None, goal.device)]
