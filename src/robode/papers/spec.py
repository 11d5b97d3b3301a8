"""A paper to reproduce: its printed numbers, and which runs and measurements feed them (conf/paper/<name>.yaml)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Difference:
    """Where the paper's text and its published experiment disagree, or robode does neither."""

    about: str
    text: str
    experiment: str
    here: str


@dataclass(frozen=True)
class About:
    """What is known of a paper besides its numbers."""

    name: str
    title: str
    citation: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Column:
    """One column of a table: a score (rows of results.csv) or a `quantity` (rows of numbers.csv).

    unit: of a quantity, "%" for fractions that are printed in percent, "" for numbers as they are; None for scores,
    whose task says it.
    kind: for quantities that are known from several sides, which of them (exact, certified_lower, …); None: all.
    n: on how many samples; None: on whatever most columns of a run have.
    """

    name: str
    split: str = "test"
    perturbation: str | None = None
    severity: float | None = None
    protocol: str | None = None
    quantity: str | None = None
    kind: str | None = None
    unit: str | None = None
    n: int | None = None

    def unit_of(self, measured: Iterable[str]) -> str:
        """The unit of a cell; measured: those of its scores, "%" for shares. Nothing measured: taken for a share."""
        return next(iter(measured), "%") if self.unit is None else self.unit


@dataclass(frozen=True)
class Row:
    """One line of a table: a configuration (`words` of ``robode train``), its seeds and the printed numbers.

    print: column → the number in the paper, in the column's unit.
    """

    label: str
    group: str
    words: tuple[str, ...]
    seeds: tuple[int, ...]
    print: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: group and label."""
        return f"{self.group} {self.label}".strip()

    def matches(self, texts: Sequence[str]) -> bool:
        """Whether group and label contain one of the texts, in any case; no texts at all match every row."""
        return not texts or any(text.lower() in self.name.lower() for text in texts)


@dataclass(frozen=True)
class Size:
    """How much of an item is computed. label: what a reader must know before comparing with the print.

    words, evaluate: appended to the words of training and of evaluation; seeds: instead of the rows' own;
    rows: only rows whose group and label contain one of these texts (none given: all).
    """

    name: str
    words: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    rows: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Item:
    """A table or figure of a paper.

    variants: name → experiment, the first one being the default. evaluations: words of ``robode evaluate`` for
    what the experiment does not measure itself. figures: nodes with a ``_target_`` whose objects have
    ``draw(collected) -> list[(stem, matplotlib Figure, title, caption)]`` and read files in the run folders only.
    """

    paper: About
    name: str
    title: str
    variants: Mapping[str, str]
    columns: Mapping[str, Column]
    rows: tuple[Row, ...]
    sizes: Mapping[str, Size]
    note: str = ""
    evaluations: tuple[tuple[str, ...], ...] = ()
    figures: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Paper(About):
    """Everything in one file of conf/paper."""

    items: Mapping[str, Item]
