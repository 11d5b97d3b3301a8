"""A paper to reproduce: its published numbers, and which runs and measurements feed them (conf/paper/<name>.yaml).

A file has the keys of the classes here and in `report.layout`; one function reads them by their types. A mistake is
`BadInput` with one line that names the place and the key.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from robode.config import explain
from robode.config.listing import entries, options
from robode.config.paths import conf_dir
from robode.errors import BadInput
from robode.report.layout import About, Layout, Overrides, Plain, Seeds, TableRow, Yaml

FULL = "full"
SEEDS = 3  # where a file does not say
UNITS = ("%", "")
MOST_VALUES = 100_000  # in a file
APART = ("seed", "experiment", "start")  # overrides that have a place of their own in the file
Drawing = Annotated[Plain, "figure"]  # a class and its arguments
Variants = Annotated[Mapping[str, str], "variants"]  # one text stands for {"": text}
_OF_FOLDERS = re.compile(r"|\w[\w.-]*")  # names of items, sizes and variants; "" is the only variant
T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How much of an item is computed. label: what a reader must know before comparing with the published values.

    overrides, evaluate: appended to those of training and of evaluation; seeds: instead of the rows' own;
    rows: only rows whose group and label contain one of these texts (none given: all).
    """

    name: str
    overrides: Overrides = ()
    evaluate: Overrides = ()
    seeds: Seeds | None = None
    rows: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Item(Layout):
    """A table or figure of a paper.

    experiment: variant → recipe, the first one being the default. evaluations: overrides of ``robode evaluate`` for
    what the experiment does not measure itself. figures: nodes with a ``_target_`` whose objects have
    ``draw(Collected) -> list[Picture]`` and read files in the run folders only.
    """

    experiment: Variants
    sizes: Mapping[str, Size] = field(default_factory=dict)
    evaluations: tuple[Overrides, ...] = ()
    figures: tuple[Drawing, ...] = ()

    def of_variant(self, variant: str) -> str:
        """What the folder of a variant's report is called: the item, and the variant where that is not the default."""
        return self.name if variant == next(iter(self.experiment)) else f"{self.name}-{variant}"


@dataclass(frozen=True)
class Paper(About):
    """Everything in one file of conf/paper."""

    items: Mapping[str, Item] = field(default_factory=dict)


class Loader(yaml.SafeLoader):
    """YAML in which no key may come twice (PyYAML would silently take the last of them), and whose aliases stand for
    no more than a long file would hold."""

    def get_single_node(self) -> yaml.Node | None:
        """The document as PyYAML composes it. Raises `ConstructorError` where its aliases stand for too much."""
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"with its aliases written out it has more than {MOST_VALUES} values", node.start_mark
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Yaml]:
        """A mapping. Raises `ConstructorError` for a key that comes twice."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' comes twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for; ∞ for one that contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        children: Sequence[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_written_out(each, known) for each in children)
    return known[id(node)]


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
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: cannot be read ({explain.first_line(error)})") from error
    return read(name, content)


def items(user_dirs: Sequence[Path] = ()) -> dict[str, Item]:
    """PAPER/ITEM → item, of every paper. Raises `BadInput` for a mistake in a file."""
    papers = [load(name, user_dirs) for name in options("paper", user_dirs)]
    return {f"{paper.name}/{name}": item for paper in papers for name, item in paper.items.items()}


def listed(user_dirs: Sequence[Path] = ()) -> dict[str, str]:
    """Papers with their descriptions, each followed by its items as PAPER/ITEM with their titles."""
    found: dict[str, str] = {}
    for name, about in entries("paper", user_dirs).items():
        of_paper = load(name, user_dirs).items
        found |= {name: about} | {f"{name}/{item.name}": item.title for item in of_paper.values()}
    return found


def find_item(where: str, user_dirs: Sequence[Path] = ()) -> Item:
    """The item that PAPER/ITEM names.

    Raises:
        BadInput: naming the choices; or a mistake in the paper's file.
    """
    paper, _, item = where.partition("/")
    found = load(paper, user_dirs).items
    return found[chosen(f"{paper}/", item, list(found))]


def read(name: str, content: Yaml) -> Paper:
    """The paper that a YAML file's content describes. Raises `BadInput`."""
    place = f"paper/{name}.yaml"
    node = _mapping(content, place, ("title", "items"), ("citation", "differences"))
    about = _record(About, {key: value for key, value in node.items() if key != "items"}, place, name=name)
    place = f"{place}: items"
    below = {key: _item(about, key, value, f"{place}.{key}") for key, value in _named(node["items"], place).items()}
    return Paper(about.name, about.title, about.citation, about.differences, below)


def _item(about: About, name: str, content: Yaml, place: str) -> Item:
    """What a file leaves out is filled in first: the seeds of rows, the unit of quantities, the size `full`."""
    node = dict(_named(content, place))
    usual: list[Yaml] = [*seeds(node.pop("seeds", SEEDS), f"{place}.seeds")]
    rows, columns = node.get("rows"), node.get("columns")
    if isinstance(rows, list):
        node["rows"] = [{"seeds": usual, **row} if isinstance(row, dict) else row for row in rows]
    if isinstance(columns, dict):
        quantities = {key: each for key, each in columns.items() if isinstance(each, dict) and "quantity" in each}
        node["columns"] = {**columns, **{key: {"unit": "", **each} for key, each in quantities.items()}}
    node["sizes"] = {FULL: {}, **_mapping(node.get("sizes", {}), f"{place}.sizes")}
    item: Item = _record(Item, node, place, paper=about, name=name)
    for part in (name, *item.sizes, *item.experiment):
        if not _OF_FOLDERS.fullmatch(part):
            raise BadInput(
                f"{place}: '{part}' names a folder; expected letters, digits and ._- in it, and a letter first"
            )
    for key, column in _named(node["columns"], place).items():
        _check_column(_mapping(column or {}, place), f"{place}.columns.{key}")
    _check_rows(item, f"{place}.rows")
    for key, size in item.sizes.items():
        _check_size(size, item.rows, f"{place}.sizes.{key}")
    for number, overrides in enumerate(item.evaluations):
        _refuse(overrides, ("run",), f"{place}.evaluations[{number}]")
    return item


def _check_column(node: Mapping[str, Yaml], place: str) -> None:
    of_scores, of_quantities = ("split", "perturbation", "severity", "protocol", "n", "reference"), ("quantity", "kind")
    if ("perturbation" in node) == ("quantity" in node):
        raise BadInput(f"{place}: expected either a perturbation (a score) or a quantity")
    beside = "quantity" if "quantity" in node else "perturbation"
    for key in of_scores if "quantity" in node else of_quantities:
        if key in node:
            raise BadInput(f"{place}.{key}: makes no sense beside '{beside}'")
    unit = node.get("unit")
    if unit is not None and "perturbation" in node:
        raise BadInput(f"{place}.unit={unit}: makes no sense for a score, whose task says its unit; remove it")
    if unit is not None and unit not in UNITS:
        raise BadInput(f"{place}.unit={unit}: expected '%' or ''")


def _check_rows(item: Item, place: str) -> None:
    if not item.rows:
        raise BadInput(f"{place}: expected at least one row")
    names: set[str] = set()
    for number, row in enumerate(item.rows):
        here = f"{place}[{number}]"
        for column in row.published:
            chosen(f"{here}.published: unknown key ", column, list(item.columns))
        _refuse(row.overrides, APART, f"{here}.overrides")
        if row.name in names:
            raise BadInput(f"{here}: there is a row '{row.name}' already; change label or group")
        names.add(row.name)
    _check_starts(item.rows, place)


def _check_starts(rows: Sequence[TableRow], place: str) -> None:
    """Refuse a row that begins with the weights of one that is not there, has not all its seeds, or begins with its."""
    named = {row.name: row for row in rows}
    begun = {row.name: (f"{place}[{number}].start", row) for number, row in enumerate(rows) if row.start}
    for here, row in begun.values():
        start = named[chosen(f"{here}=", row.start, list(named))]
        if absent := [seed for seed in row.seeds if seed not in start.seeds]:
            raise BadInput(f"{here}={start.name}: that row has no seed {absent[0]}, which '{row.name}' has")
    for here, row in begun.values():
        before = [row.name]
        while (following := named[before[-1]].start) and following not in before:
            before.append(following)
        if following:
            raise BadInput(f"{here}={row.start}: rows begin with each other: {' → '.join([*before, following])}")


def _check_size(size: Size, rows: Sequence[TableRow], place: str) -> None:
    _refuse(size.overrides, APART, f"{place}.overrides")
    _refuse(size.evaluate, APART, f"{place}.evaluate")
    if (size.overrides or size.evaluate or size.rows) and not size.label:
        raise BadInput(
            f"{place}: expected the key 'label': what a reader must know before comparing with the published values"
        )
    for part in size.rows:
        if not any(row.matches((part,)) for row in rows):
            raise BadInput(f"{place}.rows: no row contains '{part}'")
    kept = {row.name for row in rows if row.matches(size.rows)}
    for row in rows:
        if row.name in kept and row.start and row.start not in kept:
            raise BadInput(f"{place}.rows: '{row.name}' begins with those of '{row.start}'; expected that row too")


def _refuse(overrides: Sequence[str], keys: Sequence[str], place: str) -> None:
    for override in overrides:
        if key_of(override) in keys:
            raise BadInput(f"{place}: '{override}' has a place of its own; remove it here")


def _record(kind: type[T], content: Yaml, place: str, **known: object) -> T:
    """An object of a dataclass from the mapping of its fields, but for those that are known already."""
    hints = get_type_hints(kind, include_extras=True)
    keys = [each for each in fields(kind) if each.name not in known]  # type: ignore[arg-type]
    needed = [each.name for each in keys if each.default is MISSING and each.default_factory is MISSING]
    node = _mapping(content, place, needed, [each.name for each in keys])
    found = {key: _value(hints[key], value, _below(place, key)) for key, value in node.items()}
    for key in needed:
        if found[key] == "":
            raise BadInput(f"{_below(place, key)}: expected a text, got {node[key]!r}")
    return kind(**known, **found)


def _value(kind: Any, content: Yaml, place: str) -> Any:
    """What stands at a place, by the type of its field."""
    if kind in _READ:
        return _READ[kind](content, place)
    inner = [each for each in get_args(kind) if each is not NoneType]
    if get_origin(kind) is tuple:
        return tuple(_value(inner[0], entry, here) for entry, here in _sequence(content, place))
    if get_origin(kind) is Mapping and _described(inner[1]):
        below = _named(content, place).items()
        return {key: _record(inner[1], {} if each is None else each, f"{place}.{key}", name=key) for key, each in below}
    if get_origin(kind) is Mapping:
        return {key: _value(inner[1], each, f"{place}.{key}") for key, each in _mapping(content, place).items()}
    return _record(kind, content, place) if _described(kind) else _value(inner[0], content, place)


def _described(kind: Any) -> bool:
    return is_dataclass(kind)


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if ": " in place else f"{place}: {key}"


def _mapping(content: Yaml, place: str, needed: Sequence[str] = (), known: Sequence[str] = ()) -> dict[str, Yaml]:
    """A mapping with all of the needed keys, and no others than these and the known ones, if any are said."""
    node = _named(content, place) if content != {} else {}
    for key in node:
        if (needed or known) and key not in needed and key not in known:
            chosen(f"{place}: unknown key ", key, list(dict.fromkeys((*needed, *known))))
    for key in needed:
        if key not in node:
            raise BadInput(f"{place}: expected the key '{key}'")
    return node


def _named(content: Yaml, place: str) -> dict[str, Yaml]:
    """A mapping with at least one key, all of them texts."""
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise BadInput(f"{place}: expected keys with values, got {content!r}")
    return content


def _sequence(content: Yaml, place: str) -> list[tuple[Yaml, str]]:
    """(entry, place) of a list."""
    if not isinstance(content, list):
        raise BadInput(f"{place}: expected a list, got {content!r}")
    return [(entry, f"{place}[{i}]") for i, entry in enumerate(content)]


def _text(value: Yaml, place: str) -> str:
    """Numbers are taken as typed."""
    if isinstance(value, dict | list) or value is None:
        raise BadInput(f"{place}: expected a text, got {value!r}")
    text = str(value).strip()
    if any(unicodedata.category(letter) == "Cc" and letter not in "\t\r\n" for letter in text):
        raise BadInput(f"{place}: expected a text without control characters, got {text!r}")
    return text


def _number(value: Yaml, place: str) -> float:
    """A finite one."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise BadInput(f"{place}: expected a number, got {value!r}")
    return float(value)


def _whole(value: Yaml, place: str) -> int:
    if type(value) is not int or value < 1:
        raise BadInput(f"{place}: expected a whole number, got {value!r}")
    return value


def _flag(value: Yaml, place: str) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{place}: expected true or false, got {value!r}")
    return value


def _overrides(content: Yaml, place: str) -> tuple[str, ...]:
    """A list of ``key=value``."""
    found = []
    for override, _ in _sequence(content, place):
        if not isinstance(override, str) or "=" not in override and not override.startswith("~"):
            raise BadInput(f"{place}: expected overrides like depth=4, got {override!r}")
        found.append(override)
    return tuple(found)


def _variants(content: Yaml, place: str) -> dict[str, str]:
    if not isinstance(content, dict):
        content = {"": content}
    found = {key: _text(value, f"{place}.{key}".rstrip(".")) for key, value in _named(content, place).items()}
    for key, value in found.items():
        if not value:
            raise BadInput(f"{place}.{key}".rstrip(".") + ": expected a text, got ''")
    return found


def _drawing(content: Yaml, place: str) -> dict[str, Yaml]:
    node = _mapping(content, place)
    if "_target_" not in node:
        raise BadInput(f"{place}: expected the key '_target_'")
    return node


def key_of(override: str) -> str:
    """``+model.width=4`` → ``model.width``."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")


def seeds(value: Yaml, place: str) -> tuple[int, ...]:
    """A number n stands for the seeds 1 … n, a list for itself."""
    found: Yaml = [*range(1, value + 1)] if type(value) is int and value < 10_000 else value
    whole = [each for each in found if type(each) is int and 0 <= each < 2**32] if isinstance(found, list) else []
    if not whole or whole != found:
        raise BadInput(f"{place}={value}: expected how many (3: seeds 1, 2, 3) or a list of them, for example [1,2,5]")
    if len(set(whole)) < len(whole):
        raise BadInput(f"{place}={value}: names a seed twice, which would be one run; leave one out")
    return tuple(whole)


def chosen(key: str, value: str, choices: Sequence[str]) -> str:
    """`value`, if it is one of the choices; else a complaint that begins with `key` and names them."""
    if value in choices:
        return value
    near = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise BadInput(f"{key}{value}: {hint}choose one of: {', '.join(choices)}")


_READ: dict[object, Callable[[Yaml, str], object]] = {
    str: _text, int: _whole, float: _number, bool: _flag,
    Overrides: _overrides, Seeds: seeds, Variants: _variants, Drawing: _drawing,
}  # fmt: skip
