"""The rows of results.csv, robustness_sweep.csv, numbers.csv, metrics.csv and bsm.csv: what a row must hold,
how it is written, read and summarised."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from robode.code_digest import canonical, network_of
from robode.report import journal

# weights: a hash of what the checkpoint held (it is written anew when a run goes on); seed: of the training;
# evaluation: a hash of the perturbation without its severities, the protocol and the data (robustness.evaluation);
# code: which code measured it (code_digest.measuring_code), empty where an earlier version did
COLUMNS = (
    "run", "checkpoint", "weights", "experiment", "model", "data", "split", "depth", "integrator", "params",
    "seed", "protocol", "noise_seed", "evaluation", "suite", "perturbation", "norm", "severity", "severity_unit",
    "space", "solver", "repeat", "n", "correct", "correct_finer", "accuracy", "accuracy_low", "accuracy_high",
    "flow_ode", "flow_discrete", "end_to_end", "seconds", "commit", "code",
)  # fmt: skip
METRIC_COLUMNS = ("epoch", "step", "name", "value")
BSM_COLUMNS = ("step", "layer", "bsm_median", "bsm_max", "bsm_norm_of_mean", "step_median", "step_max")

# What was measured: rows that agree here are one measurement, which is never made twice. The name of the checkpoint
# is no part of it: best.ckpt and last.ckpt may hold the same weights. Digests of code that are attested to be equal are
# one.
IDENTITY = (
    "run", "weights", "split", "evaluation", "protocol", "noise_seed", "suite", "perturbation", "norm", "severity",
    "repeat", "code",
)  # fmt: skip
NUMBER_COLUMNS = (
    "run", "checkpoint", "weights", "seed", "quantity", "value", "low", "high", "kind", "commit", "code",
)  # fmt: skip
NUMBER_KINDS = ("exact", "certified_lower", "certified_upper", "attack_upper", "measured")
# Columns that files of earlier versions lack; `widen` adds them. correct_finer: right answers to an attack's x' of the
# network with a finer solver; end_to_end: certified Lipschitz constant of x -> logits in data units.
ADDED = ("correct_finer", "end_to_end", "code")
# A perturbation without a norm, a flow without a certificate … ; everything else must be said.
MAY_BE_MISSING = frozenset(
    ("experiment", "norm", "solver", "commit", "accuracy", "accuracy_low", "accuracy_high", "flow_ode",
     "flow_discrete", *ADDED)
)  # fmt: skip
_WHOLE = ("depth", "params", "seed", "noise_seed", "repeat", "n", "correct", "correct_finer", "epoch", "step", "layer")
_REAL = (
    "severity", "accuracy", "accuracy_low", "accuracy_high", "flow_ode", "flow_discrete", "end_to_end", "seconds",
    "value", "low", "high", "bsm_median", "bsm_max", "bsm_norm_of_mean", "step_median", "step_max",
)  # fmt: skip
ROUNDING = 1e-4  # a CPU and a GPU find certificates of the same weights that differ by less


def wilson(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion, both ends in [0, 1].

    Unlike the normal interval it stays inside [0, 1] and keeps a width at 0 % and 100 % (Wilson 1927).
    `correct` may be fractional: a mean count over repeats.

    Raises:
        ValueError: n < 1, correct outside [0, n] or level outside (0, 1).
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"expected 0 <= correct <= n and n >= 1, got correct={correct}, n={n}")
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # the ends 0 and 1 are exact in theory; rounding must not push p outside its own interval
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def append_rows(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append result rows (keys: COLUMNS, and `epoch` in every row or in none) to a tidy CSV file.

    `accuracy` and its Wilson interval are filled in from `correct` and `n` where a row leaves them out.

    Raises:
        ValueError: a row that lacks a column, has an unknown one, or contradicts itself.
        JobFailed: the file cannot be written.
    """
    complete = [_completed(row) for row in rows]
    with_epoch = {"epoch" in row for row in complete}
    if len(with_epoch) > 1:
        raise ValueError("expected `epoch` in every row of a call or in none")
    columns = (*COLUMNS, "epoch") if with_epoch == {True} else COLUMNS
    journal.append(Path(path), columns, complete)


def widen(path: Path | str, *more: str) -> None:
    """Gives a file of result rows that an earlier version wrote the columns `ADDED`, empty. more: columns of the file
    behind those of results.csv ("epoch").

    Raises:
        JobFailed: the disk refuses.
    """
    journal.widen(Path(path), (*COLUMNS, *more), ADDED)


def identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the measurement of a row from others, in the order of IDENTITY; None and "" are the same."""
    known = {**row, "code": canonical(row.get("code") or "")}
    return tuple("" if known[name] is None else known[name] for name in IDENTITY)


def _completed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A checked copy of the row with accuracy, accuracy_low and accuracy_high."""
    unknown = [name for name in row if name not in COLUMNS and name != "epoch"]
    missing = [name for name in COLUMNS if name not in row and name not in MAY_BE_MISSING]
    if unknown or missing:
        raise ValueError(f"a results row has unknown columns {unknown} and lacks {missing}")
    correct, n = row["correct"], row["n"]
    low, high = wilson(correct, n)
    accuracy = row.get("accuracy")
    if accuracy is not None and abs(accuracy - correct / n) > 1e-6:
        raise ValueError(f"accuracy must be correct/n in [0, 1] = {correct / n:.6f}, got {accuracy}")
    if row["severity"] is not None and not row["severity"] >= 0:
        raise ValueError(f"severity must not be negative, got {row['severity']}")
    return {**row, "accuracy": correct / n, "accuracy_low": low, "accuracy_high": high}


def read_rows(path: Path | str) -> pd.DataFrame:
    """Rows of results.csv or robustness_sweep.csv, one for each measurement and checkpoint name: the last wins.

    Text columns hold str ("" = not given), whole numbers Int64, the rest float. No file: an empty frame.

    Raises:
        JobFailed: the file exists but cannot be read.
    """
    frame = _typed(journal.read(Path(path)), COLUMNS)
    frame["severity"] = frame["severity"].fillna(0.0)  # the clean set has no severity
    return frame.drop_duplicates(_key(frame), keep="last", ignore_index=True)


def _key(rows: pd.DataFrame) -> list[str]:
    return [*IDENTITY, "checkpoint", *(["epoch"] if "epoch" in rows else [])]


def append_numbers(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append numbers that are no accuracies (keys: NUMBER_COLUMNS) to numbers.csv in a run folder.

    quantity: its name, with its unit where it has one. kind: one of NUMBER_KINDS, what `value` is to the true
    quantity. low, high: an interval around `value`, where there is one. checkpoint and weights: where it belongs
    to one network; a number about a whole training leaves them out.

    Raises:
        ValueError: a row that lacks run, quantity, value or kind, has an unknown column or an unknown kind.
        JobFailed: the file cannot be written.
    """
    rows = list(rows)
    for row in rows:
        unknown = [name for name in row if name not in NUMBER_COLUMNS]
        missing = [name for name in ("run", "quantity", "value", "kind") if row.get(name) in (None, "")]
        if unknown or missing:
            raise ValueError(f"a row of numbers has unknown columns {unknown} and lacks {missing}")
        if row["kind"] not in NUMBER_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(NUMBER_KINDS)}, got {row['kind']!r}")
    journal.widen(Path(path), NUMBER_COLUMNS, ("code",))
    journal.append(Path(path), NUMBER_COLUMNS, rows)


def read_numbers(path: Path | str) -> pd.DataFrame:
    """Numbers that are no accuracies, NUMBER_COLUMNS; the last of a (run, checkpoint, weights, quantity, kind) wins.

    Raises:
        JobFailed: the file exists but cannot be read.
    """
    frame = _typed(journal.read(Path(path)), NUMBER_COLUMNS)
    return frame.drop_duplicates(["run", "checkpoint", "weights", "quantity", "kind"], keep="last", ignore_index=True)


def read_metrics(path: Path | str) -> pd.DataFrame:
    """The training log, METRIC_COLUMNS sorted by step; the last row of a (step, name) wins."""
    frame = _typed(journal.read(Path(path)), METRIC_COLUMNS).drop_duplicates(["step", "name"], keep="last")
    return frame.sort_values("step", kind="stable", ignore_index=True)


def read_bsm(path: Path | str) -> pd.DataFrame:
    """The backward sensitivity log, BSM_COLUMNS sorted by step and layer; the last row of a pair wins."""
    frame = _typed(journal.read(Path(path)), BSM_COLUMNS).drop_duplicates(["step", "layer"], keep="last")
    return frame.sort_values(["step", "layer"], kind="stable", ignore_index=True)


def _typed(text: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Text cells to numbers; columns that the file lacks become empty ones."""
    frame = text.copy()
    for name in columns:
        if name not in frame:
            frame[name] = pd.Series("", index=frame.index, dtype=str)
    for name in frame.columns:
        if name in _WHOLE:
            frame[name] = pd.to_numeric(frame[name], errors="coerce").round().astype("Int64")
        elif name in _REAL:
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    return frame


def newest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the weights that each checkpoint name of a run (at each epoch, in a sweep) stood for last, as the
    code that ran the network last found them; of a perturbation whose own code has changed, the last answers.

    A run that goes on replaces best.ckpt and last.ckpt; what was measured before describes weights that are gone. Rows
    that two codes measured are never side by side.
    """
    name = [column for column in ("run", "checkpoint", "epoch") if column in rows]
    rows = rows.assign(network=rows["code"].map(network_of).astype(str))
    last = rows.groupby(name, dropna=False, sort=False)[["weights", "network"]].transform("last")
    shown = rows[(rows[["weights", "network"]] == last).all(axis=1)].drop(columns="network")
    return shown.drop_duplicates([column for column in _key(shown) if column != "code"], keep="last", ignore_index=True)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per measurement: the mean over repeats (noisy copies of the same images).

    In the order of the file, but with the levels of a perturbation side by side and ascending: some may have been
    measured later.

    Adds `repeats`, `accuracy_std` (spread between noisy copies, NaN for one copy) and `accuracy_finer` (of
    `correct_finer`; NaN unless every copy has it). The interval is Wilson's at n = the number of distinct images,
    not n × repeats: the repeats look at the same images, so their counts are not independent and pooling them would
    make the interval too narrow. For the mean over R copies Var = Var_i(p_i)/n + E_i[p_i(1−p_i)]/(nR) ≤ p(1−p)/n, so
    this interval errs to the wide side. It covers the choice of test images and of the noise; it does not cover the
    training seed.

    Raises:
        ValueError: copies of one measurement have different `flow_discrete`: they are of different networks.
    """
    rows = rows.assign(code=rows["code"].map(canonical).astype(str))
    key = [name for name in _key(rows) if name != "repeat"]
    summaries = []
    for _, group in rows.groupby(key, sort=False, dropna=False):
        last = group.iloc[-1].to_dict()
        bounds = group["flow_discrete"].to_numpy(float)
        if not np.allclose(bounds, bounds[0], rtol=ROUNDING, atol=0.0, equal_nan=True):
            raise ValueError(
                f"one measurement of {last['run']} has flow_discrete {sorted(set(bounds))}: several networks"
            )
        n = int(group["n"].min())
        accuracy = float(group["correct"].sum() / group["n"].sum())
        low, high = wilson(accuracy * n, n)
        finer = pd.to_numeric(group["correct_finer"], errors="coerce").astype(float).sum(skipna=False)
        last |= {
            "n": n, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high,
            "repeats": len(group), "accuracy_std": float(group["accuracy"].std()),
            "seconds": float(group["seconds"].sum()), "accuracy_finer": float(finer / group["n"].sum()),
        }  # fmt: skip
        summaries.append(last)
    columns = [name for name in rows.columns if name not in ("repeat", "correct", "correct_finer")]
    return _in_order(pd.DataFrame(summaries, columns=[*columns, "repeats", "accuracy_std", "accuracy_finer"]))


def _in_order(summary: pd.DataFrame) -> pd.DataFrame:
    kind = ["evaluation", "perturbation", "norm"]
    where = [name for name in _key(summary) if name not in (*kind, "suite", "severity", "repeat")]
    seen = [summary.groupby(names, sort=False, dropna=False).ngroup() for names in (where, kind)]
    return summary.iloc[np.lexsort((summary["severity"], seen[1], seen[0]))].reset_index(drop=True)
