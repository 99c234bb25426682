"""Look of all plots, and ways to save them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from colorsys import hls_to_rgb
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.files import check_output_file, replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
COLORS = (
    *("#2b62bf", "#e2631e", "#2f8f5b", "#8c56bd", "#b88a00"),
    *("#5a6673", "#c2407e", "#2aa1b3", "#7a4b2a", "#9bb02f"),
)
LONG_LABEL = 30
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": "#9aa1a9",
    "axes.labelcolor": "#26292e",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9ebee",
    "xtick.color": "#5a6068",
    "ytick.color": "#5a6068",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def pyplot() -> Any:
    """matplotlib, which draws into files, without a display."""
    with extra("plots", "drawing"):
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot
    return matplotlib.pyplot


def render(plot: Callable[[Document], Figure], document: Document) -> str:
    """Draw a figure as an SVG data URI, which an HTML file can hold."""
    buffer, plt = io.BytesIO(), pyplot()
    with plt.rc_context(STYLE):
        figure = plot(document)
        figure.savefig(buffer, format="svg")
        plt.close(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def save(plot: Callable[[Document], Figure], document: Document, path: Path) -> None:
    """Draw a figure into a file."""
    plt = pyplot()
    with plt.rc_context(STYLE):
        figure = plot(document)
        write = partial(figure.savefig, format=_format(path), dpi=130, bbox_inches="tight")
        replace(path, write)
        plt.close(figure)


def check_output(path: Path) -> None:
    """Raise InputError unless a figure can be written to `path`; call before the long work."""
    known = sorted(pyplot().Figure().canvas.get_supported_filetypes())
    if _format(path) not in known:
        raise InputError(f"output {path} must end with one of .{', .'.join(known)}")
    check_output_file(path)


def _format(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def new_figure(title: str, width: float = 6.0, height: float = 3.3) -> tuple[Figure, Axes]:
    """One plot under a title, so that it says what it is wherever it is shown; inches."""
    figure, axes = new_panels(title, 1, 1, width, height)
    return figure, axes[0, 0]


def new_panels(
    title: str, rows: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, Any]:
    """Plots (rows, columns) under one title."""
    figure, axes = pyplot().subplots(
        rows, columns, figsize=(width, height), squeeze=False, **options
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color="#26292e")
    return figure, axes


def colors(names: Iterable[str], fixed: Mapping[str, str] | None = None) -> dict[str, str]:
    """A colour for each series of a figure, no two alike.

    Args:
        fixed: the colour that a series has in all figures; of several with the same one, the first
            keeps it.

    >>> colors(["a", "b", "c"], {"b": COLORS[0], "c": COLORS[0]}) == dict(
    ...     a=COLORS[1], b=COLORS[0], c=COLORS[2])
    True
    """
    names = list(dict.fromkeys(names))
    found: dict[str, str] = {}
    for name, color in (fixed or {}).items():
        if name in names and color not in found.values():
            found[name] = color
    spare = (color for color in _palette(len(names)) if color not in found.values())
    return {name: found[name] if name in found else next(spare) for name in names}


def _palette(count: int) -> Iterator[str]:
    """`COLORS`, and beyond them hues around the wheel, paler, which are none of these."""
    yield from COLORS
    for place in range(count):
        red, green, blue = hls_to_rgb(place / count, 0.72, 0.6)
        yield f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def legend_above(axes: Axes) -> None:
    # Above the plot, where no data can hide behind it; more lines make the figure higher.
    figure, labels = axes.get_figure(root=True), axes.get_legend_handles_labels()[1]
    # Two long labels side by side are wider than the plot, which would shrink.
    columns = 1 if any(len(label) > LONG_LABEL for label in labels) else 2
    lines = -(-len(labels) // columns)
    if figure is not None:
        figure.set_figheight(figure.get_figheight() + 0.2 * (lines - 1))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns)
