"""How every figure and page looks, and how it reaches the disk.

Figures are built without pyplot, so nothing here keeps global state or needs a display. A page is one self-contained
file, filled from a template, without a path of this machine.
"""

import base64
import functools
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterMathtext, NullFormatter, PercentFormatter
from PIL import Image

from robode.files import make_folder, write_text, write_whole
from robode.report.layout import Animation
from robode.tasks.measure import Measure

# Okabe and Ito's palette: distinguishable with every common colour blindness and in grey print.
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, INK, MUTED = "#56B4E9", "#CC79A7", "#222222", "#8A8A8A"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
DOTS_PER_INCH = 150
MOVING_DOTS_PER_INCH, FRAMES_PER_SECOND, COLOURS = 80, 6, 48  # of animations
DESCRIPTION = "Description"  # of a figure, in its PNG
SAID = 6  # panels, and curves of a panel, that are described
# /home/name/outputs/x, C:\\name\\x, ../../name/x, and /name behind a space, a sign of equality or a quotation mark;
# not the slashes of a URL, of km/h or of a relative path
_ABSOLUTE = re.compile(
    r"(?<![\w.~:/\\…])(?:(?:[A-Za-z]:[/\\]|/|(?:\.\./)+)(?:[\w.@+~-]+[/\\])+|(?:(?<=[\s='\"])|^)/(?=[A-Za-z]))"
    r"([\w.@+-]*)",
    re.MULTILINE,
)
# what spreadsheets take for the beginning of a formula, and the sign that keeps them from it
_FORMULA = re.compile(r"(?='*[=+\-@\t\r])")

STYLE = {
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


def whiskers(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """score (k,) and (2, k) how far the interval reaches below and above, of summary rows; NaN where it is infinite."""
    middle, low, high = (rows[name].to_numpy(float) for name in ("score", "score_low", "score_high"))
    with np.errstate(invalid="ignore"):
        reach = np.clip([middle - low, high - middle], 0.0, None)
    return np.where(np.isfinite(middle), middle, np.nan), np.where(np.isfinite(reach), reach, np.nan)


@contextmanager
def styled() -> Iterator[None]:
    """The context in which every figure is built. What matplotlib says of numbers beyond its axes is no news there."""
    with warnings.catch_warnings(), matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def panels(
    count: int, columns: int = 2, width: float = 3.5, height: float = 2.7, fill: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` equal panels (inches), at most `columns` beside each other and as many in each row as can
    be. fill: when the last row is short its last panel takes all of it; without, slopes can be compared between all
    panels."""
    columns = max(1, min(columns, count))
    rows = max(1, math.ceil(count / columns))
    figure = Figure(figsize=(max(columns * width, 5.0), rows * height), layout="constrained")
    columns = max(1, math.ceil(count / rows))
    grid = figure.add_gridspec(rows, columns)
    axes = []
    for index in range(count):
        row, column = divmod(index, columns)
        last = fill and index == count - 1
        axes.append(figure.add_subplot(grid[row, column:] if last else grid[row, column]))
    return figure, axes


def line_a_row(ax: Axes, names: Sequence[str]) -> None:
    """The y axis of a panel in which row k of a table lies at -k. names: of the rows, "" beside another panel."""
    ax.set_ylim(0.6 - len(names), 0.6)
    ax.set_yticks([-index for index in range(len(names))], names)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


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


def write_html(path: Path, template: str, **values: object) -> Path:
    """Fill a template of this package and write it, whole or not at all; everything in `values` is escaped, and no text
    names a place on this machine.

    Raises:
        JobFailed: the page cannot be written.
    """
    make_folder(path.parent)
    write_text(path, _environment().get_template(template).render(**values))
    return path


@functools.cache
def _environment() -> jinja2.Environment:
    """One for all pages: a template is compiled once."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("robode", "report"),
        autoescape=True,
        finalize=lambda value: without_places(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def picture(path: Path, title: str, caption: str = "") -> dict[str, str]:
    """A PNG or a GIF as the templates' `figures` take it: inside the page, as wide as it was drawn, and as `described`
    for those who do not see it (where it is not of robode: nothing, because title and caption stand beside it)."""
    content = path.read_bytes()
    moving = path.suffix == ".gif"
    dots = MOVING_DOTS_PER_INCH if moving else DOTS_PER_INCH
    width, alt = 6 * dots, ""
    with suppress(OSError), Image.open(path) as image:  # a damaged one looks damaged
        said = image.info.get("comment", b"").decode(errors="replace") if moving else image.info.get(DESCRIPTION, "")
        width, alt = image.width, str(said)
    source = f"data:image/{'gif' if moving else 'png'};base64,{base64.b64encode(content).decode('ascii')}"
    return {"title": title, "caption": caption, "source": source, "inches": f"{width / dots:.2f}", "alt": alt}


def described(figure: Figure) -> str:
    """In words: each panel with its axes, and where its curves begin and end."""
    pictures = sum(bool(ax.images) for ax in figure.axes)
    said = [f"{pictures} pictures"] if pictures > 1 else []
    said += [text for ax in figure.axes if not ax.images and (text := _panel(ax))]
    if len(said) > SAID:
        said[SAID:] = [f"and {len(said) - SAID} more panels"]
    return ". ".join(said)


def _panel(ax: Axes) -> str:
    axes = " over ".join(filter(None, (ax.get_ylabel(), ax.get_xlabel())))
    named = [(handle, f"{label} ") for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)]
    curves = [f"{label}{_ends(handle)}".strip() for handle, label in named or [(line, "") for line in ax.lines[:1]]]
    if len(curves) > SAID:
        curves[SAID:] = [f"and {len(curves) - SAID} more"]
    said = ": ".join(filter(None, (ax.get_title(loc="left"), axes, ", ".join(curves))))
    return said.replace(r"\partial ", "∂").replace(r"\|", "‖").replace("$", "")


def _ends(handle: Artist | Container) -> str:
    """ "from 0.9 at 0 to 0.5 at 0.2"; "" for what is no curve. handle: as legends know it, of error bars a tuple."""
    line = handle[0] if isinstance(handle, tuple) else handle
    if not isinstance(line, Line2D):
        return ""
    x, y = (np.asarray(each, dtype=float) for each in line.get_data())
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    ends = dict.fromkeys(f"{y[i]:.3g} at {x[i]:.3g}" for i in known[[0, -1]]) if known.size else {}
    return f"from {' to '.join(ends)}" if len(ends) == 2 else "".join(ends)


def without_places(text: str) -> str:
    """The text with every absolute path cut down to "…/name": pages and tables are given to others."""
    return _ABSOLUTE.sub(r"…/\1", text)


def inert(text: str) -> str:
    """The text for a CSV file that people open: behind a "'" where a spreadsheet would take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def as_written(text: str) -> str:
    """What `inert` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def save_animation(animation: Animation, folder: Path | str, stem: str) -> Path:
    """Write folder/stem.gif, repeated for ever, with the titles of its last frame, whole or not at all; its path. Few
    colours, because they make its size, chosen so that rare ones stay. Raises `JobFailed` if the disk refuses."""
    path = Path(folder) / f"{stem}.gif"
    make_folder(path.parent)
    frames = []
    with styled():
        for number in range(animation.frames):
            animation.draw(number)
            drawn = io.BytesIO()
            animation.figure.savefig(drawn, format="png", dpi=MOVING_DOTS_PER_INCH)
            with Image.open(drawn) as image:
                frames.append(
                    image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
                )
        titles = [ax.get_title(loc="left") or ax.get_title() for ax in animation.figure.axes]
        said = f"{animation.frames} frames, the last: {'; '.join(filter(None, titles))}".encode()
    first, *others = frames
    about = {"duration": round(1000 / FRAMES_PER_SECOND), "loop": 0, "comment": said[:255]}
    write_whole(path, lambda draft: first.save(draft, format="GIF", save_all=True, append_images=others, **about))
    return path


def save(figure: Figure, folder: Path | str, stem: str) -> tuple[Path, Path]:
    """Write folder/stem.png (150 dpi, with its description) and folder/stem.pdf, each whole or not at all; both paths.

    Raises:
        JobFailed: the folder cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    png, pdf = folder / f"{stem}.png", folder / f"{stem}.pdf"
    make_folder(folder)
    with styled():
        about = {DESCRIPTION: described(figure)}
        write_whole(png, lambda path: figure.savefig(path, format="png", dpi=DOTS_PER_INCH, metadata=about))
        figure.set_layout_engine("none")  # as it was laid out for the PNG, once
        # no creation date: the same run gives the same bytes
        write_whole(pdf, lambda path: figure.savefig(path, format="pdf", metadata={"CreationDate": None}))
    return png, pdf
