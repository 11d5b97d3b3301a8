"""From plain containers to the dataclasses of `config`: every key must be one that somebody reads, of its type."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import GenericAlias, NoneType, UnionType
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from robode.config.allowed import DESCRIPTION, HINTS, OF_OBJECTIVES
from robode.config.config import Choice, Group, Node, Part, TrainConfig, Value
from robode.errors import BadInput

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C")
Hint: TypeAlias = type | UnionType | GenericAlias
"""What the annotation of a field is when the program runs."""
Parsed: TypeAlias = "Value | Part | Group | DataclassInstance"
"""What a field of a configuration holds."""
UNSET = "???"  # of a key that the user has to give
WHOLE = 2**63
"""Whole numbers are smaller: torch has no larger ones."""
LONGEST = 255
"""Bytes of one name in a path, on the usual file systems."""


def parse(kind: type[C], node: Node) -> C:
    """A configuration of this kind from its resolved plain form.

    Raises:
        BadInput: a key that nobody reads, a value of another type, or one too large for any machine.
    """
    usable = {key: _usable(value, key) for key, value in node.items()}
    return _section(kind, _with_data_root(usable) if hasattr(kind, "data_root") else usable, "")


def overlaid(before: TrainConfig, asked: TrainConfig, keys: Sequence[str]) -> TrainConfig:
    """`before` with what stands in `asked` at these dotted keys; null where nothing does. Raises `BadInput`."""
    plain, given = before.plain(), asked.plain()
    for key in keys:
        _copy(given, plain, key.split("."))
    return parse(TrainConfig, plain)


def _copy(source: Node, target: dict[str, Value], path: Sequence[str]) -> None:
    key, *inner = path
    there, value = target.get(key), source.get(key)
    if inner:
        copied = dict(there) if isinstance(there, Mapping) else {}
        _copy(value if isinstance(value, Mapping) else {}, copied, inner)
        value = copied
    target[key] = value


def _usable(value: Value, key: str) -> Value:
    """The value with ~ as the home folder wherever a path begins with it; a whole number must be one of torch's."""
    if isinstance(value, Mapping):
        return {name: _usable(each, f"{key}.{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [_usable(each, key) for each in value]
    if isinstance(value, int) and abs(value) >= WHOLE:
        raise BadInput(f"{key}={value}: expected a whole number below 2**63")
    return os.path.expanduser(value) if isinstance(value, str) and re.match(r"~[\w.-]*(/|$)", value) else value


def _with_data_root(node: Node) -> Node:
    """Of a verb that takes a run `data` is a data set only where one was chosen, else the place of the run's own."""
    data = node.get("data")
    if not isinstance(data, Mapping) or "name" in data:
        return node
    for key in data:
        if key != "root":
            raise unknown("data.", str(key), ["root"])
    return {**node, "data": None, "data_root": data.get("root")}


def unknown(where: str, key: str, known: Sequence[str]) -> BadInput:
    """The refusal of a key of a section. where: the section, with a dot behind it, or empty."""
    if near := get_close_matches(key, known, 1):
        return BadInput(f"unknown key '{where}{key}': did you mean '{where}{near[0]}'?")
    return BadInput(f"unknown key '{where}{key}': {where.rstrip('.') or 'the configuration'} has {', '.join(known)}")


_hints: dict[type, dict[str, Hint]] = {}


def hints(kind: type) -> dict[str, Hint]:
    """The types of the fields of a dataclass; evaluated once, because each composition asks hundreds of times."""
    if kind not in _hints:
        names = {each.name for each in fields(kind)}
        _hints[kind] = {name: hint for name, hint in get_type_hints(kind).items() if name in names}
    return _hints[kind]


def _section(kind: type[C], node: Value, where: str) -> C:
    """A dataclass from its node. where: its keys, with a dot behind them."""
    if not isinstance(node, Mapping):
        raise BadInput(f"{where.rstrip('.')}={node}: expected keys of its own, like {where}{next(iter(hints(kind)))}")
    known = hints(kind)
    values: dict[str, Parsed] = {}
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name in node:
            expected = each.metadata.get("expected", "")
            values[each.name] = _value(known[each.name], node[each.name], f"{where}{each.name}", expected)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise BadInput(f"{where}{each.name}: is needed and not there")
    rest = {str(key): value for key, value in node.items() if key not in known}
    if rest and "more" not in known:
        raise unknown(where, next(iter(rest)), [name for name in known if name not in HINTS])
    return kind(**values, **({"more": rest} if rest else {}))


def options_of(hint: Hint) -> tuple[Hint, ...]:
    """The types of a union; those of anything else are itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def is_group(hint: Hint) -> bool:
    """Whether a field holds parts by the names of their entries."""
    return get_origin(hint) not in (None, Literal) and Part in _leaves(hint)


def _value(hint: Hint, value: Value, key: str, expected: str) -> Parsed:
    """A value of a field, converted to what the field holds."""
    options = options_of(hint)
    if value is None and NoneType in options:
        return None
    for option in options:
        if option is Choice:
            return choice(value, key)
        if option is Part:
            return part(value, key)
        if isinstance(option, type) and is_dataclass(option):
            return _section(option, value, f"{key}.")
        if is_group(option):
            return _group(value, key)
    if value == UNSET and NoneType in options:
        return None
    if not any(_fits(option, value) for option in options):
        raise BadInput(f"{key}={value}: {_expected(options, expected)}")
    if isinstance(value, str) and any(len(os.fsencode(name)) > LONGEST for name in value.split("/")):
        raise BadInput(f"{key}: expected names of at most {LONGEST} letters, got one of {len(value)}")
    return value


def _group(value: Value, key: str) -> dict[str, Part | None]:
    if value is not None and not isinstance(value, Mapping):
        raise BadInput(f"{key}={value}: expected entries with a _target_ each")
    entries = value.items() if isinstance(value, Mapping) else ()
    return {str(name): None if node is None else part(node, f"{key}.{name}") for name, node in entries}


def part(node: Value, key: str) -> Part:
    """The part that a node describes. Raises `BadInput`, naming the key, for a node without a class."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise BadInput(f"{key}={node}: expected a node with a _target_, or null to switch it off")
    described = OF_OBJECTIVES if key.startswith("objective.") else ()
    about = {name: node[name] for name in described if name in node}
    arguments = {str(name): value for name, value in node.items() if name not in ("_target_", *described)}
    return Part(str(node["_target_"]), key.rpartition(".")[2], arguments, about)


def choice(node: Value, key: str) -> Choice:
    """The part that the file chosen for a group describes. Raises `BadInput`, naming the key."""
    name = node.get("name") if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not isinstance(name, str):
        given = f"it has {', '.join(map(str, node)) or 'nothing'}" if isinstance(node, Mapping) else f"got {node}"
        raise BadInput(f"{key}: expected a YAML file with a line 'name: …' and the keys of one {key}; {given}")
    about: dict[str, Value] = {each: node[each] for each in DESCRIPTION if each in node and each != "_target_"}
    arguments = {str(each): value for each, value in node.items() if each not in DESCRIPTION}
    return Choice(str(node.get("_target_", "")), name, arguments, about)


def _leaves(hint: Hint) -> set[Hint]:
    return {leaf for each in get_args(hint) for leaf in _leaves(each)} or {hint}


def _fits(hint: Hint, value: Value) -> bool:
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is Mapping:
        return isinstance(value, Mapping)
    if get_origin(hint) is not None:  # a list
        return isinstance(value, list | tuple) and all(_fits(get_args(hint)[0], each) for each in value)
    return isinstance(hint, type) and isinstance(value, hint)


def _expected(options: Sequence[Hint], expected: str) -> str:
    if expected:
        return f"expected {expected}"
    if get_origin(options[0]) is Literal:
        return f"choose one of: {', '.join(get_args(options[0]))}"
    return f"expected {' or '.join(TYPES[each] for each in options if each in TYPES)}"


TYPES: dict[Hint, str] = {int: "an integer", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
