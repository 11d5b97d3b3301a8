"""Any runs as a table: one row per configuration, its seeds pooled, one column per measurement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from robode.config.explain import unknown_choice
from robode.errors import BadInput
from robode.report.layout import About, Column, Layout, Plain, TableRow, Yaml
from robode.report.listing import best
from robode.report.values import VALIDATION, Collected, Source, gather, lines_of, newest, readable_validation
from robode.runs import results
from robode.runs.code import Today, canonical, recorded
from robode.runs.identity import config_hash, differences
from robode.runs.run import Run
from robode.tasks.measure import Measure, measure_named

VALIDATED = "validation"  # the column by which settings are chosen
# said by label and group, or about the model
_NO_SETTINGS = ("model.name", "depth", "data.name", "seed", "model.integrators")


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone: seeds, in the order of the runs. settings: the keys in which the groups
    differ, and this one's values."""

    label: str
    data: str
    config: Plain
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    settings: Plain = field(default_factory=dict)


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
        configs.setdefault(key, _with_start(plain))
        known = found.setdefault(key, {}).setdefault(seed, run)
        if known is not run and warnings is not None:
            warnings.append(f"{run.id} is left out: {known.id} has the same configuration and the same seed")
    groups = []
    for key, runs in found.items():
        seeds = tuple(sorted(runs))
        about, ascending = configs[key], tuple(runs[seed] for seed in seeds)
        groups.append(Group(_label(about), str(about["data"]["name"]), about, seeds, ascending))
    return _told_apart(groups)


def runs_report(folders: Iterable[Path | str], sort: str = "") -> tuple[Layout, Collected, Plain]:
    """What `write_report` takes: a layout without published values, the values, and {settings, warnings}.

    sort: the name of a column with scores, whose best row goes first. Raises `BadInput` if there is none of that name.
    """
    warnings: list[str] = []
    groups = runs_table(folders, warnings)
    columns = _columns(groups)
    rows = [TableRow(group.label, (), group.seeds, group.data) for group in groups]
    sources = [_source(number, rows[number], run) for number, group in enumerate(groups) for run in group.runs]
    collected = gather(columns, sources)
    if sort:
        order = _order(sort, columns, collected, len(rows))
        groups, rows = [groups[i] for i in order], [rows[i] for i in order]
        collected = collected.reordered(order)
    runs = sum(len(group.runs) for group in groups)
    title = f"{runs} run{'s' * (runs != 1)}, {len(groups)} configuration{'s' * (len(groups) != 1)}"
    selected = _selected(rows, collected)
    layout = Layout(About("", ""), "runs", title, columns, tuple(rows), selected=selected)
    keys = list(groups[0].settings) if groups else []
    settings = {key: [_text(group.settings[key]) for group in groups] for key in keys}
    settings = {key: values for key, values in settings.items() if len(set(values)) > 1}
    return layout, collected, {"settings": settings, "warnings": warnings}


def _means(collected: Collected, name: str) -> tuple[pd.Series, Measure]:
    """Of one column, over seeds: row -> mean score; and how it is to be read."""
    here = collected.values[collected.values["column"] == name]
    tasks = collected.rows[collected.rows["row"].isin(here["row"])]["task"]
    return here.groupby("row")["value"].mean(), measure_named(tasks.iloc[-1] if len(tasks) else "")


def _order(sort: str, columns: Mapping[str, Column], collected: Collected, count: int) -> list[int]:
    """The numbers of the rows, the best first by their mean score in a column; those without one last."""
    scored = [name for name, column in columns.items() if (column.quantity or VALIDATION).startswith(VALIDATION)]
    if sort not in scored:
        raise BadInput(unknown_choice("sort", sort, scored))
    means, measure = _means(collected, sort)
    return sorted(range(count), key=lambda number: -measure.gain(means[number]) if number in means else math.inf)


def _selected(rows: Sequence[TableRow], collected: Collected) -> str:
    """Of runs of one task on one data set: which row is best by the score on validation data, and its best run."""
    names = [name for name in dict.fromkeys(collected.values["column"]) if name.startswith(VALIDATED)]
    if len(names) != 1 or len({row.group for row in rows}) != 1:
        return ""
    means, measure = _means(collected, names[0])
    number = int(means.index[best(list(means), measure)])
    mine = collected.runs[collected.runs["row"] == number].dropna(subset=["validation"])
    run = mine["run"].iloc[best(list(mine["validation"]), measure)]
    return f"best by validation: {rows[number].label}, {measure.text(means[number])}, run {run}"


def measured_by_other_code(run: Run, plain: Plain) -> bool:
    """Whether something that the report shows of a run was measured by other code than today's alone. plain: its
    configuration.

    Raises:
        JobFailed: a file of the run is damaged.
    """
    today = Today.of(run.folder, plain)
    rows = newest(results.read_rows(run.folder / "results.csv"), today=today)
    numbers = newest(results.read_numbers(run.folder / "numbers.csv", today), rows)
    return bool(rows["other_code"].any() or numbers["other_code"].any())


def _source(number: int, row: TableRow, run: Run) -> Source:
    """A run that was named, wherever it is and whatever code made it."""
    plain = run.config().plain()
    mark = run.trained and run.of_other_code(plain)
    return Source(number, row, int(plain["seed"]), run, plain, mark, lambda found: found)


def _with_start(config: Plain) -> Plain:
    """With the name of the run whose weights it began with, not their digest; a checkpoint of it keeps its own."""
    start = Path(str(config.get("start") or config.get("start_weights") or ""))
    name = f"{start.parent.name}/{start.name}" if start.suffix == ".ckpt" else start.name
    return {**config, "start": name or None}


def _all(groups: Iterable[Group]) -> list[Run]:
    return [run for group in groups for run in group.runs]


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
        own = _once(_differing(alike), alike)
        last = Counter(key.rpartition(".")[2] for key in own)
        short = {key: name if last[name := key.rpartition(".")[2]] == 1 else key for key in own}
        label = ", ".join([group.label, *(f"{short[key]}={_text(_get(group.config, key))}" for key in own)])
        number = labels[label, group.data] = labels.get((label, group.data), 0) + 1
        found.append(replace(group, label=label if number == 1 else f"{label} ({number})"))
    return found


def _differing(groups: Sequence[Group]) -> list[str]:
    """Keys that are not the same everywhere, without what labels say and without names of classes."""
    keys = dict.fromkeys(
        "start" if key == "start_weights" else key
        for group in groups[1:]
        for key, _, _ in differences(groups[0].config, group.config)
        if key not in _NO_SETTINGS
    )
    named = [key for key in keys if not key.endswith("_target_")]
    # Where one group has no callbacks and another some, `callbacks` differs, and so does what is in it.
    return [key for key in named if not any(other.startswith(f"{key}.") for other in named)]


def _once(keys: Iterable[str], groups: Sequence[Group]) -> list[str]:
    """Of keys that always have the same value (one may be taken from another) the one nearest to the root."""
    found: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):
        found.setdefault(repr([_get(group.config, key) for group in groups]), key)
    return list(found.values())


def _get(config: Plain, dotted: str) -> Yaml:
    node: Plain | Yaml = config
    for key in dotted.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if not isinstance(node, Mapping) else dict(node)


def _text(value: Yaml) -> str:
    if isinstance(value, list | Mapping):  # of a mapping its names
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)


def _columns(groups: Sequence[Group]) -> dict[str, Column]:
    """One per measurement that some run has: clean first, then as they were measured, levels ascending. What was
    measured on other numbers of samples has a column of its own, the most of them first."""
    runs = _all(groups)
    tables = [(run.folder, Today.of(run.folder, group.config)) for group in groups for run in group.runs]
    rows = pd.concat([newest(results.read_rows(folder / "results.csv"), today=today) for folder, today in tables])
    names = ["split", "perturbation", "protocol", "severity", "n"]
    measured = rows[names].assign(protocol=rows["protocol"].where(rows["perturbation"] != "clean", ""))
    place = measured.groupby(names[:3], sort=False).ngroup()
    measured = measured.assign(noisy=measured["perturbation"] != "clean", place=place, fewer=-measured["n"])
    measured = measured.drop_duplicates(names)
    validated = _validated(runs, rows["task"])
    lines = lines_of(measured.sort_values(["noisy", "place", "severity", "fewer"], kind="stable"))
    columns = [
        Column(
            _name(line, measured, bool(validated)),
            line["split"],
            line["perturbation"],
            line["severity"] or None,
            line["protocol"] or None,
            n=line["n"],
        )
        for line in lines
    ]
    numbers = pd.concat([results.read_numbers(run.folder / "numbers.csv") for run in runs])
    columns += [Column(name, quantity=name, unit="") for name in dict.fromkeys(numbers["quantity"])]
    return {column.name: column for column in (*validated, *columns)}


def _validated(runs: Iterable[Run], tasks: pd.Series) -> list[Column]:
    """The scores on validation data, by which settings are chosen, of every task of which a run has one."""
    measures = [measure_named(text) for text in tasks.unique()]
    known = [each for each in measures if any(math.isfinite(readable_validation(run.folder, each)) for run in runs)]
    names = [VALIDATED if len(known) == 1 else f"{VALIDATED} {each.score_name}" for each in known]
    return [
        Column(name, quantity=VALIDATION + each.score_name, unit="%" if each.shares else each.unit)
        for name, each in zip(names, known, strict=True)
    ]


def _name(line: Plain, measured: pd.DataFrame, validated: bool) -> str:
    """What tells the measurement from the others, in few words. validated: whether there are scores to choose by, which
    no other split is."""
    level = f" {line['severity']:g}" if line["severity"] else ""
    protocols = measured["protocol"].replace("", pd.NA).nunique()
    named = ["split", "perturbation", "protocol", "severity"]
    sizes = measured[(measured[named] == [line[name] for name in named]).all(axis=1)]["n"].nunique()
    parts = [
        f"{line['split']} " if validated or measured["split"].nunique() > 1 else "",
        str(line["perturbation"]).replace("_", " ") + level,
        f" ({line['protocol']})" if protocols > 1 and line["protocol"] else "",
        f" (n = {line['n']})" if sizes > 1 else "",
    ]
    return "".join(parts)
