"""Terminal output during and after an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sim.evaluation import tables
from sim.evaluation.batches import Task
from sim.tasks.choice import task_in
from sim.tasks.episode import Episode


class EvaluationProgress:
    """One bar over all simulated steps, with the time left and the mean reward so far."""

    def __init__(
        self,
        console: Console,
        tasks: Sequence[Task],
        finished: Mapping[Task, Sequence[Episode]],
        max_steps: int,
    ) -> None:
        self._rewards: dict[str, list[float]] = {task.sampler: [] for task in tasks}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        total = sum(len(task.seeds) for task in tasks) * max_steps
        played = sum(len(task.seeds) for task in finished) * max_steps
        self._bar = self._progress.add_task("playing", total=total, completed=played)
        for task, episodes in finished.items():
            self._rewards[task.sampler] += [episode.max_reward for episode in episodes]

    def __enter__(self) -> EvaluationProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, steps: int) -> None:
        self._progress.advance(self._bar, steps)

    def finish(self, task: Task, episodes: Sequence[Episode]) -> None:
        """Count the episodes of a finished task and print where the samplers stand."""
        self._rewards[task.sampler] += [episode.max_reward for episode in episodes]
        rewards = self._rewards[task.sampler]
        self._progress.console.print(
            f"{task.sampler}: {len(rewards)} episodes, mean max reward {np.mean(rewards):.3f}"
        )


def print_results(console: Console, document: Mapping[str, Any]) -> None:
    """Show the main numbers of an evaluation JSON document."""
    part = "stopped early: " if document.get("partial") else ""
    kind = task_in(document).title
    title = f"{part}{document['episodes']} {kind} episodes from seed {document['seed']}"
    table = Table(title=title)
    table.add_column("sampler", overflow="fold")
    for heading in ("max reward, 95 %", "success", "rounds (max)", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, result in document["samplers"].items():
        low, high = result["mean_max_reward_ci95"]
        p50 = result["latency_ms"]["p50"]
        table.add_row(
            name,
            f"{result['mean_max_reward']:.3f} \\[{low:.3f}, {high:.3f}]",
            f"{100 * result['success_rate']:.0f} %",
            f"{result['rounds_mean']:.1f} ({result['rounds_max']})",
            "-" if p50 is None else f"{p50:.0f}",
        )
    console.print(table)
    for other in tables.report_tables(document):
        if other.columns in (tables.SEAM_COLUMNS, tables.ERROR_COLUMNS):
            console.print(_terminal_table(other))
    for name, pair in document["paired"].items():
        low, high = pair["ci95"]
        console.print(
            f"{name} minus {pair['reference']}: {pair['difference']:+.4f} "
            f"[{low:+.4f}, {high:+.4f}], {tables.verdict(pair)}",
            highlight=False,
            markup=False,
        )


def _terminal_table(source: tables.ReportTable) -> Table:
    table = Table(title=source.heading)
    for index, column in enumerate(source.columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in source.rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
