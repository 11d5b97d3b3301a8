"""Our numbers beside the printed ones: one line per cell of a paper's table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from robode.report import statistics

if TYPE_CHECKING:
    from robode.papers.collect import Collected
    from robode.papers.spec import Column, Item, Row

CELL_COLUMNS = (
    "row", "label", "group", "column", "unit", "printed", "mean", "std", "n", "t_low", "t_high", "pi_low", "pi_high",
    "mean_low", "mean_high", "repeat_std", "repeats", "samples", "verdict", "mark", "runs",
)  # fmt: skip
VERDICTS: tuple[statistics.Verdict, ...] = ("agrees", "higher", "lower", "undecided", "not run")


def compare(item: Item, collected: Collected) -> pd.DataFrame:
    """CELL_COLUMNS, one line per row and column of the item, in its order.

    Everything is in the unit of the cell: accuracies in percent. mean, std, n, t_… and pi_…: over seeds, of the
    mean over noisy copies; repeat_std: between the copies of a seed. mean_low and mean_high differ from mean only
    where a quantity is known from below and above (∓inf: not known from there); pi_low and pi_high then hold both.
    verdict: of `statistics.verdict`, "" where nothing is printed and something was run. runs: names, in seed order.

    Raises:
        BadInput: runs of one row have different configurations, or the same seed.
    """
    configs = {str(folder): _config(Path(folder)) for folder in collected.runs["folder"].dropna()}
    values = collected.values.dropna(subset=["value"])
    lines = []
    for number, row in enumerate(item.rows):
        for column in item.columns.values():
            here = values[(values["row"] == number) & (values["column"] == column.name)]
            lines.append({"row": number} | _cell(row, column, here.sort_values("seed", kind="stable"), configs))
    return pd.DataFrame(lines, columns=list(CELL_COLUMNS))


def tally(cells: pd.DataFrame) -> dict[str, int]:
    """How often each verdict was reached, among the cells that have a printed number."""
    found = cells[cells["printed"].notna()]["verdict"].value_counts()
    return {name: int(found.get(name, 0)) for name in VERDICTS}


def _cell(row: Row, column: Column, here: pd.DataFrame, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    unit = column.unit_of(here["unit"])
    scale = 100.0 if unit == "%" else 1.0
    ends = {name: scale * here[name].fillna(here["value"]).astype(float) for name in ("low", "high")}
    runs = [
        (str(name), configs.get(str(folder), {}), [low, high])
        for name, folder, low, high in zip(here["run"], here["folder"], ends["low"], ends["high"], strict=True)
    ]
    low, high = statistics.pooled(runs).reshape(-1, 2).T
    shown = np.where(np.isfinite(low), low, high)
    found, below, above = (statistics.estimate(each) for each in (shown, low, high))
    printed = row.print.get(column.name)
    return {
        "label": row.label, "group": row.group, "column": column.name, "unit": unit,
        "printed": math.nan if printed is None else float(printed),
        "mean": found.mean, "std": found.std, "n": found.n, "t_low": found.t_low, "t_high": found.t_high,
        "pi_low": below.pi_low if np.isfinite(low).all() else -math.inf,
        "pi_high": above.pi_high if np.isfinite(high).all() else math.inf,
        "mean_low": below.mean, "mean_high": above.mean,
        "repeat_std": scale * statistics.repeat_spread(list(here["spread"]), list(here["repeats"].fillna(0))),
        "repeats": _smallest(here["repeats"]),
        "samples": _smallest(here["n"]),
        "verdict": _verdict(printed, low, high, unit),
        "mark": bool(here["mark"].any()),
        "runs": [name for name, _, _ in runs],
    }  # fmt: skip


def _verdict(printed: float | None, low: np.ndarray, high: np.ndarray, unit: str) -> str:
    """Ten points are wide for an accuracy; for a number without a scale half of itself is."""
    if printed is None:
        return "" if low.size else "not run"
    widest = statistics.WIDEST if unit == "%" else abs(printed) / 2
    return statistics.verdict(printed, low, upper=high, widest=widest)


def _smallest(counts: pd.Series) -> int:
    return int(counts.min()) if counts.notna().any() else 0


def _config(folder: Path) -> dict[str, Any]:
    """The plain configuration of a run folder; empty where there is none."""
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
