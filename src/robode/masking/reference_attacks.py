"""Reference attacks on one network, whose disagreement shows gradient masking: what `checks` judges.

`GradientMasking` asks for them by itself (suite=gradient_masking). Verdicts on rows of results.csv need a panel of
them on a few samples, measured once for each network, norm and eps, and kept in masking.json.

What a sample costs, in passes of the network (S steps, Q queries): noise 1 forward, FGSM 1 forward and backward, and of
what survives PGD: PGD on another loss S of both; averaged gradients 9 S forward and 8 S backward; Square Q forward, up
to 15 Q where the images fall slowly; carried over from a student 1 forward, from the backbone S of both, with the
reference solver S of both, each as long as `integrators.integrator.SUBSTEPS`. PGD that may go everywhere: up to 5 S of
both. Once a network: one or two forward passes of 2000 training samples, and 300 small steps of the student.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from robode.attacks.balls import SMOOTH, beside, length, possible, random_start, step_direction
from robode.attacks.pgd import START, TRAVEL, fgsm, pgd
from robode.attacks.problem import Model, Problem, attacking, gradient, loss_named, make_problem
from robode.attacks.square import square
from robode.config.levels import check_count
from robode.corruptions.noise import BLOCK, DRAWS, PerSampleRNG
from robode.corruptions.perturbation import Bounds, clip
from robode.data.batches import device_of, evaluating, in_units
from robode.data.module import DataModule, spread
from robode.errors import BadInput
from robode.masking import checks
from robode.masking.checks import Check
from robode.masking.file import Entry, Row, read_part, write_part
from robode.masking.substitutes import LESSONS, substitutes
from robode.network import build_network, weights_digest
from robode.quantities.quantity import Quantity, row
from robode.runs.checkpoints import load_weights
from robode.runs.run import checkpoint_path, find
from robode.tasks.classification import margin, misclassified

MASKING = DRAWS + 1  # third word of the draws: not that of a suite's perturbations
WEAK, OWN = ("noise", "fgsm"), ("noise", "fgsm", "square", "margin", "rescaled", "smoothed")  # others: carried over
USES = (*WEAK, "pgd", "square", "margin", "rescaled", "transfer", "large", "smoothed")  # second word: by place
BATCH = 5 * BLOCK
FAR_RESTARTS = 5  # where PGD may go everywhere, a single start can end on a far plateau
COPIES, FINEST = 8, 128  # noisy copies of a sample for one averaged gradient; eps over the least distance of theirs
DOUBLINGS = 3  # of Square's queries, for images that fall slowly
# Of the panels behind verdicts. STEPS_FAR: of PGD that may go everywhere, ten times as far as the eps that are usual.
STEPS, STEPS_FAR, RESTARTS, QUERIES, SEED = 20, 40, 1, 100, 0
SETTINGS = {
    "steps": STEPS,
    "queries": QUERIES,
    "steps_far": STEPS_FAR,
    "copies": COPIES,
    "finest": FINEST,
    "students": LESSONS,
}
"""Part of every entry of "panels": what other settings found is not taken for what these would find."""

ReferenceAttack = Callable[[Tensor, Tensor, PerSampleRNG], Tensor]
"""(x (B, *shape) in data units, labels (B,), draws of these samples) -> x' like x."""


@dataclass(frozen=True)
class Trial:
    """A network in eval mode, samples x (n, *shape) in data units with labels (n,), and the accuracy in question: that
    under PGD on the cross-entropy with `steps` steps from `restarts` starts within `eps` in `norm`.

    bounds: of the data. queries: of Square, for each sample. seed: of the noise and of all random starts.
    """

    model: Model
    x: Tensor
    labels: Tensor
    eps: float
    norm: str
    bounds: Bounds | None
    steps: int
    restarts: int
    queries: int
    seed: int

    def findings(self, substitutes: Mapping[str, Model]) -> tuple[list[Check], dict[str, Tensor]]:
        """The checks, and who is right under "noise", "fgsm", …: (n,) bool each. What PGD fells is not attacked again.

        substitutes: whose adversarials are carried over, by their names in a sentence.
        """
        gradients, logits = self.gradients()
        clean = ~misclassified(logits, self.labels)
        survives = self.right("pgd", partial(self.pgd, restarts=self.restarts), clean)
        right = {"clean": clean, "pgd": survives} | self.under(self.attacks(substitutes, logits), clean, survives)
        known = survives & right["margin"] & right["rescaled"]
        return [
            checks.zero_gradients(checks.dead(gradients)),
            checks.random_gradients(gradients, self.gradients()[0]),
            checks.saturation(*checks.saturated_at(logits, self.labels), survives, right["rescaled"]),
            checks.ordering(right["noise"], right["fgsm"], survives),
            checks.black_box(known, right["square"]),
            checks.smoothed(known, right["smoothed"]),
            self.far(logits),
            checks.rescaled(survives, right["margin"], right["rescaled"]),
            checks.transfer(known, {name: right[name] for name in substitutes}),
        ], right

    def attacks(self, substitutes: Mapping[str, Model], logits: Tensor) -> dict[str, ReferenceAttack]:
        """All by name, without "square" for l1, which it does not know.

        substitutes: whose adversarials are carried over, by name; logits: (n, classes), of x.
        """
        scale = checks.size_of(margin(logits, self.labels))
        found: dict[str, ReferenceAttack] = {
            "noise": self.noise,
            "fgsm": self.fgsm,
            "square": self.square,
            "margin": partial(self.pgd, loss="margin"),
            "rescaled": replace(self, model=lambda x: self.model(x) / scale).pgd,
            "smoothed": self.smoothed,
        }
        carried = {name: replace(self, model=model).carried for name, model in substitutes.items()}
        return {name: attack for name, attack in found.items() if name != "square" or self.norm in SMOOTH} | carried

    def under(self, attacks: Mapping[str, ReferenceAttack], weak: Tensor, strong: Tensor) -> dict[str, Tensor]:
        """Which of the samples are right under each of the attacks, (n,) bool. Those of WEAK are tried on the samples
        `weak`, the others on `strong`, (n,) bool."""
        return {name: self.right(name, attack, weak if name in WEAK else strong) for name, attack in attacks.items()}

    def far(self, logits: Tensor, loss: str = "ce") -> Check:
        """`checks.large_eps` of PGD on the loss. logits: (n, classes), of x."""
        eps = checks.extent(self.x, self.norm, self.bounds)
        attack = partial(replace(self, eps=eps).pgd, loss=loss, restarts=FAR_RESTARTS)
        answers = self.answers("large", attack, ~misclassified(logits, self.labels))
        who = "PGD" if loss == "ce" else f"PGD ({loss})"
        return checks.large_eps(self.labels, logits.argmax(dim=1), answers, f"{self.norm} eps = {eps:.3g}", who)

    def gradients(self, loss: str = "ce") -> tuple[Tensor, Tensor]:
        """Of a loss of classifiers with respect to x, like x, and the logits (n, classes)."""
        parts = zip(torch.split(self.x, BATCH), torch.split(self.labels, BATCH), strict=True)
        with attacking(self.model):
            found = [gradient(self.model, loss_named(loss), x, labels) for x, labels in parts]
        return torch.cat([grad for _, _, grad in found]), torch.cat([logits for _, logits, _ in found])

    def _draws(self, use: str, part: range) -> PerSampleRNG:
        place = USES.index(use if use in USES else "transfer")
        return PerSampleRNG((self.seed, place, MASKING), part, self.x.device)

    @torch.no_grad()
    def answers(self, use: str, attack: ReferenceAttack, correct: Tensor) -> Tensor:
        """The network's classes (n,) at x' of the samples `correct` (n,) bool; -1 for the others and for no answer."""
        found = torch.full_like(self.labels, -1)
        for start in range(0, len(found), BATCH):
            part = range(start, min(start + BATCH, len(found)))
            rows = correct[part.start : part.stop].nonzero()[:, 0]
            if len(rows):
                draws = self._draws(use, part).of(rows)
                chosen = start + rows
                logits = self.model(attack(self.x[chosen], self.labels[chosen], draws))
                found[chosen] = logits.argmax(dim=1).where(logits.isfinite().all(dim=1), -1)
        return found

    def right(self, use: str, attack: ReferenceAttack, correct: Tensor) -> Tensor:
        """Which of the samples `correct` are right at x', (n,) bool."""
        return self.answers(use, attack, correct) == self.labels

    def noise(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        """x + eps times a random direction: a corner of the cube (linf), a point of the sphere (l2, l1)."""
        z = draws.normal(*x.shape[1:])
        z = z.sign() if self.norm == "linf" else z / beside(length(z, self.norm), z)
        return clip(x + self.eps * z, self.bounds)

    def problem(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Problem:
        """What its attacks are given: x (B, *shape) in data units with labels (B,), within its eps."""
        return make_problem(self.model, x, labels, eps=self.eps, norm=self.norm, bounds=self.bounds, rng=draws)

    def fgsm(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        """x' like x of one gradient step."""
        return fgsm(self.problem(x, labels, draws))

    def pgd(self, x: Tensor, labels: Tensor, draws: PerSampleRNG, *, loss: str = "ce", restarts: int = 1) -> Tensor:
        """x' like x of projected gradient descent, with the trial's steps from `restarts` starts."""
        return pgd(self.problem(x, labels, draws), loss=loss, steps=self.steps, restarts=restarts)

    def carried(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        """For another network than this one: PGD goes on where this one is fooled, because the other may need more."""
        return pgd(self.problem(x, labels, draws), loss="margin", steps=self.steps, early=False)

    def smoothed(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        """PGD from coarse to fine: along gradients of the network's mean over noise, uniform in a ball whose radius
        falls from eps to eps / FINEST, and the steps with it. What oscillates faster than a ball averages out there,
        and is climbed later, from the right slope. The noise belongs to the step and not to the sample, which leaves a
        sample's fate its own. Source: Hazan, Levy, Shalev-Shwartz, "On graduated optimization for stochastic non-convex
        problems", ICML 2016."""
        problem, shifts = self.problem(x, labels, draws), self._draws("smoothed", range(COPIES))
        moved, left = problem.start(START[self.norm]), torch.arange(len(x), device=x.device)
        radii = self.eps * FINEST ** (-torch.arange(self.steps).to(x) / self.steps)
        with attacking(problem.model):
            for radius in radii:
                logits = problem.model(moved[left])
                right = ~misclassified(logits, labels[left])
                left, logits = left[right], logits[right]
                if not len(left):
                    break
                noise = random_start(shifts, x[:1].expand(COPIES, *x.shape[1:]), radius.expand(COPIES), self.norm)
                around, here = self._around(problem.model, noise, logits), moved[left]
                grad = gradient(around, loss_named("ce"), here, labels[left])[2]
                if self.norm == "l1":
                    grad = possible(grad, here, self.bounds)
                step = TRAVEL * self.eps * radius / radii.sum() * step_direction(grad, self.norm)
                moved[left] = problem.region.of(left).back(here + step)
        return moved

    def _around(self, model: Model, noise: Tensor, logits: Tensor) -> Model:
        """These logits with the gradients of the model's mean over x + each noise (COPIES, *shape)."""

        def around(x: Tensor) -> Tensor:
            here = x.detach()
            mean = torch.stack([model(x + (reflected(here + each, self.bounds) - here)) for each in noise]).mean(dim=0)
            return mean + (logits - mean).detach()

        return around

    def square(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        """With twice the queries, up to DOUBLINGS times, for images whose margin has at least halved."""
        problem, half = self.problem(x, labels, draws), margin(self.model(x), labels) / 2
        moved = square(problem, queries=self.queries)
        for doubling in range(1, DOUBLINGS + 1):
            reached = margin(self.model(moved), labels)
            slow = ((reached < 0) & (reached > half)).nonzero()[:, 0]
            if not len(slow):
                break
            moved[slow] = square(problem.of(slow), queries=self.queries * 2**doubling)
        return moved


def reflected(x: Tensor, bounds: Bounds | None) -> Tensor:
    """x brought back within the bounds, where clipping would pile noise up on them."""
    if bounds is None:
        return x
    low, high = bounds
    return clip(high - (high - low - (x - low).abs()).abs(), bounds)


@dataclass(frozen=True)
class Panel:
    """Who of a few samples is right under other attacks within eps: (m,) bool by the names in OWN, and by those of
    `substitutes`. A sample that was not asked, because it cannot matter, counts as right."""

    eps: float
    right: Mapping[str, Tensor]


@dataclass(frozen=True)
class Climb:
    """What the gradients of one loss are like, and how far they lead. dead, zero, margins: of `checks.dead` and
    `checks.saturated_at`; checks: those that are about the network and not about a row."""

    dead: Tensor
    zero: Tensor
    margins: tuple[float, float]
    checks: tuple[Check, ...]


def measure_panel(trial: Trial, substitutes: Mapping[str, Model], correct: Tensor) -> Panel:
    """correct: whom the strong attacks try, (m,) bool.

    The others count as right, which says nothing against any row: samples that every recorded gradient attack fells
    are counted there already, and those that are certified cannot fall. Samples that are wrong from the beginning
    are right nowhere.
    """
    _, logits = trial.gradients()
    clean = ~misclassified(logits, trial.labels)
    right = trial.under(trial.attacks(substitutes, logits), clean, correct & clean)
    right |= {name: each | (clean & ~correct) for name, each in right.items() if name not in WEAK}
    return Panel(trial.eps, right)


def measure_climb(trial: Trial, loss: str) -> Climb:
    """loss: ce, margin or dlr."""
    gradients, logits = trial.gradients(loss)
    zero, margins = checks.saturated_at(logits, trial.labels)
    found = (checks.random_gradients(gradients, trial.gradients(loss)[0]), trial.far(logits, loss))
    return Climb(checks.dead(gradients), zero, margins, found)


class GradientMasking(Quantity):
    """Signs of gradient masking (`checks`) in a network, on `samples` images spread evenly over the test set.

    The accuracy in question is that under PGD on the cross-entropy with `steps` steps from `restarts` starts within
    `eps`, data units, in `norm`, linf or l2. Square gets `queries`. Adversarials are carried over from `substitutes`
    and from `baseline`, another run on the same data. seed: of the noise and the random starts.

    Rows: "masking/<check> <norm> <eps>", the share of samples that the check found, and "masking/passes …", 1 or 0.
    masking.json in the run's folder has them with what was allowed and a sentence, for every network and setting.
    """

    name = "gradient_masking"
    gives = (
        "masking/zero_gradients", "masking/random_gradients", "masking/saturation", "masking/ordering",
        "masking/black_box", "masking/smoothed_gradients", "masking/large_eps", "masking/logit_rescaling",
        "masking/transfer", "masking/passes",
    )  # fmt: skip
    needs_classes = True

    def __init__(
        self,
        eps: float = 0.1,
        norm: str = "linf",
        samples: int = 500,
        steps: int = 40,
        restarts: int = 2,
        queries: int = 200,
        baseline: str | None = None,
        seed: int = 0,
    ):
        if norm not in SMOOTH:  # Square knows no other
            raise BadInput(f"suite.gradient_masking.norm: expected one of {', '.join(SMOOTH)}, got {norm}")
        if not 0 < eps < math.inf:
            raise BadInput(f"suite.gradient_masking.eps: expected a number > 0, got {eps}")
        counts = {"samples": samples, "steps": steps, "restarts": restarts, "queries": queries}
        for key, value in counts.items():
            check_count(f"suite.gradient_masking.{key}", value)
        self.eps, self.norm, self.samples, self.baseline = float(eps), norm, samples, baseline
        self.steps, self.restarts, self.queries, self.seed = steps, restarts, queries, seed

    def known(self, folder: Path, weights: str) -> bool:
        return super().known(folder, weights) and any(
            self._is_mine(each, weights) for each in read_part(folder, "records")
        )

    def in_numbers(self) -> set[str]:
        return {self._row_name(name) for name in self.gives}

    def suits(self, network: nn.Module) -> bool:
        """Anyone's: all that is asked is logits and their gradients."""
        return True

    def measure(self, network: nn.Module, data: DataModule, folder: Path) -> list[Entry]:
        device = device_of(network)
        x, labels = (each.to(device) for each in spread(data.split("test"), self.samples))
        trial = Trial(
            network, in_units(x), labels, eps=self.eps, norm=self.norm, bounds=data.info.bounds, steps=self.steps,
            restarts=self.restarts, queries=self.queries, seed=self.seed,
        )  # fmt: skip
        with evaluating(network):
            found, right = trial.findings(substitutes(network, data) | self._baseline(data, device))
        record: Entry = {
            "weights": weights_digest(network),
            "settings": dict(vars(self)),
            "samples": len(labels),
            "accuracy": {name: float(right[name].double().mean()) for name in ("clean", "noise", "fgsm", "pgd")},
            "verdict": checks.verdict(found),
            "checks": [asdict(check) | {"passed": check.passed} for check in found],
        }
        others = [each for each in read_part(folder, "records") if not self._is_mine(each, record["weights"])]
        write_part(folder, "records", [*others, record])
        values = {f"masking/{check.name}": check.value for check in found}
        values["masking/passes"] = float(all(check.passed for check in found))
        return [row(self._row_name(name), value) for name, value in values.items()]

    def _row_name(self, name: str) -> str:
        return f"{name} {self.norm} {self.eps:g}"

    def _is_mine(self, record: Row, weights: str) -> bool:
        return (record.get("weights"), record.get("settings")) == (weights, vars(self))

    def _baseline(self, data: DataModule, device: torch.device) -> dict[str, Model]:
        """The network, which never saw the one in question, by its name in a sentence."""
        if self.baseline is None:
            return {}
        run, checkpoint = find(self.baseline, key="suite.gradient_masking.baseline")
        network = build_network(run.config(), data.info)
        load_weights(checkpoint_path(run, checkpoint or "best"), network)
        return {f"the run {run.id}": network.to(device).eval()}
