"""How a job ended, as an exit code and one line."""

import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from robode.errors import BadInput, Busy, JobFailed
from robode.tasks.measure import measure_named

State = Literal["done", "reused", "failed", "busy", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """``code`` as a process would return it, one line of ``error`` if that is not 0.

    state: reused = nothing was trained because that was done before; busy = another process has the job.
    """

    overrides: tuple[str, ...] = ()
    code: int = 0
    error: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    state: State = "done"


def failure(error: Exception, overrides: Sequence[str] = ()) -> Outcome:
    """An exception as an exit code and one line; the traceback is shown where ROBODE_DEBUG=1."""
    if os.environ.get("ROBODE_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, BadInput):
        code, text = 2, str(error)
    elif isinstance(error, JobFailed):
        code, text = 1, str(error)
    elif isinstance(error, OSError) and error.filename is not None:
        code, text = 1, f"cannot use '{error.filename}': {error.strerror}"
    elif isinstance(error, OSError) and error.strerror is not None:
        code, text = 1, error.strerror
    else:
        code, text = 1, f"unexpected {type(error).__name__}: {error} (ROBODE_DEBUG=1 shows the traceback)"
    return Outcome(
        tuple(overrides), code, " ".join(text.split()), state="busy" if isinstance(error, Busy) else "failed"
    )


def summary(outcomes: Sequence[Outcome]) -> None:
    """Print one line for each job of a sweep and a last line that counts them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from robode.runs.origin import OTHER_CODE

    table = Table(box=None, header_style="bold")
    for name in ("job", "ended", "clean", "run", "words"):
        table.add_column(name, overflow="fold", justify="right" if name in ("job", "clean") else "left")
    for number, outcome in enumerate(outcomes):
        result = outcome.result
        clean, measure = result.get("score"), measure_named(result.get("task"))
        ended = outcome.state + OTHER_CODE * bool(result.get("other_code"))
        shown = "" if clean is None else measure.text(clean)
        table.add_row(
            str(number), ended, shown, escape(str(result.get("run", ""))), escape(" ".join(outcome.overrides))
        )
    console = Console()
    console.print(table)
    if any(outcome.result.get("other_code") for outcome in outcomes):
        console.print(f"{OTHER_CODE} trained by other code than this")
    failed = sum(1 for outcome in outcomes if outcome.code)
    reused = sum(1 for outcome in outcomes if outcome.state == "reused")
    print(f"sweep: {len(outcomes)} jobs, {reused} reused, {failed} failed")
