"""An attack's curve over eps cannot get better, in whatever order its eps were asked for.

Within one call an attack keeps what has fallen at a smaller eps (attacks.attack). Rows of different calls agree after
`settle`: what was found for a sample at a smaller eps lies in the larger ball too, so its score there is no better.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import numpy as np
import torch

from robode.runs.results import IDENTITY, Store
from robode.tasks.measure import mean_score
from robode.tasks.task import Task

Row = Mapping[str, Any]


def settle(store: Store, task: Task) -> int:
    """Give the samples of each attacked row the worst score that the same attack left them at this eps or a smaller
    one; the number of rows that this changed. They are written anew, the last one of a measurement counts. score_finer
    stays that of the x' that were found at the row's own eps.

    Raises:
        JobFailed: the disk refuses.
    """
    attacked = sorted((row for row in store if row["severity_unit"] == "eps"), key=_order)
    changed = 0
    for _, rows in groupby(attacked, key=_attack):
        worst: np.ndarray | None = None
        for row in rows:
            scores = store.scores(row)
            if scores is None:  # it will be measured again when it is asked for
                continue
            worst = scores if worst is None else task.worse(*map(torch.from_numpy, (scores, worst))).numpy()
            if (worst != scores).any():
                store.replace(_with_scores(row, worst, task), worst)
                changed += 1
    return changed


def _attack(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in (*IDENTITY, "n") if name != "severity")


def _order(row: Row) -> tuple[tuple[str, ...], float]:
    return _attack(row), row["severity"]


def _with_scores(row: Row, scores: np.ndarray, task: Task) -> dict[str, Any]:
    low, high = task.interval(scores)
    return {**row, "score": mean_score(scores), "score_low": low, "score_high": high}
