"""Fig. 3 of the CH-NODE paper: backward sensitivities while 16 layers learn, as published and sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from robode.report.layout import Picture
from robode.report.style import BLUE, INK, MUTED, VERMILLION, log_where_decades, shades, styled
from robode.report.values import Collected
from robode.runs import results
from robode.runs.table import BSM_NORMS, METRICS

SEEDS = ("-", "--", ":", "-.")


class Sensitivities:
    """For each row of the item: norms of d y_N / d y_(j-1) over the iterations, and the accuracy that goes with them.

    Reads bsm.csv, metrics.csv and results.csv in the run folders. low, high: the published extremes of the norm of the
    mean; train, test: published accuracies in percent.
    """

    def __init__(self, low: float = 0.3214, high: float = 1.0, train: float = 99.20, test: float = 99.12):
        self.published = {"low": low, "high": high, "train": train / 100, "test": test / 100}

    def draw(self, collected: Collected) -> list[Picture]:
        """The figure, if any run has a bsm.csv."""
        found: dict[str, list[Path]] = {}
        for run in collected.folders():
            if run.status == "done" and len(BSM_NORMS.read(run.folder / "bsm.csv")):
                found.setdefault(run.name, []).append(run.folder)
        return [_picture(found, self.published)] if found else []


def _picture(found: Mapping[str, list[Path]], published: Mapping[str, float]) -> Picture:
    extremes: list[str] = []
    layers: set[int] = set()
    with styled():
        figure = Figure(figsize=(10.2, 2.75 * len(found) + 0.65), layout="constrained")
        axes = figure.subplots(len(found), 3, squeeze=False)
        for (mean, sample, accuracy), (name, folders) in zip(axes, found.items(), strict=True):
            logs = [BSM_NORMS.read(folder / "bsm.csv") for folder in folders]
            _norm_of_mean(mean, logs, published)
            _per_sample(sample, logs)
            _accuracy(accuracy, folders, published)
            mean.set_title(f"{name}\nnorm of the mean Jacobian, by layer")
            sample.set_title("\nnorms of single samples, all layers")
            accuracy.set_title("\naccuracy")
            whole = pd.concat(logs)
            low, high = whole["bsm_norm_of_mean"].min(), whole["bsm_norm_of_mean"].max()
            most = whole["bsm_max"].max()
            extremes.append(f"{name}: norm of the mean in [{low:.3g}, {high:.3g}], single samples up to {most:.3g}")
            layers.update(whole["layer"])
        figure.legend(handles=_legend(len(layers)), loc="outside lower center", ncols=4)
    caption = (
        "‖∂ξ(T)/∂ξ(T−t)‖ at every logged iteration. Left: the norm of the mean Jacobian, as published, for each layer "
        f"(first seed in full, others faint); published: between {published['low']:g} and {published['high']:g}. "
        "Middle: the same networks sample by sample, one line a seed. Right: training accuracy of each epoch, and test "
        f"accuracy at the end; dashed: published. Over all layers, iterations and seeds: {'; '.join(extremes)}."
    )
    return Picture("fig3_bsm", figure, "Backward sensitivities over training", caption)


def _norm_of_mean(ax: Axes, logs: list[pd.DataFrame], published: Mapping[str, float]) -> None:
    """One curve for each layer; the first seed in full, the others faint."""
    for log, alpha in zip(logs, [1.0, *[0.25] * len(logs)], strict=False):
        layers = sorted(log["layer"].unique())
        for layer, color in zip(layers, shades(len(layers)), strict=True):
            rows = log[log["layer"] == layer]
            ax.plot(rows["step"].astype(float), rows["bsm_norm_of_mean"], color=color, linewidth=0.8, alpha=alpha)
    for end in ("low", "high"):
        ax.axhline(published[end], color=VERMILLION, linestyle="--", linewidth=1.1)
    _axes(ax, np.concatenate([log["bsm_norm_of_mean"].to_numpy(float) for log in logs]))


def _per_sample(ax: Axes, logs: list[pd.DataFrame]) -> None:
    """Over the layers: range of the medians as a band, and the largest sample; one line style a seed."""
    for number, log in enumerate(logs):
        steps = log.groupby("step")
        x = np.asarray(list(steps.groups), dtype=float)
        median = steps["bsm_median"]
        ax.fill_between(x, median.min(), median.max(), color=BLUE, alpha=0.25, linewidth=0)
        ax.plot(x, steps["bsm_max"].max(), SEEDS[number % len(SEEDS)], color=VERMILLION, linewidth=0.9)
    ax.axhline(1.0, color=MUTED, linewidth=1.0)
    _axes(ax, np.concatenate([log["bsm_max"].to_numpy(float) for log in logs]))


def _axes(ax: Axes, values: np.ndarray) -> None:
    log_where_decades(ax, values[values > 0])
    ax.set(xlabel="iteration", ylabel="norm")
    ax.margins(x=0.02)


def _accuracy(ax: Axes, folders: list[Path], published: Mapping[str, float]) -> None:
    for number, folder in enumerate(folders):
        metrics = METRICS.read(folder / "metrics.csv")
        rows = metrics[metrics["name"] == "train/accuracy"].groupby("epoch")["value"].last()
        ax.plot(rows.index.to_numpy(float) + 1, rows, SEEDS[number % len(SEEDS)], color=INK, linewidth=1.0)
        measured = results.read_rows(folder / "results.csv")
        clean = measured[(measured["split"] == "test") & (measured["perturbation"] == "clean")]
        if len(clean) and len(rows):
            ax.plot(rows.index.max() + 1, clean["score"].iloc[-1], "o", mfc="white", color=INK, markersize=5)
    ax.axhline(published["train"], color=VERMILLION, linestyle="--", linewidth=1.1)
    ax.set(xlabel="epoch", ylim=(None, 1.01))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.margins(x=0.03)


def _legend(layers: int) -> list[Artist]:
    ends = shades(max(layers, 2))
    return [
        Line2D([], [], color=ends[0], label="layer 1"),
        Line2D([], [], color=ends[-1], label=f"layer {layers}"),
        Line2D([], [], color=VERMILLION, linestyle="--", label="published"),
        Patch(facecolor=BLUE, alpha=0.35, label="median sample, all layers"),
        Line2D([], [], color=VERMILLION, linewidth=1.0, label="largest sample and layer"),
        Line2D([], [], color=INK, label="training accuracy"),
        Line2D([], [], color=INK, marker="o", mfc="white", linestyle="none", label="test accuracy"),
    ]
