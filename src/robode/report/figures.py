"""Figures of the training itself: curves over epochs and backward sensitivity over steps."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from robode.report.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILLION,
    legend_above,
    log_where_decades,
    panels,
    shades,
    styled,
)
from robode.tasks.measure import CLASSIFICATION, Measure

# last part of the metric's name → (label, colour, line style)
_DAMPING = {
    "gamma": ("γ", BLUE, "-"),
    "c1": ("c₁", GREEN, "--"),
    "c2": ("c₂", ORANGE, "-."),
}
_BOUNDS = {
    "flow_ode": ("ODE (flow_ode)", BLUE, "-"),
    "flow_discrete": ("network (flow_discrete)", VERMILLION, "--"),
}
_REGIME = {"hcgamma_max": ("hcγ", PURPLE, "-")}
_SPLITS = {"train": BLUE, "validation": VERMILLION, "val": VERMILLION, "test": GREEN}
INACTIVE_HCGAMMA = 3.0  # exp(−3) ≈ 0.05: beyond it the Hamiltonian part no longer acts


def training_curves(metrics: pd.DataFrame, measure: Measure = CLASSIFICATION) -> Figure:
    """Loss, score, damping, certified bounds and hcγ over epochs, one panel for each that was logged.

    metrics: METRICS.columns; measure: of the task. The x axis counts completed epochs (`epoch` counts from 0).
    """
    metrics = metrics[np.isfinite(metrics["value"])]
    metrics = metrics.assign(x=_completed_epochs(metrics), last=metrics["name"].str.rsplit("/").str[-1])
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
                _curve(ax, rows, label, color, line)
            log_where_decades(ax, np.concatenate([rows["value"] for rows in series.values()]))
            ax.set(title=title, xlabel="epoch")
            ax.margins(x=0.02, y=0.08)
            if measure.shares and title == measure.label.capitalize():
                ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
            legend_above(ax)
    return figure


_Series = dict[tuple[str, str, str], pd.DataFrame]


def _split_series(metrics: pd.DataFrame, quantity: str) -> _Series:
    """The curves named <split>/<quantity>, one per split."""
    rows = metrics[metrics["last"] == quantity]
    splits = rows["name"].str.split("/").str[0]
    return {
        (str(split), _SPLITS.get(str(split), INK), "-" if split == "train" else "--"): group
        for split, group in rows.groupby(splits, sort=False)
    }


def _named_series(metrics: pd.DataFrame, styles: dict[str, tuple[str, str, str]]) -> _Series:
    found = {style: metrics[metrics["last"] == name] for name, style in styles.items()}
    return {style: rows for style, rows in found.items() if len(rows)}


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


def _curve(ax: Axes, rows: pd.DataFrame, label: str, color: str, line: str) -> None:
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
