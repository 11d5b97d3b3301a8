"""What a table has: columns, rows, and the paper that it is from. Imports nothing that takes long, for completion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# What a YAML or JSON file holds, and a plain configuration or what else is known to be a mapping of one's own.
Yaml: TypeAlias = "None | bool | int | float | str | list[Yaml] | dict[str, Yaml]"
Plain = Mapping[str, Any]
# The annotation says how a paper's YAML file writes them: a list of ``key=value``; how many (1 … n), or which.
Overrides = Annotated[tuple[str, ...], "overrides"]
Seeds = Annotated[tuple[int, ...], "seeds"]


class Animation(NamedTuple):
    """A figure that `draw` changes into its frame number 0, 1, …, frames - 1; becomes a GIF."""

    figure: Figure
    frames: int
    draw: Callable[[int], None]


class Picture(NamedTuple):
    """One on its way into a report: the stem of its file, matplotlib's figure, an animation or a file that was made of
    one of them (PNG, GIF), and what is written to it."""

    stem: str
    figure: Figure | Animation | Path
    title: str
    caption: str


@dataclass(frozen=True)
class Difference:
    """Where a paper's text and its published experiment disagree, or robode does neither."""

    about: str
    text: str
    experiment: str
    here: str


@dataclass(frozen=True)
class About:
    """What is known of a paper besides its numbers."""

    name: str
    title: str
    citation: str = ""
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column of a table: a score (rows of results.csv) or a `quantity` (rows of numbers.csv).

    unit: of a quantity, "%" for fractions that are published in percent, "" for numbers as they are; None for scores,
    whose task says it.
    kind: for quantities that are known from several sides, which of them (exact, certified_lower, …); None: all.
    n: on how many samples; None: on whatever most columns of a run have.
    reference: of a score, that of the reference solver of the ODE on the samples that were perturbed for the network.
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
    reference: bool = False

    def unit_of(self, measured: Iterable[str]) -> str:
        """The unit of a cell; measured: those of its scores, "%" for shares. Nothing measured: taken for a share."""
        return next(iter(measured), "%") if self.unit is None else self.unit

    def of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Those rows of results.csv, or of numbers.csv for a quantity, that have what the column asks for."""
        names = ("quantity", "kind") if self.quantity else ("split", "perturbation", "protocol", "severity", "n")
        for name in names:
            wanted = getattr(self, name)
            if wanted is not None:
                same = (frame[name] - wanted).abs() < 1e-9 if name == "severity" else frame[name] == wanted
                frame = frame[same]
        return frame


@dataclass(frozen=True)
class TableRow:
    """One line of a table: a configuration (`overrides` of ``robode train``), its seeds and the published numbers.

    published: column → the number in the paper, in the column's unit. start: the name of the row whose runs, of the
    same seed, it begins with; empty: random weights.
    """

    label: str
    overrides: Overrides
    seeds: Seeds
    group: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    start: str = ""

    @property
    def name(self) -> str:
        """For people: group and label."""
        return f"{self.group} {self.label}".strip()

    def matches(self, texts: Sequence[str]) -> bool:
        """Whether group and label contain one of the texts, in any case; no texts at all match every row."""
        return not texts or any(text.lower() in self.name.lower() for text in texts)


@dataclass(frozen=True)
class Layout:
    """What a table has: columns by name, rows, and what is said of it and of the paper that it is from.

    selected: which row is the best by what may be chosen by, where nothing is published."""

    paper: About
    name: str
    title: str
    columns: Mapping[str, Column]
    rows: tuple[TableRow, ...]
    note: str = field(default="", kw_only=True)
    selected: str = field(default="", kw_only=True)
