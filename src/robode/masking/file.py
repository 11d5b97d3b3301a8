"""masking.json in a run's folder: what was found about gradient masking, and the verdict on each robust accuracy.

records: of `suite=gradient_masking`; panels: what verdicts are made of (`reference_attacks.measure_panel`); verdicts:
one for each row of results.csv that an attack gave (`verdict.Judging`). Read without torch. A file of an earlier
version lacks a part, or says it in other words, which are translated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from robode.files import read_json, write_json

FILE = "masking.json"
PASSES, FAILS = "passes ", "fails "  # how every verdict begins
NOTHING_LEFT = "passes without checks: next to nothing is left, and an attack only overestimates"
PROVEN = "passes without checks: "  # and how many are proven
ROW = ("weights", "split", "evaluation", "noise_seed", "code")  # and eps: the row that a verdict is about

Row = Mapping[str, Any]
Entry = dict[str, Any]
Key = tuple[str, ...]


def verdict_text(reasons: Sequence[str], count: int) -> str:
    """The sentence on `count` checks, of which those with a reason failed: it says what was tried, and no more."""
    checks = f"gradient-masking check{'' if count == 1 else 's'}"
    return f"fails {len(reasons)} of {count} {checks}: {'; '.join(reasons)}" if reasons else f"passes {count} {checks}"


def read_part(folder: Path, part: str) -> list[Entry]:
    """The entries of "records", "panels" or "verdicts"; none where the file is missing, damaged or older."""
    found = read_json(folder / FILE).get(part)
    return [in_todays_words(each) for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def write_part(folder: Path, part: str, entries: Sequence[Row]) -> None:
    """Replace one part and keep the others. Raises `JobFailed` if the disk refuses."""
    write_json(folder / FILE, {**read_json(folder / FILE), part: list(entries)})


def in_todays_words(entry: Row) -> Entry:
    """An entry whose verdict an earlier version wrote as "believable" or "suspicious because …"; any other as it is."""
    text, checks = str(entry.get("verdict", "")), entry.get("checks")
    checks = checks if isinstance(checks, list) else []
    if not text.startswith(("believable", "suspicious because ")):
        return dict(entry)
    if text.startswith("suspicious"):
        failed = sum(isinstance(each, dict) and not each.get("passed") for each in checks)
        said = f"fails {failed} of {len(checks)} gradient-masking checks: {text.removeprefix('suspicious because ')}"
    elif ": " in text:
        said = PROVEN + text.removeprefix("believable: ")
    else:
        said = verdict_text((), len(checks)) if checks else NOTHING_LEFT
    kept = {{"believable": "passes", "left": "robust_accuracy"}.get(name, name): each for name, each in entry.items()}
    return {**kept, "verdict": said}


def key_of(row: Row) -> Key:
    """What a row of results.csv (with `severity`) and its verdict (with `eps`) have in common."""
    about = ("" if row.get(name) is None else str(row[name]) for name in ROW)
    return (*about, f"{float(row.get('eps', row.get('severity', 0.0))):.12g}")


def keyed(rows: Iterable[Row]) -> dict[Key, Row]:
    """Rows or verdicts by their key, in their order; what has none is left out."""
    found: dict[Key, Row] = {}
    for row in rows:
        with suppress(TypeError, ValueError):
            found[key_of(row)] = row
    return found


def failures(folder: Path) -> dict[Key, str]:
    """Why rows of results.csv fail gradient-masking checks, by `key_of` the row; those that pass are left out."""
    verdicts = {key: str(each.get("verdict")) for key, each in keyed(read_part(folder, "verdicts")).items()}
    return {key: text.partition(": ")[2] for key, text in verdicts.items() if text.startswith(FAILS)}
