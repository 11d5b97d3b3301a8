"""From conf/paper/<name>.yaml to a `Paper`; a mistake in the file is `BadInput` with one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from robode.config import explain
from robode.config.listing import options
from robode.config.paths import conf_dir
from robode.errors import BadInput
from robode.papers import nodes
from robode.papers.spec import About, Column, Difference, Item, Paper, Row, Size

FULL = "full"
SEEDS = 3  # where a file does not say
UNITS = ("%", "")
APART = ("seed", "experiment")  # words that have a place of their own in the file


class Loader(yaml.SafeLoader):
    """YAML in which no key may come twice: PyYAML would silently take the last of them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' comes twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(name: str, user_dirs: Sequence[Path] = ()) -> Paper:
    """The paper of that name: the project's own, else the user's.

    Raises:
        BadInput: no such paper, or a mistake in its file.
    """
    files = [folder / "paper" / f"{name}.yaml" for folder in (conf_dir(), *user_dirs)]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise BadInput(explain.unknown_choice("paper", name, options("paper", user_dirs)))
    try:
        with path.open(encoding="utf-8") as file:  # a complaint names the file of a stream
            content = yaml.load(file, Loader)
    except yaml.MarkedYAMLError as error:
        raise BadInput(explain.sentence("reproduce", error)) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: cannot be read ({explain.first_line(error)})") from error
    return read(name, content)


def items(user_dirs: Sequence[Path] = ()) -> dict[str, Item]:
    """PAPER/ITEM → item, of every paper. Raises `BadInput` for a mistake in a file."""
    papers = [load(name, user_dirs) for name in options("paper", user_dirs)]
    return {f"{paper.name}/{name}": item for paper in papers for name, item in paper.items.items()}


def find_item(where: str, user_dirs: Sequence[Path] = ()) -> Item:
    """The item that PAPER/ITEM names.

    Raises:
        BadInput: naming the choices; or a mistake in the paper's file.
    """
    paper, _, item = where.partition("/")
    found = load(paper, user_dirs).items
    return found[nodes.chosen(f"{paper}/", item, list(found))]


def read(name: str, content: Any) -> Paper:
    """The paper that a YAML file's content describes. Raises `BadInput`."""
    place = f"paper/{name}.yaml"
    node = nodes.mapping(content, place, ("title", "items"), ("citation", "differences"))
    place += ":"
    keys = tuple(Difference.__dataclass_fields__)
    differences = []
    for entry, here in nodes.sequence(node.get("differences", []), f"{place} differences"):
        texts = nodes.mapping(entry, here, keys)
        differences.append(Difference(**{key: nodes.text(texts[key], f"{here}.{key}") for key in keys}))
    title = nodes.text(node["title"], f"{place} title")
    about = About(name, title, str(node.get("citation", "")).strip(), tuple(differences))
    items = {
        key: _item(about, key, nodes.named(value, f"{place} items.{key}"), f"{place} items.{key}")
        for key, value in nodes.named(node["items"], f"{place} items").items()
    }
    return Paper(about.name, about.title, about.citation, about.differences, items)


def _item(about: About, name: str, content: Mapping[str, Any], place: str) -> Item:
    optional = ("note", "evaluations", "seeds", "sizes", "figures")
    node = nodes.mapping(content, place, ("title", "experiment", "columns", "rows"), optional)
    columns = {key: _column(key, value, here) for key, value, here in nodes.entries(node, "columns", place)}
    rows = _rows(node, tuple(columns), place)
    sizes = {FULL: Size(FULL)}
    sizes |= {key: _size(key, value, rows, here) for key, value, here in nodes.entries(node, "sizes", place)}
    evaluations = nodes.sequence(node.get("evaluations", []), f"{place}.evaluations")
    figures = nodes.sequence(node.get("figures", []), f"{place}.figures")
    return Item(
        paper=about,
        name=name,
        title=nodes.text(node["title"], f"{place}.title"),
        variants=_variants(node, place),
        columns=columns,
        rows=rows,
        sizes=sizes,
        note=str(node.get("note", "")).strip(),
        evaluations=tuple(nodes.words(entry, here, forbidden=("run",)) for entry, here in evaluations),
        figures=tuple(nodes.mapping(entry, here, ("_target_",), _keys(entry)) for entry, here in figures),
    )


def _keys(content: Any) -> tuple[str, ...]:
    return tuple(content) if isinstance(content, dict) else ()


def _variants(node: Mapping[str, Any], place: str) -> dict[str, str]:
    if isinstance(node["experiment"], str):
        return {"": nodes.text(node["experiment"], f"{place}.experiment")}
    return {key: nodes.text(value, here) for key, value, here in nodes.entries(node, "experiment", place)}


def _column(name: str, content: Any, place: str) -> Column:
    of_accuracies, of_quantities = ("split", "perturbation", "severity", "protocol"), ("quantity", "kind")
    node = nodes.mapping(content, place, known=(*of_accuracies, *of_quantities, "unit"))
    if ("perturbation" in node) == ("quantity" in node):
        raise BadInput(f"{place}: expected either a perturbation (a score) or a quantity")
    for key in of_accuracies if "quantity" in node else of_quantities:
        if key in node:
            raise BadInput(
                f"{place}.{key}: makes no sense beside '{'quantity' if 'quantity' in node else 'perturbation'}'"
            )
    unit = node.get("unit", "") if "quantity" in node else None
    if "perturbation" in node and "unit" in node:
        raise BadInput(f"{place}.unit={node['unit']}: makes no sense for a score, whose task says its unit; remove it")
    if unit is not None and unit not in UNITS:
        raise BadInput(f"{place}.unit={unit}: expected '%' or ''")
    texts = {key: nodes.text(value, f"{place}.{key}") for key, value in node.items() if key not in ("severity", "unit")}
    severity = nodes.number(node["severity"], f"{place}.severity") if "severity" in node else None
    return Column(name, severity=severity, unit=unit, n=None, **texts)


def _rows(node: Mapping[str, Any], columns: Sequence[str], place: str) -> tuple[Row, ...]:
    default = nodes.seeds(node.get("seeds", SEEDS), f"{place}.seeds")
    rows: dict[str, Row] = {}
    for entry, here in nodes.sequence(node["rows"], f"{place}.rows"):
        content = nodes.mapping(entry, here, ("label", "words"), ("group", "seeds", "print"))
        printed = nodes.mapping(content.get("print", {}), f"{here}.print", known=columns)
        row = Row(
            nodes.text(content["label"], f"{here}.label"),
            str(content.get("group", "")).strip(),
            nodes.words(content["words"], f"{here}.words", forbidden=APART),
            nodes.seeds(content["seeds"], f"{here}.seeds") if "seeds" in content else default,
            {key: nodes.number(value, f"{here}.print.{key}") for key, value in printed.items()},
        )
        if row.name in rows:
            raise BadInput(f"{here}: there is a row '{row.name}' already; change label or group")
        rows[row.name] = row
    if not rows:
        raise BadInput(f"{place}.rows: expected at least one row")
    return tuple(rows.values())


def _size(name: str, content: Any, rows: Sequence[Row], place: str) -> Size:
    node = nodes.mapping({} if content is None else content, place, (), ("words", "evaluate", "seeds", "rows", "label"))
    size = Size(
        name,
        nodes.words(node.get("words", []), f"{place}.words", forbidden=APART),
        nodes.words(node.get("evaluate", []), f"{place}.evaluate"),
        nodes.seeds(node["seeds"], f"{place}.seeds") if "seeds" in node else None,
        tuple(nodes.text(each, here) for each, here in nodes.sequence(node.get("rows", []), f"{place}.rows")),
        str(node.get("label", "")).strip(),
    )
    if (size.words or size.evaluate or size.rows) and not size.label:
        raise BadInput(f"{place}: expected the key 'label': what a reader must know before comparing with the print")
    for part in size.rows:
        if not any(row.matches((part,)) for row in rows):
            raise BadInput(f"{place}.rows: no row contains '{part}'")
    return size
