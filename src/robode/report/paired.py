"""Networks against each other on identical samples, from the scores that lie beside results.csv."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from robode.errors import JobFailed
from robode.report.layout import Layout, TableRow
from robode.report.statistics import paired_test
from robode.report.values import Collected, lines_of
from robode.runs.scores import read_scores, scores_path
from robode.tasks.measure import measure_named

SIGNIFICANT = 0.05
# two networks saw the same noisy copy of the same samples where these agree
_COPY = ("evaluation", "split", "noise_seed", "severity", "repeat")
_Copies = dict[tuple[Hashable, ...], np.ndarray]
Test = dict[str, float | str]


class Outcome(NamedTuple):
    """Two rows a and b of a group in one column: over seeds, how often which network was better.

    a_better, b_better: seeds with p < SIGNIFICANT; difference: of the mean scores, mean over seeds; p: the largest of
    the seeds.
    """

    group: str
    a: int
    b: int
    label_a: str
    label_b: str
    column: str
    task: str
    seeds: int
    a_better: int
    b_better: int
    difference: float
    p: float

    @property
    def pair(self) -> tuple[int, int]:
        """The two rows."""
        return self.a, self.b

    @property
    def winner(self) -> str:
        """Which of the two is better in more seeds; "" if none is in any."""
        return "" if not self.wins else self.label_a if self.a_better >= self.b_better else self.label_b

    @property
    def wins(self) -> int:
        """In how many seeds the winner is better."""
        return max(self.a_better, self.b_better)

    @property
    def gap(self) -> str:
        """ "+1.3" percentage points, or a difference of other scores in three digits."""
        shares = measure_named(self.task).shares
        return (f"{100 * self.difference:+.1f}" if shares else f"{self.difference:+.3g}").replace("-", "−")

    @property
    def largest_p(self) -> str:
        """ "≤ 0.02"."""
        return "<\u00a00.0001" if self.p < 1e-4 else f"≤\u00a0{self.p:.2g}"


def paired(layout: Layout, collected: Collected, warnings: list[str]) -> list[Test]:
    """McNemar's test, or sign flips, of every two rows of a group, for each column and each seed that both have.

    Only the copies that both were measured on count (same evaluation, noise seed, severity and repeat).

    Returns:
        group, column, seed, a and b (row numbers), label_a, label_b, task, and the fields of `statistics.Paired`. Empty
        without files of scores; a damaged one is left out and named in `warnings`.
    """
    groups: dict[str, list[tuple[int, TableRow]]] = {}
    for number, row in enumerate(layout.rows):
        groups.setdefault(row.group, []).append((number, row))
    folders = {(line.row, line.seed): line.folder for line in collected.runs.itertuples()}
    cells = {key: rows for key, rows in collected.rows.groupby(["column", "row", "seed"], sort=False)}
    found = []
    for group, members in groups.items():
        for column in (
            name for name, each in layout.columns.items() if not each.reference
        ):  # of a reference no sample has a score on file
            for seed in dict.fromkeys(seed for _, row in members for seed in row.seeds):
                here = {
                    (number, row.label): cells[column, number, seed]
                    for number, row in members
                    if (column, number, seed) in cells
                }
                scores = {key: _scores(Path(str(folders[key[0], seed])), rows, warnings) for key, rows in here.items()}
                about: Test = {"group": group, "column": column, "seed": seed}
                found += [about | test for test in _tests(scores, here)]
    return found


def _tests(scores: Mapping[tuple[int, str], _Copies], rows: Mapping[tuple[int, str], pd.DataFrame]) -> list[Test]:
    tests = []
    for ((a, label_a), of_a), ((b, label_b), of_b) in combinations(scores.items(), 2):
        shared = [key for key in of_a if key in of_b and len(of_a[key]) == len(of_b[key])]
        if shared:
            test = paired_test(np.stack([of_a[key] for key in shared]), np.stack([of_b[key] for key in shared]))
            task = str(rows[a, label_a]["task"].iloc[0])
            about: Test = {"a": a, "b": b, "label_a": label_a, "label_b": label_b, "task": task}
            tests.append(about | asdict(test))
    return tests


def _scores(folder: Path, rows: pd.DataFrame, warnings: list[str]) -> _Copies:
    """Scores (n,) of each noisy copy of one cell."""
    copies: _Copies = {}
    for row in lines_of(rows):
        if scores_path(folder, row).is_file():
            try:
                copies[tuple(row[name] for name in _COPY)] = read_scores(folder, row)
            except JobFailed as error:
                warnings.append(str(error))
    return copies


def outcomes(tests: Sequence[Test]) -> list[Outcome]:
    """One per group, pair and column, in the order of the pairs. Tests of earlier versions have no task: they were of
    classifications."""
    if not tests:
        return []
    found = []
    for _, tested in pd.DataFrame(tests).groupby(["group", "a", "b", "label_a", "label_b", "column"], sort=False):
        pair = tested.iloc[0]
        clear = tested["p"] < SIGNIFICANT
        measure = measure_named(tested["task"].iloc[0] if "task" in tested else "")
        gain = tested["difference"].map(measure.gain)
        about = {name: pair[name] for name in ("group", "a", "b", "label_a", "label_b", "column")}
        found.append(
            Outcome(
                **about,
                task=str(measure),
                seeds=len(tested),
                a_better=int((clear & (gain > 0)).sum()),
                b_better=int((clear & (gain < 0)).sum()),
                difference=float(tested["difference"].mean()),
                p=float(tested["p"].max()),
            )
        )
    return sorted(found, key=lambda each: each.pair)
