"""The leaderboard: clean, noisy, attacked and certified accuracy of docs/results on MNIST and FashionMNIST."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from robode.report.statistics import estimate
from robode.tasks.measure import wilson

BOARDS = {"MNIST": ("mnist", "mnist5k"), "FashionMNIST": ("fashion_mnist",)}
SUITES = {"noise": "noise", "attacks": "attacked", "certified": "certified"}
"""What results.csv calls a suite -> what a column begins with."""
Key = tuple[str, str, float]
"""Of a column: what it begins with, the norm or the kind of noise, the radius or variance to two decimals."""
CLEAN: Key = ("clean", "", 0.0)


@dataclass(frozen=True)
class Cell:
    """An accuracy in percent with its 95 % interval. about: on what it was measured."""

    value: float
    low: float
    high: float
    about: str
    doubted: bool


@dataclass
class Entry:
    """One row of a table of docs/results."""

    where: str
    name: str
    family: str
    data: str
    trained: str
    command: str
    weights: frozenset[str]
    seeds: int
    cells: dict[Key, Cell] = field(default_factory=dict)


def pages(docs: Path) -> dict[str, str]:
    """File name -> text."""
    found = entries(docs / "results")
    shared = {key for key, items in _measuring(found).items() if items > 1 or key == CLEAN}
    parts = [_HEAD]
    for title, names in BOARDS.items():
        here = [entry for entry in found if entry.data in names and len(shared & set(entry.cells)) > 1]
        columns = sorted({key for entry in here for key in entry.cells} & shared, key=_order)
        parts.append(f"## {title}\n\n```{{raw}} html\n{''.join(_table(here, columns))}```\n")
    return {"leaderboard.md": "\n".join(parts)}


def entries(results: Path) -> list[Entry]:
    """Every row with its cells, those of equal weights once."""
    found: dict[frozenset[str], Entry] = {}
    for path in sorted(results.glob("*/*/report.json")):
        for entry in _of_report(path.parent, json.loads(path.read_text(encoding="utf-8"))):
            known = found.setdefault(entry.weights, entry)
            known.cells = entry.cells | known.cells
    return list(found.values())


def _of_report(folder: Path, known: Mapping[str, Any]) -> Iterator[Entry]:
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False, na_values={"severity": [""], "score": [""]})
    rows = rows[(rows["split"] == "test") & (rows["protocol"] == "data_space") & rows["score"].notna()]
    for (group, label), of_row in rows.groupby(["group", "label"], sort=False):
        name = f"{group} {label}".strip()
        config = yaml.safe_load(known["configs"].get(name, "{}"))
        if not config or all(config["data"]["name"] not in names for names in BOARDS.values()):
            continue
        data, rows_only = config["data"]["name"], shlex.quote(f'rows=["{name}"]')
        yield Entry(
            f"{known['paper']}/{folder.name}", name, config["model"]["name"], data,
            f"{data}, {config['epochs']} epochs", f"{known['command']} {rows_only}",
            frozenset(of_row["weights"]), of_row["seed"].nunique(), dict(_cells(of_row)),
        )  # fmt: skip


def _cells(rows: pd.DataFrame) -> Iterator[tuple[Key, Cell]]:
    rows = rows.assign(key=[_key(row) for row in rows.to_dict("records")])
    for key, found in rows[rows["key"].notna()].groupby("key"):
        most = found[found["n"] == found["n"].max()]
        by_attack = most.groupby(["perturbation", "seed"])["score"].mean().unstack("seed")
        worst = by_attack.mean(axis=1).idxmin()
        chosen = most[most["perturbation"] == worst]
        yield key, _cell(by_attack.min(axis=0).dropna().tolist(), int(most["n"].max()), chosen)


def _key(row: Mapping[Any, Any]) -> Key | None:
    if row["perturbation"] == "clean":
        return CLEAN
    kind = SUITES.get(row["suite"])
    if kind is None or (kind == "noise" and row["perturbation"] not in ("gaussian", "salt_and_pepper")):
        return None
    about = row["perturbation"] if kind == "noise" else row["norm"]
    return kind, about, round(float(row["severity"]), 2)


def _cell(scores: Sequence[float], n: int, rows: pd.DataFrame) -> Cell:
    """Of one score a seed: the t-interval of the mean, and of a single seed Wilson's at the number of samples."""
    found = estimate(scores)
    low, high = (found.t_low, found.t_high) if found.n > 1 else wilson(scores[0] * n, n)
    level = f"{rows['severity'].iloc[0]:.4g}"
    about = f"{rows['perturbation'].iloc[0]}, level {level}, {n} samples, {found.n} seed{'s' * (found.n > 1)}"
    doubted = bool((rows["doubt"].astype(str) != "").any()) if "doubt" in rows else False
    return Cell(100 * found.mean, 100 * max(low, 0.0), 100 * min(high, 1.0), about, doubted)


def _measuring(found: Sequence[Entry]) -> Counter[Key]:
    """In how many tables each column is measured."""
    return Counter(key for key, _ in {(key, entry.where) for entry in found for key in entry.cells})


def _order(key: Key) -> tuple[int, str, float]:
    return ["clean", *SUITES.values()].index(key[0]), key[1], key[2]


def _title(key: Key) -> str:
    kind, about, level = key
    names = {"l2": "L2", "linf": "L∞", "gaussian": "Gauss", "salt_and_pepper": "salt and pepper"}
    shown = f"{level:g}".removeprefix("0") or "0"
    return kind if kind == "clean" else f"{names[about] if kind != 'noise' else ''} {shown}".strip()


def _table(found: Sequence[Entry], columns: Sequence[Key]) -> Iterator[str]:
    first, last = ("network", "seeds"), ("family", "trained on")
    yield '<div class="table-wrapper"><table class="sortable docutils">\n<thead>\n<tr>'
    kinds = Counter(_kind(key) for key in columns)
    yield f'<th colspan="{len(first)}"></th>' + "".join(f'<th colspan="{n}">{kind}</th>' for kind, n in kinds.items())
    yield f'<th colspan="{len(last) + 3}"></th></tr>\n<tr>'
    titles = [*first, *(_title(key) for key in columns), *last]
    yield "".join(f'<th data-sort tabindex="0">{title}</th>' for title in titles) + _LEFT
    yield "\n</thead>\n<tbody>\n"
    for entry in sorted(found, key=lambda entry: -entry.cells[CLEAN].value if CLEAN in entry.cells else 0):
        yield _line(entry, columns) + "\n"
    yield "</tbody></table></div>\n"


def _kind(key: Key) -> str:
    kind, about, _ = key
    return (
        {"gaussian": "Gaussian noise, variance", "salt_and_pepper": "salt and pepper"}[about]
        if kind == "noise"
        else kind
    )


def _line(entry: Entry, columns: Sequence[Key]) -> str:
    family = f'<a href="choices/model.html#model-{entry.family.replace("_", "-")}"><code>{entry.family}</code></a>'
    source = f'<a href="papers/{entry.where}.html">{entry.where}</a>'
    cells = [f"<td>{text}</td>" for text in (escape(entry.name), entry.seeds)]
    cells += [_number(entry.cells.get(key)) for key in columns]
    cells += [f"<td>{text}</td>" for text in (family, escape(entry.trained), source)]
    cells += [_opened("command", entry.command), _opened("digests", " ".join(sorted(entry.weights)))]
    return f"<tr>{''.join(cells)}</tr>"


def _opened(summary: str, text: str) -> str:
    return f"<td><details><summary>{summary}</summary><code>{escape(text)}</code></details></td>"


def _number(cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    mark = " ‡" if cell.doubted else ""
    interval = f"<small>{cell.low:.1f} … {cell.high:.1f}</small>"
    return f'<td data-value="{cell.value:.4f}" title="{escape(cell.about)}">{cell.value:.1f}{mark} {interval}</td>'


_LEFT = "<th>from</th><th>remake</th><th>weights</th></tr>"
_HEAD = """# Leaderboard

Accuracies in percent on test images, from the measurements in docs/results; noise and attacks are in data units, images
in \\[0, 1\\]. A click on a column sorts by it.

*Attacked* is what the strongest attack of the table leaves within that radius, an upper bound of the robust accuracy;
*certified* is proven for the network that runs, a lower bound. ‡ marks attacked accuracies that fail
[gradient-masking checks](../verdicts.md). A column holds radii that are equal to two decimals (127/255 and 0.5; 8/255
is 0.03); the text under the pointer says the exact one, the attack and the number of images. Intervals are of 95 %: of
the mean over training seeds (Student's t), of a single seed that of its images (Wilson).

Rows differ in their training data and epochs, so compare within a table first: *from* leads to it. *Remake* is the
command that makes the row again. *Weights* has the digest of each seed's, by which `robode export` names them in the
README and certificate.json of an export; a release holds one export for each digest.
"""
