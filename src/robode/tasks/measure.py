"""How the scores of a task read, and the interval of their mean: what files, pages and figures must know of it.

Needs no torch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Measure:
    """As `Task` has them: name of the task, of its score, which direction is better, and the unit of the score ("" for
    shares of samples, which are shown in percent). As text it is the column `task` of results.csv.
    """

    task: str
    score_name: str
    better: Better
    unit: str = ""

    def __str__(self) -> str:
        """ "regression: error in rad (lower is better)"."""
        unit = f" in {self.unit}" if self.unit else ""
        return f"{self.task}: {self.score_name}{unit} ({self.better} is better)"

    @property
    def shares(self) -> bool:
        """Whether a score is 0 or 1 and a mean score the share of samples that are right."""
        return not self.unit

    def text(self, score: float, digits: int = 1) -> str:
        """0.9640 → "96.4 %", an error 0.01234 → "0.0123"; "–" where there is no number. digits: of a percentage."""
        if math.isnan(score):
            return "–"
        if math.isinf(score):
            return "∞" if score > 0 else "−∞"
        return f"{100 * score:.{digits}f} %" if self.shares else f"{score:#.3g}".rstrip(".")

    def interval(self, low: float, high: float) -> str:
        """0.951, 0.973 → "[95.1, 97.3]" (percent); of other scores as they are, and once where both ends read alike."""
        if self.shares:
            return f"[{100 * low:.1f}, {100 * high:.1f}]"
        ends = dict.fromkeys((self.text(low), self.text(high)))
        return f"[{', '.join(ends)}]"

    @property
    def label(self) -> str:
        """For axes and heads of tables: "accuracy", "error (rad)"."""
        return f"{self.score_name} ({self.unit})" if self.unit else self.score_name

    def gain(self, difference: float) -> float:
        """A difference of scores, positive where the first is better."""
        return difference if self.better == "higher" else -difference


CLASSIFICATION = Measure("classification", "accuracy", "higher")
"""Of files that were written before there were other tasks, too."""

_TEXT = re.compile(r"(?P<task>[^:]+): (?P<score_name>\S+)(?: in (?P<unit>.+))? \((?P<better>higher|lower) is better\)")


def measure_named(text: Any) -> Measure:
    """The measure with that text; "" and what is missing stand for classification.

    Raises:
        ValueError: a text that no measure has.
    """
    if not isinstance(text, str) or not text:
        return CLASSIFICATION
    found = _TEXT.fullmatch(text)
    if not found:
        raise ValueError(f"task: expected a text like '{CLASSIFICATION}', got '{text}'")
    better: Better = "higher" if found["better"] == "higher" else "lower"
    return Measure(found["task"], found["score_name"], better, found["unit"] or "")


def percent(fraction: float) -> str:
    """0.9640 → "96.4 %"; "–" where there is no number."""
    return f"{100 * fraction:.1f} %" if math.isfinite(fraction) else "–"


def mean_score(scores: np.ndarray) -> float:
    """The column score of results.csv, from scores (n,): summed in float64, so that a share is count/n."""
    return float(scores.sum(dtype=np.float64) / len(scores))


def wilson(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion, both ends in [0, 1].

    Unlike the normal interval it stays inside [0, 1] and keeps a width at 0 % and 100 % (Wilson 1927).
    `correct` may be fractional: a mean count over repeats.

    Raises:
        ValueError: n < 1, correct outside [0, n] or level outside (0, 1).
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"expected 0 <= correct <= n and n >= 1, got correct={correct}, n={n}")
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # the ends 0 and 1 are exact in theory; rounding must not push p outside its own interval
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """mean ± t s/√n of independent values (n,); (-∞, ∞) for one value, and where one is not finite."""
    from scipy.special import stdtrit  # late, because every verb needs this module and few an interval

    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return -math.inf, math.inf
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(ddof=1, dtype=np.float64))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / math.sqrt(n)
    return mean - half, mean + half
