"""What a user sees while something takes long: a bar where there is a terminal or a notebook, unless it is silenced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich import progress
from rich.console import Console

Item = TypeVar("Item")
PATIENCE = 2.0
"""Seconds that something may take before a bar is worth its place."""
_quiet = ContextVar("_quiet", default=False)


@contextmanager
def silent(quiet: bool = True) -> Iterator[None]:
    """Whether `new_console` prints nothing meanwhile; false leaves that as it is."""
    token = _quiet.set(quiet or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(token)


def new_console() -> Console:
    """A console on standard output; one that says nothing within `silent`."""
    return Console(quiet=_quiet.get())


def bar(console: Console) -> progress.Progress:
    """A transient bar; silent where there is neither a terminal nor a notebook, or the console is."""
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        progress.TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=console.quiet or not (console.is_terminal or console.is_jupyter),
        refresh_per_second=4,
    )


@contextmanager
def counted(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a long phase; yields the function that moves it to (done, total)."""
    with bar(console) as shown:
        task = shown.add_task(title, total=None, note="")
        yield lambda done, total: shown.update(task, completed=done, total=total)


def shown_late(items: Sequence[Item], title: str) -> Iterator[Item]:
    """The items one after the other, with a bar from the moment when they have taken `PATIENCE` seconds."""
    began, shown, console = time.monotonic(), None, new_console()
    try:
        for number, item in enumerate(items):
            if shown is None and time.monotonic() - began > PATIENCE:
                shown = bar(console)
                shown.start()
                shown.add_task(title, total=len(items), note="")
            if shown is not None:
                shown.update(shown.task_ids[0], completed=number)
            yield item
    finally:
        if shown is not None:
            shown.stop()
