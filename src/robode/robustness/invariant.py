"""certified(r) <= robust under attacks of length <= r <= clean, on the same samples: checked after each evaluation.

A violation means that a certificate, an attack or the counting is wrong. It is hardly rounding: `Certified` counts a
sample only with room for many times what float32 adds (certificates.TIMES_ERROR). Deterministic certificates
only; smoothing is about another classifier, and may be wrong with probability alpha.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robode.code_digest import network_of
from robode.errors import JobFailed
from robode.report.correct import correct_path, read_correct
from robode.report.records import read_rows
from robode.robustness.attacks.balls import INSIDE

Row = dict[str, Any]


def check_invariant(folder: Path, weights: str, split: str, code: str) -> None:
    """Look at all rows of a run's results.csv that are about these weights on this split, with their bits. code: only
    where this code ran the network (`network_code`), because in other code it may be another function.

    Raises:
        JobFailed: a certified sample was broken, or fewer are right without an attack than under it.
    """
    rows = read_rows(folder / "results.csv")
    rows = rows[(rows["weights"] == weights) & (rows["split"] == split) & (rows["code"].map(network_of) == code)]
    attacks = rows[rows["severity_unit"] == "eps"]
    for attack in _each(attacks):
        _check_clean(rows, attack)
    for certified in _each(rows[rows["perturbation"] == "certified"]):
        within = attacks[attacks["norm"].isin(INSIDE) & (attacks["severity"] <= certified["severity"])]
        for attack in _each(within[within["n"] == certified["n"]]):
            _check_certified(folder, certified, attack)


def _check_clean(rows: pd.DataFrame, attack: Row) -> None:
    clean = rows[(rows["perturbation"] == "clean") & (rows["n"] == attack["n"])]
    if len(clean) and attack["correct"] > clean["correct"].max():
        raise JobFailed(
            f"{_named(attack)} leaves {attack['correct']} of {attack['n']} samples right and without it only "
            f"{clean['correct'].max()} are: the attack counts wrongly"
        )


def _check_certified(folder: Path, certified: Row, attack: Row) -> None:
    if not all(correct_path(folder, row).is_file() for row in (certified, attack)):  # rows of a copied results.csv
        return
    broken = np.flatnonzero(read_correct(folder, certified) & ~read_correct(folder, attack))
    if len(broken):
        raise JobFailed(
            f"{len(broken)} of {certified['n']} samples are certified at radius {certified['severity']:g} and broken "
            f"by {_named(attack)}, first sample {broken[0]}: the certificate is wrong, or the attack leaves its ball"
        )


def _each(rows: pd.DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _named(attack: Row) -> str:
    return f"{attack['perturbation']} ({attack['norm']}, eps={attack['severity']:g})"
