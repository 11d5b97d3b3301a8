"""The jobs that a selection takes; composed once a row, no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from robode.config.compose import Request, compose_trainings
from robode.config.config import TrainConfig
from robode.errors import BadInput
from robode.papers.selection import Selection
from robode.papers.spec import Row
from robode.runs.identity import config_hash
from robode.runs.origin import ANY, SAME


@dataclass(frozen=True)
class Job:
    """One training. number: of its row in the item; wanted: to be run, not only shown."""

    number: int
    row: Row
    seed: int
    words: tuple[str, ...]
    cfg: TrainConfig
    wanted: bool = True

    @property
    def name(self) -> str:
        """For people: row and seed."""
        return f"{self.row.name}, seed {self.seed}"

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self.cfg.plain()

    @cached_property
    def hash(self) -> str:
        """Of the training configuration."""
        return config_hash(self.plain)


def plan(selection: Selection) -> list[Job]:
    """Every training of the selection: seed 1 of all rows, then seed 2 of all rows …

    Rows and seeds that were not asked for are in it too, not wanted: the report shows them where they are done.

    Raises:
        BadInput: words that do not compose.
    """
    jobs = []
    for number, row in enumerate(selection.item.rows):
        words = (f"experiment={selection.experiment}", *row.words, *selection.size.words, *selection.words)
        jobs.append(_seeded(selection, number, row, words))
    longest = max(map(len, jobs))
    return [row_jobs[i] for i in range(longest) for row_jobs in jobs if i < len(row_jobs)]


def _seeded(selection: Selection, number: int, row: Row, words: tuple[str, ...]) -> list[Job]:
    """The jobs of one row, composed at once: composing once for each seed would take long."""
    planned, asked = selection.seeds_of(row), selection.seeds
    seeds = list(dict.fromkeys([*(asked or ()), *planned]))
    try:
        listed = f"seeds=[{','.join(map(str, seeds))}]"
        configs = compose_trainings(Request("train", (*words, listed), False, selection.config_dirs))
    except BadInput as error:
        raise BadInput(f"{error} (row '{row.name}' of {selection.name})") from error
    own = [*(["force=true"] if selection.force else []), *([f"code={ANY}"] if selection.code == ANY else [])]
    jobs = []
    for config in configs:
        seed = config.seed
        wanted = row.matches(selection.rows) and (asked is None or seed in asked)
        config = replace(config, code=ANY if selection.code == ANY else SAME, force=selection.force)
        jobs.append(Job(number, row, seed, (*words, f"seed={seed}", *own), config, wanted))
    return jobs
