"""`robode compare RUN RUN …`: what tells runs apart, and whether it matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from string import ascii_uppercase

from robode.config.validate import folder_to_write
from robode.errors import BadInput
from robode.files import make_folder, write_text
from robode.report.compare import configurations, curves, curves_figure, questions, same_data
from robode.runs.run import Run, find

HELP = """\
usage: robode compare RUN RUN [RUN ...] [to=FOLDER]

Runs side by side: the keys of their configurations that differ, and whether data or code do; their losses and
validation scores over the epochs; and for each perturbation and level that was measured for several of them their
scores, and for every two a paired test on the same samples: the difference with its interval of 95 %, the p of the
test that both score alike, and what that says.

  RUN                        a run folder, its name, or a checkpoint in it
  to=FOLDER                  also write the text and a picture of the curves (comparison.txt, figures/curves.png, .pdf)
"""
SEVERAL = "Each p is of one test by itself: of twenty tests of equal networks one is below 0.05 on average."


def run_compare(words: Sequence[str]) -> int:
    """Print the comparison.

    Returns:
        0.

    Raises:
        BadInput: fewer than two runs, one twice, or no such run.
        JobFailed: the disk refuses.
    """
    named = [word for word in words if not word.startswith("to=")]
    places = [word.removeprefix("to=") for word in words if word.startswith("to=")]
    runs = _runs(named)
    to = folder_to_write(places[-1]) if places else None
    lines = comparison(runs)
    print("\n".join(lines))
    if to is not None:
        from robode.report.style import save

        make_folder(to)
        write_text(to / "comparison.txt", "\n".join(lines) + "\n")
        if (figure := curves_figure(runs)) is not None:
            make_folder(to / "figures")
            print(f"curves: {save(figure, to / 'figures', 'curves')[0]}")
    return 0


def _runs(named: Sequence[str]) -> dict[str, Run]:
    if not 2 <= len(named) <= len(ascii_uppercase):
        raise BadInput(f"robode compare: expected two runs or more, got {' '.join(named) or 'none'}")
    runs = [find(word)[0] for word in named]
    folders = [run.folder.resolve() for run in runs]
    if twice := next((run.id for i, run in enumerate(runs) if folders[i] in folders[:i]), ""):
        raise BadInput(f"robode compare: the run {twice} is named twice")
    return dict(zip(ascii_uppercase, runs, strict=False))


def comparison(runs: Mapping[str, Run]) -> list[str]:
    """The text, a line an entry."""
    warnings: list[str] = []
    lines = [f"{name}  {run.folder}" for name, run in runs.items()]
    table = configurations(runs)
    lines += ["", *(_columns(table) if len(table) > 1 else ["The configurations decide the same training."])]
    lines += ["", *(curves(runs) or ["Nothing was logged."])]
    asked = questions(runs, warnings)
    for question in asked:
        lines += ["", question.title]
        lines += [f"  {name}  {score}" for name, score in question.scores.items()]
        lines += [f"  {difference}" for difference in question.differences]
        lines += [f"  {question.note}"] if question.note else []
    apart = [f"{a} and {b}" for (a, one), (b, two) in combinations(runs.items(), 2) if not same_data(one, two)]
    if not asked and not apart:
        lines += ["", "No perturbation and level was measured for two of them: robode evaluate run=RUN suite=noise"]
    if sum(len(question.differences) for question in asked) > 1:
        lines += ["", SEVERAL]
    if apart:
        lines += ["", f"Not tested: {', '.join(apart)} saw other data, so that their samples are not the same."]
    return [*lines, *warnings]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
