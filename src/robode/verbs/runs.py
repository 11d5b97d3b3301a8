"""`robode runs`: what lies under outputs/, a line a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from json import dumps

from rich.console import Console
from rich.live import Live
from rich.text import Text

from robode.errors import BadInput
from robode.report.listing import COLUMNS, Listing, as_json, listing, summary_lines, table
from robode.runs.run import OUTPUTS
from robode.runs.summary import Summary, summaries
from robode.runs.where import conditions

EVERY = 3.0  # seconds between two looks of --watch
LEFT = ("run", "state", "overrides")  # columns of words
HELP = f"""\
usage: robode runs [where=CONDITIONS] [sort=COLUMN] [limit=N] [--watch | --json]

Every run under outputs/: its state, the epochs done of those planned, the score on validation data and on the clean
test set, what `robode certify` has certified, when it was last worked on, its size on disk, and the overrides in which
the listed runs differ. The newest come last, unless sort says otherwise.

  where="model=chnode,hdnn depth>=4 state=done"    only runs for which all of it holds: any column, any key of the
                             configuration; =, !=, <, <=, >, >=; units where they help: age>7d size>100MB test>=90%
  sort=validation            the best first, of any other column or key the smallest; sort=-validation turns it round
  limit=20                   only the first so many; without sort the newest
  --watch                    redrawn every {EVERY:.0f} seconds until Ctrl-C
  --json                     a list of objects, for programs

Columns: {", ".join(COLUMNS)}; certified@0.5 is the certified score at that radius.
† marks weights of other code than this. Settings are chosen by validation scores, never by test scores.
"""


def run_runs(words: Sequence[str] = (), watch: bool = False, json: bool = False) -> int:
    """List the runs under outputs/ that fulfil every where=.

    Returns:
        0.

    Raises:
        BadInput: a word that is none, no condition, or a key that no run has.
    """
    where, given = split_words("runs", words, ("sort", "limit"))
    some, sort, limit = conditions(where), given.get("sort", ""), _limit(given.get("limit"))
    known: dict[str, tuple[object, Summary]] = {}

    def found(most: int = 0) -> Listing:
        return listing(summaries(OUTPUTS, known), some, sort, min(limit or most, most) if most else limit)

    if json:
        if watch:
            raise BadInput("robode runs: expected --watch or --json, got both")
        print(dumps(as_json(found()), indent=1, default=str))
        return 0
    console = Console()
    if watch:
        if not console.is_terminal:
            raise BadInput("robode runs --watch: expected a terminal; leave --watch out, or use --json")
        _watch(found, console)
        return 0
    sys.stdout.write("\n".join(lines_of(found())) + "\n")
    return 0


def split_words(verb: str, words: Sequence[str], known: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The texts of every where=, and the other words by their key. Raises `BadInput` for a word that is neither."""
    where, given = [], {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or key not in ("where", *known):
            expected = ", ".join(f"{each}=…" for each in ("where", *known))
            raise BadInput(f"robode {verb} {word}: expected {expected}; robode {verb} --help explains them")
        if key == "where":
            where.append(value)
        else:
            given[key] = value
    return where, given


def lines_of(found: Listing) -> list[str]:
    """The table and what is below it. Not broken and not cut off, for grep and for less -S."""
    head, *rows = table(found)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    words = [name in LEFT for name in head]
    lines = [
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
    return [*(lines if rows else ()), *summary_lines(found)]


def _limit(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"limit={text}: expected a whole number >= 1")
    return int(text)


def _watch(found: Callable[[int], Listing], console: Console) -> None:
    """Redraw the list until Ctrl-C; as many runs as the terminal has lines for."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while True:
                shown = lines_of(found(max(console.height - 6, 1)))
                live.update(Text("\n".join(shown), no_wrap=True, overflow="ellipsis"), refresh=True)
                time.sleep(EVERY)
        except KeyboardInterrupt:
            return
