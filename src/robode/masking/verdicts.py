"""After every evaluation: whether each accuracy that an attack has left can be believed (masking.json, "verdicts").

A verdict is a function of bits (masking_rows): of the row, of other rows of results.csv, and of panels, which are
measured here, once for each network, norm and eps, on a few samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from robode.data.batches import in_units
from robode.data.info import Samples
from robode.data.module import DataModule, places
from robode.evaluation.copies import device_of, evaluating
from robode.masking import panel as masking_panel
from robode.masking.file import ROW, Key, keyed, read_part, write_part
from robode.masking.recorded import Recorded, Row, judgeable
from robode.masking.rows import SAME_EPS, Attacked, Climb, Evidence, Panel, judge, settled
from robode.masking.signs import linear_classifier
from robode.masking.trial import Trial
from robode.report.tables import percent
from robode.tasks.classification import Classification
from robode.training.progress import counted

Entry = dict[str, Any]
FEW = 2  # believable rows that still get a line each


@dataclass(frozen=True)
class Judging:
    """Whose rows are judged: a run's folder, the network, the samples that were evaluated (all of them), their data
    and its digest, and of how many samples a panel consists (0: nothing is judged; at most as many as there are)."""

    folder: Path
    network: nn.Module
    samples: Samples
    data: DataModule
    digest: str
    count: int

    def judged(self, asked: Iterable[Row], console: Console) -> list[Entry]:
        """The verdicts on the attacked rows among `asked`, in that order; they are in masking.json then.

        None for other tasks than classification. Panels that masking.json lacks are measured first. Verdicts that were
        given before to the same network on the same samples are renewed, because the rows asked for may speak against
        them.

        Raises:
            JobFailed: the disk refuses, or the bits of a row are damaged.
        """
        if not isinstance(self.data.info.task, Classification):  # all that is looked at are answers
            return []
        rows = keyed(row for row in asked if judgeable(self.folder, row))
        if not isinstance(self.data.info.task, Classification) or not rows or not self.count:
            return []
        recorded = Recorded.of(self.folder, next(iter(rows.values())))
        self._measure(recorded, [recorded.attacked[key] for key in rows], console)
        before, entries = read_part(self.folder, "verdicts"), read_part(self.folder, "panels")
        found: dict[Key, Entry] = {}
        for key, old in keyed(before).items():
            if key in recorded.attacked and key not in rows:  # one without its panel stays as it is
                count = old["samples"] if isinstance(old.get("samples"), int) else self.count
                found[key] = self._entry(recorded, key, entries, count) or dict(old)
        for key in rows:
            entry = self._entry(recorded, key, entries, self.count)
            assert entry is not None, "its panel has just been measured"
            found[key] = entry
        kept = [old for key, old in keyed(before).items() if key not in found]
        if [*kept, *found.values()] != before:
            write_part(self.folder, "verdicts", [*kept, *found.values()])
        return [found[key] for key in rows]

    def _entry(self, recorded: Recorded, key: Key, entries: Sequence[Entry], count: int) -> Entry | None:
        """The verdict on a row; None where the panel that it needs is not among the entries."""
        row, attacked = recorded.rows[key], recorded.attacked[key]
        known = self._evidence(recorded, attacked, entries, count)
        if not known.panels and settled(attacked.right, known.proven) is None:
            return None
        verdict = judge(attacked, known)
        return {
            **{name: _plain(row[name]) for name in (*ROW, "perturbation")},
            "norm": attacked.norm,
            "eps": attacked.eps,
            "n": len(attacked.right),
            "samples": count,
            "left": float(attacked.right.double().mean()),
            "verdict": verdict.text,
            "believable": verdict.believable,
            "checks": [asdict(check) | {"passed": check.passed} for check in verdict.checks],
        }

    def _evidence(self, recorded: Recorded, row: Attacked, entries: Sequence[Entry], count: int) -> Evidence:
        about = self._about(recorded, row.norm, count)
        panels: list[Panel] = []
        climb: Climb | None = None
        for entry in entries:
            found = masking_panel.read(entry) if about.items() <= entry.items() else None
            if isinstance(found, Climb) and entry.get("loss") == row.loss:
                climb = found
            elif isinstance(found, Panel) and found.eps <= row.eps * SAME_EPS:
                panels.append(found)
        panels.sort(key=lambda panel: panel.eps)
        own = panels and panels[-1].eps * SAME_EPS >= row.eps
        others = [each for each in recorded.within(row.norm, row.eps) if each is not row]
        chosen = places(len(row.right), count)
        return Evidence(others, recorded.proven(row), chosen, panels if own else (), climb)

    def _about(self, recorded: Recorded, norm: str, count: int) -> Entry:
        """What an entry of "panels" is about, but for its eps or its loss."""
        same = {
            "weights": recorded.weights,
            "split": recorded.split,
            "code": recorded.code,
            "digest": self.digest,
            "n": len(self.samples.target),
        }
        return {**same, "norm": norm, "samples": count, **masking_panel.SETTINGS}

    def _measure(self, recorded: Recorded, asked: Sequence[Attacked], console: Console) -> None:
        """Every panel that these rows need and masking.json lacks, each of them written at once."""
        entries = [each for each in read_part(self.folder, "panels") if masking_panel.read(each)]
        wanted: dict[tuple[str, str, Any], Entry] = {}
        for row in asked:
            if settled(row.right, recorded.proven(row)) is None:
                about = self._about(recorded, row.norm, self.count)
                for name, value in (("eps", row.eps), ("loss", row.loss)):
                    if value is not None:
                        wanted[row.norm, name, value] = about | {name: value}
        missing = {
            key: about for key, about in wanted.items() if not any(about.items() <= each.items() for each in entries)
        }
        if not missing:
            return
        with counted(console, "verdicts") as progress, evaluating(self.network):
            baseline = functools.cache(lambda: linear_classifier(self.data, self._device).eval())
            for done, ((norm, name, value), about) in enumerate(missing.items()):
                progress(done, len(missing))
                if name == "loss":
                    found = masking_panel.measure_climb(self._trial(norm, None), value)
                else:
                    standing = recorded.standing(norm, value)[places(about["n"], self.count)].to(self._device)
                    found = masking_panel.measure_panel(self._trial(norm, value), baseline(), standing)
                entries.append(about | found)
                write_part(self.folder, "panels", entries)

    def _trial(self, norm: str, eps: float | None) -> Trial:
        """Of the panel's samples. eps: None for changes that may go everywhere."""
        chosen = places(len(self.samples.target), self.count)
        x, labels = (each[chosen].to(self._device) for each in self.samples)
        how = masking_panel
        return Trial(
            self.network, in_units(x), labels, eps=eps or 0.0, norm=norm, bounds=self.data.info.bounds,
            steps=how.STEPS_FAR if eps is None else how.STEPS, restarts=how.RESTARTS, queries=how.QUERIES,
            seed=how.SEED,
        )  # fmt: skip

    @property
    def _device(self) -> torch.device:
        return device_of(self.network)


def lines(verdicts: Sequence[Entry]) -> list[str]:
    """For the terminal: one for each suspicious row, and one for all believable ones where they are many."""
    good = [each for each in verdicts if each["believable"]]
    alone = [each for each in verdicts if not each["believable"] or len(good) <= FEW]
    found = [f"{_named(each)}: {percent(each['left'])} left — {each['verdict']}" for each in alone]
    if len(good) > FEW:
        eps: dict[str, list[str]] = {}
        for each in good:
            eps.setdefault(each["perturbation"], []).append(f"{each['eps']:g}")
        names = "; ".join(f"{name} eps {', '.join(values)}" for name, values in eps.items())
        proven = sum("proven" in each["verdict"] for each in good)
        some = f", {proven} of them proven" if proven else ""
        found.append(f"{len(good)} of {len(verdicts)} attacked accuracies are believable{some}: {names}")
    return found


def _named(verdict: Entry) -> str:
    return f"{verdict['perturbation']} eps {verdict['eps']:g}"


def _plain(value: Any) -> Any:
    """A cell of a table as JSON knows it."""
    item: Callable[[], Any] | None = getattr(value, "item", None)
    return item() if item else value
