"""Checks of numbers that need no torch, so that the command line can refuse early: levels, counts, matrices."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robode.errors import BadInput

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from robode.config.config import Group, Value

UPPER = {"var": math.inf, "amount": 1.0, "radii": math.inf, "eps": math.inf}
"""Largest level of each key that a suite entry may carry; the smallest is 0."""


def noise_levels(key: str, value: Value, upper: float) -> tuple[float, ...]:
    """One number or a list of them in [0, upper], as a tuple of distinct ones; else BadInput naming `key`.

    A number may be written as a quotient of two: 8/255.
    """
    levels: list[float] = []
    for level in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        number = _quotient(level)
        if number is None or not math.isfinite(number) or not 0 <= number <= upper:
            top = "" if math.isinf(upper) else f" and at most {upper:g}"
            raise BadInput(f"{key}={level}: expected a number (or a list of numbers) of at least 0{top}")
        levels.append(float(number))
    if not levels:
        raise BadInput(f"{key}=[]: expected at least one level")
    return tuple(dict.fromkeys(levels))


def one_level(key: str, value: Value) -> float:
    """One number of at least 0; else BadInput naming `key`."""
    levels = noise_levels(key, value, math.inf)
    if len(levels) > 1:
        raise BadInput(f"{key}: expected one number, got {value}")
    return levels[0]


def _quotient(value: Value) -> float | None:
    """A number, or what a text like 8/255 stands for; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*/\s*(\d+(?:\.\d*)?)\s*", value) if isinstance(value, str) else None
    return float(found[1]) / float(found[2]) if found and float(found[2]) else None


def check_suite(suite: Group) -> None:
    """Refuse levels out of range among the arguments of the entries of a suite, of whatever class."""
    for name, part in suite.items():
        for key, upper in UPPER.items():
            if part is not None and key in part.arguments:
                noise_levels(f"suite.{name}.{key}", part.arguments[key], upper)


def skew_matrix(key: str, path: str, width: Value) -> NDArray[float64]:
    """A matrix that is not zero, from a .npy file or a text file of numbers; `BadInput` naming `key` unless it is
    skew-symmetric and, where that is a number, (width, width)."""
    import numpy as np

    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file
            read = np.load(path, allow_pickle=False) if Path(path).suffix == ".npy" else np.loadtxt(path)
        matrix: NDArray[float64] = np.atleast_2d(read).astype(np.float64, casting="same_kind")
    except (OSError, ValueError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{key}: expected a readable matrix of numbers, got '{path}' ({reason})") from None
    size = width if isinstance(width, int) else len(matrix)
    if matrix.shape != (size, size):
        raise BadInput(f"{key}: expected a {size}x{size} matrix (model.width), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise BadInput(f"{key}: expected finite numbers, got infinity or NaN in '{path}'")
    if (matrix != -matrix.T).any():
        defect = float(np.abs(matrix + matrix.T).max())
        raise BadInput(f"{key}: expected a skew-symmetric matrix, got max |J + J^T| = {defect:.3g}")
    return matrix


def check_repeats(repeats: Value) -> None:
    """Refuse anything but a whole number of noisy copies, at least one."""
    check_count("repeats", repeats)


def check_count(key: str, value: Value, least: int = 1) -> None:
    """Refuse anything but a whole number of at least `least`, naming `key`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadInput(f"{key}={value}: expected a whole number of at least {least}")
