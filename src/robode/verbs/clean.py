"""`robode clean`: what under outputs/ could be deleted, and with --yes its deletion."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from robode.errors import BadInput, JobFailed
from robode.report.listing import Line, age_text, listing, size_text
from robode.runs.origin import data_of
from robode.runs.overrides import training
from robode.runs.removal import Item, drafts, remove, set_aside, some
from robode.runs.run import OUTPUTS, Run
from robode.runs.summary import size_of, summaries
from robode.runs.where import age, conditions
from robode.verbs.runs import split_words

KINDS = {
    "drafts": "what killed processes left half-written",
    "failed": "runs that failed before their training came to its end",
    "superseded": "runs of other code whose training today's code has done again, and what force=true has set aside",
    "checkpoints": "last.ckpt of finished runs that have a best.ckpt: they can be measured, but not trained further",
    "pages": "report.html and figures/ of finished runs: robode evaluate run=RUN draws them again",
    "weights": "best.ckpt and last.ckpt of finished runs: only their numbers stay; with where=…",
    "runs": "whole runs; with where=…",
}
CHOSEN = ("weights", "runs")  # only of runs that the user describes
HELP = """\
usage: robode clean [what=KIND,…] [older=AGE] [where=CONDITIONS] [--yes]

Shows what under outputs/ could be deleted and how much that would free; --yes deletes it. Without what= everything is
counted that needs no where=. A run that a process works on is never touched, nor anything that a link leads to.

{kinds}

  older=7d                   only of runs that were last worked on so long ago (s, min, h, d, w)
  where="model=chnode depth>=4"    only of runs for which all of it holds, as in robode runs
  --yes                      delete; needs what=
""".format(kinds="\n".join(f"  what={name:<13} {about}" for name, about in KINDS.items()))
MOST = 40  # lines that are shown of what could be deleted


def run_clean(words: Sequence[str], yes: bool) -> int:
    """Show or delete.

    Returns:
        0, or 1 if something could not be deleted.

    Raises:
        BadInput: a word that is none, or --yes without what=.
    """
    where, given = split_words("clean", words, ("what", "older"))
    kinds = _kinds(given.get("what"), bool(where))
    if yes and "what" not in given:
        raise BadInput(f"robode clean --yes: expected what={','.join(kinds)} or some of them beside it")
    before = time.time() - age(given["older"]) if "older" in given else None
    found = items(kinds, where, before)
    total = size_text(sum(item.size for item in found))
    for item in found[:MOST] if not yes else ():
        inside = f"/{{{','.join(item.names)}}}" if len(item.names) > 1 else f"/{item.names[0]}" if item.names else "/"
        print(f"{item.kind:<11}  {size_text(item.size):>7}  {item.folder}{inside}  ({item.why})")
    if yes:
        return _remove(found)
    if len(found) > MOST:
        print(f"… and {len(found) - MOST} more")
    print(f"{len(found)} to delete, {total}" + ("; nothing is deleted without --yes" if found else ""))
    return 0


def _remove(found: Sequence[Item]) -> int:
    freed, count = 0, 0
    failures = []
    for item in found:
        try:
            remove(item)
        except (BadInput, JobFailed) as error:
            failures.append(f"left as it is: {error}")
        else:
            freed, count = freed + item.size, count + 1
    print(f"{count} deleted, {size_text(freed)} freed")
    print(*failures, sep="\n", end="\n" if failures else "")
    return 1 if failures else 0


def _kinds(text: str | None, chosen: bool) -> list[str]:
    kinds = [name for name in KINDS if name not in CHOSEN] if text is None else text.split(",")
    if unknown := [name for name in kinds if name not in KINDS]:
        raise BadInput(f"what={unknown[0]}: expected some of {', '.join(KINDS)}")
    if not chosen and (named := [name for name in kinds if name in CHOSEN]):
        raise BadInput(f'what={named[0]}: expected where=… beside it, for example where="experiment=smoke"')
    return list(dict.fromkeys(kinds))


def items(kinds: Sequence[str], where: Sequence[str] = (), before: float | None = None) -> list[Item]:
    """What could be deleted of those kinds, nothing twice. before: only what was last worked on earlier, in seconds
    since 1970.

    Raises:
        BadInput: no conditions, or a key that no run has.
    """
    runs = summaries(OUTPUTS)
    everything = listing(runs).lines
    lines = [
        line for line in listing(runs, conditions(where)).lines
        if line.run.state != "running" and (before is None or line.run.changed < before)
    ]  # fmt: skip
    done = {_same(line) for line in everything if line.run.state == "done" and line.run.code and not line.other_code}
    found: list[Item] = []
    for kind in kinds:
        for line in lines:
            found += _FINDERS[kind](line, done)
        if kind == "superseded" and not where:
            found += [
                Item(kind, folder, (), "set aside by force=true", size_of(str(folder)))
                for folder in set_aside(OUTPUTS)
                if before is None or folder.lstat().st_mtime < before
            ]
    whole = {item.folder for item in found if not item.names}
    once: dict[tuple[Path, tuple[str, ...]], Item] = {}
    for item in found:
        if not item.names or item.folder not in whole:
            once.setdefault((item.folder, item.names), item)
    return list(once.values())


_Training = tuple[frozenset[tuple[str, str]], str]


def _same(line: Line) -> _Training:
    return training(line.run.groups), data_of(Path(line.run.folder))


def _whole(kind: str, line: Line, why: str) -> Iterator[Item]:
    yield Item(kind, Path(line.run.folder), (), why, line.run.size)


def _finished(line: Line) -> bool:
    return line.run.state == "done" and Run(Path(line.run.folder)).trained


def _drafts(line: Line, done: set[_Training]) -> Iterator[Item]:
    return some("drafts", line.run.folder, drafts(line.run.folder), "half-written")


def _failed(line: Line, done: set[_Training]) -> Iterator[Item]:
    if line.run.state == "failed" and not Run(Path(line.run.folder)).trained:
        yield from _whole("failed", line, f"failed {_ago(line)}")


def _superseded(line: Line, done: set[_Training]) -> Iterator[Item]:
    if line.other_code and _same(line) in done:
        yield from _whole("superseded", line, "today's code has the same training")


def _checkpoints(line: Line, done: set[_Training]) -> Iterator[Item]:
    if _finished(line) and Run(Path(line.run.folder)).best.is_file():
        yield from some("checkpoints", line.run.folder, ("last.ckpt",), "best.ckpt stays")


def _pages(line: Line, done: set[_Training]) -> Iterator[Item]:
    if _finished(line):
        yield from some("pages", line.run.folder, ("report.html", "figures"), "drawn again by robode evaluate")


def _weights(line: Line, done: set[_Training]) -> Iterator[Item]:
    if _finished(line):
        yield from some("weights", line.run.folder, ("best.ckpt", "last.ckpt"), "only numbers stay")


def _runs(line: Line, done: set[_Training]) -> Iterator[Item]:
    return _whole("runs", line, f"{line.run.state}, {_ago(line)}")


def _ago(line: Line) -> str:
    return f"{age_text(line.now - line.run.changed)} ago"


_FINDERS: dict[str, Callable[[Line, set[_Training]], Iterator[Item]]] = {
    "drafts": _drafts, "failed": _failed, "superseded": _superseded, "checkpoints": _checkpoints, "pages": _pages,
    "weights": _weights, "runs": _runs,
}  # fmt: skip
