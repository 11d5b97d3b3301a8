"""Parts of a YAML file as checked Python values: every complaint is one line that names the place."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from robode.errors import BadInput


def mapping(content: Any, place: str, needed: Sequence[str] = (), known: Sequence[str] = ()) -> dict[str, Any]:
    """A mapping with all of the needed keys, and no others than these and the known ones."""
    node = named(content, place) if content != {} else {}
    for key in node:
        if key not in needed and key not in known:
            chosen(f"{place}: unknown key ", key, [*needed, *known])
    for key in needed:
        if key not in node:
            raise BadInput(f"{place}: expected the key '{key}'")
    return node


def named(content: Any, place: str) -> dict[str, Any]:
    """A mapping with at least one key, all of them texts."""
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise BadInput(f"{place}: expected keys with values, got {content!r}")
    return content


def entries(node: Mapping[str, Any], key: str, place: str) -> list[tuple[str, Any, str]]:
    """(name, content, place) of everything below node[key], which may be missing."""
    below = named(node[key], f"{place}.{key}") if key in node else {}
    return [(name, content, f"{place}.{key}.{name}") for name, content in below.items()]


def sequence(content: Any, place: str) -> list[tuple[Any, str]]:
    """(entry, place) of a list."""
    if not isinstance(content, list):
        raise BadInput(f"{place}: expected a list, got {content!r}")
    return [(entry, f"{place}[{i}]") for i, entry in enumerate(content)]


def text(value: Any, place: str) -> str:
    """One that is not empty; numbers are taken as typed."""
    if isinstance(value, dict | list) or value is None or not str(value).strip():
        raise BadInput(f"{place}: expected a text, got {value!r}")
    return str(value).strip()


def number(value: Any, place: str) -> float:
    """A finite one."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise BadInput(f"{place}: expected a number, got {value!r}")
    return float(value)


def words(content: Any, place: str, forbidden: Sequence[str] = ()) -> tuple[str, ...]:
    """A list of ``key=value``, none of them with a forbidden key."""
    found = [word for word, _ in sequence(content, place)]
    for word in found:
        if not isinstance(word, str) or "=" not in word and not word.startswith("~"):
            raise BadInput(f"{place}: expected words like depth=4, got {word!r}")
        if key_of(word) in forbidden:
            raise BadInput(f"{place}: '{word}' has a place of its own; remove it here")
    return tuple(found)


def key_of(word: str) -> str:
    """The key of a command-line word: ``+model.width=4`` → ``model.width``."""
    return word.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")


def seeds(value: Any, place: str) -> tuple[int, ...]:
    """A number n stands for the seeds 1 … n, a list for itself."""
    found = list(range(1, value + 1)) if type(value) is int and value < 10_000 else value
    if not isinstance(found, list) or not found or not all(type(seed) is int and 0 <= seed < 2**32 for seed in found):
        raise BadInput(f"{place}={value}: expected how many (3: seeds 1, 2, 3) or a list of them, for example [1,2,5]")
    return tuple(dict.fromkeys(found))


def chosen(key: str, value: str, choices: Sequence[str]) -> str:
    """`value`, if it is one of the choices; else a complaint that begins with `key` and names them."""
    if value in choices:
        return value
    near = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise BadInput(f"{key}{value}: {hint}choose one of: {', '.join(choices)}")
