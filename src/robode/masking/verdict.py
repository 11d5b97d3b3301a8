"""After every evaluation: does each accuracy that an attack has left pass gradient-masking checks?

A verdict is a function of bits: who is right under the row, who under other rows of results.csv, and who under the
reference attacks of a panel, which are measured once for each network, norm and eps, on a few samples. Bits are (n,)
bool over the evaluated samples, or (m,) over the panel's, which are n samples' `chosen`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from robode.attacks.balls import INSIDE, NORMS
from robode.data.batches import device_of, evaluating, in_units
from robode.data.info import Samples
from robode.data.module import DataModule, places
from robode.masking import checks, file, reference_attacks
from robode.masking.checks import TOLERANCE, Check
from robode.masking.file import Entry, Key, Row, keyed
from robode.masking.reference_attacks import OWN, Climb, Panel, Trial
from robode.masking.substitutes import substitutes
from robode.runs import results
from robode.runs.code import network_of
from robode.runs.progress import counted
from robode.runs.scores import read_scores, scores_path
from robode.runs.table import records
from robode.tasks.classification import Classification
from robode.tasks.measure import percent

SAME_EPS = 1 + 1e-9
FEW = 2  # rows that pass and still get a line each
_KINDS = {
    "fgsm": "FGSM", "pgd": "PGD", "apgd": "APGD", "square": "Square", "ensemble": "robode ensemble",
    "autoattack": "AutoAttack", "fmn": "FMN",
}  # fmt: skip
_CLIMBERS = ("fgsm", "pgd", "apgd")
_LOSSES = {"ce": "cross-entropy", "margin": "margin of the logits", "dlr": "difference of logits ratio"}
_PANEL = {
    "noise": "random noise", "fgsm": "FGSM", "square": "Square", "margin": "PGD (margin)",
    "rescaled": "PGD (rescaled logits)", "smoothed": "PGD (averaged gradients)",
}  # fmt: skip


@dataclass(frozen=True)
class Attacked:
    """A row of results.csv that an attack gave: its perturbation, for example apgd_dlr_l2, its norm, eps in data units,
    who is right, (n,) bool; and the row itself."""

    name: str
    norm: str
    eps: float
    right: Tensor
    row: Row = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The name without its norm: ["apgd", "dlr"]."""
        return self.name.removesuffix(f"_{self.norm}").split("_")

    @property
    def kind(self) -> str:
        """Which attack it was: the first of its words."""
        return self.words[0]

    @property
    def white_box(self) -> bool:
        """Whether it looks at gradients."""
        return self.kind != "square"

    @property
    def loss(self) -> str | None:
        """The one that it climbs: ce, margin or dlr; None where there are several, or none."""
        if self.kind not in _CLIMBERS:
            return None
        return next((each for each in ("margin", "dlr") if each in self.words), "ce")

    @property
    def title(self) -> str:
        """For people: "APGD (dlr)"."""
        rest = ", ".join(self.words[1:])
        return _KINDS.get(self.kind, self.kind) + (f" ({rest})" if rest else "")


@dataclass(frozen=True)
class Evidence:
    """What is known beside the row itself, all of one network, on the same n samples and in the row's norm.

    others: attacks within the row's eps; proven: certified within it, (n,) bool; chosen: the panel's samples, (m,)
    int64; panels: within the row's eps, the row's own last; climb: of the loss that the row's attack climbs.
    """

    others: Sequence[Attacked] = ()
    proven: Tensor | None = None
    chosen: Tensor | None = None
    panels: Sequence[Panel] = ()
    climb: Climb | None = None


def settled(right: Tensor, proven: Tensor | None) -> str:
    """The verdict that needs no check: next to nothing survives, or nearly all of what survives is proven. Empty where
    there is no such verdict. right, proven: (n,) bool."""
    share = float(right.double().mean())
    if share <= TOLERANCE:
        return file.NOTHING_LEFT
    sure = 0.0 if proven is None else float((right & proven).double().mean())
    if sure < share - TOLERANCE:
        return ""
    return f"{file.PROVEN}{percent(sure).removesuffix(' %')} of the {percent(share)} are proven"


def judge(row: Attacked, known: Evidence) -> tuple[str, list[Check]]:
    """The verdict on a row and the checks behind it. Without a panel only what other rows of results.csv show can speak
    against it."""
    if text := settled(row.right, known.proven):
        return text, []
    found = [_beaten(row, known)]
    if known.chosen is not None and known.panels:
        right, panel = row.right[known.chosen], known.panels[-1].right
        found += [*_gradients(row, right, known, panel), *_others(row, right, panel)]
    return checks.verdict(found), found


def _beaten(row: Attacked, known: Evidence) -> Check:
    """By rows of results.csv, on all samples; or by these and the panels, on the panel's."""
    recorded: dict[str, Tensor] = {}
    for each in known.others:
        another = each.name == row.name and each.eps * SAME_EPS >= row.eps
        name = f"{each.title} with other settings" if another else _at(each.title, each.eps, row.eps)
        recorded[name] = each.right & recorded.get(name, each.right)
    first = checks.beaten(row.right, recorded, row.title)
    if known.chosen is None or not first.passed:
        return first
    everything = {name: right[known.chosen] for name, right in recorded.items()}
    for panel in known.panels:
        for name, right in panel.right.items():
            everything[_at(_PANEL.get(name, f"what PGD finds on {name}"), panel.eps, row.eps)] = right
    return checks.beaten(row.right[known.chosen], everything, row.title)


def _at(title: str, eps: float, own: float) -> str:
    return title if eps * SAME_EPS >= own else f"{title} at eps {eps:g}"


def _gradients(row: Attacked, right: Tensor, known: Evidence, panel: Mapping[str, Tensor]) -> list[Check]:
    """Whether the attack has something to follow, and how far it leads."""
    climb = known.climb
    if climb is None or row.loss is None:
        return []
    proven = torch.zeros_like(right) if known.proven is None else known.proven[known.chosen]
    harmful, which = climb.dead & right & ~proven, "survive without a proof and "
    found = [checks.zero_gradients(harmful, _LOSSES[row.loss], which), *climb.checks]
    if row.loss == "ce" and row.kind != "fgsm":  # that PGD on smaller logits finds more than one step proves nothing
        found.append(checks.saturation(climb.zero, climb.margins, right, panel["rescaled"]))
    return found


def _others(row: Attacked, right: Tensor, panel: Mapping[str, Tensor]) -> list[Check]:
    """Whether attacks that should do no better do."""
    found, one_step = [], row.kind == "fgsm"
    known = right & panel["margin"] & panel["rescaled"]
    if row.white_box:  # neither noise nor one step may do better; a random search is in no such order
        fgsm = right if one_step else panel["fgsm"]
        found.append(checks.ordering(panel["noise"], fgsm, right, row.title, alone=True))
    carried = {name: bits for name, bits in panel.items() if name not in OWN}
    found.append(checks.transfer(known, carried, row.title))
    found.append(checks.smoothed(known, panel["smoothed"], row.title))
    if row.white_box and "square" in panel:
        found.append(checks.black_box(known, panel["square"], row.title))
    if row.white_box and not one_step:  # any PGD beats one step, whatever the logits are scaled by
        found.append(checks.rescaled(right, panel["margin"], panel["rescaled"], row.title))
    return found


def judgeable(folder: Path, row: Row) -> bool:
    """Whether a row of results.csv gets a verdict: an attack gave it, and who was right is known."""
    return row["severity_unit"] == "eps" and row["norm"] in NORMS and scores_path(folder, row).is_file()


@dataclass(frozen=True)
class Recorded:
    """The rows of results.csv about one network on the same samples, which a verdict takes for nothing: what attacks
    gave, by the key of the row; who is certified, (n,) bool by radius. about: what all have in common."""

    about: Mapping[str, str]
    attacked: Mapping[Key, Attacked]
    certified: Sequence[tuple[float, Tensor]]

    @classmethod
    def of(cls, folder: Path, like: Row) -> Recorded:
        """Those in a folder that agree with a row in weights, split and n, and in the code that ran the network."""
        frame = results.read_rows(folder / "results.csv")
        same = [frame[name] == like[name] for name in ("weights", "split", "n")]
        same.append(frame["code"].map(network_of) == network_of(like["code"]))
        found: Sequence[Row] = records(frame[np.logical_and.reduce(same)])
        found = [row for row in found if scores_path(folder, row).is_file()]  # a copied results.csv has none
        attacked = {
            file.key_of(row): Attacked(row["perturbation"], row["norm"], row["severity"], _bits(folder, row), row)
            for row in found
            if judgeable(folder, row)
        }
        certified = [(row["severity"], _bits(folder, row)) for row in found if row["perturbation"] == "certified"]
        about = {"weights": like["weights"], "split": like["split"], "code": network_of(like["code"])}
        return cls(about, attacked, certified)

    def within(self, norm: str, eps: float) -> list[Attacked]:
        """Attacks in that norm whose eps, in data units, is at most this one."""
        return [each for each in self.attacked.values() if each.norm == norm and each.eps <= eps * SAME_EPS]

    def proven(self, row: Attacked) -> Tensor | None:
        """Who is certified within the row's eps: a ball in the 2-norm holds those of `INSIDE` of the same radius."""
        sure = [bits for radius, bits in self.certified if radius * SAME_EPS >= row.eps]
        return torch.stack(sure).any(dim=0) if sure and row.norm in INSIDE else None

    def correct(self, norm: str, eps: float) -> Tensor:
        """Whom a panel has to attack, (n,) bool: neither certified nor felled by every gradient attack of this eps.

        A sample that some of them leave correct may be one that the others missed by luck; felled by all it is
        nobody's survivor, and where a weaker attack is added later, these rows speak against it.
        """
        here = [each for each in self.within(norm, eps) if each.eps * SAME_EPS >= eps]
        gradient = [each.right for each in here if each.white_box] or [torch.ones_like(here[0].right)]
        proven = self.proven(here[0])
        correct = torch.stack(gradient).any(dim=0)
        return correct if proven is None else correct & ~proven


def _bits(folder: Path, row: Row) -> Tensor:
    return torch.from_numpy(read_scores(folder, row).astype(bool))


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

        None for other tasks than classification, because all that is looked at are answers. Panels that masking.json
        lacks are measured first. Verdicts that were given before to the same network on the same samples are renewed,
        because the rows asked for may speak against them.

        Raises:
            JobFailed: the disk refuses, or the bits of a row are damaged.
        """
        rows = keyed(row for row in asked if judgeable(self.folder, row))
        if not isinstance(self.data.info.task, Classification) or not rows or not self.count:
            return []
        recorded = Recorded.of(self.folder, next(iter(rows.values())))
        self._measure(recorded, [recorded.attacked[key] for key in rows], console)
        before, entries = file.read_part(self.folder, "verdicts"), file.read_part(self.folder, "panels")
        known = keyed(before)
        found: dict[Key, Entry] = {}
        for key in [*(key for key in known if key in recorded.attacked and key not in rows), *rows]:
            old = known.get(key, {}).get("samples") if key not in rows else self.count
            count = old if isinstance(old, int) else self.count
            found[key] = self._entry(recorded, key, entries, count) or dict(known[key])  # one without a panel stays
        kept = [old for key, old in known.items() if key not in found]
        if [*kept, *found.values()] != before:
            file.write_part(self.folder, "verdicts", [*kept, *found.values()])
        return [found[key] for key in rows]

    def _entry(self, recorded: Recorded, key: Key, entries: Sequence[Entry], count: int) -> Entry | None:
        """The verdict on a row; None where the panel that it needs is not among the entries."""
        row = recorded.attacked[key]
        known = self._evidence(recorded, row, entries, count)
        if not known.panels and not settled(row.right, known.proven):
            return None
        text, found = judge(row, known)
        return {
            **{name: row.row[name] for name in (*file.ROW, "perturbation")},
            "norm": row.norm,
            "eps": row.eps,
            "n": len(row.right),
            "samples": count,
            "robust_accuracy": float(row.right.double().mean()),
            "verdict": text,
            "passes": text.startswith(file.PASSES),
            "checks": [asdict(check) | {"passed": check.passed} for check in found],
        }

    def _evidence(self, recorded: Recorded, row: Attacked, entries: Sequence[Entry], count: int) -> Evidence:
        about = self._about(recorded, row.norm, count)
        panels: list[Panel] = []
        climb: Climb | None = None
        for entry in entries:
            found = read(entry) if about.items() <= entry.items() else None
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
        same = {**recorded.about, "digest": self.digest, "n": len(self.samples.target)}
        return {**same, "norm": norm, "samples": count, **reference_attacks.SETTINGS}

    def _measure(self, recorded: Recorded, asked: Sequence[Attacked], console: Console) -> None:
        """Every panel that these rows need and masking.json lacks, each of them written at once."""
        entries = [each for each in file.read_part(self.folder, "panels") if read(each)]
        missing: list[Entry] = []
        for row in asked:
            if settled(row.right, recorded.proven(row)):
                continue
            about = self._about(recorded, row.norm, self.count)
            for wanted in (about | {"eps": row.eps}, *([about | {"loss": row.loss}] if row.loss else [])):
                if not any(wanted.items() <= each.items() for each in (*entries, *missing)):
                    missing.append(wanted)
        if not missing:
            return
        with counted(console, "verdicts") as progress, evaluating(self.network):
            others = functools.cache(lambda: substitutes(self.network, self.data))
            for done, about in enumerate(missing):
                progress(done, len(missing))
                trial = self._trial(about)
                if "loss" in about:
                    found = written(reference_attacks.measure_climb(trial, about["loss"]))
                else:
                    correct = recorded.correct(about["norm"], about["eps"])[places(about["n"], self.count)]
                    found = written(reference_attacks.measure_panel(trial, others(), correct.to(trial.x.device)))
                entries.append(about | found)
                file.write_part(self.folder, "panels", entries)

    def _trial(self, about: Entry) -> Trial:
        """Of the panel's samples; without an eps for changes that may go everywhere."""
        chosen, how = places(len(self.samples.target), self.count), reference_attacks
        x, labels = (each[chosen].to(device_of(self.network)) for each in self.samples)
        return Trial(
            self.network, in_units(x), labels, eps=about.get("eps", 0.0), norm=about["norm"],
            bounds=self.data.info.bounds, steps=how.STEPS if "eps" in about else how.STEPS_FAR, restarts=how.RESTARTS,
            queries=how.QUERIES, seed=how.SEED,
        )  # fmt: skip


def written(found: Panel | Climb) -> Entry:
    """For masking.json, without what it is about. Bits are "0110…"."""
    named = found.right if isinstance(found, Panel) else {"dead": found.dead, "zero": found.zero}
    bits = {name: "".join("1" if each else "0" for each in of.tolist()) for name, of in named.items()}
    if isinstance(found, Panel):
        return {"bits": bits}
    return {"bits": bits, "margins": list(found.margins), "checks": [asdict(check) for check in found.checks]}


def read(entry: Row) -> Panel | Climb | None:
    """Back from masking.json; None for an entry that `written` does not make: it is measured anew."""
    try:
        bits = {str(name): _to_bits(text, entry["samples"]) for name, text in entry["bits"].items()}
        if "eps" in entry:
            return Panel(float(entry["eps"]), bits)
        middle, far = entry["margins"]
        found = tuple(Check(**each) for each in entry["checks"])
        return Climb(bits["dead"], bits["zero"], (float(middle), float(far)), found)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _to_bits(text: str, count: int) -> Tensor:
    """(m,) bool. Raises ValueError for anything but so many letters 0 and 1."""
    if set(text) - {"0", "1"} or len(text) != count:
        raise ValueError(f"expected {count} letters 0 and 1, got {text[:20]}")
    return torch.tensor([letter == "1" for letter in text])


def lines(verdicts: Sequence[Entry]) -> list[str]:
    """For the terminal: one for each row that fails, and one for all that pass where they are many."""
    good = [each for each in verdicts if each["passes"]]
    alone = [each for each in verdicts if not each["passes"] or len(good) <= FEW]
    found = [
        f"{each['perturbation']} eps {each['eps']:g}: robust accuracy {percent(each['robust_accuracy'])}, "
        f"{each['verdict']}"
        for each in alone
    ]
    if len(good) > FEW:
        eps: dict[str, list[str]] = {}
        for each in good:
            eps.setdefault(each["perturbation"], []).append(f"{each['eps']:g}")
        names = "; ".join(f"{name} eps {', '.join(values)}" for name, values in eps.items())
        proven = sum("proven" in each["verdict"] for each in good)
        some = f", {proven} of them proven" if proven else ""
        found.append(f"{len(good)} of {len(verdicts)} robust accuracies pass gradient-masking checks{some}: {names}")
    return found
