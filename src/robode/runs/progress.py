"""What a user sees while something takes long: a bar where there is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console


def bar(console: Console) -> progress.Progress:
    """A transient bar; silent where there is no terminal."""
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        progress.TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        refresh_per_second=4,
    )


@contextmanager
def counted(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a long phase; yields the function that moves it to (done, total)."""
    with bar(console) as shown:
        task = shown.add_task(title, total=None, note="")
        yield lambda done, total: shown.update(task, completed=done, total=total)
