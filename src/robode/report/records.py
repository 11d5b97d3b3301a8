"""The rows of results.csv, robustness_sweep.csv, metrics.csv and bsm.csv: what a row must hold, how it is
written, read and summarised."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from robode.report import journal

# weights: a hash of what the checkpoint held (it is written anew when a run goes on); seed: of the training
COLUMNS = (
    "run", "checkpoint", "weights", "experiment", "model", "data", "split", "depth", "integrator", "params",
    "seed", "protocol", "noise_seed", "suite", "perturbation", "norm", "severity", "severity_unit", "space",
    "solver", "repeat", "n", "correct", "accuracy", "accuracy_low", "accuracy_high", "flow_ode",
    "flow_discrete", "seconds", "commit",
)  # fmt: skip
METRIC_COLUMNS = ("epoch", "step", "name", "value")
BSM_COLUMNS = ("step", "layer", "bsm_median", "bsm_max", "bsm_norm_of_mean", "step_median", "step_max")

# What was found, as opposed to what was asked: two rows that differ only here are one measurement repeated.
FINDINGS = (
    "params", "n", "correct", "accuracy", "accuracy_low", "accuracy_high", "flow_ode", "flow_discrete",
    "seconds", "commit",
)  # fmt: skip
# A perturbation without a norm, a flow without a certificate … ; everything else must be said.
MAY_BE_MISSING = frozenset(
    ("experiment", "norm", "solver", "commit", "accuracy", "accuracy_low", "accuracy_high", "flow_ode",
     "flow_discrete")
)  # fmt: skip
_WHOLE = ("depth", "params", "seed", "noise_seed", "repeat", "n", "correct", "epoch", "step", "layer")
_REAL = (
    "severity", "accuracy", "accuracy_low", "accuracy_high", "flow_ode", "flow_discrete", "seconds", "value",
    "bsm_median", "bsm_max", "bsm_norm_of_mean", "step_median", "step_max",
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
    """Rows of results.csv or robustness_sweep.csv, one per key (all columns but FINDINGS): the last wins.

    Text columns hold str ("" = not given), whole numbers Int64, the rest float. No file: an empty frame.

    Raises:
        JobFailed: the file exists but cannot be read.
    """
    frame = _typed(journal.read(Path(path)), COLUMNS)
    frame["severity"] = frame["severity"].fillna(0.0)  # the clean set has no severity
    key = [name for name in frame.columns if name not in FINDINGS]
    return frame.drop_duplicates(key, keep="last", ignore_index=True)


def read_metrics(path: Path | str) -> pd.DataFrame:
    """The training log, METRIC_COLUMNS sorted by step; the last row of a (step, name) wins."""
    frame = _typed(journal.read(Path(path)), METRIC_COLUMNS)
    frame = frame.drop_duplicates(["step", "name"], keep="last")
    return frame.sort_values("step", kind="stable", ignore_index=True)


def read_bsm(path: Path | str) -> pd.DataFrame:
    """The backward sensitivity log, BSM_COLUMNS sorted by step and layer; the last row of a pair wins."""
    frame = _typed(journal.read(Path(path)), BSM_COLUMNS)
    frame = frame.drop_duplicates(["step", "layer"], keep="last")
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
    """The rows of the weights that each checkpoint name of a run (at each epoch, in a sweep) stood for last.

    A run that goes on replaces best.ckpt and last.ckpt; what was measured before describes weights that are gone.
    """
    name = [column for column in ("run", "checkpoint", "epoch") if column in rows]
    last = rows.groupby(name, dropna=False, sort=False)["weights"].transform("last")
    return rows[rows["weights"] == last].reset_index(drop=True)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per measurement: the mean over repeats (noisy copies of the same images), in file order.

    Adds `repeats` and `accuracy_std` (spread between noisy copies, NaN for one copy). The interval is
    Wilson's at n = the number of distinct images, not n × repeats: the repeats look at the same images, so
    their counts are not independent and pooling them would make the interval too narrow. For the mean over
    R copies Var = Var_i(p_i)/n + E_i[p_i(1−p_i)]/(nR) ≤ p(1−p)/n, so this interval errs to the wide side. It
    covers the choice of test images and of the noise; it does not cover the training seed.

    Raises:
        ValueError: copies of one measurement have different `flow_discrete`: they are of different networks.
    """
    key = [name for name in rows.columns if name not in FINDINGS and name != "repeat"]
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
        last |= {
            "n": n, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high,
            "repeats": len(group), "accuracy_std": float(group["accuracy"].std()),
            "seconds": float(group["seconds"].sum()),
        }  # fmt: skip
        del last["repeat"], last["correct"]
        summaries.append(last)
    columns = [name for name in rows.columns if name not in ("repeat", "correct")]
    return pd.DataFrame(summaries, columns=[*columns, "repeats", "accuracy_std"])
