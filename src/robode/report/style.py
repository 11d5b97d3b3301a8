"""How every robode figure looks, and how it reaches the disk. Figures are built without pyplot, so nothing
here keeps global state or needs a display."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, NullFormatter, PercentFormatter

from robode.files import write_whole
from robode.tasks.measure import Measure

# Okabe and Ito's palette: distinguishable with every common colour blindness and in grey print.
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, INK, MUTED = "#56B4E9", "#CC79A7", "#222222", "#8A8A8A"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
DOTS_PER_INCH = 150

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same picture on every machine
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#B0B0B0",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "text.color": INK,
    "figure.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text, so it can be searched and edited
}


def score_axis(ax: Axes, measure: Measure) -> None:
    """The y axis of scores that have been drawn: shares from 0 to 100 %, others from 0, as they are."""
    if measure.shares:
        ax.set_ylim(0, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]) if ax.dataLim.y0 < 0 else 0.0)


def whiskers(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """score (k,) and (2, k) how far the interval reaches below and above, of summary rows; NaN where it is infinite."""
    middle, low, high = (rows[name].to_numpy(float) for name in ("score", "score_low", "score_high"))
    with np.errstate(invalid="ignore"):
        reach = np.clip([middle - low, high - middle], 0.0, None)
    return np.where(np.isfinite(middle), middle, np.nan), np.where(np.isfinite(reach), reach, np.nan)


def styled() -> AbstractContextManager[None]:
    """The context in which every figure is built."""
    return matplotlib.rc_context(_STYLE)  # type: ignore[arg-type]


def panels(
    count: int, columns: int = 2, width: float = 3.5, height: float = 2.7, fill: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` equal panels (inches). fill: when the last row is short its last panel takes all of it;
    without, slopes can be compared between all panels."""
    columns = max(1, min(columns, count))
    rows = max(1, math.ceil(count / columns))
    figure = Figure(figsize=(max(columns * width, 5.0), rows * height), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    axes = []
    for index in range(count):
        row, column = divmod(index, columns)
        last = fill and index == count - 1
        axes.append(figure.add_subplot(grid[row, column:] if last else grid[row, column]))
    return figure, axes


def legend_above(ax: Axes) -> None:
    """Name the curves between title and axes, where nothing is hidden; a single curve needs no name."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) < 2:
        return
    ax.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.98),
        ncols=len(labels),
        columnspacing=1.2,
        handlelength=1.8,
    )
    ax.set_title(ax.get_title(loc="left"), pad=22.0)


def shades(count: int) -> list[str]:
    """Colours for an ordered quantity (layers, levels): cividis without its palest end."""
    colormap = matplotlib.colormaps["cividis"]
    return [to_hex(colormap(position)) for position in np.linspace(0.0, 0.8, max(count, 2))[:count]]


def log_where_decades(ax: Axes, values: Sequence[float] | np.ndarray, decades: float = 1.5) -> None:
    """Logarithmic y axis if the positive finite values span that many decades and none is ≤ 0."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size and finite.min() > 0 and finite.max() / finite.min() > 10**decades:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(LogFormatterMathtext())
        ax.yaxis.set_minor_formatter(NullFormatter())


def save(figure: Figure, folder: Path | str, stem: str) -> tuple[Path, Path]:
    """Write folder/stem.png (150 dpi) and folder/stem.pdf, each whole or not at all; returns both paths.

    Raises:
        JobFailed: the folder cannot be written.
    """
    folder = Path(folder)
    png, pdf = folder / f"{stem}.png", folder / f"{stem}.pdf"
    with styled():
        write_whole(png, lambda path: figure.savefig(path, format="png", dpi=DOTS_PER_INCH))
        # no creation date: the same run gives the same bytes
        write_whole(pdf, lambda path: figure.savefig(path, format="pdf", metadata={"CreationDate": None}))
    return png, pdf


def write_text(path: Path, text: str) -> None:
    """A whole UTF-8 file or none. Raises `JobFailed` as `write_whole` does."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
