"""Checks of noise levels that need no torch, so that the command line can refuse early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robode.errors import BadInput

UPPER = {"var": math.inf, "amount": 1.0, "radii": math.inf, "eps": math.inf}
"""Largest level of each key that a suite entry may carry; the smallest is 0."""


def noise_levels(key: str, value: object, upper: float) -> tuple[float, ...]:
    """One number or a list of them in [0, upper], as a tuple of distinct ones; else BadInput naming `key`."""
    levels: list[Any] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for level in levels:
        number = isinstance(level, (int, float)) and not isinstance(level, bool)
        if not number or not math.isfinite(level) or not 0 <= level <= upper:
            top = "" if math.isinf(upper) else f" and at most {upper:g}"
            raise BadInput(f"{key}={level}: expected a number (or a list of numbers) of at least 0{top}")
    if not levels:
        raise BadInput(f"{key}=[]: expected at least one level")
    return tuple(dict.fromkeys(float(level) for level in levels))


def check_suite(suite: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Refuse levels out of range in a composed `suite` section."""
    for name, entry in suite.items():
        for key, upper in UPPER.items():
            if entry and key in entry:
                noise_levels(f"suite.{name}.{key}", entry[key], upper)


def check_repeats(repeats: object) -> None:
    """Refuse anything but a whole number of noisy copies, at least one."""
    check_count("repeats", repeats)


def check_count(key: str, value: object, least: int = 1) -> None:
    """Refuse anything but a whole number of at least `least`, naming `key`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadInput(f"{key}={value}: expected a whole number of at least {least}")
