"""What is deleted from the folders of runs: never while a process has the run, and never where a link leads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from robode.errors import BadInput, JobFailed
from robode.files import abandoned, make_folder
from robode.runs.lock import state_now, turn
from robode.runs.run import REPLACED, Run
from robode.runs.summary import size_of

WRITTEN_INTO = ("", "scores", "figures")  # of a run: where drafts may lie


@dataclass(frozen=True)
class Item:
    """Something that could be deleted. kind: as `robode clean what=…` calls it; folder: of the run; names: in it, or
    none for all of it; size: in bytes; why: in a few words."""

    kind: str
    folder: Path
    names: tuple[str, ...]
    why: str
    size: int = 0


def some(kind: str, folder: str, names: tuple[str, ...], why: str) -> Iterator[Item]:
    """An item of those files and folders of a run that are there and are no links, if any is."""
    there = tuple(
        name for name in names if os.path.lexists(path := os.path.join(folder, name)) and not os.path.islink(path)
    )
    if there:
        yield Item(kind, Path(folder), there, why, sum(_size(os.path.join(folder, name)) for name in there))


def drafts(folder: str) -> tuple[str, ...]:
    """What processes that were killed while they wrote a file have left, as names in the folder of a run."""
    found = (path for below in WRITTEN_INTO for path in abandoned(Path(folder, below)))
    return tuple(path.relative_to(folder).as_posix() for path in found)


def set_aside(outputs: Path) -> Iterator[Path]:
    """The folders that `force=true` has moved aside."""
    waiting = [outputs]
    while waiting:
        folder = waiting.pop()
        with suppress(OSError):
            below = [each for each in folder.iterdir() if each.is_dir() and not each.is_symlink()]
            if folder.name == REPLACED:
                yield from sorted(below)
            elif not (folder / "config.yaml").is_file():
                waiting += below


def remove(item: Item) -> None:
    """Delete what an item names. A folder disappears as a whole, or stays.

    Raises:
        BadInput: a link in the folder of the run.
        JobFailed: another process has the run (`Busy`), or the disk refuses.
    """
    try:
        if item.folder.parent.name == REPLACED:
            shutil.rmtree(item.folder)
            return
        if state_now(Run(item.folder)) == "running":  # perhaps on another machine, which no lock tells of
            raise JobFailed(f"run {item.folder.name} is being trained by another process")
        with turn(Run(item.folder), Console(quiet=True), wait=False):
            if not item.names:
                shelf = _shelf(item.folder)
                item.folder.rename(shelf)
            for name in item.names:
                _delete(item.folder / name)
        if not item.names:
            shutil.rmtree(shelf)
            with suppress(OSError):
                shelf.parent.rmdir()
    except OSError as error:
        raise JobFailed(f"cannot delete {error.filename or item.folder}: {error.strerror}") from error


def _shelf(folder: Path) -> Path:
    """Where a folder goes in one step before its files are deleted: a kill leaves no half of a run among the runs."""
    shelf = folder.parent / REPLACED
    if shelf.is_symlink():
        raise BadInput(f"{shelf}: is a link, and nothing is moved to where it leads; remove it")
    make_folder(shelf)
    return shelf / f"{folder.name}_deleted_{os.getpid()}"


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: str) -> int:
    return size_of(path) if os.path.isdir(path) else os.lstat(path).st_size
