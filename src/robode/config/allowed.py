"""What the keys of a model, integrator, encoder or head may be, as its YAML says it under `allowed`; no torch.

    allowed:
      activation: tanh | relu                      # words
      width: auto | integer >= 1
      eta: number in (0, 1)
      hidden: list of integer >= 1
      J_file: {J=file: a file, else: null | text}    # depends on another key of the node

A node that says what is allowed is closed: a key that is not listed is refused.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

from robode.errors import BadInput

DESCRIPTION = ("_target_", "name", "integrators", "allowed")
"""Keys that describe a node and are no arguments of its class."""
OF_OBJECTIVES = ("task", "looks_at_target")
"""The same of an objective: the task whose targets it takes, and whether it looks at them."""

_ORDER: dict[str, Callable[[float, float], bool]] = {">": operator.gt, ">=": operator.ge}
_NUMBER = re.compile(
    r"(?P<kind>even integer|integer|number)(?: (?P<order>>=?) (?P<least>\S+)| in \((?P<ends>[^)]+)\))?"
)


def check_node(group: str, node: Mapping[str, object]) -> None:
    """Raises `BadInput` for a value that the node's `allowed` does not list, and for a key that it does not know.
    group: what the user types in front of the dot."""
    allowed = node.get("allowed")
    if not isinstance(allowed, Mapping):
        return
    for key, value in node.items():
        if key in DESCRIPTION:
            continue
        if key not in allowed:
            near = get_close_matches(str(key), list(map(str, allowed)), 1)
            hint = f"; did you mean {group}.{near[0]}?" if near else f"; it has {', '.join(map(str, allowed))}"
            raise BadInput(f"{group}.{key}: {group}={node.get('name')} has no such key{hint}")
        check_value(f"{group}.{key}", value, spec_of(allowed[key], node))


def spec_of(spec: object, node: Mapping[str, object]) -> str:
    """The text that says what is allowed, where that depends on other keys of the node."""
    if not isinstance(spec, Mapping):
        return _word(spec)
    for condition, text in spec.items():
        key, _, value = str(condition).partition("=")
        if condition == "else" or _word(node.get(key)) == value:
            return _word(text)
    return "anything"


def check_value(key: str, value: object, spec: str) -> None:
    """Raises `BadInput` unless one of the alternatives of the spec fits."""
    alternatives = [text.strip() for text in spec.split("|")]
    if not any(_fits(value, text) for text in alternatives):
        words = not any(_NUMBER.fullmatch(text) or text.startswith(("list of", "a file")) for text in alternatives)
        expected = f"choose one of: {', '.join(alternatives)}" if words else f"expected {' or '.join(alternatives)}"
        raise BadInput(f"{key}={_word(value)}: {expected}")


def _fits(value: object, text: str) -> bool:
    if text == "anything":
        return True
    if text.startswith("list of "):
        return isinstance(value, list) and all(_fits(each, text.removeprefix("list of ")) for each in value)
    if text in ("a file", "text"):
        return isinstance(value, str) and (text == "text" or Path(value).is_file())
    found = _NUMBER.fullmatch(text)
    if found is None:  # a word; 1 is not true
        return (isinstance(value, str | bool) or value is None) and _word(value) == text
    whole = found["kind"] != "number"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        return False
    if found["kind"] == "even integer" and value % 2:
        return False
    if found["ends"]:
        low, high = map(float, found["ends"].split(","))
        return low < value < high
    return found["order"] is None or _ORDER[found["order"]](value, float(found["least"]))


def _word(value: object) -> str:
    """As it stands in YAML."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
