"""What a sweep would do and how it went: a line for each job, of which nothing is broken or cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Console

from robode.config.jobs import Job, Outcome
from robode.report.listing import best
from robode.report.values import readable_validation
from robode.runs.origin import OTHER_CODE
from robode.tasks.measure import Measure, measure_named
from robode.training.forecast import Forecast, duration


def told_apart(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Of the overrides of each job, those that not every job has; all of them where there is one job."""
    shared = set(jobs[0]).intersection(*jobs) if len(jobs) > 1 else set()
    return [" ".join(each for each in overrides if each not in shared) for overrides in jobs]


def show_outcomes(outcomes: Sequence[Outcome], console: Console) -> None:
    """How each job of a sweep ended: its validation score, by which a setting is chosen, beside its score on the split
    that was measured; the run that is best by validation, and how many there were of what."""
    overrides = [each.overrides for each in outcomes]
    measures = [measure_named(each.result.task if each.result else "") for each in outcomes]
    chosen_by = [_validation(outcome, measure) for outcome, measure in zip(outcomes, measures, strict=True)]
    validated = any(map(math.isfinite, chosen_by))
    split = "" if any(part.startswith("split=") for each in overrides for part in each) else " (test)"
    head = ["job", "ended", *(["validation"] if validated else []), f"clean{split}", "overrides"]
    lines, runs = [], []
    for number, (outcome, measure, score, said) in enumerate(
        zip(outcomes, measures, chosen_by, told_apart(overrides), strict=True)
    ):
        found = outcome.result
        clean = measure.text(found.score) if found and found.score is not None else ""
        validation = [measure.text(score) if math.isfinite(score) else "–"] if validated else []
        mark = OTHER_CODE if found and found.other_code else ""
        lines.append([str(number), outcome.state + mark, *validation, clean, said])
        runs.append(str(found.run) if found else "")
    _print(console, head, lines, runs)
    if any(OTHER_CODE in line[1] for line in lines):
        _say(console, f"{OTHER_CODE} trained by other code than this")
    if validated and len(set(measures)) == 1:
        number = best(chosen_by, measures[0])
        _say(console, f"best by validation: job {number}, {measures[0].text(chosen_by[number])}, {runs[number]}")
    failed = sum(outcome.code != 0 for outcome in outcomes)
    reused = sum(outcome.state == "reused" for outcome in outcomes)
    _say(console, f"sweep: {len(outcomes)} jobs, {reused} reused, {failed} failed")


def _validation(outcome: Outcome, measure: Measure) -> float:
    """NaN without one, and where the log is damaged."""
    return readable_validation(outcome.result.run, measure) if outcome.result else math.nan


def show_forecasts(jobs: Sequence[Job], forecasts: Sequence[Forecast], console: Console) -> None:
    """What each job would do and how long its training takes, and the sum of what is known."""
    lines = [
        [str(number), each.shown, duration(each.seconds), said]
        for number, (each, said) in enumerate(zip(forecasts, told_apart([job.overrides for job in jobs]), strict=True))
    ]
    _print(console, ["job", "state", "training left", "overrides"], lines, [str(each.run.folder) for each in forecasts])
    if any(each.other for each in forecasts):
        _say(console, f"{OTHER_CODE} trained by other code than this; code=any uses it all the same")
    known = [each.seconds for each in forecasts if each.seconds is not None]
    unknown = len(forecasts) - len(known)
    about = [f"about {duration(sum(known))} of training left"] if known else []
    about += [f"{unknown} without an earlier run to judge by"] if unknown else []
    _say(console, f"{len(forecasts)} job{'s' if len(forecasts) != 1 else ''}: {', '.join(about)}")


def _print(console: Console, head: list[str], lines: list[list[str]], runs: Iterable[str]) -> None:
    """Columns, all but the last to the right. A run has a line of its own in a terminal; in a pipe, a job is one line,
    for grep."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    terminal = console.is_terminal
    for line, run in zip((head, *lines), ("" if terminal else "run", *runs), strict=True):
        cells = [text.rjust(width) for text, width in zip(line[:-1], widths[:-1], strict=True)]
        shown = "  ".join([*cells, line[-1] if terminal else line[-1].ljust(widths[-1])])
        _say(console, (f"{shown}\n{' ' * widths[0]}  {run}" if terminal and run else f"{shown}  {run}").rstrip())


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
