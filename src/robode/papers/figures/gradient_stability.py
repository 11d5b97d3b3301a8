"""Sensitivities and gradients over depth while networks learn: of one test sample, and of samples beside their mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.report.layout import Picture
from robode.report.style import BLUE, INK, MUTED, PURPLE, VERMILLION, panels, shades, styled
from robode.report.values import Collected
from robode.runs.table import BSM_NORMS


class GradientStability:
    """Three pictures with a panel for each row of the item, of one seed; from bsm.csv of trainings with
    callbacks=gradients. Rows without it are left out. seed: whose networks are drawn."""

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the log of a test sample."""
        runs = [run for run in collected.folders() if run.seed == self.seed and run.status == "done"]
        logs = {run.label: BSM_NORMS.read(run.folder / "bsm.csv") for run in runs}
        logs = {label: log for label, log in logs.items() if log["bsm_point"].notna().any()}
        if not logs:
            return []
        of_seed = f"Networks of seed {self.seed}. "
        return [
            Picture("sensitivities", _drawn(logs, _point, "iteration", "‖∂y_N/∂y_k‖"),
                    "Sensitivities of one test sample over the training", of_seed +
                    "One curve for each layer k = 0 … N − 1, from the first (dark) to the last (light); dashed: 1."),
            Picture("samples_and_mean", _drawn(logs, _samples, "iteration", "‖∂y_N/∂y_0‖"),
                    "Single samples, and the norm of their mean Jacobian", of_seed +
                    "Over the whole depth: the smallest and the median of the probed training samples, and the norm of "
                    "the mean of their Jacobians, which is no sample's and may be far below all of them."),
            Picture("gradients_by_layer", _drawn(logs, _gradients, "layer j", "‖∂L/∂θ_j‖"),
                    "Gradients of the parameters by layer", of_seed +
                    "Of the loss of the test sample: medians over the iterations with the quarters around them, and "
                    "the product ‖∂L/∂y_N‖ ‖∂y_N/∂y_j‖ ‖∂φ_j/∂θ_j‖ that no gradient exceeds."),
        ]  # fmt: skip


def _drawn(logs: dict[str, pd.DataFrame], panel: Callable[[Axes, pd.DataFrame], None], x: str, y: str) -> Figure:
    with styled():
        figure, axes = panels(len(logs), columns=4 if len(logs) < 5 else 3, width=2.9, height=2.7, fill=False)
        for ax, (label, log) in zip(axes, logs.items(), strict=True):
            panel(ax, log)
            ax.set_title(label)
            ax.set(xlabel=x, yscale="log")
            ax.margins(x=0.02)
        axes[0].set_ylabel(y)
        handles, labels = axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def _steps(log: pd.DataFrame, layer: int) -> pd.DataFrame:
    return log[log["layer"] == layer]


def _point(ax: Axes, log: pd.DataFrame) -> None:
    layers = sorted(log["layer"].unique())
    for layer, color in zip(layers, shades(len(layers)), strict=True):
        rows = _steps(log, layer)
        ax.plot(rows["step"].astype(float), rows["bsm_point"], color=color, linewidth=0.9)
    ax.axhline(1.0, color=MUTED, linewidth=0.8, linestyle="--")


def _samples(ax: Axes, log: pd.DataFrame) -> None:
    rows = _steps(log, 1)
    for name, label, color, line in (
        ("bsm_median", "median sample", BLUE, "-"), ("bsm_min", "smallest sample", INK, "-"),
        ("bsm_norm_of_mean", "norm of the mean", VERMILLION, "--"),
    ):  # fmt: skip
        ax.plot(rows["step"].astype(float), rows[name], line, color=color, linewidth=1.0, label=label)
    ax.axhline(1.0, color=MUTED, linewidth=0.8, linestyle="--")


def _gradients(ax: Axes, log: pd.DataFrame) -> None:
    layers = np.array(sorted(log["layer"].unique()), dtype=float)
    for name, label, color in (("gradient_bound", "product of norms", PURPLE), ("gradient", "gradient", BLUE)):
        values = log.pivot_table(index="step", columns="layer", values=name)
        low, middle, high = (values.quantile(share) for share in (0.25, 0.5, 0.75))
        ax.fill_between(layers, low, high, color=color, alpha=0.2, linewidth=0)
        ax.plot(layers, middle, "o-", color=color, markersize=3, label=label)
    ax.set_xticks(layers[:: max(1, len(layers) // 6)])
