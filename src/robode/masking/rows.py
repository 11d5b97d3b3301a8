"""The verdict on one attacked accuracy, from bits alone: which samples are right under it and under other attacks.

Pure functions. Bits are (n,) bool over the evaluated samples, or (m,) over the panel's, which are n samples' `chosen`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robode.masking.checks import (
    TOLERANCE,
    Check,
    beaten,
    black_box,
    ordering,
    rescaled,
    saturated,
    still_dead,
    transfer,
    verdict,
)
from robode.masking.file import BELIEVABLE
from robode.report.tables import percent

BASELINE = "a linear classifier"
SAME_EPS = 1 + 1e-9
_KINDS = {
    "fgsm": "FGSM", "pgd": "PGD", "apgd": "APGD", "square": "Square", "ensemble": "robode's ensemble",
    "autoattack": "AutoAttack", "fmn": "the nearest wrong answer",
}  # fmt: skip
_CLIMBERS = ("fgsm", "pgd", "apgd")
_LOSSES = {"ce": "cross-entropy", "margin": "margin of the logits", "dlr": "difference of logits ratio"}
_PANEL = {
    "noise": "random noise", "fgsm": "FGSM", "square": "Square", "margin": "PGD (margin)",
    "rescaled": "PGD (rescaled logits)", "transfer": f"what PGD finds on {BASELINE}",
}  # fmt: skip


@dataclass(frozen=True)
class Attacked:
    """A row of results.csv that an attack gave: its perturbation, for example apgd_dlr_l2, its norm, eps in data units,
    and who is right, (n,) bool."""

    name: str
    norm: str
    eps: float
    right: Tensor

    @property
    def words(self) -> list[str]:
        """The name without its norm: ["apgd", "dlr"]."""
        return self.name.removesuffix(f"_{self.norm}").split("_")

    @property
    def kind(self) -> str:
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
class Panel:
    """Who of the chosen samples is right under other attacks within eps: (m,) bool by "noise", "fgsm", "square",
    "margin", "rescaled", "transfer". A sample that was not asked, because it cannot matter, counts as right."""

    eps: float
    right: Mapping[str, Tensor]


@dataclass(frozen=True)
class Climb:
    """What the gradients of one loss are like, and how far they lead. dead, zero: of `masking_checks.dead` and
    `saturated_at`, (m,) bool; margins: of the latter; checks: those that are about the network and not about a row."""

    dead: Tensor
    zero: Tensor
    margins: tuple[float, float]
    checks: tuple[Check, ...]


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


@dataclass(frozen=True)
class Verdict:
    """A sentence that begins with "believable" or "suspicious because", and the checks behind it."""

    text: str
    checks: tuple[Check, ...] = field(default=())

    @property
    def believable(self) -> bool:
        return self.text.startswith(BELIEVABLE)


def settled(right: Tensor, proven: Tensor | None) -> Verdict | None:
    """The verdict that needs no panel: next to nothing survives, or nearly all of what survives is proven.

    right, proven: (n,) bool.
    """
    share = float(right.double().mean())
    if share <= TOLERANCE:  # an attack only ever overestimates
        return Verdict(BELIEVABLE)
    sure = 0.0 if proven is None else float((right & proven).double().mean())
    if sure < share - TOLERANCE:
        return None
    return Verdict(f"{BELIEVABLE}: {percent(sure).removesuffix(' %')} of the {percent(share)} are proven")


def judge(row: Attacked, known: Evidence) -> Verdict:
    """The verdict on a row. Without a panel only what other rows of results.csv show can speak against it."""
    done = settled(row.right, known.proven)
    if done is not None:
        return done
    checks = [_beaten(row, known)]
    if known.chosen is not None and known.panels:
        right, panel = row.right[known.chosen], known.panels[-1].right
        checks += [*_gradients(row, right, known, panel), *_order(row, right, panel), *_others(row, right, panel)]
    return Verdict(verdict(checks), tuple(checks))


def _beaten(row: Attacked, known: Evidence) -> Check:
    """By rows of results.csv, on all samples; or by these and the panels, on the panel's."""
    recorded: dict[str, Tensor] = {}
    for each in known.others:
        another = each.name == row.name and each.eps * SAME_EPS >= row.eps
        name = f"{each.title} with other settings" if another else _at(each.title, each.eps, row.eps)
        recorded[name] = each.right & recorded.get(name, each.right)
    first = beaten(row.right, recorded, row.title)
    if known.chosen is None or not first.passed:
        return first
    everything = {name: right[known.chosen] for name, right in recorded.items()}
    for panel in known.panels:
        everything |= {_at(_PANEL[name], panel.eps, row.eps): right for name, right in panel.right.items()}
    return beaten(row.right[known.chosen], everything, row.title)


def _at(title: str, eps: float, own: float) -> str:
    return title if eps * SAME_EPS >= own else f"{title} at eps {eps:g}"


def _gradients(row: Attacked, right: Tensor, known: Evidence, panel: Mapping[str, Tensor]) -> list[Check]:
    """Whether the attack has something to follow, and how far it leads."""
    climb = known.climb
    if climb is None or row.loss is None:
        return []
    proven = torch.zeros_like(right) if known.proven is None else known.proven[known.chosen]
    checks = [still_dead(climb.dead & right & ~proven, _LOSSES[row.loss]), *climb.checks]
    if row.loss == "ce" and row.kind != "fgsm":  # that PGD on smaller logits finds more than one step proves nothing
        checks.append(saturated(climb.zero, climb.margins, right, panel["rescaled"]))
    return checks


def _order(row: Attacked, right: Tensor, panel: Mapping[str, Tensor]) -> list[Check]:
    """Neither noise nor one step may do better. A random search is in no such order."""
    if not row.white_box:
        return []
    fgsm = right if row.kind == "fgsm" else panel["fgsm"]
    return [ordering(panel["noise"], fgsm, right, row.title, alone=True)]


def _others(row: Attacked, right: Tensor, panel: Mapping[str, Tensor]) -> list[Check]:
    checks = [transfer(right, panel["transfer"], BASELINE, row.title)]
    if row.white_box and "square" in panel:
        checks.append(black_box(right, panel["square"], row.title))
    if row.white_box and row.kind != "fgsm":  # any PGD beats one step, whatever the logits are scaled by
        others = {"margin of the logits": panel["margin"], "cross-entropy of rescaled logits": panel["rescaled"]}
        checks.append(rescaled(right, others, row.title))
    return checks
