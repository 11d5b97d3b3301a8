"""`robode compare RUN RUN …`: what tells runs apart, and whether it matters."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

from robode.config.validate import folder_to_write
from robode.errors import BadInput
from robode.papers.selection import REPORTS
from robode.report.compare import SAME, Comparison, compared, curves
from robode.report.compare_page import write_comparison
from robode.runs import origin
from robode.runs.run import Run, digest_of, find

HELP = """\
usage: robode compare RUN RUN [RUN ...] [to=FOLDER]

Runs side by side: how far each is; the keys of their configurations that differ, and whether data or code do; their
losses and validation scores over the epochs; and for each perturbation and level that was measured for several of them
their scores, and for every two a paired test on the same samples: the difference with its interval of 95 %, the p of
the test that both score alike, and what that says. The page says the same, with the curves in one picture and links to
the pages of the runs.

  RUN                        a run folder, its name, or a checkpoint in it
  to=FOLDER                  where report.html, comparison.txt and figures/ are written, instead of outputs/reports/;
                             not the folder of a run
"""


def run_compare(words: Sequence[str]) -> int:
    """Print the comparison, and write its page.

    Returns:
        0.

    Raises:
        BadInput: fewer than two runs, one twice, or no such run.
        JobFailed: the disk refuses.
    """
    named = [word for word in words if not word.startswith("to=")]
    places = [word.removeprefix("to=") for word in words if word.startswith("to=")]
    runs = _runs(named)
    to = folder_to_write(places[-1]) if places else REPORTS / _name(runs.values())
    found = compared(runs)
    lines = lines_of(found)
    command = shlex.join(origin.relative_argv(["robode", "compare", *words]))
    page = write_comparison(to, found, "\n".join(lines), command)
    print("\n".join([*lines, "", f"report:  {page}"]))
    return 0


def _name(runs: Iterable[Run]) -> str:
    return f"compare-{digest_of(run.folder for run in runs)}"


def _runs(named: Sequence[str]) -> dict[str, Run]:
    if len(named) > len(ascii_uppercase):
        raise BadInput(f"robode compare: expected at most {len(ascii_uppercase)} runs, got {len(named)}")
    if len(named) < 2:
        raise BadInput(f"robode compare: expected two runs or more, got {' '.join(named) or 'none'}")
    runs = [find(word)[0] for word in named]
    folders = [run.folder.resolve() for run in runs]
    if twice := next((run.id for i, run in enumerate(runs) if folders[i] in folders[:i]), ""):
        raise BadInput(f"robode compare: the run {twice} is named twice")
    return dict(zip(ascii_uppercase, runs, strict=False))


def lines_of(found: Comparison) -> list[str]:
    """The text, a line an entry."""
    lines = [f"{name}  {run.folder}  {found.states[name]}" for name, run in found.runs.items()]
    table = found.configurations
    lines += ["", *(_columns(table) if len(table) > 1 else [SAME])]
    lines += ["", *(curves(found.logs) or ["Nothing was logged."])]
    for question in found.questions:
        lines += ["", question.title]
        lines += [f"  {name}  {score}" for name, score in question.scores.items()]
        lines += [f"  {difference}" for difference in question.differences]
        lines += [f"  {question.note}"] if question.note else []
    for note in found.notes:
        lines += ["", note]
    return [*lines, *found.warnings]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
