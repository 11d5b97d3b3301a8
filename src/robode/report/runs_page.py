"""Any runs as a table: one row per configuration, its seeds pooled, one column per measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from robode.report.layout import About, Column, Layout, Plain, Row
from robode.report.values import Collected, Source, gather, newest
from robode.runs import results
from robode.runs.code import canonical, recorded
from robode.runs.identity import config_hash, differences
from robode.runs.run import Run

_SAID = ("model.name", "depth", "data.name", "seed")  # by label and group
_NAMED = 2  # so many differing keys fit into a label


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone. settings: the keys in which the groups differ, and this one's values."""

    label: str
    data: str
    config: Plain
    runs: tuple[Run, ...]
    settings: Plain = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.config().seed for run in self.runs)


def runs_table(folders: Iterable[Path | str], warnings: list[str] | None = None) -> list[Group]:
    """The runs in `folders`, grouped by configuration without seed, in the order given; seeds ascend.

    A run that repeats another one (same configuration, same seed) is no further sample: it is left out and named in
    `warnings`.

    Raises:
        BadInput: a folder without the configuration of a run.
    """
    found: dict[str, dict[int, Run]] = {}
    configs: dict[str, Plain] = {}
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        run = Run(folder)
        plain = run.config().plain()
        seed = int(plain.pop("seed"))
        key = config_hash(plain) + canonical(recorded(run.folder))  # two codes are two configurations
        configs.setdefault(key, plain)
        known = found.setdefault(key, {}).setdefault(seed, run)
        if known is not run and warnings is not None:
            warnings.append(f"{run.id} is left out: {known.id} has the same configuration and the same seed")
    groups = [
        Group(_label(configs[key]), str(configs[key]["data"]["name"]), configs[key], _ascending(runs))
        for key, runs in found.items()
    ]
    return _told_apart(groups)


def runs_report(folders: Iterable[Path | str]) -> tuple[Layout, Collected, Plain]:
    """What `write_report` takes: a layout without published values, the values, and {settings, warnings}."""
    warnings: list[str] = []
    groups = runs_table(folders, warnings)
    rows = tuple(Row(group.label, (), group.seeds, group.data) for group in groups)
    runs = sum(len(group.runs) for group in groups)
    title = f"{runs} run{'s' * (runs != 1)}, {len(groups)} configuration{'s' * (len(groups) != 1)}"
    layout = Layout(About("", ""), "runs", title, _columns(groups), rows)
    sources = [_source(number, rows[number], run) for number, group in enumerate(groups) for run in group.runs]
    keys = list(groups[0].settings) if groups else []
    settings = {key: [_text(group.settings[key]) for group in groups] for key in keys}
    settings = {key: values for key, values in settings.items() if len(set(values)) > 1}
    return layout, gather(layout.columns, sources), {"settings": settings, "warnings": warnings}


def measured_by_other_code(run: Run) -> bool:
    """Whether something that the report shows of a run was measured by other code than today's alone.

    Raises:
        JobFailed: a file of the run is damaged.
    """
    if (today := results.todays(run.folder)) is None:
        return False
    rows = newest(results.read_rows(run.folder / "results.csv"), today=today)
    numbers = newest(results.read_numbers(run.folder / "numbers.csv", today), rows)
    return bool(rows["other_code"].any() or numbers["other_code"].any())


def _source(number: int, row: Row, run: Run) -> Source:
    """A run that was named, wherever it is and whatever code made it."""
    plain = run.config().plain()
    mark = run.trained and run.of_other_code(plain)
    return Source(number, row, int(plain["seed"]), run, plain, mark, lambda found: found)


def _all(groups: Iterable[Group]) -> list[Run]:
    return [run for group in groups for run in group.runs]


def _ascending(runs: Mapping[int, Run]) -> tuple[Run, ...]:
    return tuple(runs[seed] for seed in sorted(runs))


def _label(config: Plain) -> str:
    return f"{config['model']['name']}, N = {config['depth']}"


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """With the keys in which they differ, and labels of their own."""
    keys = _differing(groups)
    named = [replace(group, settings={key: _get(group.config, key) for key in keys}) for group in groups]
    labels: dict[tuple[str, str], int] = {}
    found = []
    for group in named:
        alike = [other for other in groups if (other.label, other.data) == (group.label, group.data)]
        own = _differing(alike)
        settings = [f"{key.rpartition('.')[2]}={_text(_get(group.config, key))}" for key in own[:_NAMED]]
        label = ", ".join([group.label, *settings, *(["…"] if len(own) > _NAMED else [])])
        number = labels[label, group.data] = labels.get((label, group.data), 0) + 1
        found.append(replace(group, label=label if number == 1 else f"{label} ({number})"))
    return found


def _differing(groups: Sequence[Group]) -> list[str]:
    """Keys that are not the same everywhere, without what labels say and without names of classes."""
    keys = dict.fromkeys(
        key for group in groups[1:] for key, _, _ in differences(groups[0].config, group.config) if key not in _SAID
    )
    return [key for key in keys if not key.endswith("_target_")]


def _get(config: Plain, dotted: str) -> Any:
    node: Any = config
    for key in dotted.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _text(value: Any) -> str:
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _columns(groups: Sequence[Group]) -> dict[str, Column]:
    """One per measurement that some run has: clean first, then as they were measured, levels ascending. What was
    measured on other numbers of samples has a column of its own."""
    runs = _all(groups)
    tables = [(run, results.todays(run.folder)) for run in runs]
    rows = pd.concat([newest(results.read_rows(run.folder / "results.csv"), today=today) for run, today in tables])
    names = ["split", "perturbation", "protocol", "severity", "n"]
    measured = rows[names].assign(protocol=rows["protocol"].where(rows["perturbation"] != "clean", ""))
    place = measured.groupby(names[:3], sort=False).ngroup()
    measured = measured.assign(noisy=measured["perturbation"] != "clean", place=place).drop_duplicates(names)
    lines: Any = measured.sort_values(["noisy", "place", "severity", "n"], kind="stable").itertuples()
    columns = [
        Column(
            _name(line, measured), line.split, line.perturbation, line.severity or None, line.protocol or None, n=line.n
        )
        for line in lines
    ]
    numbers = pd.concat([results.read_numbers(run.folder / "numbers.csv") for run in runs])
    columns += [Column(name, quantity=name, unit="") for name in dict.fromkeys(numbers["quantity"])]
    return {column.name: column for column in columns}


def _name(line: Any, measured: pd.DataFrame) -> str:
    """What tells the measurement from the others, in few words."""
    level = f" {line.severity:g}" if line.severity else ""
    protocols = measured["protocol"].replace("", pd.NA).nunique()
    named = ["split", "perturbation", "protocol", "severity"]
    sizes = measured[(measured[named] == [getattr(line, name) for name in named]).all(axis=1)]["n"].nunique()
    parts = [
        f"{line.split} " if measured["split"].nunique() > 1 else "",
        str(line.perturbation).replace("_", " ") + level,
        f" ({line.protocol})" if protocols > 1 and line.protocol else "",
        f" (n = {line.n})" if sizes > 1 else "",
    ]
    return "".join(parts)
