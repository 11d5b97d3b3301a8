"""Whether the iteration "optimiser step, then new gamma" settles, seed by seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.quantities.training_logs import SETTLED, gamma_of, last_change
from robode.report.style import VERMILLION, log_where_decades, panels, shades, styled
from robode.runs import records

Picture = tuple[str, Figure, str, str]

class Settling:
    """gamma over the optimiser steps, one panel a row and one line a seed; runs without a gamma are left out."""

    def draw(self, collected: Any) -> list[Picture]:
        """The figure, if any run has logged a gamma: (stem, figure, title, caption)."""
        runs = collected.runs[collected.runs["folder"].notna()]
        found: dict[str, list[tuple[int, pd.DataFrame]]] = {}
        for run in runs.sort_values(["row", "seed"]).itertuples():
            gamma = gamma_of(records.read_metrics(Path(run.folder) / "metrics.csv"))
            if len(gamma) and run.status == "done":
                found.setdefault(f"{run.group} {run.label}".strip(), []).append((int(run.seed), gamma))
        failed = int((runs["status"] == "failed").sum())
        return [_picture(found, failed)] if found else []


def _picture(found: dict[str, list[tuple[int, pd.DataFrame]]], failed: int) -> Picture:
    with styled():
        figure, axes = panels(len(found), columns=3, width=3.0, height=2.8)
        for ax, (name, seeds) in zip(axes, found.items(), strict=True):
            changes = [last_change(gamma) for _, gamma in seeds]
            settled = sum(change < SETTLED for change in changes)
            ax.set_title(f"{name}\n{settled} of {len(seeds)} settled")
            for (_, gamma), change, color in zip(seeds, changes, shades(len(seeds)), strict=True):
                _line(ax, gamma, color if change < SETTLED else VERMILLION)
            log_where_decades(ax, np.concatenate([_started(gamma)["value"].to_numpy(float) for _, gamma in seeds]))
            ax.set(xlabel="optimiser step", ylabel="γ")
            ax.margins(x=0.02)
    everything = [last_change(gamma) for seeds in found.values() for _, gamma in seeds]
    count = sum(change < SETTLED for change in everything)
    caption = (
        f"One line a seed. {count} of {len(everything)} trainings settle: γ changes by less than {SETTLED:.0%} in the "
        f"last tenth of the training (at least one epoch). The others are red; the largest change is "
        f"{max(everything):.1%}. Failed trainings: {failed}. The paper: the iteration never failed to converge."
    )
    return "gamma_settling", figure, "Does γ settle?", caption


def _started(gamma: pd.DataFrame) -> pd.DataFrame:
    """Without the gamma = 0 with which the published scripts start."""
    return gamma[gamma["value"] > 0]


def _line(ax: Axes, gamma: pd.DataFrame, color: str) -> None:
    gamma = _started(gamma)
    ax.plot(gamma["step"].astype(float), gamma["value"], color=color, linewidth=1.2)
