"""Figures of scores over the level of a perturbation: noise, attacks with what is certified beneath them, and noise by
epoch. From summaries of results.csv and robustness_sweep.csv."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robode.report.style import (
    INK,
    MARKERS,
    MUTED,
    PALETTE,
    log_where_decades,
    panels,
    score_axis,
    shades,
    styled,
    whiskers,
)
from robode.report.tables import measure_of, told_apart, varying
from robode.tasks.measure import CLASSIFICATION, Measure

NORMS = {"linf": ("L∞", "‖x′ − x‖∞"), "l2": ("L2", "‖x′ − x‖₂"), "l1": ("L1", "‖x′ − x‖₁")}
"""Norm of a row → how its panel and the panel's axis are named; rows of another norm, or none, are no attacks."""
MOST_NAMED = 18  # curves in a legend
# what makes two rows points of different lines, and of different panels
_SERIES = ["run", "checkpoint", "weights", "model", "depth", "data", "split", "n", "protocol", "noise_seed"]
_PANEL = ["perturbation", "norm", "severity_unit", "space"]


def sized(rows: pd.DataFrame) -> pd.Series:
    """Which rows are about balls in data units, those of `score_against_attacks`: bool by row. A radius in another
    space has an axis of its own, among the noises."""
    return rows["norm"].isin(list(NORMS)) & (rows["space"] == "data")


def score_against_noise(summary: pd.DataFrame) -> Figure:
    """Score over noise level, one panel per perturbation, the same samples without noise as level 0.

    summary: results.summarise(rows). Error bars are its intervals. Several runs, checkpoints, protocols, seeds of
    the noise, numbers of samples or settings of a perturbation in the frame become several lines; levels that were
    measured later belong to the line of the others. A hollow mark at 0 is the legacy protocol's clipping without noise.
    """
    noisy = summary[~summary["perturbation"].isin(("clean", "clip_only"))]
    kinds = noisy[_PANEL].drop_duplicates().astype(str).to_dict("records")
    named = [name for name in varying(noisy, _SERIES) if name != "evaluation"]
    measure = measure_of(summary)
    network = summary.groupby(_SERIES, sort=False, dropna=False).ngroup()
    looks: dict[str | None, int] = {}
    with styled():
        figure, axes = panels(len(kinds), columns=3, height=3.0)
        for ax, kind in zip(axes, kinds, strict=True):
            here = noisy[(noisy[_PANEL] == pd.Series(kind)).all(axis=1)]
            names = [*named, *(name for name in varying(here, _SERIES) if name == "evaluation")]
            for _, levels in here.groupby([network[here.index], "evaluation"], sort=False, dropna=False):
                label = told_apart(levels.iloc[0], names) or None
                look = looks.setdefault(label, len(looks))
                _line(ax, summary[network == network[levels.index[0]]], levels, label, look)
            norm = kind["norm"] if kind["norm"] not in ("", "none", kind["perturbation"].rpartition("_")[2]) else ""
            ax.set_title(f"{kind['perturbation'].replace('_', ' ')} {norm}".strip())
            ax.set(xlabel=_unit_label(kind["severity_unit"], kind["space"]))
            score_axis(ax, measure)
        axes[0].set_ylabel(measure.label)
        _legend(figure, axes, (), named)
    return figure


def early_stopping(time: np.ndarray, calls: np.ndarray, loss: np.ndarray, accuracy: np.ndarray) -> Figure:
    """What inference gives that is stopped at time t, and after so many evaluations: all (P,), in the order of time."""
    with styled():
        figure, axes = panels(3, columns=3, height=2.7)
        drawn = (
            ("Accuracy over time", "t / T", time, accuracy),
            ("Accuracy over its cost", "evaluations", calls, accuracy),
            ("Loss over time", "t / T", time, loss),
        )
        for ax, color, (title, label, x, y) in zip(axes, PALETTE, drawn, strict=False):
            ax.plot(x, y, "o-", color=color, markersize=3.5)
            ax.set(title=title, xlabel=label)
        for ax in axes[:2]:
            score_axis(ax, CLASSIFICATION)
        axes[0].set_ylabel(CLASSIFICATION.label)
        axes[2].set_ylabel("cross-entropy")
        log_where_decades(axes[2], loss)
    return figure


def _line(ax: Axes, series: pd.DataFrame, levels: pd.DataFrame, label: str | None, index: int) -> None:
    """One network's levels of one perturbation, from its clean score on."""
    clean = series[series["perturbation"] == "clean"].assign(severity=0.0)
    clipped = series[series["perturbation"] == "clip_only"].assign(severity=0.0)
    points = pd.concat([clean, levels]).drop_duplicates("severity", keep="last").sort_values("severity")
    style = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
    for rows, look in (
        (points, {"label": label}),
        (clipped, {"label": "clip only, no noise", "linestyle": "none", "mfc": "white"}),
    ):
        middle, reach = whiskers(rows)
        at = rows["severity"].to_numpy(float)
        if len(rows):
            ax.errorbar(at, middle, yerr=reach, capsize=2.5, elinewidth=1.0, **style, **look)  # type: ignore[arg-type]


def _unit_label(unit: str, space: str) -> str:
    return (unit.replace("_", " ") or "level") + (f" ({space} space)" if space else "")


def score_by_epoch(summary: pd.DataFrame) -> Figure:
    """Score of each noise level over epochs (robustness_sweep.csv), the clean set in every panel.

    summary: results.summarise(rows with `epoch`, counted from 0). Bands are the summary's intervals.
    """
    measure = measure_of(summary)
    clean = summary[summary["perturbation"] == "clean"]
    noisy = summary[summary["perturbation"] != "clean"]
    kinds = list(noisy.groupby("perturbation", sort=False)) or [("clean", noisy)]
    with styled():
        figure, axes = panels(len(kinds), columns=3, height=3.2)
        for ax, (name, rows) in zip(axes, kinds, strict=True):
            _band(ax, clean, "clean", INK, "--")
            levels = sorted(rows["severity"].unique())
            for severity, color in zip(levels, shades(len(levels)), strict=True):
                _band(ax, rows[rows["severity"] == severity], f"{severity:g}", color, "-")
            unit = rows["severity_unit"].iloc[0].replace("_", " ") if len(rows) else ""
            ax.set(title=str(name).replace("_", " "), xlabel="epoch")
            score_axis(ax, measure)
            ax.legend(title=unit or None, title_fontsize=8.0)
        axes[0].set_ylabel(f"{summary['split'].iloc[0]} {measure.label}")
    return figure


def _band(ax: Axes, rows: pd.DataFrame, label: str, color: str, line: str) -> None:
    rows = rows.sort_values("epoch")
    x = rows["epoch"].to_numpy(float) + 1
    ax.plot(x, rows["score"], line, color=color, label=label, marker="o", markersize=3)
    ax.fill_between(x, rows["score_low"], rows["score_high"], color=color, alpha=0.15, linewidth=0)


def score_against_attacks(summary: pd.DataFrame) -> Figure | None:
    """Score over eps for every attack, one panel per norm, and dashed what is certified at that radius; both begin at
    the clean score. None where nothing was attacked or certified.

    Dotted: what is certified with a probability, of the network smoothed by noise, whose score at 0 is its own.

    summary: results.summarise(rows). Error bars are its intervals. Several runs, checkpoints, protocols, seeds,
    numbers of samples or settings of one attack in the frame become several curves.
    """
    about = summary[sized(summary)]
    if about.empty:
        return None
    measure = measure_of(summary)
    norms = [norm for norm in NORMS if (about["norm"] == norm).any()]
    clean = summary[summary["perturbation"] == "clean"]
    looks: dict[str, int] = {}  # of attacks, by name: the same attack looks the same in every panel
    with styled():
        figure, axes = panels(len(norms), columns=3, width=4.2, height=3.6)
        for ax, norm in zip(axes, norms, strict=True):
            here = about[about["norm"] == norm]
            named = varying(here, _SERIES)
            for _, levels in here.groupby([*_SERIES, "perturbation", "evaluation"], sort=False, dropna=False):
                same = (clean[_SERIES].astype(str) == levels[_SERIES].astype(str).iloc[0]).all(axis=1)
                _curve(ax, clean[same], levels, named, looks)
            over_eps(ax, norm, NORMS[norm][0], measure)
        axes[0].set_ylabel(measure.label)
        _legend(figure, axes, looks, varying(about, _SERIES))
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


def _legend(figure: Figure, axes: list[Axes], first: Iterable[str], named: Iterable[str]) -> None:
    """Every curve once, those named `first` before others; of more than MOST_NAMED one line that says how many there
    are and in what they differ, because their names would fill the figure."""
    marks = {label: mark for ax in axes for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    order = list(dict.fromkeys((*first, *marks)))
    texts = order
    if len(order) > MOST_NAMED:
        texts = [f"{len(order)} curves, which differ in {', '.join(named) or 'what was attacked'}".replace("_", " ")]
    if order:
        handles = [marks[label] for label in order[: len(texts)]]
        figure.legend(handles, texts, loc="outside lower center", ncols=min(3, len(texts)))
