"""In which overrides many runs differ, read from their config.yaml a group at a time: of a thousand runs of a sweep
most groups are the same text, which is read once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from robode.config.allowed import HINTS
from robode.config.config import Node, Value
from robode.config.instantiate import targets
from robode.errors import BadInput
from robode.files import read_text
from robode.runs.earlier import in_todays_words
from robode.runs.identity import EVALUATION, VOLATILE, training_config
from robode.runs.run import plain_of

GROUP = re.compile(r"^(?=[A-Za-z_])", re.MULTILINE)  # where a key of the top level begins
Groups = Mapping[str, str]
"""Of a config.yaml: key of the top level -> its text."""


def groups_of(text: str) -> Groups:
    """The groups of a config.yaml as robode writes them. Raises `BadInput` for a text that has none, or as `whole`."""
    found = dict(map(_group, filter(None, GROUP.split(text))))
    if not {"model", "data", "depth", "seed"} <= found.keys():
        raise BadInput("expected the YAML of a run")
    return found


def read_groups(folder: Path | str) -> Groups:
    """`groups_of` the config.yaml of a run. Raises `BadInput` naming the file."""
    path = os.path.join(folder, "config.yaml")
    try:
        return groups_of(read_text(path))
    except (BadInput, OSError, ValueError) as error:  # bad UTF-8 is a ValueError
        why = str(error) if isinstance(error, BadInput) else f"cannot be read ({type(error).__name__})"
        raise BadInput(f"{path}: {why}") from error


@cache
def _group(text: str) -> tuple[str, str]:
    """Its key and its text. Equal groups are one object, which a process that reads runs for another one hands over
    once."""
    whole(text)
    return text.partition(":")[0], text


@cache
def whole(text: str) -> Value:
    """What a group says, in today's words. Raises `BadInput` where it is damaged or has references."""
    ((key, node),) = plain_of(text).items()
    said = in_todays_words({key: node})[key]
    return {name: value for name, value in said.items() if name not in HINTS} if isinstance(said, dict) else said


@cache
def _deciding(text: str) -> Value:
    """Of a group what decides the weights; None where that is nothing."""
    return training_config({text.partition(":")[0]: whole(text)}).get(text.partition(":")[0])


def training(groups: Groups) -> frozenset[tuple[str, str]]:
    """What decides the weights of a run, but for its data's content: two runs with the same are the same training."""
    deciding = ((key, _deciding(text)) for key, text in groups.items() if key not in (*VOLATILE, *EVALUATION))
    return frozenset((key, repr(value)) for key, value in deciding if value is not None)


@cache
def classes(text: str) -> frozenset[str]:
    """The classes that a group names, of what decides the weights."""
    if text.partition(":")[0] in (*VOLATILE, *EVALUATION):
        return frozenset()
    return frozenset(map(str, targets(_deciding(text))))


def value_at(groups: Groups, key: str) -> Value:
    """What a dotted key is in the configuration of a run: of a group that is chosen by name the name. None where it has
    no such key."""
    top, _, rest = key.partition(".")
    return _value(groups[top], rest) if top in groups else None


@cache
def _value(text: str, rest: str) -> Value:
    node = whole(text)
    for step in rest.split(".") if rest else ():
        node = node.get(step) if isinstance(node, Mapping) else None
    return _kind(node) or ", ".join(node) if isinstance(node, Mapping) else node


def keys(many: Iterable[Groups]) -> list[str]:
    """Every dotted key that some configuration has."""
    texts = dict.fromkeys(chain.from_iterable(groups.values() for groups in many))
    return list(dict.fromkeys(key for text in texts for key in _below(text.partition(":")[0], whole(text))))


def differing(many: Sequence[Groups]) -> list[str]:
    """The dotted keys by which runs are told apart, as overrides have them: `model`, `model.width`, `depth`. Of keys
    that are the same everywhere (one is taken from the other) the one nearest to the root."""
    found: list[str] = []
    for top in dict.fromkeys(chain.from_iterable(many)):
        texts = dict.fromkeys([groups.get(top, "") for groups in many])
        if len(texts) > 1 and top not in (*VOLATILE, *EVALUATION):
            found += _telling(top, [_deciding(text) if text else None for text in texts])
    columns: dict[tuple[str, ...], str] = {}
    for key in sorted(dict.fromkeys(found), key=lambda key: key.count(".")):
        columns.setdefault(tuple(repr(value_at(groups, key)) for groups in many), key)
    return list(columns.values())


def _telling(path: str, nodes: Sequence[Value]) -> Iterator[str]:
    """Dotted keys at and below `path` in which nodes differ; what two kinds of a thing have apart is not told."""
    if all(node == nodes[0] for node in nodes):
        return
    mappings = [node for node in nodes if isinstance(node, Mapping)]
    kinds: dict[str, list[Node]] = {}
    for node in mappings:
        kinds.setdefault(_kind(node), []).append(node)
    if len(kinds) > 1 or len(mappings) < len(nodes):
        yield path
    for alike in kinds.values():
        for key in dict.fromkeys(key for node in alike for key in node):
            yield from _telling(f"{path}.{key}", [node.get(key) for node in alike])


def _kind(node: Node) -> str:
    """What a thing is called: its name, or that of its class; "" of a mapping of things."""
    return str(node.get("name") or str(node.get("_target_", "")).rpartition(".")[2])


def _below(path: str, node: Value) -> Iterator[str]:
    yield path
    for key, value in node.items() if isinstance(node, Mapping) else ():
        yield from _below(f"{path}.{key}", value)
