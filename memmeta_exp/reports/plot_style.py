"""The common style of all figures: colours, lines, fonts and files."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from memmeta_exp.config import options

# Okabe and Ito (2008): distinguishable with any kind of colour vision. Markers and dashes distinguish lines in grey.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"
GREY = "0.45"
DPI = 160
FITTED = "fitted"  # the gid of fitted lines, by which a figure's lines are told from its points

_SOLID, _DASHED, _DOTTED, _DASHDOT = "-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2))
_CYCLE = [
    {"color": color, "marker": marker}
    for color, marker in zip((BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK), "os^DvPX", strict=True)
]
_FURTHER = [  # for algorithms without a colour of their own: from Paul Tol's muted scheme
    {"color": color, "marker": marker}
    for color, marker in zip(("#882255", "#999933", "#332288", "#44AA99", "#661100", "#AA4499"), "ph<>*d", strict=True)
]
_DASHES = (_SOLID, _DASHED, _DASHDOT, _DOTTED, (0, (3, 1, 1, 1, 1, 1)))
_RC: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.8,
    "axes.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "svg.fonttype": "path",  # letters as outlines, so the figure does not depend on installed fonts
    "svg.hashsalt": "memmeta",
    "savefig.dpi": DPI,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Applies matplotlib's settings of all figures in the block. Draw and save inside it.

    A character that is not in the font is drawn as a box, without a warning.
    """
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def panels(count: int, width: float = 4.6, height: float = 3.6, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in a row, each `width` x `height` inches. Without pyplot, so it needs no display and
    has no global state."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=share_y, gridspec_kw={"wspace": 0.04})
    return figure, list(axes[0])


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes STEM.png and STEM.svg. Equal figures give equal bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    figure.savefig(files[0], dpi=DPI, metadata={"Software": None})
    figure.set_layout_engine("none")  # keep the layout of the first save
    figure.savefig(files[1], metadata={"Date": None, "Creator": None})
    return files


def algorithm_looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of every registered algorithm and of unknown `names`.

    These are the class's own, or else the next of the palette, in the order of registration, unknown names last.
    """
    known: dict[str, Any] = options("algorithm")
    own = {name: {"color": c.color, "marker": c.marker or "o"} for name, c in known.items() if c.color}
    taken = {look["color"] for look in own.values()}
    free = [look for look in (*_CYCLE, *_FURTHER) if look["color"] not in taken] or _CYCLE
    others = [name for name in (*known, *sorted({*names} - {*known})) if name not in own]
    return own | {name: free[place % len(free)] for place, name in enumerate(others)}


def line_styles(algorithms: Sequence[str], by_algorithm: bool = False) -> list[dict[str, Any]]:
    """Colour, marker and dash of one line per entry of `algorithms`.

    An algorithm has the same colour and marker in every figure; its further lines have other dashes. If all lines are
    of one algorithm, each gets its own colour, unless `by_algorithm`.
    """
    if len(set(algorithms)) <= 1 and not by_algorithm:
        return [{**_CYCLE[i % len(_CYCLE)], "linestyle": _DASHES[i % len(_DASHES)]} for i in range(len(algorithms))]
    seen: dict[str, int] = {}
    names = list(dict.fromkeys(algorithms))
    looks = algorithm_looks(names)
    styles = []
    for name in algorithms:
        index = seen[name] = seen.get(name, -1) + 1
        first = names.index(name) if len(names) == len(algorithms) else 0
        styles.append({**looks[name], "linestyle": _DASHES[(first + index) % len(_DASHES)]})
    return styles


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int = 3) -> None:
    """Adds one legend for all panels below them, where it covers nothing."""
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def powers_axis(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with ticks at `values`, written as plain numbers."""
    axis.set_major_locator(FixedLocator(sorted(set(values))))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(FixedLocator([]))


def plain_log_axis(axis: Any) -> None:
    """A logarithmic axis with ticks at 1, 2, 5 times powers of ten, written as plain numbers."""
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def label_ends(figure: Figure, axis: Axes, ends: Sequence[tuple[float, float, str, str]], size: float = 8.5) -> None:
    """Labels lines at their right ends. ends: (x, y, text, colour) per line.

    Labels that would overlap are moved apart vertically, with a thin leader to the line's end. Call it after the limits
    and scale of the axis are set.
    """
    if not ends:
        return
    figure.draw_without_rendering()  # fixes the layout, on which the positions depend
    box = axis.get_window_extent()
    heights = [axis.transData.transform((x, y))[1] for x, y, _, _ in ends]
    gap = size * figure.dpi / 72 * 1.25
    placed = spread(heights, gap, box.y0, box.y1)
    for (x, y, text, color), height in zip(ends, placed, strict=True):
        at = axis.transAxes.inverted().transform((0, height))[1]
        axis.annotate(
            text,
            xy=(x, y),
            xytext=(1.06, at),
            textcoords="axes fraction",
            color=[0.7 * part for part in to_rgb(color)],  # darker: light colours are hard to read as text
            fontsize=size,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 4,
                "alpha": 0.6,
                "relpos": (0, 0.5),
            },
        )


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves `positions` as little as possible so that they are `gap` apart, in the same order, within [low, high] if
    they fit."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    blocks: list[
        list[float]
    ] = []  # of each block: the sum of the first positions that its members want, and their number
    members: list[list[int]] = []
    for index in order:
        blocks.append([positions[index], 1])
        members.append([index])
        while len(blocks) > 1:
            below, top = blocks[-2], blocks[-1]
            if below[0] / below[1] + gap * below[1] <= top[0] / top[1]:
                break
            merged = [below[0] + top[0] - top[1] * below[1] * gap, below[1] + top[1]]
            blocks[-2:] = [merged]
            members[-2:] = [members[-2] + members[-1]]
    found = [0.0] * len(positions)
    for (total, count), inside in zip(blocks, members, strict=True):
        first = total / count
        for rank, index in enumerate(inside):
            found[index] = first + rank * gap
    return _shifted_inside(found, gap, low, high)


def _shifted_inside(positions: list[float], gap: float, low: float, high: float) -> list[float]:
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    ceiling = high
    for index in reversed(order):
        positions[index] = min(positions[index], ceiling)
        ceiling = positions[index] - gap
    floor = low
    for index in order:
        positions[index] = max(positions[index], floor)
        floor = positions[index] + gap
    return positions
