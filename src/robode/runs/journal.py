"""Append-only CSV files that survive a kill in mid-write.

One row is one line, so a file cut at any byte has at most one torn line and it is the last one. Readers
ignore that line and the next append removes it. Values must not contain line breaks. Also the lock for those
who must read such a file, think, and append to it."""

import csv
import io
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from robode.errors import JobFailed
from robode.files import write_text

if sys.platform != "win32":
    import fcntl

POLL = 0.2  # seconds between looks at a lock that another process holds


@contextmanager
def held(path: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold the lock that the file at path stands for; the kernel gives it back when the process ends, however it ends.

    waiting: called once if another process holds it; then it is waited for.

    Raises:
        JobFailed: the file cannot be made.
    """
    try:
        file = path.open("w")
    except OSError as error:
        raise JobFailed(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        if not _lock(file):
            waiting()
            while not _lock(file):
                time.sleep(POLL)
        yield


def _lock(file: io.IOBase) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def check(path: Path, columns: Sequence[str]) -> None:
    """Refuse early what `append` would refuse.

    Raises:
        JobFailed: the file has another header, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            _check_header(path, file.readline(), columns)
    except FileNotFoundError:
        return
    except OSError as error:
        raise JobFailed(f"cannot read {path}: {error.strerror or error}") from error


def widen(
    path: Path,
    columns: Sequence[str],
    added: Collection[str],
    renamed: Callable[[pd.DataFrame], pd.DataFrame] = lambda old: old,
) -> None:
    """Rewrite a file that, after `renamed`, lacks some of `added` and nothing else of columns, with those as empty
    cells; leave any other file alone. Not beside another process that appends.

    Raises:
        JobFailed: the disk refuses.
    """
    if not path.is_file():
        return
    found = read(path)
    old = renamed(found)
    have = list(old.columns)
    if list(found.columns) != list(columns) and have == [name for name in columns if name in have or name not in added]:
        rows = [{str(name): value for name, value in row.items()} for row in old.to_dict("records")]
        write_text(path, (_encode_header(columns) + _encode(columns, rows)).decode())


def append(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Append rows to the CSV file at path, writing the header first if the file is new.

    A call that fails leaves the file as it found it (less a torn last line); a call that is killed leaves
    some of its rows complete. Missing keys and None become empty cells.

    Raises:
        ValueError: a row has a key that is no column, or a value has a line break in it.
        JobFailed: the file cannot be written (disk, permissions) or has another header.
    """
    body = _encode(columns, rows)
    if not body:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform != "win32":
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # released by close: several jobs may share a file
            start = _repair(descriptor, path, columns)
            _write(descriptor, start, body if start else _encode_header(columns) + body)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JobFailed(f"cannot write {path}: {error.strerror or error}") from error


def read(path: Path) -> pd.DataFrame:
    """Every complete row of the file as text (empty cells are ""); no file or no header: an empty frame.

    Raises:
        JobFailed: the file exists but cannot be read or parsed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return pd.DataFrame()
    except OSError as error:
        raise JobFailed(f"cannot read {path}: {error.strerror or error}") from error
    complete = content[: content.rfind(b"\n") + 1]
    if not complete.strip():
        return pd.DataFrame()
    try:
        return pd.read_csv(io.BytesIO(complete), dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' parser errors and bad UTF-8 are both ValueErrors
        raise JobFailed(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def _encode(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str) and ("\n" in value or "\r" in value):
                raise ValueError(f"column {name!r} must be one line, got {value!r}")
        writer.writerow(row)
    return text.getvalue().encode()


def _encode_header(columns: Sequence[str]) -> bytes:
    return (",".join(columns) + "\n").encode()


def _repair(descriptor: int, path: Path, columns: Sequence[str]) -> int:
    """Cut a torn last line off and return the length that is left; refuse a file with another header."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        header = file.readline()
        end = _end_of_last_line(file)
    if end != os.fstat(descriptor).st_size:
        os.ftruncate(descriptor, end)
    if end:
        _check_header(path, header, columns)
    return end


def _check_header(path: Path, header: bytes, columns: Sequence[str]) -> None:
    """A header without a line break is a torn one."""
    if header.endswith(b"\n") and header != _encode_header(columns):
        raise JobFailed(f"{path} has other columns than this version of robode writes; move it away first")


def _end_of_last_line(file: io.BufferedReader, block: int = 65536) -> int:
    """Position after the last line break, 0 if there is none; reads backwards, the file may be long."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        begin = max(0, position - block)
        file.seek(begin)
        found = file.read(position - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0


def _write(descriptor: int, start: int, content: bytes) -> None:
    """Write everything at start and onto the disk, or nothing."""
    try:
        os.lseek(descriptor, start, os.SEEK_SET)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, start)
        raise
