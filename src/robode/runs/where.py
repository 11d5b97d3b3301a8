"""Conditions on runs: where="model=chnode,hdnn depth>=4 state=done age>7d"."""

from __future__ import annotations

import math
import operator
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from robode.config.config import Value
from robode.errors import BadInput

Cell: TypeAlias = Value
"""What a run has under a name: a number, a text, a list or None."""
CONDITION = re.compile(r"(?P<key>[\w.@-]+?)(?P<sign>!=|>=|<=|=|>|<)(?P<value>.*)", re.DOTALL)
SIGNS = "=!<>"
NUMBER = re.compile(r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(?P<unit>[a-z%]*)", re.IGNORECASE)
ORDER: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
UNITS = SECONDS | {"": 1.0, "%": 0.01, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


@dataclass(frozen=True)
class Condition:
    """One of them. values: of = and != any number, of the others one."""

    key: str
    sign: str
    values: tuple[str, ...]

    def holds(self, cell: Cell) -> bool:
        """For what a run has under the key. What it does not have fulfils nothing but != and =null."""
        if self.sign in ORDER:
            number, asked = amount(cell), amount(self.values[0])
            return number is not None and asked is not None and ORDER[self.sign](number, asked)
        return any(_equal(cell, value) for value in self.values) == (self.sign == "=")


def conditions(texts: Iterable[str]) -> list[Condition]:
    """Those of every where=…, all of which must hold.

    Raises:
        BadInput: a text that is no condition.
    """
    found = []
    for text in texts:
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise BadInput(f"where={text}: {error}") from error
        if not words:
            raise BadInput('where=: expected conditions, for example where="model=chnode depth>=4 state=done"')
        found += [_condition(word) for word in words]
    return found


def _condition(word: str) -> Condition:
    match = CONDITION.fullmatch(word)
    if match is None or not match["value"]:
        raise BadInput(f"where={word}: expected KEY=VALUE, or !=, <, <=, >, >= between them, without spaces")
    key, sign, value = match.groups()
    if any(each[:1] in SIGNS for each in value.split(",") if each):  # model!==chnode would hold for every run
        raise BadInput(f"where={word}: expected a value after {sign}, got '{value}'")
    if sign in ORDER and amount(value) is None:
        raise BadInput(
            f"where={word}: expected a number after {sign}, for example depth>=4, age>7d, size>100MB, test>90%"
        )
    return Condition(key, sign, tuple(value.split(",")) if sign not in ORDER else (value,))


def amount(cell: Cell) -> float | None:
    """A number, or a text of one with a unit: "7d" in seconds, "100MB" in bytes, "90%" as a share. None for what is
    none."""
    if isinstance(cell, bool) or cell is None:
        return None
    if isinstance(cell, int | float):
        return None if math.isnan(cell) else float(cell)
    match = NUMBER.fullmatch(str(cell).strip())
    if match is None:
        return None
    unit = UNITS.get(match["unit"].lower())
    return None if unit is None else float(match["number"]) * unit


def age(text: str, key: str = "older") -> float:
    """Seconds of a text like "7d". Raises `BadInput`."""
    match = NUMBER.fullmatch(text)
    if match is None or match["unit"].lower() not in SECONDS or (seconds := amount(text) or 0.0) < 0:
        raise BadInput(f"{key}={text}: expected an age: a number and one of {', '.join(SECONDS)}, for example {key}=7d")
    return seconds


def _equal(cell: Cell, asked: str) -> bool:
    """A number equals one of the same size however it is written; a text, itself; a list, one with a member like it."""
    if isinstance(cell, list):
        return any(_equal(each, asked) for each in cell)
    if cell is None or cell == "" or isinstance(cell, float) and math.isnan(cell):
        return asked in ("null", "None")
    if isinstance(cell, bool):
        return asked.lower() == str(cell).lower()
    if isinstance(cell, int | float):
        number = amount(asked)
        return number is not None and math.isclose(cell, number, rel_tol=1e-9, abs_tol=0.0)
    return str(cell) == asked
