"""What a report was made of, beside it in three tables (`report.paper_page` writes them): enough to make it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from robode.errors import BadInput
from robode.files import read_json
from robode.papers.collect import LATER, NUMBERS, ROWS, RUNS, Collected, combine
from robode.papers.spec import Item
from robode.runs.results import renamed
from robode.runs.run import OUTPUTS

FACTS = "report.json"
FILES = {"rows.csv": ROWS, "numbers.csv": NUMBERS, "runs.csv": RUNS}
WORDS = ("label", "group", "column", "run", "folder", "status", "error", "checkpoint", "weights", "split", "protocol",
         "evaluation", "suite", "perturbation", "norm", "task", "quantity", "kind", "code")  # fmt: skip


def facts(folder: Path) -> dict[str, Any]:
    """What report.json says about the report in this folder. Raises `BadInput`."""
    known = read_json(folder / FACTS)
    if not all(isinstance(known.get(key), str) for key in ("paper", "item", "size", "variant")):
        raise BadInput(f"from={folder}: expected the folder of a report, with {FACTS}, {', '.join(FILES)}")
    return known


def restore(folder: Path, item: Item) -> Collected:
    """What was collected when the report in this folder was made, without what the item does not have any more.

    Raises:
        BadInput: a file that is missing or is not the table of a report.
    """
    numbers = {(row.group, row.label): number for number, row in enumerate(item.rows)}
    rows, found, runs = (_read(folder / name, columns, numbers) for name, columns in FILES.items())
    has_column = [frame["column"].isin(item.columns) for frame in (rows, found)]
    places = pd.Series([str(OUTPUTS / place) if place else None for place in runs["folder"]], dtype=object)
    runs = runs.assign(folder=places)
    return combine(runs, rows[has_column[0]], found[has_column[1]])


def _read(path: Path, columns: Sequence[str], numbers: Mapping[tuple[str, str], int]) -> pd.DataFrame:
    texts = [name for name in (*columns, "code") if name in WORDS]
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: expected the table of a report ({type(error).__name__})") from error
    frame = renamed(frame)
    if "score" in frame:
        frame["score"] = pd.to_numeric(frame["score"])
    lacking = [name for name in columns if name not in frame and name != "row"]
    if lacking:
        raise BadInput(f"{path}: expected the table of a report, but it has no column {lacking[0]}")
    texts = [name for name in texts if name in frame]  # earlier versions kept no code
    frame[texts] = frame[texts].fillna("")
    row = [numbers.get(key, -1) for key in zip(frame["group"], frame["label"], strict=True)]
    kept = [*columns, *(name for name in LATER if name in frame)]
    return frame.assign(row=row)[kept].query("row >= 0").reset_index(drop=True)
