"""The figures of a run folder: which of them its files allow, and drawing them.

Curves over training, backward sensitivities, and the grid of clean and noisy samples are drawn here; scores over the
level of a perturbation in `curves`.
"""

import logging
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from robode.errors import BadInput, JobFailed
from robode.report import curves, tables
from robode.report.style import (
    BLUE,
    GREEN,
    INK,
    MARKERS,
    MUTED,
    ORANGE,
    PALETTE,
    PURPLE,
    VERMILLION,
    legend_above,
    log_where_decades,
    panels,
    save,
    shades,
    styled,
)  # fmt: skip
from robode.runs import results
from robode.runs.table import BSM_NORMS, METRICS
from robode.tasks.measure import CLASSIFICATION, Measure

log = logging.getLogger(__name__)

# last part of the metric's name → (label, colour, line style)
_DAMPING = {
    "gamma": ("γ", BLUE, "-"),
    "c1": ("c₁", GREEN, "--"),
    "c2": ("c₂", ORANGE, "-."),
}
_BOUNDS = {
    "flow_ode": ("ODE (flow_ode)", BLUE, "-"),
    "flow_discrete": ("network (flow_discrete)", PURPLE, "--"),
}
_LOG_NORMS = {
    "delta_upper": ("at most (proved)", BLUE, "-"),
    "delta_lower": ("at least (attained)", GREEN, "--"),
}
_REGIME = {"hcgamma_max": ("hcγ", PURPLE, "-")}
_SPLITS = {"train": BLUE, "validation": VERMILLION, "val": VERMILLION, "test": GREEN}
INACTIVE_HCGAMMA = 3.0  # exp(−3) ≈ 0.05: beyond it the Hamiltonian part no longer acts


def draw_figures(folder: Path | str) -> list[Path]:
    """Draw every figure whose file lies in the run folder into folder/figures (PNG and PDF); the PNGs.

    A file that is missing, empty or damaged costs its own figure only; damage is logged in one line.

    Raises:
        JobFailed: the figures cannot be written.
    """
    folder = Path(folder)
    drawn = []
    score = _measure(folder).score_name
    for stem, (name, build) in _SOURCES.items():
        if not (folder / name).is_file():
            continue
        try:
            figure = build(folder / name)
        except (BadInput, JobFailed, ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            log.warning("no figure %s: %s: %s", stem, name, error)
            continue
        if figure is not None:
            drawn.append(save(figure, folder / "figures", stem.format(score=score))[0])
    return drawn


def _measure(folder: Path) -> Measure:
    """Of the task that the run is about; classification's where nothing was measured, or the file is damaged."""
    for name in ("results.csv", "robustness_sweep.csv"):
        with suppress(BadInput, JobFailed, ValueError):
            if len(rows := results.read_rows(folder / name)):
                return tables.measure_of(rows)
    return CLASSIFICATION


def _training_curves(path: Path) -> Figure | None:
    figure = training_curves(METRICS.read(path), _measure(path.parent))
    return figure if figure.axes else None


def _log_norms(path: Path) -> Figure | None:
    return log_norms(METRICS.read(path))


def _score_against_noise(path: Path) -> Figure | None:
    rows = results.current(path)
    rows = rows[~curves.sized(rows)]  # they have a figure of their own
    noisy = ~rows["perturbation"].isin(("clean", "clip_only"))
    return curves.score_against_noise(results.summarise(rows)) if noisy.any() else None


def _score_against_attacks(path: Path) -> Figure | None:
    rows = results.current(path)
    return curves.score_against_attacks(results.summarise(rows))


def _score_by_epoch(path: Path) -> Figure | None:
    rows = results.current(path)
    return curves.score_by_epoch(results.summarise(rows)) if len(rows) else None


def _bsm_norms(path: Path) -> Figure | None:
    bsm = BSM_NORMS.read(path)
    return bsm_norms(bsm) if len(bsm) else None


def _early_stopping(path: Path) -> Figure:
    with np.load(path, allow_pickle=False) as file:
        return curves.early_stopping(file["time"], file["calls"], file["loss"].mean(1), file["right"].mean(1))


def _noise_grid(path: Path) -> Figure:
    with np.load(path, allow_pickle=False) as file:
        names = [str(name) for name in file["names"]]
        classes = [str(name) for name in file["class_names"]] if "class_names" in file else None
        return noise_grid(file["x"], file["labels"], file["predictions"], names, classes)


def training_curves(metrics: pd.DataFrame, measure: Measure = CLASSIFICATION) -> Figure:
    """Loss, score, damping, certified bounds and hcγ over epochs, one panel for each that was logged.

    metrics: METRICS.columns; measure: of the task. The x axis counts completed epochs (`epoch` counts from 0). A value
    of train/… is a mean over the steps since the one before, and stands in their middle: windows are of several
    lengths, and at their ends means of a falling loss make a kink.
    """
    metrics = over_epochs(metrics)
    contents = [
        ("Loss", _split_series(metrics, "loss"), None),
        (measure.label.capitalize(), _split_series(metrics, measure.score_name), None),
        ("Damping γ, curvature bounds c₁ and c₂", _named_series(metrics, _DAMPING), None),
        ("Certified Lipschitz bound of the flow", _named_series(metrics, _BOUNDS), 1.0),
        (
            "Largest hcγ (above 3 an etd step no longer sees J)",
            _named_series(metrics, _REGIME),
            INACTIVE_HCGAMMA,
        ),
    ]
    contents = [content for content in contents if content[1]]
    with styled():
        figure, axes = panels(len(contents))
        for ax, (title, series, reference) in zip(axes, contents, strict=True):
            if reference is not None:
                ax.axhline(reference, color=MUTED, linewidth=1.0)
            for (label, color, line), rows in series.items():
                curve(ax, rows, label, color, line)
            log_where_decades(ax, np.concatenate([rows["value"] for rows in series.values()]))
            ax.set(title=title, xlabel="epoch")
            ax.margins(x=0.02, y=0.08)
            if measure.shares and title == measure.label.capitalize():
                ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
            legend_above(ax)
    return figure


def log_norms(metrics: pd.DataFrame) -> Figure | None:
    """The largest log-norm over slopes and layers, between its bounds, over epochs; and the one that the weights are
    confined to, where there is one. None where no bounds were logged. metrics: METRICS.columns."""
    metrics = over_epochs(metrics)
    series = _named_series(metrics, _LOG_NORMS)
    if len(series) < len(_LOG_NORMS):
        return None
    upper, lower = series.values()
    band = upper.merge(lower, on=["step", "x"])
    with styled():
        figure, (ax,) = panels(1, width=5.0)
        ax.fill_between(band["x"], band["value_y"], band["value_x"], color=BLUE, alpha=0.15, linewidth=0)
        for (label, color, line), rows in series.items():
            curve(ax, rows, label, color, line)
        if len(allowed := metrics.loc[metrics["name"] == "flow/delta", "value"]):
            ax.axhline(allowed.iloc[-1], color=VERMILLION, linestyle=":", label="δ̄ (allowed)")
        ax.set(title="Largest log-norm δ of the field's Jacobians", xlabel="epoch")
        ax.margins(x=0.02, y=0.08)
        ax.set_ylim(ax.get_ylim())  # where 0 is far away, its line does not take the room of the band
        ax.axhline(0.0, color=MUTED, linewidth=1.0)
        legend_above(ax)
    return figure


_Series = dict[tuple[str, str, str], pd.DataFrame]


def _split_series(metrics: pd.DataFrame, quantity: str) -> _Series:
    """The curves named <split>/<quantity>, one per split."""
    rows = metrics[metrics["last"] == quantity]
    splits = rows["name"].str.split("/").str[0]
    window = rows["x"].groupby(splits).diff().fillna(rows["x"])
    rows = rows.assign(x=rows["x"] - (window / 2).where(splits == "train", 0.0))
    return {
        (str(split), _SPLITS.get(str(split), INK), "-" if split == "train" else "--"): group
        for split, group in rows.groupby(splits, sort=False)
    }


def _named_series(metrics: pd.DataFrame, styles: dict[str, tuple[str, str, str]]) -> _Series:
    found = {style: metrics[metrics["last"] == name] for name, style in styles.items()}
    return {style: rows for style, rows in found.items() if len(rows)}


def over_epochs(metrics: pd.DataFrame) -> pd.DataFrame:
    """The finite values, with the epochs completed (x) and the last part of their name (last)."""
    metrics = metrics[np.isfinite(metrics["value"])]
    return metrics.assign(x=_completed_epochs(metrics), last=metrics["name"].str.rsplit("/").str[-1])


def _completed_epochs(metrics: pd.DataFrame) -> np.ndarray:
    """Epochs completed at each row: the epoch's number plus the part of its steps that is done."""
    epoch = metrics["epoch"].to_numpy(float)
    step = metrics["step"].to_numpy(float)
    numbers = np.unique(epoch[np.isfinite(epoch)])
    ends = [step[epoch == number].max() for number in numbers]
    begins = [0.0, *ends][: len(ends)]
    length = max((end - begin for begin, end in zip(begins, ends, strict=True)), default=1.0)
    completed = epoch.copy()
    for number, begin, end in zip(numbers, begins, ends, strict=True):
        # the running epoch has not reached its last step: measure it with the longest one
        whole = max(end - begin if number < numbers[-1] else length, 1.0)
        inside = epoch == number
        completed[inside] += np.clip((step[inside] - begin) / whole, 0.0, 1.0)
    return completed


def curve(ax: Axes, rows: pd.DataFrame, label: str, color: str, line: str) -> None:
    """One curve; many noisy points become a rolling median over a faint trace."""
    x, value = rows["x"].to_numpy(float), rows["value"]
    if len(rows) <= 100:
        marker = "o" if len(rows) <= 20 else ""
        ax.plot(x, value, line, color=color, label=label, marker=marker, markersize=3)
        return
    smooth = value.rolling(max(5, len(rows) // 50), center=True, min_periods=1).median()
    ax.plot(x, value, color=color, alpha=0.2, linewidth=0.6)
    ax.plot(x, smooth, line, color=color, label=label)


def bsm_norms(bsm: pd.DataFrame, most_layers: int = 6) -> Figure:
    """Norms ‖∂y_N/∂y_(j−1)‖ and ‖∂y_j/∂y_(j−1)‖ of each layer j = 1 … N over optimiser steps.

    bsm: BSM.columns; of a deep network `most_layers` layers are shown, evenly spaced.
    Solid: median over samples; dashed: largest sample; dotted: norm of the mean Jacobian.
    """
    layers = sorted(bsm["layer"].unique())
    shown = [layers[i] for i in np.unique(np.linspace(0, len(layers) - 1, most_layers).round().astype(int))]
    colors = dict(zip(shown, shades(len(shown)), strict=True))
    with styled():
        figure, (total, single) = panels(2, height=3.6)
        for layer, color in colors.items():
            rows = bsm[bsm["layer"] == layer]
            steps = rows["step"].to_numpy(float)
            total.plot(steps, rows["bsm_median"], "-", color=color)
            total.plot(steps, rows["bsm_max"], "--", color=color, linewidth=1.1)
            total.plot(steps, rows["bsm_norm_of_mean"], ":", color=color, linewidth=1.3)
            single.plot(steps, rows["step_median"], "-", color=color)
            single.plot(steps, rows["step_max"], "--", color=color, linewidth=1.1)
        total.set_title(r"Layers $j$ to $N$:  $\|\partial y_N/\partial y_{j-1}\|$")
        single.set_title(r"Layer $j$ alone:  $\|\partial y_j/\partial y_{j-1}\|$")
        for ax, prefix in ((total, "bsm_"), (single, "step_")):
            ax.axhline(1.0, color=MUTED, linewidth=1.0)
            ax.set(xlabel="optimiser step", ylabel="norm")
            log_where_decades(ax, bsm.filter(regex=f"^{prefix}").to_numpy(float).ravel())
        _bsm_legend(figure, colors, len(layers))
    return figure


def _bsm_legend(figure: Figure, colors: dict[int, str], layers: int) -> None:
    handles = [Line2D([], [], color=color, label=f"layer {layer}") for layer, color in colors.items()]
    handles += [
        Line2D([], [], color=INK, linestyle="-", label="median"),
        Line2D([], [], color=INK, linestyle="--", label="largest sample"),
        Line2D([], [], color=INK, linestyle=":", label="norm of the mean"),
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(5, len(handles)),
        title=f"{len(colors)} of {layers} layers shown" if len(colors) < layers else None,
        title_fontsize=8.0,
    )


def noise_grid(
    x: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Samples, one row per corruption: image tiles, or scatter panels for points in the plane.

    x: (R, k, H, W[, C]) images or (R, k, 2) points, in data units; labels: (k,); predictions: (R, k);
    names: R row names. Colours and tick marks tell right from wrong, in grey print too.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    x, labels, predictions = np.asarray(x), np.asarray(labels), np.asarray(predictions)
    rows, count = predictions.shape if predictions.ndim == 2 else (0, 0)
    fits = x.shape[:2] == (rows, count) and labels.shape == (count,) and len(names) == rows > 0
    if not fits or not (x.shape[2:] == (2,) or x.ndim == 4 or (x.ndim == 5 and x.shape[-1] in (1, 3, 4))):
        raise ValueError(
            "expected x (R,k,H,W[,C]) or (R,k,2), labels (k,), predictions (R,k) and R names, "
            f"got {x.shape}, {labels.shape}, {predictions.shape} and {len(names)}"
        )
    said = [str(name) for name in class_names or ()]
    said += [str(label) for label in range(len(said), 1 + max(labels.max(), predictions.max()))]
    with styled():
        return (_scatter_panels if x.ndim == 3 else _image_tiles)(x, labels, predictions, names, said)


def _image_tiles(
    x: np.ndarray, labels: np.ndarray, predictions: np.ndarray, names: Sequence[str], said: Sequence[str]
) -> Figure:
    rows, count = predictions.shape
    tile = 0.78 if count <= 10 else 0.6
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(max(count * tile + 1.3, 4.0), rows * (tile + 0.24) + 0.35), layout=layout)
    axes = figure.subplots(rows, count, squeeze=False)
    for r in range(rows):
        shown = x[r, ..., 0] if x.ndim == 5 and x.shape[-1] == 1 else x[r]
        for k in range(count):
            ax = axes[r, k]
            # clipped for the screen only: unclipped noise may leave [0, 1]
            ax.imshow(np.clip(shown[k], 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            right = predictions[r, k] == labels[k]
            answer = said[predictions[r, k]]
            _frame(ax, right)
            ax.set_xlabel(
                answer if right else f"✗ {answer}", fontsize=8, labelpad=2, color=INK if right else VERMILLION
            )
            if r == 0:
                ax.set_title(said[labels[k]], loc="center", fontsize=9, pad=3)
        axes[r, 0].set_ylabel(
            names[r].replace(" · ", "\n"), rotation=0, ha="right", va="center", fontsize=8, labelpad=8
        )
    figure.suptitle("True class above each column, prediction below each image", x=0.01, ha="left", fontsize=8.5)
    return figure


def _frame(ax: Axes, right: bool) -> None:
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color="#C8C8C8" if right else VERMILLION, linewidth=0.6 if right else 1.6)


def _scatter_panels(
    x: np.ndarray, labels: np.ndarray, predictions: np.ndarray, names: Sequence[str], said: Sequence[str]
) -> Figure:
    figure, axes = panels(len(names), columns=3, width=3.0, height=3.1)
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    margin = 0.06 * max(float((high - low).max()), 1e-9)
    for r, ax in enumerate(axes):
        for index, label in enumerate(np.unique(labels)):
            mine = labels == label
            ax.plot(
                *x[r, mine].T,
                MARKERS[index % len(MARKERS)],
                color=PALETTE[(0, 4, 2, 3, 5)[index % 5]],
                markersize=3.5,
                markeredgewidth=0,
                alpha=0.8,
                label=f"class {said[label]}",
            )
        wrong = predictions[r] != labels
        ax.plot(*x[r, wrong].T, "x", color=INK, markersize=5, markeredgewidth=1.1, label="wrong prediction")
        ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin))
        ax.set_aspect("equal")
        ax.set_title(names[r])
        ax.set_xlabel(f"{(~wrong).mean():.0%} of these right")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


# {score}: what the task calls its score
_SOURCES: dict[str, tuple[str, Callable[[Path], Figure | None]]] = {
    "{score}_against_noise": ("results.csv", _score_against_noise),
    "{score}_against_attacks": ("results.csv", _score_against_attacks),
    "early_stopping": ("early_stopping.npz", _early_stopping),
    "noise_grid": ("samples.npz", _noise_grid),
    "training_curves": ("metrics.csv", _training_curves),
    "log_norms": ("metrics.csv", _log_norms),
    "bsm_norms": ("bsm.csv", _bsm_norms),
    "{score}_by_epoch": ("robustness_sweep.csv", _score_by_epoch),
}
