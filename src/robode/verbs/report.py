"""`robode report`: tables and pages from what runs have written; nothing is trained or measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from robode.config.listing import options
from robode.config.paths import user_conf_dirs
from robode.config.validate import folder_to_write
from robode.errors import BadInput, JobFailed
from robode.papers.collect import Shelf, collect, left_out
from robode.papers.plan import evaluations, plan
from robode.papers.publish import pairs_of, publish, recorded, render, restore
from robode.papers.selection import REPORTS, select
from robode.report.cells import SYMBOLS, VERDICTS
from robode.report.layout import Picture
from robode.report.paper_page import Report, write_runs_report
from robode.report.runs_page import measured_by_other_code
from robode.report.tables import terminal
from robode.runs import origin
from robode.runs.origin import OTHER_CODE
from robode.runs.run import OUTPUTS, REPLACED, Run, digest_of, find


def run_report(words: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> int:
    """A report of runs, of PAPER/ITEM (with the words of `reproduce`), or of every run under outputs/.

    from=FOLDER: make the report in that folder again from its own tables, without the runs; to=FOLDER: where to write;
    sort=COLUMN: of runs, the best of that column first.

    Returns:
        0.

    Raises:
        BadInput: no such run, paper or report, or runs that do not belong into one table.
        JobFailed: the disk refuses.
    """
    named = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if word.startswith(("from=", "to=")))
    sort = [word for word in words if word.startswith("sort=")]
    rest = [word for word in words if "=" in word and not word.startswith(("from=", "to=", "sort="))]
    to = folder_to_write(given["to"]) if "to" in given else None
    if "from" in given:
        _nothing_else([*named, *rest, *sort], "from=")
        report = _again(Path(given["from"]).expanduser(), to, config_dirs)
    elif len(named) == 1 and _is_item(named[0], config_dirs):
        _nothing_else(sort, "PAPER/ITEM")
        selection = select(named[0], rest, config_dirs)
        jobs = plan(selection)
        shelf = Shelf.of(selection, evaluations(selection))
        report = publish(selection, jobs, collect(selection.item, jobs, shelf), to or selection.folder)
        if line := left_out(shelf, jobs):
            print(line)
    else:
        _nothing_else(rest, "runs")
        report = _of_runs(named, to, sort)
    show(report, Console())
    return 0


def show(report: Report, console: Console) -> None:
    """The table, how many cells got which verdict, and where the page lies. A pipe gets 80 columns too."""
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    label = f" ({report.table.label})" if report.table.label else ""
    say(f"{report.table.title}{label}")
    for piece in terminal(report.table, max(console.width, 80)):
        say(piece)
        say("")
    if report.table.compared:
        say("  ".join(f"{SYMBOLS[verdict]} {verdict}" for verdict in VERDICTS))
    say(f"{report.table.summary}\nreport:  {report.page}")


def _is_item(word: str, config_dirs: Sequence[str]) -> bool:
    """PAPER/ITEM rather than a run, of which there may be none of the kind."""
    return not Path(word).exists() and word.partition("/")[0] in options("paper", user_conf_dirs(config_dirs))


def _nothing_else(words: Sequence[str], beside: str) -> None:
    if words:
        raise BadInput(f"{words[0]}: makes no sense beside {beside}; leave it out")


def _again(folder: Path, to: Path | None, config_dirs: Sequence[str]) -> Report:
    """The report whose tables lie in a folder."""
    known = recorded(folder)
    words = [f"{key}={known[key]}" for key in ("size", "variant") if known[key]]
    item = select(f"{known['paper']}/{known['item']}", words, config_dirs).item
    pictures = [Picture(stem, kept(folder, stem), *texts) for stem, *texts in known.get("figures", [])]
    target = to or REPORTS / item.paper.name / f"{folder.resolve().name}-again"
    return render(target, item, restore(folder, item), known, pictures, pairs_of(folder))


def kept(folder: Path, stem: str) -> Path:
    """The file of a figure in the folder of a report: its animation, where it is one."""
    moving = folder / "figures" / f"{stem}.gif"
    return moving if moving.is_file() else moving.with_suffix(".png")


def _of_runs(named: Sequence[str], to: Path | None, sort: Sequence[str]) -> Report:
    if named:
        folders = [find(word)[0].folder for word in named]
    else:
        found = (path.parent for path in OUTPUTS.glob("**/config.yaml") if REPLACED not in path.parts)
        folders = sorted(folder for folder in found if (folder / "status.json").is_file())
    if not folders:
        raise BadInput(f"report: expected runs, but there are none under {OUTPUTS}/")
    shown = []
    for folder in folders:
        try:
            _say_of(Run(folder))
            shown.append(folder)
        except (BadInput, JobFailed) as error:
            if named:
                raise
            print(f"left out: {error}")
    if not shown:
        raise BadInput(f"report: expected runs, but none under {OUTPUTS}/ can be read")
    name = f"runs-{digest_of(folders)}" if named else "all"
    command = shlex.join(origin.relative_argv(["robode", "report", *named, *sort]))
    return write_runs_report(
        to or REPORTS / name, shown, {"command": command}, sort[-1].removeprefix("sort=") if sort else ""
    )


def _say_of(run: Run) -> None:
    """What of a run other code has made. Raises `BadInput` and `JobFailed` where its files are damaged."""
    plain = run.config().plain()
    if run.of_other_code(plain):
        print(f"{OTHER_CODE} run {run.id} was trained by other code")
    if measured_by_other_code(run, plain):
        print(f"{OTHER_CODE} run {run.id} has measurements that only other code has made")
