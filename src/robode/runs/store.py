"""The measurements of one run: results.csv and the scores beside it. What is there is never measured again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robode.errors import JobFailed
from robode.runs import journal, records
from robode.runs.scores import FOLDER, read_scores, write_scores


class Store:
    """What a run folder knew when this was made, and what has been added since.

    Only one process at a time may have a store that it adds to; see `journal.held`.

    Raises:
        JobFailed: results.csv is damaged, or of another version of robode.
    """

    def __init__(self, folder: Path | str):
        self.folder, self.path = Path(folder), Path(folder) / "results.csv"
        records.widen(self.path)
        journal.check(self.path, records.COLUMNS)
        for draft in (self.folder / FOLDER).glob(".*"):  # of a process that was killed: nobody else writes here now
            draft.unlink(missing_ok=True)
        rows = records.read_rows(self.path)
        self._rows = {records.identity(row): row for row in _plain(rows)}
        self._newest = {(row["checkpoint"], *records.identity(row)) for row in _plain(records.newest(rows))}

    def __contains__(self, asked: Mapping[str, Any]) -> bool:
        """Whether a row (the columns of records.IDENTITY and n) has been measured, under any checkpoint's name, and
        its scores are there too."""
        known = self._rows.get(records.identity(asked))
        return known is not None and bool(known["n"] == asked["n"]) and self.scores(known) is not None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, one for each measurement."""
        return iter(list(self._rows.values()))

    def scores(self, row: Mapping[str, Any]) -> np.ndarray | None:
        """The score of each sample, (n,) float32; None where that was removed or damaged, and where a process was
        killed between new scores and their row."""
        try:
            return read_scores(self.folder, row)
        except JobFailed:
            return None

    def add(self, rows: Sequence[Mapping[str, Any]], scores: Sequence[np.ndarray]) -> None:
        """Put complete rows and their scores, (n,) each, onto the disk: after a kill all scores of a row are there, or
        the row is not.

        Raises:
            JobFailed: the disk refuses.
        """
        for row, each in zip(rows, scores, strict=True):
            write_scores(self.folder, row, each)
        records.append_rows(self.path, rows)
        for row in rows:
            self._rows[records.identity(row)] = dict(row)
            self._newest.add((row["checkpoint"], *records.identity(row)))

    def replace(self, row: Mapping[str, Any], scores: np.ndarray) -> None:
        """Put other scores in the place of known ones, under every checkpoint's name that it stands for."""
        names = [name for name, *identity in self._newest if tuple(identity) == records.identity(row)]
        self.add([{**row, "checkpoint": name} for name in sorted(names)], [scores] * len(names))

    def rows(self, asked: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The rows asked for, in that order, each under the checkpoint's name that was asked for.

        Where it stands in the file under another name only (best.ckpt and last.ckpt may hold the same weights), or
        other weights have had the name since, a copy is appended: readers of the file take the last weights of a name.
        """
        found = [{**self._rows[records.identity(each)], "checkpoint": each["checkpoint"]} for each in asked]
        stale = [row for row in found if (row["checkpoint"], *records.identity(row)) not in self._newest]
        records.append_rows(self.path, stale)
        return found


def _plain(rows: Any) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
