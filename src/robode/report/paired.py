"""Networks against each other on identical samples, from the scores that lie beside results.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from robode.errors import JobFailed
from robode.report.statistics import paired_test
from robode.runs.results import read_scores, scores_path
from robode.tasks.measure import measure_named

if TYPE_CHECKING:
    from robode.papers.collect import Collected
    from robode.papers.spec import Item, Row

SIGNIFICANT = 0.05
# two networks saw the same noisy copy of the same samples where these agree
_COPY = ("evaluation", "split", "noise_seed", "severity", "repeat")
_Copies = dict[tuple[Any, ...], np.ndarray]


def paired(item: Item, collected: Collected, warnings: list[str]) -> list[dict[str, Any]]:
    """McNemar's test, or sign flips, of every two rows of a group, for each column and each seed that both have.

    Only the copies that both were measured on count (same evaluation, noise seed, severity and repeat).

    Returns:
        group, column, seed, a and b (row numbers), label_a, label_b, task, and the fields of `statistics.Paired`. Empty
        without files of scores; a damaged one is left out and named in `warnings`.
    """
    groups: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(item.rows):
        groups.setdefault(row.group, []).append((number, row))
    folders = {(line.row, line.seed): line.folder for line in collected.runs.itertuples()}
    cells = {key: rows for key, rows in collected.rows.groupby(["column", "row", "seed"], sort=False)}
    found = []
    for group, members in groups.items():
        for column in item.columns:
            for seed in dict.fromkeys(seed for _, row in members for seed in row.seeds):
                here = {
                    (number, row.label): cells[column, number, seed]
                    for number, row in members
                    if (column, number, seed) in cells
                }
                scores = {key: _scores(Path(str(folders[key[0], seed])), rows, warnings) for key, rows in here.items()}
                tests = _tests(scores, {key: str(rows["task"].iloc[0]) for key, rows in here.items()})
                found += [{"group": group, "column": column, "seed": seed} | test for test in tests]
    return found


def _tests(scores: Mapping[tuple[int, str], _Copies], tasks: Mapping[tuple[int, str], str]) -> list[dict[str, Any]]:
    tests = []
    for ((a, label_a), of_a), ((b, label_b), of_b) in combinations(scores.items(), 2):
        shared = [key for key in of_a if key in of_b and len(of_a[key]) == len(of_b[key])]
        if shared:
            test = paired_test(np.stack([of_a[key] for key in shared]), np.stack([of_b[key] for key in shared]))
            about = {"a": a, "b": b, "label_a": label_a, "label_b": label_b, "task": tasks[a, label_a]}
            tests.append(about | asdict(test))
    return tests


def _scores(folder: Path, rows: pd.DataFrame, warnings: list[str]) -> _Copies:
    """Scores (n,) of each noisy copy of one cell."""
    copies: _Copies = {}
    for line in rows.to_dict("records"):
        row = {str(name): value for name, value in line.items()}
        if scores_path(folder, row).is_file():
            try:
                copies[tuple(row[name] for name in _COPY)] = read_scores(folder, row)
            except JobFailed as error:
                warnings.append(str(error))
    return copies


def outcomes(tests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per group, pair and column, in that order: over seeds, how often which network was better.

    Returns:
        group, label_a, label_b, column, task, seeds, a_better and b_better (seeds with p < SIGNIFICANT), difference (of
        the mean scores, mean over seeds), p (the largest of the seeds). Tests of earlier versions have no task: they
        were of classifications.
    """
    if not tests:
        return []
    lines = []
    names = ["group", "a", "b", "label_a", "label_b", "column"]
    for key, tested in pd.DataFrame(tests).groupby(names, sort=False):
        clear = tested["p"] < SIGNIFICANT
        measure = measure_named(tested["task"].iloc[0] if "task" in tested else "")
        gain = tested["difference"].map(measure.gain)
        line = dict(zip(names, key, strict=True)) | {
            "task": str(measure),
            "seeds": len(tested),
            "a_better": int((clear & (gain > 0)).sum()),
            "b_better": int((clear & (gain < 0)).sum()),
            "difference": float(tested["difference"].mean()),
            "p": float(tested["p"].max()),
        }
        lines.append(line)
    return sorted(lines, key=lambda line: (line["a"], line["b"]))
