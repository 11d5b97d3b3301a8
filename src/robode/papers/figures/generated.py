"""Samples that a generator has learned to make, its critic, and the distance while they train against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.quantities.generator import FILE
from robode.report.layout import Picture
from robode.report.style import BLUE, GREEN, INK, MUTED, PURPLE, styled
from robode.report.values import Collected, read_arrays
from robode.runs.table import METRICS

LEVELS = 15


class Generated:
    """For each row: samples of one seed with level lines of the critic, and both distances over epochs, of all seeds.

    Reads generator.npz (suite=generator) and metrics.csv (callbacks=critic). seed: whose samples are drawn.
    """

    def __init__(self, seed: int = 1):
        self.seed = seed

    def draw(self, collected: Collected) -> list[Picture]:
        """Nothing where no run has the files."""
        rows: dict[str, list[tuple[int, Path]]] = {}
        for run in collected.folders():
            if (run.folder / FILE).is_file():
                rows.setdefault(run.label, []).append((run.seed, run.folder))
        drawn = {label: dict(runs)[self.seed] for label, runs in rows.items() if self.seed in dict(runs)}
        if not drawn:
            return []
        with styled():
            figure = Figure(figsize=(7.6, 3.6 * len(drawn)), layout="constrained")
            axes = figure.subplots(len(drawn), 2, squeeze=False)
            for (samples, distance), (label, folder) in zip(axes, drawn.items(), strict=True):
                _samples(samples, read_arrays(folder / FILE) or {})
                samples.set_title(label)
                _distances(distance, [folder for _, folder in rows[label]])
            axes[0, 1].legend()
        caption = (
            f"Left, seed {self.seed}: noise (grey), true samples (green) and generated ones (purple) of the test set; "
            "level lines of the critic, a function with a certified Lipschitz constant of 1. Right: W1 between the "
            "generated and the true samples of the test set, proven by the critic and exact, one line a seed."
        )
        return [Picture("generated", figure, "A generator against a 1-Lipschitz critic", caption)]


def _samples(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    ax.contour(arrays["x"], arrays["y"], arrays["potential"], levels=LEVELS, colors=INK, linewidths=0.4, alpha=0.5)
    for name, colour in (("noise", MUTED), ("true", GREEN), ("generated", PURPLE)):
        ax.plot(*arrays[name].T, "o", color=colour, markersize=1.6, alpha=0.4 if name == "noise" else 0.8, label=name)
    low, high = arrays["x"][0], arrays["x"][-1]
    ax.set(aspect="equal", xlim=(low, high), ylim=(low, high))
    ax.grid(visible=False)


def _distances(ax: Axes, folders: list[Path]) -> None:
    for k, folder in enumerate(folders):
        metrics = METRICS.read(folder / "metrics.csv")
        for name, colour in (("exact", INK), ("proven", BLUE)):
            found = metrics[metrics["name"] == f"wasserstein/{name}"]
            ax.plot(found["epoch"] + 1, found["value"], color=colour, linewidth=1.0, label=name if not k else "_")
    ax.set(xlabel="epoch", ylabel="W1", ylim=(0, None))
