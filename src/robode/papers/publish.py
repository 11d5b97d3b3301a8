"""The report of an item: page, tables and figures from the files of its runs, or again from its own tables.

What a report was made of lies beside it: rows.csv, numbers.csv, runs.csv and paired.csv (`report.paper_page` writes
them), and report.json. That is enough to make it again without the runs.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from robode.config.instantiate import build
from robode.errors import BadInput
from robode.files import read_json, write_text
from robode.papers.plan import PlannedRun
from robode.papers.selection import Selection
from robode.papers.spec import Item
from robode.report.layout import Picture, Plain
from robode.report.paired import Test
from robode.report.paper_page import Report, write_report
from robode.report.style import as_written, without_places
from robode.report.values import LATER, NUMBERS, ROWS, RUNS, Collected, combine, lines_of
from robode.runs import origin
from robode.runs.earlier import rows_in_todays_words
from robode.runs.identity import training_config
from robode.runs.results import renamed
from robode.runs.run import OUTPUTS

REPORT = "report.json"
FILES = {"rows.csv": ROWS, "numbers.csv": NUMBERS, "runs.csv": RUNS}
TEXTS = ("label", "group", "column", "run", "folder", "status", "error", "checkpoint", "weights", "split", "protocol",
         "evaluation", "suite", "perturbation", "norm", "task", "quantity", "kind", "code")  # fmt: skip


def publish(selection: Selection, jobs: Sequence[PlannedRun], collected: Collected, folder: Path) -> Report:
    """Write the report into a folder.

    Raises:
        BadInput: a figure's class that cannot be built, or runs that do not belong into one table.
        JobFailed: the disk refuses.
    """
    context = {
        "paper": selection.item.paper.name,
        "item": selection.item.name,
        "size": selection.size.name,
        "variant": selection.variant,
        "about_variant": selection.about_variant,
        "label": selection.label,
        "overrides": list(selection.overrides),
        "command": shlex.join(origin.relative_argv(selection.command)),
        "configs": {job.row.name: _config(job) for job in reversed(jobs)},
        **_made_by(map(Path, collected.runs["folder"].dropna())),
    }
    return render(folder, selection.item, collected, context, draw(selection.item, collected))


def render(
    folder: Path,
    item: Item,
    collected: Collected,
    context: Plain,
    pictures: Sequence[Picture],
    tests: Sequence[Test] = (),
) -> Report:
    """Page and tables. context: what `publish` puts together, or `recorded` gives back; tests: of `pairs_of`, where the
    runs are not here any more."""
    report = write_report(folder, item, collected, {**context, "figures": list(pictures), "paired": tests})
    known = {**context, "figures": [[stem, *texts] for stem, _, *texts in pictures]}
    write_text(folder / REPORT, without_places(json.dumps(known, indent=2)) + "\n")
    return report


def draw(item: Item, collected: Collected) -> list[Picture]:
    """Every figure of the item that its runs allow. Raises `BadInput` for a class that cannot be built."""
    return [picture for node in item.figures for picture in build(dict(node)).draw(collected)]


def recorded(folder: Path) -> Plain:
    """What report.json says about the report in this folder. Raises `BadInput`."""
    known = read_json(folder / REPORT)
    if not all(isinstance(known.get(key), str) for key in ("paper", "item", "size", "variant")):
        raise BadInput(f"from={folder}: expected the folder of a report, with {REPORT}, {', '.join(FILES)}")
    return known


def pairs_of(folder: Path) -> list[Test]:
    """The tests of pairs in the report in this folder; none where it has none."""
    path = folder / "paired.csv"
    if not path.is_file():
        return []
    written = pd.read_csv(path, keep_default_na=False)
    written = written.map(lambda value: as_written(value) if isinstance(value, str) else value)
    return lines_of(rows_in_todays_words(written))


def restore(folder: Path, item: Item) -> Collected:
    """What was collected when the report in this folder was made, without what the item does not have any more.

    Raises:
        BadInput: a file that is missing or is not the table of a report.
    """
    numbers = {(row.group, row.label): number for number, row in enumerate(item.rows)}
    rows, found, runs = (_read(folder / name, columns, numbers) for name, columns in FILES.items())
    has_column = [frame["column"].isin(item.columns) for frame in (rows, found)]
    places = pd.Series([str(OUTPUTS / place) if place else None for place in runs["folder"]], dtype=object)
    return combine(runs.assign(folder=places), rows[has_column[0]], found[has_column[1]])


def _read(path: Path, columns: Sequence[str], numbers: Mapping[tuple[str, str], int]) -> pd.DataFrame:
    texts = [name for name in (*columns, "code") if name in TEXTS]
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: expected the table of a report ({type(error).__name__})") from error
    frame = renamed(frame)
    if "score" in frame:
        frame["score"] = pd.to_numeric(frame["score"])
    absent = [name for name in columns if name not in frame and name not in ("row", "validation")]
    if absent:
        raise BadInput(f"{path}: expected the table of a report, but it has no column {absent[0]}")
    texts = [name for name in texts if name in frame]  # earlier versions kept no code
    frame[texts] = frame[texts].fillna("").map(as_written)
    row = [numbers.get(key, -1) for key in zip(frame["group"], frame["label"], strict=True)]
    kept = [*columns, *(name for name in LATER if name in frame)]
    return frame.assign(row=row).reindex(columns=kept).query("row >= 0").reset_index(drop=True)


def _config(job: PlannedRun) -> str:
    """The row's training configuration as YAML, without places on this machine and without the seed."""
    plain = training_config(job.plain)
    plain.pop("seed", None)
    if job.row.start:
        plain["start_weights"] = f"those of '{job.row.start}', same seed"
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def _made_by(folders: Iterable[Path]) -> Plain:
    """Commits and versions that the runs were trained with; several are separated by commas."""
    commits: dict[str, None] = {}
    versions: dict[str, dict[str, None]] = {}
    for folder in folders:
        record = origin.recorded_of(folder)
        if record.get("commit"):
            commits[record["commit"] + "-dirty" * bool(record.get("dirty"))] = None
        machine = {key: record.get(key) for key in ("platform", "device", "threads")}
        for name, value in {**record.get("versions", {}), **machine}.items():
            if value not in (None, ""):
                versions.setdefault(name, {})[str(value)] = None
    return {"commit": ", ".join(commits), "versions": {name: ", ".join(values) for name, values in versions.items()}}
