"""The figure of scores against the size of an attack, with what is certified beneath it, from summaries of
results.csv."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.report.style import INK, MARKERS, MUTED, PALETTE, panels, score_axis, styled, whiskers
from robode.report.tables import measure_of, told_apart, varying
from robode.tasks.measure import Measure

NORMS = {"linf": ("L∞", "‖x′ − x‖∞"), "l2": ("L2", "‖x′ − x‖₂"), "l1": ("L1", "‖x′ − x‖₁")}
"""Norm of a row → how its panel and the panel's axis are named; rows of another norm, or none, are no attacks."""

# what makes two rows points of different curves
_SERIES = ["run", "checkpoint", "weights", "model", "depth", "data", "split", "n", "protocol", "noise_seed"]


def score_against_attacks(summary: pd.DataFrame) -> Figure | None:
    """Score over eps for every attack, one panel per norm, and dashed what is certified at that radius; both begin at
    the clean score. None where nothing was attacked or certified.

    Dotted: what is certified with a probability, of the network smoothed by noise, whose score at 0 is its own.

    summary: records.summarise(rows). Error bars are its intervals. Several runs, checkpoints, protocols, seeds,
    numbers of samples or settings of one attack in the frame become several curves.
    """
    sized = summary[summary["norm"].isin(list(NORMS))]
    if sized.empty:
        return None
    measure = measure_of(summary)
    norms = [norm for norm in NORMS if (sized["norm"] == norm).any()]
    clean = summary[summary["perturbation"] == "clean"]
    looks: dict[str, int] = {}  # of attacks, by name: the same attack looks the same in every panel
    with styled():
        figure, axes = panels(len(norms), columns=3, width=4.2, height=3.6)
        for ax, norm in zip(axes, norms, strict=True):
            here = sized[sized["norm"] == norm]
            named = varying(here, _SERIES)
            for _, levels in here.groupby([*_SERIES, "perturbation", "evaluation"], sort=False, dropna=False):
                same = (clean[_SERIES].astype(str) == levels[_SERIES].astype(str).iloc[0]).all(axis=1)
                _curve(ax, clean[same], levels, named, looks)
            over_eps(ax, norm, NORMS[norm][0], measure)
        axes[0].set_ylabel(measure.label)
        _legend(figure, axes, looks)
    return figure


def over_eps(ax: Axes, norm: str, title: str, measure: Measure) -> None:
    """Names the axes of scores over the size of an attack, which have been drawn. norm: one of NORMS."""
    ax.set(title=title, xlabel=f"eps: {NORMS[norm][1]} in data units")
    score_axis(ax, measure)


def certified_area(ax: Axes, eps: np.ndarray, score: np.ndarray, measure: Measure) -> None:
    """What no attack can take away, below the certified share (k,) over eps (k,); nothing for scores of which less is
    better, where it would be the rest of the plane."""
    if measure.better == "higher":
        ax.fill_between(eps, 0, score, color=MUTED, alpha=0.12, linewidth=0)


def _curve(ax: Axes, clean: pd.DataFrame, levels: pd.DataFrame, named: list[str], looks: dict[str, int]) -> None:
    """One attack or certificate of one network from its clean score on. named: columns that tell it from others."""
    first = levels.iloc[0]
    label = " · ".join(filter(None, [str(first["perturbation"]).replace("_", " "), told_apart(first, named)]))
    unit, style = str(first["severity_unit"]), {"color": INK, "linestyle": "--"}
    if " with " in unit:  # "radius with probability 0.999": about another network, the smoothed one
        points, label, style = levels, f"{label} ({unit})", {"color": INK, "linestyle": ":"}
    else:
        points = pd.concat([clean, levels]).drop_duplicates("severity", keep="last")
    points = points.sort_values("severity")
    eps, (middle, reach) = points["severity"].to_numpy(float), whiskers(points)
    if unit == "radius":
        certified_area(ax, eps, middle, measure_of(points))
    elif " with " not in unit:
        index = looks.setdefault(label, len(looks))
        turn = index // len(PALETTE)  # when the colours come round again, it is with the next marker
        style = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[(index + turn) % len(MARKERS)]}
    ax.errorbar(eps, middle, yerr=reach, label=label, capsize=2.5, elinewidth=1.0, **style)  # type: ignore[arg-type]


def _legend(figure: Figure, axes: list[Axes], attacks: Iterable[str]) -> None:
    """All curves once, the certificates last."""
    marks = {label: mark for ax in axes for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    order = list(dict.fromkeys((*attacks, *marks)))
    figure.legend([marks[label] for label in order], order, loc="outside lower center", ncols=3)
