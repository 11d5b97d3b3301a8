"""Whether the iteration "optimiser step, then new gamma" settles, seed by seed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from robode.quantities.training_logs import SETTLED, gamma_of, last_change
from robode.report.layout import Picture
from robode.report.style import VERMILLION, log_where_decades, panels, shades, styled
from robode.report.values import Collected
from robode.runs import records


class Settling:
    """gamma over the optimiser steps, one panel a row and one line a seed; runs without a gamma are left out."""

    def draw(self, collected: Collected) -> list[Picture]:
        """The figure, if any run has logged a gamma."""
        found: dict[str, list[pd.DataFrame]] = {}
        for run in collected.folders():
            gamma = gamma_of(records.read_metrics(run.folder / "metrics.csv"))
            if len(gamma) and run.status == "done":
                found.setdefault(run.name, []).append(gamma)
        failed = sum(run.status == "failed" for run in collected.folders())
        return [_picture(found, failed)] if found else []


def _picture(found: dict[str, list[pd.DataFrame]], failed: int) -> Picture:
    everything = []
    with styled():
        figure, axes = panels(len(found), columns=3, width=3.0, height=2.8)
        for ax, (name, seeds) in zip(axes, found.items(), strict=True):
            changes = [last_change(gamma) for gamma in seeds]
            everything += changes
            started = [gamma[gamma["value"] > 0] for gamma in seeds]  # the published scripts start with gamma = 0
            ax.set_title(f"{name}\n{_settled(changes)} of {len(seeds)} settled")
            for gamma, change, color in zip(started, changes, shades(len(seeds)), strict=True):
                color = color if change < SETTLED else VERMILLION
                ax.plot(gamma["step"].astype(float), gamma["value"], color=color, linewidth=1.2)
            log_where_decades(ax, np.concatenate([gamma["value"].to_numpy(float) for gamma in started]))
            ax.set(xlabel="optimiser step", ylabel="γ")
            ax.margins(x=0.02)
    caption = (
        f"One line a seed. {_settled(everything)} of {len(everything)} trainings settle: γ changes by less than "
        f"{SETTLED:.0%} in the last tenth of the training (at least one epoch). The others are red; the largest change "
        f"is {max(everything):.1%}. Failed trainings: {failed}. The paper: the iteration never failed to converge."
    )
    return Picture("gamma_settling", figure, "Does γ settle?", caption)


def _settled(changes: list[float]) -> int:
    return sum(change < SETTLED for change in changes)
