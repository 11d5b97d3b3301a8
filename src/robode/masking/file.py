"""masking.json in a run's folder: what was found about hidden gradients, and the verdict on each attacked accuracy.

records: of `suite=believable`; panels: what verdicts are made of (masking_panel); verdicts: one for each row of
results.csv that an attack gave (masking_verdicts). Read without torch; a file of an earlier version lacks a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from robode.files import read_json, write_json

FILE = "masking.json"
BELIEVABLE, SUSPICIOUS = "believable", "suspicious because "  # how every verdict begins
ROW = ("weights", "split", "evaluation", "noise_seed", "code")  # and eps: the row that a verdict is about

Key = tuple[str, ...]


def read_part(folder: Path, part: str) -> list[dict[str, Any]]:
    """The entries of "records", "panels" or "verdicts"; none where the file is missing, damaged or older."""
    found = read_json(folder / FILE).get(part)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def write_part(folder: Path, part: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Replace one part and keep the others. Raises `JobFailed` if the disk refuses."""
    write_json(folder / FILE, {**read_json(folder / FILE), part: list(entries)})


def key_of(row: Mapping[str, Any]) -> Key:
    """What a row of results.csv (with `severity`) and its verdict (with `eps`) have in common."""
    about = ("" if row.get(name) is None else str(row[name]) for name in ROW)
    return (*about, f"{float(row.get('eps', row.get('severity', 0.0))):.12g}")


def keyed(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """Rows or verdicts by their key, in their order; what has none is left out."""
    found: dict[Key, Mapping[str, Any]] = {}
    for row in rows:
        with suppress(TypeError, ValueError):
            found[key_of(row)] = row
    return found


def suspicions(folder: Path) -> dict[Key, str]:
    """Why rows of results.csv are suspicious, by `key_of` the row; believable ones are left out."""
    verdicts = {key: str(each.get("verdict")) for key, each in keyed(read_part(folder, "verdicts")).items()}
    return {key: text.removeprefix(SUSPICIOUS) for key, text in verdicts.items() if text.startswith(SUSPICIOUS)}
