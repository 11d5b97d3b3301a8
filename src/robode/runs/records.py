"""The rows of results.csv, robustness_sweep.csv, numbers.csv, metrics.csv and bsm.csv: what a row must hold,
how it is written, read and summarised."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robode.runs import journal
from robode.runs.code import canonical, network_of
from robode.runs.earlier import rows_in_todays_words
from robode.tasks.measure import CLASSIFICATION, measure_named, wilson

# weights: a hash of what the checkpoint held (it is written anew when a run goes on); seed: of the training;
# evaluation: a hash of the perturbation without its severities, the protocol and the data (robustness.evaluation);
# code: which code measured it (code_digest.measuring_code), empty where an earlier version did
COLUMNS = (
    "run", "checkpoint", "weights", "experiment", "model", "data", "split", "depth", "integrator", "params",
    "seed", "protocol", "noise_seed", "evaluation", "suite", "perturbation", "norm", "severity", "severity_unit",
    "space", "solver", "repeat", "n", "task", "score", "score_finer", "score_low", "score_high",
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
# Columns that files of earlier versions lack; `widen` adds them. end_to_end: certified Lipschitz constant of x ->
# output in data units. Others have another name there (`renamed`): they counted right answers.
ADDED = ("score_finer", "end_to_end", "code")
# A perturbation without a norm, a flow without a certificate … ; everything else must be said.
MAY_BE_MISSING = frozenset(
    ("experiment", "norm", "solver", "commit", "score_low", "score_high", "flow_ode", "flow_discrete", *ADDED)
)  # fmt: skip
_WHOLE = ("depth", "params", "seed", "noise_seed", "repeat", "n", "epoch", "step", "layer")
_REAL = (
    "severity", "score", "score_finer", "score_low", "score_high", "flow_ode", "flow_discrete", "end_to_end", "seconds",
    "value", "low", "high", "bsm_median", "bsm_max", "bsm_norm_of_mean", "step_median", "step_max",
)  # fmt: skip
ROUNDING = 1e-4  # a CPU and a GPU find certificates of the same weights that differ by less


def append_rows(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append result rows (keys: COLUMNS, and `epoch` in every row or in none) to a tidy CSV file.

    score: the mean over the n samples, of shares a whole number of n-ths; score_finer: the same with a finer solver,
    for clean and attacked samples. The interval of a share is Wilson's, whatever a row says; any other must be said.

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


def widen(path: Path | str) -> None:
    """Gives a file of result rows that an earlier version wrote today's columns: those of `ADDED` empty, others
    `renamed`.

    Raises:
        JobFailed: the disk refuses.
    """
    path = Path(path)
    epoch = ("epoch",) if path.is_file() and "epoch" in journal.read(path) else ()
    journal.widen(path, (*COLUMNS, *epoch), ADDED, renamed)


def renamed(old: pd.DataFrame) -> pd.DataFrame:
    """A table of texts with columns correct (and correct_finer, accuracy, …) with task and scores instead; any other
    as it is, but for names that have changed."""
    old = rows_in_todays_words(old)
    if "correct" not in old or "score" in old:
        return old
    n = pd.to_numeric(old["n"])
    score = pd.to_numeric(old["correct"]) / n
    new = old.assign(task=str(CLASSIFICATION), score=[_text(value) for value in score])
    if "correct_finer" in old:
        finer = pd.to_numeric(old["correct_finer"], errors="coerce") / n
        new = new.assign(score_finer=[_text(value) for value in finer])
    new = new.rename(columns={"accuracy_low": "score_low", "accuracy_high": "score_high"})
    kept = [name for name in new if name not in ("correct", "correct_finer", "accuracy")]
    known = [name for name in COLUMNS if name in kept]
    return new[[*known, *(name for name in kept if name not in known)]]


def _text(value: float) -> str:
    """A number as `journal.append` writes it."""
    return "" if np.isnan(value) else repr(float(value))


def identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the measurement of a row from others, in the order of IDENTITY; None and "" are the same."""
    known = {**row, "code": canonical(row.get("code") or "")}
    return tuple("" if known[name] is None else known[name] for name in IDENTITY)


def _completed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A checked copy of the row with score_low and score_high."""
    unknown = [name for name in row if name not in COLUMNS and name != "epoch"]
    missing = [name for name in COLUMNS if name not in row and name not in MAY_BE_MISSING]
    if unknown or missing:
        raise ValueError(f"a results row has unknown columns {unknown} and lacks {missing}")
    if row["severity"] is not None and not row["severity"] >= 0:
        raise ValueError(f"severity must not be negative, got {row['severity']}")
    if not measure_named(row["task"]).shares:
        low, high = row.get("score_low"), row.get("score_high")
        if low is None or high is None or not low <= row["score"] <= high:
            raise ValueError(f"expected score_low <= score <= score_high, got {low}, {row['score']}, {high}")
        return dict(row)
    count = counted(row["score"], row["n"])
    if abs(count / row["n"] - row["score"]) > 1e-6:
        raise ValueError(f"score: expected a share of {row['n']} samples, got {row['score']}")
    low, high = wilson(count, row["n"])
    return {**row, "score": count / row["n"], "score_low": low, "score_high": high}


def counted(score: float, n: int) -> int:
    """How many of n samples are right where their share is `score`: score n, without what rounding adds."""
    return round(score * n)


def read_rows(path: Path | str) -> pd.DataFrame:
    """Rows of results.csv or robustness_sweep.csv, one for each measurement and checkpoint name: the last wins.

    Text columns hold str ("" = not given), whole numbers Int64, the rest float. No file: an empty frame.

    Raises:
        JobFailed: the file exists but cannot be read.
    """
    frame = _typed(renamed(journal.read(Path(path))), COLUMNS)
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
    shown = shown.assign(own=shown["code"].map(canonical).astype(str))
    question = [*name, "split", "evaluation", "noise_seed"]  # a perturbation as it was set up, at all its levels
    own = shown.groupby(question, dropna=False, sort=False)["own"].transform("last")
    return shown[shown["own"] == own].drop(columns="own").reset_index(drop=True)


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per measurement: the mean over repeats (noisy copies of the same images).

    In the order of the file, but with the levels of a perturbation side by side and ascending: some may have been
    measured later.

    Adds `repeats` and `score_std` (spread between noisy copies, NaN for one copy); score_finer is NaN unless every copy
    has it. The interval of a share is Wilson's at n = the number of distinct images, not n × repeats: the repeats look
    at the same images, so their counts are not independent and pooling them would make the interval too narrow. For the
    mean over R copies Var = Var_i(p_i)/n + E_i[p_i(1−p_i)]/(nR) ≤ p(1−p)/n, so this interval errs to the wide side. So
    does the mean half-width of the copies' intervals, which other scores get: the standard deviation of a mean is at
    most the mean of the standard deviations. It covers the choice of test images and of the noise; it does not cover
    the training seed.

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
        last.update(_over_copies(group, n))
        last |= {
            "n": n, "repeats": len(group), "score_std": float(group["score"].std()),
            "seconds": float(group["seconds"].sum()),
        }  # fmt: skip
        summaries.append(last)
    columns = [name for name in rows.columns if name != "repeat"]
    return _in_order(pd.DataFrame(summaries, columns=[*columns, "repeats", "score_std"]))


def _over_copies(group: pd.DataFrame, n: int) -> dict[str, float]:
    """score, score_finer and the interval of several noisy copies of the same n samples."""
    finer = pd.to_numeric(group["score_finer"], errors="coerce").astype(float)
    if measure_named(group["task"].iloc[-1]).shares:
        total = int(group["n"].sum())
        score = sum(counted(*each) for each in zip(group["score"], group["n"], strict=True)) / total
        low, high = wilson(score * n, n)
        again = (finer * group["n"].astype(float)).round().sum(skipna=False) / total
    else:
        score, again = group["score"].mean(), finer.mean(skipna=False)
        low, high = group["score_low"].min(), group["score_high"].max()
        half = np.maximum(group["score_high"] - group["score"], group["score"] - group["score_low"]).mean()
        if np.isfinite(half):  # a copy's end that its task cuts off (an error is not below 0) cuts the mean's off too
            low, high = max(score - half, low), min(score + half, high)
    return {"score": float(score), "score_finer": float(again), "score_low": float(low), "score_high": float(high)}


def _in_order(summary: pd.DataFrame) -> pd.DataFrame:
    kind = ["evaluation", "perturbation", "norm"]
    where = [name for name in _key(summary) if name not in (*kind, "suite", "severity", "repeat")]
    seen = [summary.groupby(names, sort=False, dropna=False).ngroup() for names in (where, kind)]
    return summary.iloc[np.lexsort((summary["severity"], seen[1], seen[0]))].reset_index(drop=True)
