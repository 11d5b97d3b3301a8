"""An attack's curve over eps cannot rise, in whatever order its eps were asked for.

Within one call an attack keeps what has fallen at a smaller eps (attacks.attack). Rows of different calls agree after
`settle`: a sample that fell at a smaller eps lies in the larger ball too, so it has fallen there.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import numpy as np

from robode.report.records import IDENTITY, wilson
from robode.report.store import Store

Row = Mapping[str, Any]


def settle(store: Store) -> int:
    """Take from each attacked row what the same attack broke at a smaller eps on the same samples; the number of rows
    that this changed. They are written anew, the last one of a measurement counts. correct_finer stays that of the x'
    that were found at the row's own eps.

    Raises:
        JobFailed: the disk refuses.
    """
    attacked = sorted((row for row in store if row["severity_unit"] == "eps"), key=_order)
    changed = 0
    for _, rows in groupby(attacked, key=_attack):
        standing: np.ndarray | None = None
        for row in rows:
            right = store.right(row)
            if right is None:  # it will be measured again when it is asked for
                continue
            standing = right if standing is None else right & standing
            if (standing != right).any():
                store.replace(_lowered(row, int(standing.sum())), standing)
                changed += 1
    return changed


def _attack(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in (*IDENTITY, "n") if name != "severity")


def _order(row: Row) -> tuple[tuple[str, ...], float]:
    return _attack(row), row["severity"]


def _lowered(row: Row, correct: int) -> dict[str, Any]:
    low, high = wilson(correct, row["n"])
    return {**row, "correct": correct, "accuracy": correct / row["n"], "accuracy_low": low, "accuracy_high": high}
