"""What `robode reproduce` would do: every job with its run, its state, and what it still takes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from robode.config.config import EvaluateConfig
from robode.papers.missing import lacking
from robode.papers.plan import Job
from robode.papers.selection import Selection
from robode.training.forecast import duration, forecast


def preview(selection: Selection, jobs: Sequence[Job], asked: Sequence[EvaluateConfig]) -> None:
    """Print one line a job; reads data and run folders, writes nothing.

    Raises:
        BadInput: data that are missing, or a suite that does not fit them.
    """
    console = Console()
    if not console.is_terminal:  # one job a line for grep
        console = Console(width=250)
    table = Table(box=None, header_style="bold")
    for name in ("job", "row", "seed", "run", "state", "rows missing", "training left"):
        table.add_column(name, overflow="fold", justify="left" if name in ("row", "run", "state") else "right")
    seconds: list[float | None] = []
    for number, (job, each) in enumerate(zip(jobs, forecast([job.cfg for job in jobs]), strict=True)):
        missing = str(lacking(each.run, job.plain, asked, selection.code)) if each.run.trained else "all"
        left = f"{duration(each.seconds)}"
        table.add_row(str(number), job.row.name, str(job.seed), str(each.run.folder), each.shown, missing, left)
        seconds.append(each.seconds)
    console.print(table, markup=False)
    known = [each for each in seconds if each is not None]
    parts = [f"about {duration(sum(known))} of training left"] if known else []
    parts += [f"{len(seconds) - len(known)} without an earlier run to judge by"] if len(known) < len(seconds) else []
    label = f" ({selection.label})" if selection.label else ""
    console.print(f"{selection.name}{label}: {len(jobs)} jobs, {', '.join(parts)}", highlight=False, markup=False)
    console.print(f"report:  {selection.folder}", highlight=False, markup=False, soft_wrap=True)
