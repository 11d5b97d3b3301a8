"""What rows of one network must agree on, whatever was asked for first.

An attack's curve over eps is monotone: within one call an attack keeps what is misclassified at a smaller eps
(attacks.attack), and rows of different calls agree after `make_monotone`. And what is certified within r is no better
than what attacks of length <= r leave correct, and that no better than the clean score, on the same samples:
`check_order` looks after each evaluation. A violation means that a certificate, an attack or the counting is wrong. It
is hardly rounding: `Certified` counts a sample only with room for many times what float32 adds
(certificates.radius.TIMES_ERROR), and scores that are no shares have ROOM. Deterministic certificates only; smoothing
is about another network, and may be wrong with probability alpha.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from robode.attacks.balls import INSIDE
from robode.errors import JobFailed
from robode.evaluation.suite import Row
from robode.runs.code import network_of
from robode.runs.results import IDENTITY, Store, read_rows
from robode.runs.scores import read_scores, scores_path
from robode.runs.table import records
from robode.tasks.measure import Measure, mean_score, measure_named
from robode.tasks.task import Task

ROOM = 1e-4
"""Relative: what float32 adds to an error."""


def make_monotone(store: Store, task: Task) -> int:
    """Give the samples of each attacked row the worst score that the same attack left them at this eps or a smaller
    one, because what was found there lies in the larger ball too; the number of rows that this changed.

    They are written anew, the last one of a measurement counts. score_reference stays that of the x' that were found
    at the row's own eps.

    Raises:
        JobFailed: the disk refuses.
    """
    attacked = (row for row in store if row["severity_unit"] == "eps")
    changed = 0
    for _, rows in groupby(sorted(attacked, key=lambda row: (_attack(row), row["severity"])), key=_attack):
        worst: np.ndarray | None = None
        for row in rows:
            scores = store.scores(row)
            if scores is None:  # it will be measured again when it is asked for
                continue
            worst = scores if worst is None else task.worse(*map(torch.from_numpy, (scores, worst))).numpy()
            if (worst != scores).any():
                low, high = task.interval(worst)
                store.replace({**row, "score": mean_score(worst), "score_low": low, "score_high": high}, worst)
                changed += 1
    return changed


def _attack(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in (*IDENTITY, "n") if name != "severity")


def check_order(folder: Path, weights: str, split: str, code: str) -> None:
    """certified <= attacked <= clean, in all rows of a run's results.csv that are about these weights on this split.
    code: only where this code ran the network (`network_code`), because in other code it may be another function.

    Raises:
        JobFailed: a certified score was undercut, or the mean score is worse without an attack than under it.
    """
    rows = read_rows(folder / "results.csv")
    rows = rows[(rows["weights"] == weights) & (rows["split"] == split) & (rows["code"].map(network_of) == code)]
    attacks = rows[rows["severity_unit"] == "eps"]
    for attack in records(attacks):
        _check_clean(rows, attack)
    for certified in records(rows[rows["perturbation"] == "certified"]):
        within = attacks[attacks["norm"].isin(INSIDE) & (attacks["severity"] <= certified["severity"])]
        for attack in records(within[within["n"] == certified["n"]]):
            _check_certified(folder, certified, attack)


def _check_clean(rows: pd.DataFrame, attack: Row) -> None:
    clean = rows[(rows["perturbation"] == "clean") & (rows["n"] == attack["n"])]
    measure = measure_named(attack["task"])
    if len(clean) and all(better(attack["score"], score, measure) for score in clean["score"]):
        left, without = (measure.text(score) for score in (attack["score"], clean["score"].iloc[-1]))
        raise JobFailed(
            f"{_named(attack)} leaves {measure.score_name} {left} on {attack['n']} samples, better than {without} "
            "without it: the attack counts wrongly"
        )


def _check_certified(folder: Path, certified: Row, attack: Row) -> None:
    if not all(scores_path(folder, row).is_file() for row in (certified, attack)):  # rows of a copied results.csv
        return
    measure = measure_named(certified["task"])
    broken = np.flatnonzero(better(read_scores(folder, certified), read_scores(folder, attack), measure))
    if len(broken):
        raise JobFailed(
            f"{len(broken)} of {certified['n']} samples are certified at radius {certified['severity']:g} and broken "
            f"by {_named(attack)}, first sample {broken[0]}: the certificate is wrong, or the attack leaves its ball"
        )


def better(a: float | np.ndarray, b: float | np.ndarray, measure: Measure) -> np.ndarray:
    """Whether scores a are better than b, by more than rounding where they are no shares."""
    room = 0.0 if measure.shares else ROOM * np.abs(b)
    return np.asarray(a > b + room if measure.better == "higher" else a < b - room)


def _named(attack: Row) -> str:
    return f"{attack['perturbation']} ({attack['norm']}, eps={attack['severity']:g})"
