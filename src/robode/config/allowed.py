"""What the keys of a part may be, as its YAML says it under `allowed`, or conf/keys.yaml by its class; no torch.

    allowed:
      activation: tanh | relu                      # words
      width: auto | integer >= 1
      eta: number in (0, 1)                        # [0, 1] with its ends
      hidden: list of integer >= 1
      J_file: {J=file: a file with a matrix, else: null | text}  # depends on another key of the node
      label: {file=*.npz: null, else: text}          # or on how its value reads
      eps: levels                                    # noise_levels; one of them: level

A node that says what is allowed is closed: a key that is not listed is refused.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from os.path import exists, expanduser, isdir, isfile
from typing import TYPE_CHECKING

from robode.config.levels import noise_levels, one_level, skew_matrix
from robode.config.paths import conf_dir
from robode.errors import BadInput

if TYPE_CHECKING:
    from robode.config.config import Node, Part, Value

DESCRIPTION = ("_target_", "name", "integrators", "allowed", "fits", "info")
"""Keys that describe a node and are no arguments of its class."""
HINTS = ("allowed", "fits", "info")
"""Those of them that only say what may be chosen: no part of what was."""
GROUPS = ("model", "integrator", "encoder", "head", "augment", "data", "trainer")
"""Whose nodes have a description."""
OF_OBJECTIVES = ("task", "looks_at_target", "needs")
"""The same of an objective: the task whose targets it takes, whether it looks at them, keys of the model it needs."""

_ORDER: dict[str, Callable[[float, float], bool]] = {">": operator.gt, ">=": operator.ge}
_NUMBER = re.compile(
    r"(?P<kind>even integer|integer|number)"
    r"(?: (?P<order>>=?) (?P<least>\S+)| in (?P<left>[(\[])(?P<ends>[^)\]]+)(?P<right>[)\]]))?"
)
_LEVELS = re.compile(r"levels( <= (?P<upper>\S+))?")
_WORD = re.compile(r"[\w.+-]+")
PLACES: Mapping[str, Callable[[str], bool]] = {"a file": isfile, "a folder": isdir}
"""What a place of the user's may have to be, and how that is found out."""
_KINDS = ("anything", *PLACES, "a file with a matrix", "text", "[low, high]")
_ENDINGS = re.compile(r"a file ending in (?P<endings>\.\w+(?: or \.\w+)*)")
LARGEST = 3.4e38
GRAMMAR = (
    "words, numbers, 'integer >= 1', 'number in (0, 1]', 'list of …', '[low, high]', 'levels <= 1', 'level', 'a file', "
    "'a file ending in .npz', 'a file with a matrix', 'a folder', 'text' or 'anything', with | between"
)


@cache
def keys_of_classes() -> dict[str, Node]:
    """What conf/keys.yaml says: dotted name of a class -> its keys and what they may be."""
    import yaml

    found: dict[str, Node] = yaml.safe_load((conf_dir() / "keys.yaml").read_text(encoding="utf-8"))
    return found


def check_part(key: str, part: Part | None, task: str | None = None) -> None:
    """Raises `BadInput` for a value that conf/keys.yaml does not list for the class of a part, and for a key that the
    class does not have. key: where the part stands. task: of the data, where that is known."""
    known = keys_of_classes().get(part.target) if part else None
    if part is None or known is None:
        return
    for name, value in part.arguments.items():
        if name in known:
            check_value(f"{key}.{name}", value, spec_of(known[name], {**part.arguments, "task": task}))
        elif not name.startswith("_"):  # Hydra's own keys begin so
            raise no_such_key(key, name, list(known), part.target)


def check_node(group: str, node: Node) -> None:
    """Raises `BadInput` for a value that the node's `allowed` does not list, for a key that it does not know, and for
    an `allowed` that cannot be read. group: what the user types in front of the dot."""
    if "allowed" not in node:
        return
    name, allowed = node.get("name"), node["allowed"]
    file = f"{group.partition('.')[0]}/{name}.yaml"
    if not isinstance(allowed, Mapping):
        raise BadInput(f"{file}: allowed: expected a line for each key, got {_word(allowed)}")
    for key, spec in allowed.items():
        _check_spec(f"{file}: allowed.{key}", spec, allowed)
    for key, value in node.items():
        if key in DESCRIPTION:
            continue
        if key not in allowed:
            raise no_such_key(group, str(key), list(map(str, allowed)), f"{group}={name}")
        if check_key(group, str(key), value, allowed[key], node) == "a file with a matrix":
            skew_matrix(f"{group}.{key}", str(value), node.get("width"))


def no_such_key(group: str, key: str, known: Sequence[str], owner: str) -> BadInput:
    """The one line for a key that a node does not have, with the one that may be meant."""
    near = get_close_matches(key, known, 1)
    hint = f"; did you mean {group}.{near[0]}?" if near else f"; it has {', '.join(known) or 'no keys of its own'}"
    return BadInput(f"{group}.{key}: {owner} has no such key{hint}")


def check_set(key: str) -> None:
    """Raises `BadInput` for a key of the command line that says which file was chosen, and that no user sets."""
    if describes(key):
        raise BadInput(f"{key}: describes what was chosen and cannot be set; choose with {key.partition('.')[0]}=…")


def describes(key: str) -> bool:
    """Whether a dotted key says which file was chosen, and what its part is, so that nobody sets it."""
    group, *inside = key.split(".")
    if group == "objective":
        return len(inside) > 1 and inside[1] in OF_OBJECTIVES
    return group in GROUPS and bool(inside) and inside[0] in DESCRIPTION[1:]


def _check_spec(where: str, spec: Value, allowed: Node) -> None:
    """where: the file and the key that a complaint begins with."""
    if isinstance(spec, Mapping):
        for condition, text in spec.items():
            key = str(condition).partition("=")[0]
            if condition != "else" and ("=" not in str(condition) or key not in allowed):
                raise BadInput(
                    f"{where}: the condition {condition!r} is none; expected KEY=VALUE of this node, or else"
                )
            _check_spec(f"{where}.{condition}", text, allowed)
        return
    for text in _word(spec).split("|") if not isinstance(spec, list) else ("",):
        if not _readable(text.strip().removeprefix("list of ")):
            raise BadInput(f"{where}: {spec!r} cannot be read; expected {GRAMMAR}")


def _readable(text: str) -> bool:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text in _KINDS or any(kind.fullmatch(text) for kind in (_WORD, _LEVELS, _ENDINGS))
    ends = found["ends"].split(",") if found["ends"] else [found["least"]] if found["least"] else []
    return all(_number(end) is not None for end in ends) and (not found["ends"] or len(ends) == 2)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def spec_of(spec: Value, node: Node) -> str:
    """The text that says what is allowed, where that depends on other keys of the node."""
    if not isinstance(spec, Mapping):
        return _word(spec)
    for condition, text in spec.items():
        key, _, value = str(condition).partition("=")
        if condition == "else" or fnmatchcase(_word(node.get(key)), value):
            return _word(text)
    return "anything"


def check_key(group: str, key: str, value: Value, spec: Value, node: Node) -> str:
    """`check_value` of a key whose spec may depend on other keys of the node, which a complaint then names. Returns
    what the spec comes to."""
    found = spec_of(spec, node)
    try:
        check_value(f"{group}.{key}", value, found)
    except BadInput as error:
        others = [str(each).partition("=")[0] for each in spec] if isinstance(spec, Mapping) else []
        why = ", ".join(f"{group}.{other}={_word(node[other])}" for other in dict.fromkeys(others) if node.get(other))
        raise BadInput(f"{error} with {why}" if why else str(error)) from error
    return found


def check_value(key: str, value: Value, spec: str) -> None:
    """Raises `BadInput` unless one of the alternatives of the spec fits."""
    check_size(key, value)
    if spec == "level":
        one_level(key, value)
        return
    if found := _LEVELS.fullmatch(spec):
        noise_levels(key, value, float(found["upper"] or math.inf))
        return
    alternatives = [text.strip() for text in spec.split("|")]
    if not any(_fits(value, text) for text in alternatives):
        words = not any(
            _NUMBER.fullmatch(text) or text.startswith(("list of", "text", "[", *PLACES)) for text in alternatives
        )
        expected = f"choose one of: {', '.join(alternatives)}" if words else f"expected {' or '.join(alternatives)}"
        place = any(text.startswith(tuple(PLACES)) for text in alternatives)
        nothing = place and isinstance(value, str) and not exists(expanduser(value))
        raise BadInput(f"{key}={_word(value)}: {expected}{', and there is none' if nothing else ''}")


def check_size(key: str, value: Value) -> None:
    """Raises `BadInput` for a number that float32, which networks are made of, cannot hold."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, float) and LARGEST < abs(each) < math.inf:
            raise BadInput(f"{key}={each:g}: expected a number of at most {LARGEST:g}, the largest of float32")


def _fits(value: Value, text: str) -> bool:
    if text == "anything":
        return True
    if text.startswith("list of "):
        return isinstance(value, list | tuple) and all(_fits(each, text.removeprefix("list of ")) for each in value)
    if text == "[low, high]":
        return isinstance(value, list) and len(value) == 2 and _fits(value, "list of number") and value[0] < value[1]
    if found := _ENDINGS.fullmatch(text):
        endings = tuple(found["endings"].split(" or "))
        return _fits(value, "a file") and str(value).lower().endswith(endings)
    if text in (*PLACES, "a file with a matrix", "text"):
        kind = text.removesuffix(" with a matrix")
        return isinstance(value, str) and (text == "text" or PLACES[kind](expanduser(value)))
    found = _NUMBER.fullmatch(text)
    if isinstance(value, int | float) and not isinstance(value, bool):  # 1 is not true
        return _number(text) == value if found is None else _is_in(value, found)
    return found is None and not isinstance(value, list | Mapping) and _word(value) == text


def _is_in(value: int | float, found: re.Match[str]) -> bool:
    """Whether a number is of the kind and in the range that `_NUMBER` has found."""
    if not math.isfinite(value) or (found["kind"] != "number" and not isinstance(value, int)):
        return False
    if found["kind"] == "even integer" and value % 2:
        return False
    if not found["ends"]:
        return found["order"] is None or _ORDER[found["order"]](value, float(found["least"]))
    low, high = map(float, found["ends"].split(","))
    above = low <= value if found["left"] == "[" else low < value
    return above and (value <= high if found["right"] == "]" else value < high)


def _word(value: Value) -> str:
    """As it stands in YAML."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
