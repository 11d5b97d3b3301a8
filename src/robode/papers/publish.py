"""The report of an item, from the files of its runs: page, tables, figures, and what they were made of."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from robode.config.instantiate import build
from robode.files import read_json, write_json
from robode.papers.collect import Collected
from robode.papers.plan import Job
from robode.papers.published import FACTS
from robode.papers.selection import Selection
from robode.papers.spec import Item
from robode.runs import origin
from robode.runs.code import RECORD
from robode.runs.identity import training_config

# A picture on its way into a report: name of its file, matplotlib's figure or a PNG, title, caption.
Picture = tuple[str, Any, str, str]


def publish(selection: Selection, jobs: Sequence[Job], collected: Collected, folder: Path) -> Path:
    """Write the report into a folder and return its page.

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
        "words": list(selection.words),
        "command": shlex.join(origin.relative_argv(selection.command)),
        "configs": {job.row.name: _config(job) for job in reversed(jobs)},
        **_made_by(map(Path, collected.runs["folder"].dropna())),
    }
    pictures = draw(selection.item, collected)
    return render(folder, selection.item, collected, context, pictures)


def render(
    folder: Path, item: Item, collected: Collected, context: Mapping[str, Any], pictures: Sequence[Picture]
) -> Path:
    """Page and tables. context: what `publish` puts together, or `published.facts` gives back."""
    from robode.report.paper_page import write_report

    page = write_report(folder, item, collected, {**context, "figures": list(pictures)})
    write_json(folder / FACTS, {**context, "figures": [[stem, *texts] for stem, _, *texts in pictures]})
    return page


def draw(item: Item, collected: Collected) -> list[Picture]:
    """Every figure of the item that its runs allow. Raises `BadInput` for a class that cannot be built."""
    return [picture for node in item.figures for picture in build(dict(node)).draw(collected)]


def _config(job: Job) -> str:
    """The row's training configuration as YAML, without places on this machine and without the seed."""
    plain = training_config(job.plain)
    plain.pop("seed", None)
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def _made_by(folders: Iterable[Path]) -> dict[str, Any]:
    """Commits and versions that the runs were trained with; several are separated by commas."""
    commits: dict[str, None] = {}
    versions: dict[str, dict[str, None]] = {}
    for folder in folders:
        record = read_json(folder / RECORD)
        if record.get("commit"):
            commits[record["commit"] + "-dirty" * bool(record.get("dirty"))] = None
        machine = {key: record.get(key) for key in ("platform", "device", "threads")}
        for name, value in {**record.get("versions", {}), **machine}.items():
            if value not in (None, ""):
                versions.setdefault(name, {})[str(value)] = None
    return {"commit": ", ".join(commits), "versions": {name: ", ".join(values) for name, values in versions.items()}}
