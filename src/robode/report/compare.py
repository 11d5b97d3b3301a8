"""Runs side by side: in which keys they differ, how they were trained, and whether one scores better than another on
the same samples, perturbation by perturbation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from robode.config.listing import options
from robode.config.paths import user_conf_dirs
from robode.errors import BadInput, JobFailed
from robode.report.listing import text
from robode.report.paired import SIGNIFICANT
from robode.report.statistics import paired_test
from robode.report.tables import level
from robode.runs import results
from robode.runs.code import canonical, recorded
from robode.runs.lock import state_now
from robode.runs.origin import OTHER_CODE, data_of
from robode.runs.overrides import Groups, differing, read_groups, value_at
from robode.runs.run import Run
from robode.runs.scores import read_scores
from robode.runs.summary import DAMAGED
from robode.runs.table import METRICS
from robode.tasks.measure import Measure, measure_named, t_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS = "▁▂▃▄▅▆▇█"
WIDEST = 40  # characters of a curve
# what was asked of both, and at which level
QUESTION = ("split", "perturbation", "norm", "protocol", "evaluation", "severity_unit", "space", "severity", "n")
COPY = ("noise_seed", "repeat")  # two networks saw the same noisy copy where these agree too


@dataclass(frozen=True)
class Difference:
    """Two runs on the same samples. a, b: their names; difference: mean score of b minus that of a; low, high: its
    interval of 95 %, from the differences of the samples; p: of the test that both score alike."""

    a: str
    b: str
    measure: Measure
    difference: float
    low: float
    high: float
    p: float
    samples: int
    copies: int

    def __str__(self) -> str:
        """ "B − A: +1.3 points [0.4, 2.2], p = 0.004: B is better"."""
        return f"{self.pair}: {self.gap} {self.interval}, p {self.p_said}: {self.verdict}"

    @property
    def pair(self) -> str:
        """ "B − A"."""
        return f"{self.b} − {self.a}"

    @property
    def better(self) -> str:
        """The name of the one that scores better; "" where none is shown to."""
        found = self.b if self.measure.gain(self.difference) > 0 else self.a
        return found if self.p < SIGNIFICANT else ""

    @property
    def verdict(self) -> str:
        """In words."""
        return f"{self.better} is better" if self.better else "no difference is shown"

    @property
    def p_said(self) -> str:
        """ "= 0.004"."""
        return "< 0.0001" if self.p < 1e-4 else f"= {self.p:.2g}".replace("-", "−")

    @property
    def gap(self) -> str:
        """ "+1.3 points", or the difference of scores with their unit."""
        return f"{self._signed(self.difference)} {'points' if self.measure.shares else self.measure.unit}"

    @property
    def interval(self) -> str:
        """ "[+0.4, +2.2]"."""
        return f"[{self._signed(self.low)}, {self._signed(self.high)}]"

    def _signed(self, value: float) -> str:
        return (f"{100 * value:+.1f}" if self.measure.shares else f"{value:+.3g}").replace("-", "−")


@dataclass(frozen=True)
class Question:
    """One perturbation at one level. title: what it is; scores: name of a run -> mean score with its interval."""

    title: str
    scores: Mapping[str, str]
    differences: Sequence[Difference]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, by short names. states: how far each is; logs: what was logged in its training;
    configurations: of `configurations`, the head first; notes: what could not be compared, and why; warnings: damaged
    files."""

    runs: Mapping[str, Run]
    states: Mapping[str, str]
    logs: Mapping[str, pd.DataFrame]
    configurations: Sequence[Sequence[str]]
    questions: Sequence[Question]
    notes: Sequence[str]
    warnings: Sequence[str]


OTHER_NOISE = "other noise in each: robode evaluate run=RUN seed=0 for all of them makes them comparable"
SAME = "The configurations decide the same training."
SEVERAL = "Each p is of one test by itself: of twenty tests of equal networks one is below 0.05 on average."


def compared(runs: Mapping[str, Run]) -> Comparison:
    """What the files of the runs say. Raises `BadInput` and `JobFailed` where they are damaged."""
    table = configurations(runs)
    warnings = [run.damage for run in runs.values() if run.damage]
    states = {name: _state(run) for name, run in runs.items()}
    logs = {name: _log(run, warnings) for name, run in runs.items()}
    asked = questions(runs, warnings)
    apart = [f"{a} and {b}" for (a, one), (b, two) in combinations(runs.items(), 2) if not same_data(one, two)]
    notes = [
        f"{name} is interrupted: robode train resume={quote(str(runs[name].folder))} goes on with it"
        for name, state in states.items()
        if state.startswith("interrupted") and runs[name].last.is_file()
    ]
    if any(OTHER_CODE in state for state in states.values()):
        notes.append(f"{OTHER_CODE} trained by other code than this")
    if not asked and not apart:
        notes.append("No perturbation and level was measured for two of them: robode evaluate run=RUN suite=noise")
    if sum(len(question.differences) for question in asked) > 1:
        notes.append(SEVERAL)
    if apart:
        notes.append(f"Not tested: {', '.join(apart)} saw other data, so that their samples are not the same.")
    return Comparison(runs, states, logs, table, asked, notes, warnings)


def _state(run: Run) -> str:
    """As the list of runs has it, with † where other code made the weights."""
    other = run.of_other_code(run.config().plain())
    return (DAMAGED if run.damage else state_now(run)) + f" {OTHER_CODE}" * other


def _log(run: Run, warnings: list[str]) -> pd.DataFrame:
    """metrics.csv; a damaged one is named in `warnings`, and as none."""
    path = run.folder / "metrics.csv"
    try:
        return METRICS.read(path)
    except (BadInput, JobFailed) as error:
        warnings.append(str(error))
        return METRICS.read(path.with_name("no such file"))


def configurations(runs: Mapping[str, Run]) -> list[list[str]]:
    """A table: the keys in which the runs differ, a column a run; then where data and code came from."""
    groups: list[Groups] = [read_groups(run.folder) for run in runs.values()]
    lines = [[key, *(text(value_at(each, key)) for each in groups)] for key in differing(groups)]
    for name, digest in (("data digest", data_of), ("code digest", _code_of)):
        found = [digest(run.folder) or "not kept" for run in runs.values()]
        if len(set(found)) > 1:
            lines.append([name, *found])
    return [["key", *runs], *lines]


def _code_of(folder: Path) -> str:
    return canonical(recorded(folder))


def same_data(a: Run, b: Run) -> bool:
    """Whether nothing says that two runs have seen other samples."""
    digests = {data_of(run.folder) for run in (a, b)} - {""}
    return len(digests) < 2


def questions(runs: Mapping[str, Run], warnings: list[str]) -> list[Question]:
    """What at least two of the runs were measured on, in the order of the first: their scores and the paired tests of
    every two. A file of scores that is damaged or gone is left out and named in `warnings`, the first of each run.

    Raises:
        BadInput: a damaged results.csv.
    """
    tables = {name: _measured(run) for name, run in runs.items()}
    asked: dict[tuple[Hashable, ...], dict[str, pd.DataFrame]] = {}
    for name, rows in tables.items():
        for key, here in rows.groupby(list(QUESTION), sort=False, dropna=False):
            asked.setdefault(key, {})[name] = here
    unread: dict[str, list[str]] = {}
    found = [_question(runs, here, unread) for here in asked.values() if len(here) > 1]
    for name, lines in ((name, lines) for name, lines in unread.items() if lines):
        more = f" (and {len(lines) - 1} more files of scores of {name})" if len(lines) > 1 else ""
        warnings.append(f"{name}: {lines[0]}{more}")
    return found


def _measured(run: Run) -> pd.DataFrame:
    """The rows of best.ckpt, or of last.ckpt where there is no best one."""
    rows = results.current(run.folder / "results.csv")
    for checkpoint in ("best", "last"):
        if len(found := rows[rows["checkpoint"] == checkpoint]):
            return found
    return rows


def _question(runs: Mapping[str, Run], rows: Mapping[str, pd.DataFrame], unread: dict[str, list[str]]) -> Question:
    """unread: name of a run -> a line for each file of scores that cannot be read, to which this adds."""
    first = next(iter(rows.values())).iloc[0]
    measure = measure_named(first["task"])
    parts = [str(first["perturbation"]).replace("_", " "), level(first)]
    title = ", ".join(part for part in parts if part != "–") + f" ({first['split']}, {first['protocol']})"
    scores = {name: _score(measure, here) for name, here in rows.items()}
    of_samples = {name: _scores(runs[name], here, unread.setdefault(name, [])) for name, here in rows.items()}
    asked = {name: {_copy(row) for row in here.to_dict("records")} for name, here in rows.items()}
    found: list[Difference] = []
    notes: dict[str, None] = {}
    for a, b in combinations(rows, 2):
        if not same_data(runs[a], runs[b]):
            continue
        shared = [copy for copy in of_samples[a] if copy in of_samples[b]]
        if not asked[a] & asked[b]:
            notes[OTHER_NOISE] = None
        elif not shared:
            notes |= {
                _unread(name, runs[name], rows[name]): None for name in (a, b) if asked[name] - {*of_samples[name]}
            }
        else:
            found.append(
                _difference(a, b, measure, *([of[copy] for copy in shared] for of in (of_samples[a], of_samples[b])))
            )
    return Question(title, scores, found, "; ".join(notes))


def _unread(name: str, run: Run, rows: pd.DataFrame) -> str:
    """What is missing, and the command that writes it again. Of a suite rows know what was in it, which is not always
    the name of one."""
    row = rows.iloc[0]
    suite, known = str(row["suite"]), options("suite", user_conf_dirs())
    words = (
        f"run={quote(str(run.folder))} suite={suite if suite in known else 'SUITE'} protocol={row['protocol']} "
        f"seed={row['noise_seed']} repeats={rows['repeat'].max() + 1}"
    )
    which = "" if suite in known else f" (SUITE: the one with {suite} that was measured)"
    again = f"robode evaluate {words}{which} writes them again"
    return f"not tested, the scores of the samples of {name} cannot be read: {again}"


def _difference(a: str, b: str, measure: Measure, of_a: Sequence[np.ndarray], of_b: Sequence[np.ndarray]) -> Difference:
    one, two = np.stack(of_a), np.stack(of_b)
    test = paired_test(two, one)
    each = (two.astype(np.float64) - one).mean(axis=0)
    low, high = t_interval(each)
    return Difference(a, b, measure, test.difference, low, high, test.p, test.samples, test.copies)


def _score(measure: Measure, rows: pd.DataFrame) -> str:
    summary = results.summarise(rows).iloc[0]
    copies = f", {summary['repeats']} copies" if summary["repeats"] > 1 else ""
    interval = measure.interval(summary["score_low"], summary["score_high"])
    return f"{measure.text(summary['score'])} {interval}, n = {summary['n']}{copies}"


def _copy(row: Mapping[Hashable, Any]) -> tuple[Hashable, ...]:
    return tuple(row[name] for name in COPY) if row["perturbation"] != "clean" else ()


def _scores(run: Run, rows: pd.DataFrame, unread: list[str]) -> dict[tuple[Hashable, ...], np.ndarray]:
    """Scores (n,) of each copy; without noise there is one, whatever its seed."""
    found = {}
    for row in rows.to_dict("records"):
        try:
            found[_copy(row)] = read_scores(run.folder, {str(key): value for key, value in row.items()})
        except JobFailed as error:
            unread.append(str(error))
    return found


def curves(logs: Mapping[str, pd.DataFrame]) -> list[str]:
    """A line for each score and loss that was logged and each run: its curve over the epochs, its best and last."""
    names = _logged(list(logs.values()))
    lines = []
    for name in names:
        series = {run: log[log["name"] == name]["value"].to_numpy(float) for run, log in logs.items()}
        series = {run: values[np.isfinite(values)] for run, values in series.items()}
        shown = np.concatenate(list(series.values()))
        if len(shown):
            lines.append(name)
            lines += [
                f"  {run}  {spark(values, shown.min(), shown.max())}  {values[0]:.4g} → {values[-1]:.4g}, "
                f"least {values.min():.4g}, largest {values.max():.4g}"
                for run, values in series.items()
                if len(values)
            ]
    return lines


def _logged(logs: Sequence[pd.DataFrame]) -> list[str]:
    """Losses and scores, of which something was logged more than once."""
    names = dict.fromkeys(str(name) for log in logs for name in log["name"])
    return [name for name in names if name.startswith("validation/") or name == "train/loss"]


def spark(values: np.ndarray, low: float, high: float) -> str:
    """A curve in a line of text, between two values that several curves share."""
    where = np.linspace(0, len(values) - 1, min(len(values), WIDEST)).round().astype(int)
    share = (values[where] - low) / (high - low) if high > low else np.zeros(len(where))
    return "".join(BARS[min(int(each * len(BARS)), len(BARS) - 1)] for each in share)


def curves_figure(logs: Mapping[str, pd.DataFrame]) -> Figure | None:
    """A panel for each loss and score, a line a run; None where nothing was logged."""
    from matplotlib.ticker import MaxNLocator

    from robode.report.figures import curve, over_epochs
    from robode.report.style import legend_above, panels, shades, styled

    names = _logged(list(logs.values()))
    if not names:
        return None
    with styled():
        figure, axes = panels(len(names))
        for ax, name in zip(axes, names, strict=True):
            for (run, log), color in zip(logs.items(), shades(len(logs)), strict=True):
                curve(ax, over_epochs(log[log["name"] == name]), run, color, "-")
            ax.set(title=name, xlabel="epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            legend_above(ax)
    return figure
