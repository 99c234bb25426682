"""Report of an evaluation JSON: `python -m sim.report --json OUT.json --html OUT.html`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import tyro

from para_policy.errors import InputError, ParaPolicyError
from para_policy.files import check_distinct, check_output_file, write_text
from para_policy.terminal import run
from sim import plots
from sim.evaluation import figures, tables
from sim.plots import Document
from sim.tasks.choice import task_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0; background: #f5f6f7; color: #26292e;
       font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 32px auto; padding: 28px 44px 40px; background: #fff;
       border: 1px solid #e3e5e8; border-radius: 10px; }
h1 { font-size: 27px; margin: 8px 0 4px; }
h2 { font-size: 19px; margin: 38px 0 6px; }
p.lead { color: #5a6068; margin-top: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px;
        font-variant-numeric: tabular-nums; }
th, td { padding: 7px 8px; text-align: right; border-bottom: 1px solid #e9ebee; }
th { color: #5a6068; font-weight: 600; vertical-align: bottom; }
td { overflow-wrap: anywhere; }
td.number { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; min-width: 8em; }
.figures { display: flex; flex-wrap: wrap; gap: 0 36px; }
.figures section { flex: 1 1 430px; max-width: 500px; }
figure { margin: 10px 0 0; }
figure img { max-width: 100%; }
figcaption, .note { color: #5a6068; font-size: 14px; max-width: 46em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 20px; font-size: 14.5px; }
dt { color: #5a6068; } dd { margin: 0; overflow-wrap: anywhere; }
</style></head><body><main>
<h1>$title</h1>
<p class="lead">$lead</p>
$body
</main></body></html>
""")

FIGURES: tuple[tuple[str, Callable[[Document], Figure], str], ...] = (
    (
        "Rewards",
        figures.rewards,
        "{reward}",
    ),
    (
        "Paired difference",
        figures.paired_differences,
        "Equivalent if the whole interval lies within the shaded margin.",
    ),
    (
        "Episode by episode",
        figures.paired_rewards,
        "Each point is one start state. Contact is chaotic: tiny differences between chunks can "
        "grow into another course of the episode, to either side of the line.",
    ),
    (
        "Rounds per chunk",
        figures.rounds,
        "A round is one batched call of the network; a sequential sampler needs one per step.",
    ),
    (
        "Residual per round",
        figures.residuals,
        "Largest first-order residual in the window after each round, over the chunks still in "
        "flight. A sequential sampler has none.",
    ),
    (
        "Latency of one robot",
        figures.latencies,
        "Wall time from observation to actions, one robot in closed loop (batch 1), after warm-up.",
    ),
)


@dataclass(frozen=True)
class Arguments:
    """Turn an evaluation JSON into a self-contained HTML report, a Markdown page, or both."""

    json: Path
    """What `para-policy evaluate` wrote."""
    html: Path | None = None
    """Where the HTML report goes."""
    markdown: Path | None = None
    """Where the Markdown page goes."""


@contextmanager
def reading(path: Path) -> Iterator[Document]:
    """The document in an evaluation JSON, for the block that shows it.

    Raises:
        InputError: if the file is none, or one of another version, which lacks what the block asks for.
    """
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except ParaPolicyError:
        raise
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no evaluation JSON of this version ({type(error).__name__}: {error}); write one "
            "with para-policy evaluate"
        ) from error


def write_html(document: Document, path: Path) -> None:
    """Write the report as one file that needs nothing else."""
    sections = []
    for table in tables.report_tables(document):
        sections += [
            f"<h2>{escape(table.heading)}</h2>",
            _html_table(table.columns, table.rows),
            f'<p class="note">{escape(table.note)}</p>',
        ]
    reward = task_in(document).reward_note
    drawn = (
        f"<section><h2>{heading}</h2><figure>"
        f'<img alt="{heading}" src="{plots.render(plot, document)}">'
        f"<figcaption>{escape(caption.format(reward=reward))}</figcaption></figure></section>"
        for heading, plot, caption in FIGURES
        if _has_data(document, plot)
    )
    sections.append(f'<div class="figures">{"".join(drawn)}</div>')
    facts = (
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in tables.circumstances(document).items()
    )
    sections.append(f"<h2>Circumstances</h2><dl>{''.join(facts)}</dl>")
    page = PAGE.substitute(
        title=escape(tables.title(document)),
        lead=escape(tables.lead(document)),
        body="\n".join(sections),
    )
    write_text(path, page)


def write_markdown(document: Document, path: Path) -> None:
    """Write the tables and the circumstances as a Markdown page."""
    write_text(path, "\n\n".join([f"# {tables.title(document)}", *markdown_parts(document)]) + "\n")


def markdown_parts(document: Document) -> list[str]:
    """The paragraphs and tables of the Markdown page, without its title."""
    parts = [tables.lead(document)]
    for table in tables.report_tables(document):
        parts += [
            f"### {table.heading}",
            tables.markdown(table.columns, table.rows),
            table.note,
        ]
    facts = [f"- {name}: {value}" for name, value in tables.circumstances(document).items()]
    command = f"```bash\n{tables.command(document)}\n```"
    return [*parts, "### Circumstances", "\n".join(facts), "### Run it again", command]


def _has_data(document: Document, plot: Callable[[Document], Figure]) -> bool:
    results = document["samplers"].values()
    if plot in (figures.paired_differences, figures.paired_rewards):
        return bool(document["paired"])
    if plot is figures.residuals:
        return any(result["residual_per_round"]["p50"] for result in results)
    if plot is figures.latencies:
        return any(result["latency_ms"]["p50"] is not None for result in results)
    return True


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td{_kind(cell)}>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _kind(cell: str) -> str:
    """Numbers stay in one line; names of samplers and sentences break, so that a table fits."""
    return ' class="number"' if cell[:1] in "+-0123456789" else ""


def main() -> None:
    """Command line."""
    args = tyro.cli(Arguments)

    def command() -> None:
        if args.html is None and args.markdown is None:
            raise InputError("nothing to write: give --html FILE, --markdown FILE or both")
        for path in (args.html, args.markdown):
            if path is not None:
                check_output_file(path)
        check_distinct(args.json, args.html, args.markdown)
        with reading(args.json) as document:
            if args.html is not None:
                write_html(document, args.html)
            if args.markdown is not None:
                write_markdown(document, args.markdown)

    sys.exit(run(command))


if __name__ == "__main__":
    main()
