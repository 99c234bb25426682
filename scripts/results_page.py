"""Writes docs/results.md and its plots from the JSON files of `scripts/results.sh`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from para_policy import bench
from sim import plots, report, tables

HEADER = """# Results

Every figure on this page comes from `make results` (`scripts/results.sh`), which anyone can rerun.
No figure was measured on a GPU. All samplers of a table ran on the same eager network and the same
noise: in the first section taking turns on the same observations in one process, in closed loop from
the same start states. Latency is the wall time from the observation on the host to the actions on
the host, one robot, after warm-up.
"""

BENCH_NOTE = """Error: largest coordinate difference to `sequential` with the same noise, over the whole
16 x 2 chunk, in normalised action units (1 unit is about 250 px); its three columns are percentiles
over the observations. Evals: network rows. Speed-up: ratio of the median latencies."""


def page(folder: Path, images: Path) -> str:
    """The whole page; saves the plots in `images`."""
    parts = [HEADER, "## Samplers on the same observations"]
    for name in ("bench_ddpm100", "bench_ddim16"):
        measured = json.loads((folder / f"{name}.json").read_text())
        parts += [
            f"### {bench.title(measured)}",
            tables.markdown(bench.COLUMNS, bench.rows(measured)),
        ]
    parts += [BENCH_NOTE, "## Closed loop in PushT"]
    document = json.loads((folder / "evaluate.json").read_text())
    parts += report.markdown_parts(document)
    for plot in (plots.rewards, plots.paired_rewards, plots.rounds, plots.residuals):
        name = f"{plot.__name__}.png"
        plots.save(plot, document, images / name)
        parts.append(f"![{plot.__name__.replace('_', ' ')}](images/{name})")
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    pictures = target.parent / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    target.write_text(page(source, pictures))
