"""Fig. 3 of LyaNet: the loss if inference is stopped at time t, and what of it is time alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.quantities.early_stopping import FILE
from robode.report.layout import Picture
from robode.report.style import PALETTE, styled
from robode.report.values import Collected, read_arrays
from robode.runs.table import METRICS

SHOWN = 512  # images, as published
STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class _Run:
    """Inference at times (P,) in [0, 1]: loss and right (P, n) of n images. gain: nan where there is none."""

    label: str
    seed: int
    time: np.ndarray
    loss: np.ndarray
    right: np.ndarray
    gain: float

    @property
    def correct(self) -> np.ndarray:
        """Which images it gets right at the end: (n,)."""
        return self.right[-1]


class StoppedEarly:
    """Three panels for each group of rows, a curve for each row: the mean over seeds of the mean loss over time, of
    images that the network itself gets right and of those that all networks of the group and seed do, and the first
    over gain t, by which one field with another gain would be the same.

    Reads early_stopping.npz (suite=early_stopping) and metrics.csv in the run folders; rows without them are left out.
    """

    def draw(self, collected: Collected) -> list[Picture]:
        """The figure, if any run was measured."""
        groups: dict[str, list[_Run]] = {}
        named = dict(zip(collected.runs["row"], collected.runs["group"].astype(str), strict=True))
        for run in collected.folders():
            if arrays := read_arrays(run.folder / FILE):
                known = _Run(run.label, run.seed, arrays["time"], arrays["loss"], arrays["right"], _gain(run.folder))
                groups.setdefault(named[run.row], []).append(known)
        if not groups:
            return []
        labels = list(dict.fromkeys(each.label for runs in groups.values() for each in runs))
        said: list[str] = []
        with styled():
            figure = Figure(figsize=(10.2, 3.0 * len(groups) + 0.7), layout="constrained")
            axes = figure.subplots(len(groups), 3, squeeze=False)
            for (own, common, scaled), (group, runs) in zip(axes, groups.items(), strict=True):
                for label, style in _styles(labels).items():
                    mine = [each for each in runs if each.label == label]
                    _curve(own, mine, [each.correct for each in mine], style)
                    _curve(common, mine, [_of_all(runs, each.seed) for each in mine], style)
                    if mine and np.isfinite(mine[0].gain):
                        _curve(scaled, mine, [each.correct for each in mine], style, scaled=True)
                if not common.lines:
                    common.text(0.5, 0.5, "no image is", ha="center", transform=common.transAxes)
                counts = [int(_of_all(runs, seed).sum()) for seed in sorted({each.seed for each in runs})]
                said.append(f"{group or 'all'}: {', '.join(map(str, counts))}")
                own.set(title=f"{group}: right at the end".strip(": "), xlabel="t", ylabel="cross-entropy")
                common.set(title="right for every network", xlabel="t")
                scaled.set(title="right at the end, over gain · t", xlabel="gain · t", xscale="log")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        seeds = ", ".join(map(str, sorted({each.seed for runs in groups.values() for each in runs})))
        caption = (
            f"Mean cross-entropy of the first {SHOWN} test images (at most) that are right at t = 1, mean over the "
            f"seeds {seeds}. Images that every network of a seed gets right: {'; '.join(said)}. Right: the same curves "
            "over gain · t, with the gain at the end of the training, for the networks that have one: two fields that "
            "differ in their gain alone would lie on one curve."
        )
        return [Picture("fig3_stopped_early", figure, "The loss if inference is stopped at time t", caption)]


def _styles(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and line: a colour for each network, what is in front of a comma, a line for each variant behind it."""
    parts = {label: label.partition(", ")[::2] for label in labels}
    networks, variants = (list(dict.fromkeys(each[side] for each in parts.values())) for side in (0, 1))
    return {
        label: (PALETTE[networks.index(name) % len(PALETTE)], STYLES[variants.index(variant) % len(STYLES)])
        for label, (name, variant) in parts.items()
    }


def _gain(folder: Path) -> float:
    """The last one that was logged."""
    metrics = METRICS.read(folder / "metrics.csv")
    found = metrics[metrics["name"] == "flow/gain"].sort_values("step", kind="stable")["value"].to_numpy(float)
    return float(found[-1]) if len(found) else float("nan")


def _of_all(runs: Sequence[_Run], seed: int) -> np.ndarray:
    """Which images every network of that seed gets right: (n,)."""
    return np.logical_and.reduce([each.correct for each in runs if each.seed == seed])


def _curve(
    ax: Axes, runs: Sequence[_Run], chosen: Sequence[np.ndarray], style: tuple[str, str], scaled: bool = False
) -> None:
    """The mean over runs of one row, of the first chosen images of each; nothing where none are."""
    means = [
        run.loss[:, np.flatnonzero(which)[:SHOWN]].mean(axis=1)
        for run, which in zip(runs, chosen, strict=True)
        if which.any()
    ]
    if not means:
        return
    color, line = style
    at = np.mean([run.time * (run.gain if scaled else 1.0) for run in runs], axis=0)
    later = at > 0 if scaled else at >= 0  # on a logarithmic axis
    mean = np.mean(means, axis=0)
    ax.plot(at[later], mean[later], line, color=color, marker="o", markersize=2.5, label=runs[0].label)
    ax.set_yscale("log")
