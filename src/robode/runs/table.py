"""Append-only CSV tables that survive a kill in mid-write, and the two logs of a training.

One row is one line, so a file cut at any byte has at most one torn line and it is the last one. Readers ignore that
line and the next append removes it. Values must not contain line breaks.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robode.errors import BadInput, JobFailed
from robode.files import write_text
from robode.runs.lock import held

Row = Mapping[str, Any]
MOST_EXACT = 2**53  # whole numbers beyond are no exact floats, and nothing counts so far
WORDS = {int: "whole number", float: "number"}


@dataclass(frozen=True)
class Table:
    """What a file in the folder of a run holds.

    columns: name -> str, int or float, what its cells are. key: rows that agree in these are one, the last counts;
    order: what they are sorted by, where that is not the order of the file. added: columns that files of earlier
    versions lack; renamed: a table of texts of an earlier version -> the same with today's columns.
    """

    columns: Mapping[str, type]
    key: tuple[str, ...]
    order: tuple[str, ...] = ()
    added: frozenset[str] = frozenset()
    renamed: Callable[[pd.DataFrame], pd.DataFrame] = lambda old: old

    def append(self, path: Path | str, rows: Iterable[Row]) -> None:
        """Append rows to the CSV file at path, whoever else does; a new file gets its header first, one of an earlier
        version today's columns.

        A call that fails leaves the file as it found it (less a torn last line); a call that is killed leaves some of
        its rows complete. Missing keys and None become empty cells.

        Raises:
            ValueError: a row has a key that is no column, or a value has a line break in it.
            BadInput: it has other columns.
            JobFailed: the file cannot be written (disk, permissions).
        """
        path, body = Path(path), self._lines(rows)
        if not body:
            return
        with _alone(path):
            start = self._prepared(path)
            _write(path, start, (body if start else self._header + body).encode())

    def prepare(self, path: Path | str) -> None:
        """Refuse early what `append` would refuse, and give a file of an earlier version today's columns.

        Raises:
            BadInput: it has other columns.
            JobFailed: the file cannot be read or written.
        """
        if Path(path).is_file():
            with _alone(Path(path)):
                self._prepared(Path(path))

    def read(self, path: Path | str) -> pd.DataFrame:
        """Every complete row, the last of each key. str: "" = not given; int: Int64; float: NaN = not given. Columns
        that the file lacks are empty, further ones stay texts; no file: an empty frame.

        Raises:
            BadInput: a damaged file, or one of something else: `texts`, a column that is missing, no number in a cell.
            JobFailed: the file exists but cannot be read.
        """
        frame = self.renamed(texts(Path(path))).copy()
        known = {*frame.columns, *self.added}
        if len(frame.columns) and (missing := [name for name in self.columns if name not in known]):
            raise BadInput(f"{path} has other columns than robode writes (no {missing[0]}); move it away first")
        for name, kind in self.columns.items():
            if name not in frame:
                frame[name] = pd.Series("", index=frame.index, dtype=str)
            if kind is not str:
                numbers = _numbers(frame[name], kind, path)
                frame[name] = numbers if kind is float else numbers.round().astype("Int64")
        frame = frame.drop_duplicates(list(self.key), keep="last", ignore_index=True)
        return frame.sort_values(list(self.order), kind="stable", ignore_index=True) if self.order else frame

    def tidy(self, path: Path | str) -> None:
        """Write the file anew without rows that repeat others, which a training that was cut off makes when it goes on.

        Raises:
            BadInput, JobFailed: as `append`.
        """
        path = Path(path)
        if path.is_file():
            with _alone(path):
                self._prepared(path)
                rows = texts(path)
                if len(rows) and rows.duplicated(list(self.key)).any():
                    kept = rows.drop_duplicates(list(self.key), keep="last")
                    write_text(path, self._header + self._lines(records(kept)))

    @property
    def _header(self) -> str:
        return ",".join(self.columns) + "\n"

    def _lines(self, rows: Iterable[Row]) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(self.columns), restval="", lineterminator="\n")
        for row in rows:
            for name, value in row.items():
                if isinstance(value, str) and ("\n" in value or "\r" in value):
                    raise ValueError(f"column {name!r} must be one line, got {value!r}")
            # of numpy and torch: its own text would be no number
            writer.writerow({name: value.item() if hasattr(value, "item") else value for name, value in row.items()})
        return text.getvalue()

    def _prepared(self, path: Path) -> int:
        """The length of the file without a torn last line (0: no header, a torn one included)."""
        if (have := header(path)) and have != list(self.columns):
            old = self.renamed(texts(path))
            if list(old) != [name for name in self.columns if name in old or name not in self.added]:
                raise BadInput(f"{path} has other columns than this version of robode writes; move it away first")
            write_text(path, self._header + self._lines(records(old)))
        return _end_of_last_line(path)


METRICS = Table({"epoch": int, "step": int, "name": str, "value": float}, key=("step", "name"), order=("step",))
"""metrics.csv: what was logged in a training."""
OF_ONE_POINT = ("bsm_point", "gradient", "gradient_bound")
BSM_NORMS = Table(
    {"step": int, "layer": int}
    | dict.fromkeys(("bsm_median", "bsm_max", "bsm_norm_of_mean", "step_median", "step_max", "bsm_min"), float)
    | dict.fromkeys(OF_ONE_POINT, float),
    key=("step", "layer"),
    order=("step", "layer"),
    added=frozenset(("bsm_min", *OF_ONE_POINT)),
)
"""bsm.csv: norms of the backward sensitivity matrices, by layer; OF_ONE_POINT: at one test sample, where that is asked
for, with the gradient of its loss by the layer's parameters and what bounds it."""


def header(path: Path) -> list[str]:
    """The columns of a file; none where there is no file, or the header was torn.

    Raises:
        JobFailed: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JobFailed(f"cannot read {path}: {error.strerror or error}") from error
    return line.decode(errors="replace").rstrip("\n").split(",") if line.endswith(b"\n") else []


def texts(path: Path) -> pd.DataFrame:
    """Every complete row of a file as text (empty cells are ""); no file or no header: an empty frame.

    Raises:
        BadInput: it is no table.
        JobFailed: the file exists but cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return pd.DataFrame()
    except OSError as error:
        raise JobFailed(f"cannot read {path}: {error.strerror or error}") from error
    complete = content[: content.rfind(b"\n") + 1]
    if not complete and not content.decode("ascii", "replace").isprintable():  # a head that was torn is
        raise BadInput(f"{path}: is damaged (no text); move it away first")
    if not complete.strip():
        return pd.DataFrame()
    try:
        return pd.read_csv(io.BytesIO(complete), dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' parser errors and bad UTF-8 are both ValueErrors
        raise BadInput(f"{path}: is damaged ({str(error).splitlines()[0]}); move it away first") from error


def _numbers(cells: pd.Series, kind: type, path: Path | str) -> pd.Series:
    """Texts as float, NaN where nothing is given. Raises `BadInput` for what is no number of that kind."""
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    values = numbers.to_numpy()
    unknown = cells[np.isnan(values)].unique() if np.isnan(values).any() else ()
    unread = [text for text in unknown if text.strip().lower() not in ("", "nan")]
    wrong = cells.isin(unread).to_numpy() if unread else np.abs(values) > (MOST_EXACT if kind is int else np.inf)
    if wrong.any():
        line = int(wrong.argmax())
        raise BadInput(f"{path}: damaged, {cells.name}={cells.iloc[line]} in row {line + 1} is no {WORDS[kind]}")
    return numbers


def read_once(path: Path | str, read: Callable[[Path | str], pd.DataFrame]) -> pd.DataFrame:
    """read(path), a copy of what it gave last as long as the file is the same: a report asks for the tables of each run
    three times, and numbers.csv is often not there."""
    try:
        about = os.stat(path)
        same: tuple[Any, ...] = (read, about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size)
    except FileNotFoundError:
        same = (read,)
    except OSError:
        return read(path)
    if same not in _known:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[same] = read(path)
    return _known[same].copy()


MOST_KNOWN = 4_000
_known: dict[tuple[Any, ...], pd.DataFrame] = {}


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A dictionary for each row."""
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _alone(path: Path) -> AbstractContextManager[None]:
    """Several jobs may share a file."""
    return held(path.with_name(f".{path.name}.lock"))


def _end_of_last_line(path: Path) -> int:
    """Position after the last line break; 0 if there is none, or no file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            if file.read() in (b"", b"\n"):
                return end
            file.seek(0)  # torn: rare, so that reading all of a long file does no harm
            return file.read().rfind(b"\n") + 1
    except FileNotFoundError:
        return 0


def _write(path: Path, start: int, content: bytes) -> None:
    """Everything from start on and onto the disk, or nothing. Raises `JobFailed` if the disk refuses."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            os.ftruncate(descriptor, start)
            os.lseek(descriptor, start, os.SEEK_SET)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, start)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JobFailed(f"cannot write {path}: {error.strerror or error}") from error
