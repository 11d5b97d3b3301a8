"""What a run has measured: results.csv (robustness_sweep.csv is like it) with the score of each sample beside it, and
numbers.csv. What is there is never measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robode.errors import BadInput, JobFailed
from robode.files import clear_drafts
from robode.foreign import blamed
from robode.runs.code import Today, canonical, network_of, remember
from robode.runs.earlier import rows_in_todays_words
from robode.runs.run import Run
from robode.runs.scores import SCORES, read_scores, write_scores
from robode.runs.table import Row, Table, header, read_once, records
from robode.tasks.measure import CLASSIFICATION, measure_named, wilson

# What was measured: rows that agree here are one measurement, which is never made twice. The name of the checkpoint is
# no part of it: best.ckpt and last.ckpt may hold the same weights. Digests of code that are attested equal are one.
IDENTITY = (
    "run", "weights", "split", "evaluation", "protocol", "noise_seed", "suite", "perturbation", "norm", "severity",
    "repeat", "code",
)  # fmt: skip
# Columns that files of earlier versions lack. engine: what computed the flow (`ode.chain`). end_to_end: certified
# Lipschitz constant of x -> output in data units.
# Others have another name there (`renamed`): they counted right answers.
ADDED = frozenset(("score_reference", "end_to_end", "code", "engine"))
# A perturbation without a norm, a flow without a certificate … ; everything else must be said.
MAY_BE_MISSING = ADDED | {
    "experiment", "norm", "solver", "commit", "score_low", "score_high", "flow_ode", "flow_discrete",
}  # fmt: skip
NUMBER_KINDS = ("exact", "certified_lower", "certified_upper", "attack_upper", "measured")
ROUNDING = 1e-4  # a CPU and a GPU find certificates of the same weights that differ by less


def renamed(old: pd.DataFrame) -> pd.DataFrame:
    """A table of texts with columns correct (and correct_finer, accuracy, …) with task and scores instead, and
    score_finer under its name of today; any other as it is."""
    old = rows_in_todays_words(old.rename(columns={"score_finer": "score_reference"}))
    if "correct" not in old or "score" in old:
        return old
    n = pd.to_numeric(old["n"], errors="coerce")
    new = old.assign(task=str(CLASSIFICATION), score=_texts(pd.to_numeric(old["correct"], errors="coerce") / n))
    if "correct_finer" in old:
        new = new.assign(score_reference=_texts(pd.to_numeric(old["correct_finer"], errors="coerce") / n))
    new = new.rename(columns={"accuracy_low": "score_low", "accuracy_high": "score_high"})
    kept = [name for name in new if name not in ("correct", "correct_finer", "accuracy")]
    known = [name for name in COLUMNS if name in kept]
    return new[[*known, *(name for name in kept if name not in known)]]


def _texts(numbers: pd.Series) -> list[str]:
    """As `Table.append` writes them."""
    return ["" if np.isnan(value) else repr(float(value)) for value in numbers]


# weights: a hash of what the checkpoint held (it is written anew when a run goes on); seed: of the training;
# evaluation: `evaluation.suite.evaluation_digest`; code: `code.measuring_code`, empty where an earlier version measured
RESULTS = Table(
    {
        "run": str, "checkpoint": str, "weights": str, "experiment": str, "model": str, "data": str, "split": str,
        "depth": int, "integrator": str, "params": int, "seed": int, "protocol": str, "noise_seed": int,
        "evaluation": str, "suite": str, "perturbation": str, "norm": str, "severity": float, "severity_unit": str,
        "space": str, "solver": str, "repeat": int, "n": int, "task": str, "score": float, "score_reference": float,
        "score_low": float, "score_high": float, "flow_ode": float, "flow_discrete": float, "end_to_end": float,
        "seconds": float, "commit": str, "code": str, "engine": str,
    },
    key=(*IDENTITY, "checkpoint"), added=ADDED, renamed=renamed,
)  # fmt: skip
COLUMNS = tuple(RESULTS.columns)
SWEEP = replace(RESULTS, columns={**RESULTS.columns, "epoch": int}, key=(*RESULTS.key, "epoch"))
# settings: `evaluation.suite.settings_digest` of what measured it, empty where an earlier version did
NUMBERS = Table(
    {
        "run": str, "checkpoint": str, "weights": str, "seed": int, "quantity": str, "value": float, "low": float,
        "high": float, "kind": str, "commit": str, "code": str, "settings": str,
    },
    key=("run", "checkpoint", "weights", "quantity", "kind"), added=frozenset(("code", "settings")),
)  # fmt: skip


def append_rows(path: Path | str, rows: Iterable[Row]) -> None:
    """Append result rows (keys: COLUMNS, and `epoch` in every row or in none) to a tidy CSV file.

    score: the mean over the n samples, of shares a whole number of n-ths; score_reference: the same with the reference
    solver, for clean and attacked samples. The interval of a share is Wilson's, whatever a row says; any other must be
    said.

    Raises:
        ValueError: a row that lacks a column, has an unknown one, or contradicts itself.
        JobFailed: the file cannot be written.
    """
    complete = [_completed(row) for row in rows]
    with_epoch = {"epoch" in row for row in complete}
    if len(with_epoch) > 1:
        raise ValueError("expected `epoch` in every row of a call or in none")
    remember(Path(path).parent, [row.get("code") or "" for row in complete])
    (SWEEP if with_epoch == {True} else RESULTS).append(path, complete)


def identity(row: Row) -> tuple[Any, ...]:
    """What tells the measurement of a row from others, in the order of IDENTITY; None and "" are the same."""
    known = {**row, "code": canonical(row.get("code") or "")}
    return tuple("" if known[name] is None else known[name] for name in IDENTITY)


def _completed(row: Row) -> dict[str, Any]:
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
        BadInput: a damaged file, or one with a score that cannot be.
        JobFailed: the file exists but cannot be read.
    """
    return read_once(path, _read_rows)


def _read_rows(path: Path | str) -> pd.DataFrame:
    frame = (SWEEP if "epoch" in header(Path(path)) else RESULTS).read(path)
    for task, rows in frame.groupby("task"):
        with blamed(f"{path}: damaged"):
            possible = rows["score"].between(0, 1) if measure_named(task).shares else rows["score"].notna()
        if len(wrong := rows[~(possible & (rows["n"] >= 1).fillna(False))]):
            score, n = wrong.iloc[0][["score", "n"]]
            raise BadInput(f"{path}: damaged, score={score} of n={n} samples in row {wrong.index[0] + 1} cannot be")
    return frame.fillna({"severity": 0.0})  # the clean set has none


def append_numbers(path: Path | str, rows: Iterable[Row]) -> None:
    """Append numbers that are no accuracies (keys: columns of NUMBERS) to numbers.csv in a run folder.

    quantity: its name, with its unit where it has one. kind: one of NUMBER_KINDS, what `value` is to the true
    quantity. low, high: an interval around `value`, where there is one. checkpoint and weights: where it belongs
    to one network; a number about a whole training leaves them out.

    Raises:
        ValueError: a row that lacks run, quantity, value or kind, has an unknown column or an unknown kind.
        JobFailed: the file cannot be written.
    """
    rows = list(rows)
    for row in rows:
        unknown = [name for name in row if name not in NUMBERS.columns]
        missing = [name for name in ("run", "quantity", "value", "kind") if row.get(name) in (None, "")]
        if unknown or missing:
            raise ValueError(f"a row of numbers has unknown columns {unknown} and lacks {missing}")
        if row["kind"] not in NUMBER_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(NUMBER_KINDS)}, got {row['kind']!r}")
    remember(Path(path).parent, [row.get("code") or "" for row in rows])
    NUMBERS.append(path, rows)


def read_numbers(path: Path | str, today: Today | None = None) -> pd.DataFrame:
    """Numbers that are no accuracies; the last of a (run, checkpoint, weights, quantity, kind) wins.

    today: rather one that today's code measured; adds the column other_code.

    Raises:
        JobFailed: the file exists but cannot be read.
    """
    if today is None:
        return read_once(path, _read_numbers)
    frame = with_other_code(read_once(path, _read_numbers_of_codes), today)
    rather = frame.sort_values("other_code", ascending=False, kind="stable")
    return rather.drop_duplicates(list(NUMBERS.key), keep="last").sort_index().reset_index(drop=True)


def _read_numbers(path: Path | str) -> pd.DataFrame:
    return _in_todays_words(NUMBERS.read(path))


def _read_numbers_of_codes(path: Path | str) -> pd.DataFrame:
    return _in_todays_words(replace(NUMBERS, key=(*NUMBERS.key, "code")).read(path))


def _in_todays_words(numbers: pd.DataFrame) -> pd.DataFrame:
    """The quantities of earlier versions have the names of today."""
    return numbers.assign(quantity=numbers["quantity"].str.replace("masking/believable", "masking/passes"))


class Store:
    """What a run folder knew when this was made, and what has been added since.

    Only one process at a time may have a store that it adds to; see `lock.held`.

    Raises:
        BadInput: results.csv is damaged, or of another version of robode.
    """

    def __init__(self, folder: Path | str):
        self.folder, self.path = Path(folder), Path(folder) / "results.csv"
        RESULTS.prepare(self.path)
        for draft in (self.folder / SCORES).glob(".*"):  # of a process that was killed: nobody else writes here now
            draft.unlink(missing_ok=True)
        for place in (self.folder, self.folder / "figures"):
            clear_drafts(place)
        rows = read_rows(self.path)
        self._rows = {identity(row): row for row in records(rows)}
        self._newest = {(row["checkpoint"], *identity(row)) for row in records(newest(rows))}

    def __contains__(self, asked: Row) -> bool:
        """Whether a row (the columns of IDENTITY and n) has been measured, under any checkpoint's name, with scores."""
        known = self._rows.get(identity(asked))
        return known is not None and bool(known["n"] == asked["n"]) and self.scores(known) is not None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, one for each measurement."""
        return iter(list(self._rows.values()))

    def scores(self, row: Row) -> np.ndarray | None:
        """The score of each sample, (n,) float32; None where that was removed or damaged, and where a process was
        killed between new scores and their row."""
        try:
            return read_scores(self.folder, row)
        except JobFailed:
            return None

    def add(self, rows: Sequence[Row], scores: Sequence[np.ndarray]) -> None:
        """Put complete rows and their scores, (n,) each, onto the disk: after a kill all scores of a row are there, or
        the row is not.

        Raises:
            JobFailed: the disk refuses.
        """
        for row, each in zip(rows, scores, strict=True):
            write_scores(self.folder, row, each)
        append_rows(self.path, rows)
        for row in rows:
            self._rows[identity(row)] = dict(row)
            self._newest.add((row["checkpoint"], *identity(row)))

    def replace(self, row: Row, scores: np.ndarray) -> None:
        """Put other scores in the place of known ones, under every checkpoint's name that it stands for."""
        names = [name for name, *known in self._newest if tuple(known) == identity(row)]
        self.add([{**row, "checkpoint": name} for name in sorted(names)], [scores] * len(names))

    def rows(self, asked: Iterable[Row]) -> list[dict[str, Any]]:
        """The rows asked for, in that order, each under the checkpoint's name that was asked for.

        Where it stands in the file under another name only (best.ckpt and last.ckpt may hold the same weights), or
        other weights have had the name since, a copy is appended: readers of the file take the last weights of a name.
        """
        found = [{**self._rows[identity(each)], "checkpoint": each["checkpoint"]} for each in asked]
        stale = [row for row in found if (row["checkpoint"], *identity(row)) not in self._newest]
        append_rows(self.path, stale)
        return found


def current(path: Path | str) -> pd.DataFrame:
    """The rows of a run's results.csv or robustness_sweep.csv that describe it now: `newest`, rather of today's code.

    Raises `JobFailed` where the file exists but cannot be read."""
    return newest(read_rows(path), todays(Path(path).parent))


def todays(folder: Path) -> Today | None:
    """What today's code makes of the rows in a folder; None where that is no run's, or not one that can be read."""
    try:
        return Today.of(folder, Run(folder).config().plain()) if Run(folder).exists else None
    except BadInput:
        return None


def with_other_code(rows: pd.DataFrame, today: Today) -> pd.DataFrame:
    """The same with a column other_code: whether other code than today's measured the row."""
    return rows.assign(other_code=~_each(rows["code"], today.measured).astype(bool))


def _each(codes: pd.Series, what: Callable[[str], Any]) -> pd.Series:
    """A function of each code, of which there are few, called once for each."""
    return codes.map({code: what(code) for code in codes.unique()})


def newest(rows: pd.DataFrame, today: Today | None = None) -> pd.DataFrame:
    """The rows of the weights that each checkpoint name of a run (at each epoch, in a sweep) stood for last, as the
    code that ran the network last found them; of a perturbation whose own code has changed, the last answers.

    A run that goes on replaces best.ckpt and last.ckpt; what was measured before describes weights that are gone. Rows
    that two codes measured are never side by side. today: what its code measured goes before what other code has
    measured since; adds the column other_code. All rows are of one run then.
    """
    name = [column for column in ("run", "checkpoint", "epoch") if column in rows]
    shown = _of_last(rows, name, "weights")
    shown = shown.assign(
        network=_each(shown["code"], network_of).astype(str), own=_each(shown["code"], canonical).astype(str)
    )
    shown = _of_last(shown, name, "network", today.ran if today else None)
    question = [*name, "split", "evaluation", "noise_seed"]  # a perturbation as it was set up, at all its levels
    shown = _of_last(shown, question, "own", today.measured if today else None)
    shown = shown.drop(columns=["network", "own"]).reset_index(drop=True)
    return with_other_code(shown, today) if today else shown


def _of_last(
    rows: pd.DataFrame, by: list[str], column: str, better: Callable[[str], bool] | None = None
) -> pd.DataFrame:
    """The rows that have the last value of a column in their group; the last of a row whose code is better, if there is
    one."""
    if rows[column].nunique(dropna=False) <= 1:
        return rows
    ordered = rows
    if better:
        ordered = rows.assign(better=_each(rows["code"], better).astype(bool)).sort_values("better", kind="stable")
    last = ordered.groupby(by, dropna=False, sort=False)[column].transform("last").reindex(rows.index)
    return rows[rows[column] == last]


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per measurement: the mean over repeats (noisy copies of the same images).

    In the order of the file, but with the levels of a perturbation side by side and ascending: some may have been
    measured later.

    Adds `repeats` and `score_std` (spread between noisy copies, NaN for one); score_reference is NaN unless every copy
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
    key = [name for name in _measurement(rows) if name != "repeat"]
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


def _measurement(rows: pd.DataFrame) -> Sequence[str]:
    return SWEEP.key if "epoch" in rows else RESULTS.key


def _over_copies(group: pd.DataFrame, n: int) -> dict[str, float]:
    """score, score_reference and the interval of several noisy copies of the same n samples."""
    reference = pd.to_numeric(group["score_reference"], errors="coerce").astype(float)
    if measure_named(group["task"].iloc[-1]).shares:
        total = int(group["n"].sum())
        score = sum(counted(*each) for each in zip(group["score"], group["n"], strict=True)) / total
        low, high = wilson(score * n, n)
        again = (reference * group["n"].astype(float)).round().sum(skipna=False) / total
    else:
        score, again = group["score"].mean(), reference.mean(skipna=False)
        low, high = group["score_low"].min(), group["score_high"].max()
        half = np.maximum(group["score_high"] - group["score"], group["score"] - group["score_low"]).mean()
        if np.isfinite(half):  # a copy's end that its task cuts off (an error is not below 0) cuts the mean's off too
            low, high = max(score - half, low), min(score + half, high)
    return {"score": float(score), "score_reference": float(again), "score_low": float(low), "score_high": float(high)}


def _in_order(summary: pd.DataFrame) -> pd.DataFrame:
    kind = ["evaluation", "perturbation", "norm"]
    where = [name for name in _measurement(summary) if name not in (*kind, "suite", "severity", "repeat")]
    seen = [summary.groupby(names, sort=False, dropna=False).ngroup() for names in (where, kind)]
    return summary.iloc[np.lexsort((summary["severity"], seen[1], seen[0]))].reset_index(drop=True)
