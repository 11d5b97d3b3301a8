"""Reference attacks on one network, whose disagreement shows gradient masking: what `checks` judges.

`GradientMasking` asks for them by itself (suite=gradient_masking). Verdicts on rows of results.csv need a panel of
them on a few samples, measured once for each network, norm and eps, and kept in masking.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from robode.attacks.balls import SMOOTH, beside, length
from robode.attacks.pgd import fgsm, pgd
from robode.attacks.problem import Model, attacking, gradient, loss_named, make_problem
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
from robode.network import Normalise, build_network, weights_digest
from robode.quantities.quantity import Quantity, row
from robode.runs.checkpoints import load_weights
from robode.runs.run import checkpoint_path, find
from robode.tasks.classification import margin, misclassified

MASKING = DRAWS + 1  # third word of the draws: not that of a suite's perturbations
USES = ("noise", "fgsm", "pgd", "square", "margin", "rescaled", "transfer", "large")  # second word: by place
WEAK, STRONG = ("noise", "fgsm"), ("square", "margin", "rescaled", "transfer")
BATCH = 5 * BLOCK
FAR_RESTARTS = 5  # where PGD may go everywhere, a single start can end on a far plateau
LEARNED_FROM, DECAY, ITERATIONS = 2000, 1e-3, 50  # of the linear baseline
# Of the panels behind verdicts. STEPS_FAR: of PGD that may go everywhere, ten times as far as the eps that are usual.
STEPS, STEPS_FAR, RESTARTS, QUERIES, SEED = 20, 40, 1, 100, 0
SETTINGS = {"steps": STEPS, "queries": QUERIES, "steps_far": STEPS_FAR}
"""Part of every entry of "panels": what other settings found is not taken for what these would find."""

Attack = Callable[[Tensor, Tensor, PerSampleRNG], Tensor]
"""(x (B, *shape) in data units, labels (B,), draws of these samples) -> x' like x."""


@dataclass(frozen=True)
class Trial:
    """A network in eval mode, samples x (n, *shape) in data units with labels (n,), and the accuracy in question: that
    under PGD on the cross-entropy with `steps` steps from `restarts` starts within `eps` in `norm`.

    bounds: of the data. queries: of Square, for each sample. seed: of the noise and of all random starts.
    """

    model: nn.Module
    x: Tensor
    labels: Tensor
    eps: float
    norm: str
    bounds: Bounds | None
    steps: int
    restarts: int
    queries: int
    seed: int

    def findings(self, baseline: Model, title: str) -> tuple[list[Check], dict[str, Tensor]]:
        """The checks, and who is right under "noise", "fgsm", …: (n,) bool each. What PGD fells is not attacked again.

        baseline: whose adversarials are carried over; title: its name in a sentence.
        """
        gradients, logits = self.gradients()
        clean = ~misclassified(logits, self.labels)
        survives = self.right("pgd", partial(self.pgd, restarts=self.restarts), clean)
        attacks = self.attacks(baseline, logits)
        right = {"clean": clean, **self.under(attacks, WEAK, clean), "pgd": survives}
        right |= self.under(attacks, STRONG, survives)
        return [
            checks.zero_gradients(checks.dead(gradients)),
            checks.random_gradients(gradients, self.gradients()[0]),
            checks.saturation(*checks.saturated_at(logits, self.labels), survives, right["rescaled"]),
            checks.ordering(right["noise"], right["fgsm"], survives),
            checks.black_box(survives, right["square"]),
            self.far(logits),
            checks.rescaled(survives, right["margin"], right["rescaled"]),
            checks.transfer(survives, right["transfer"], title),
        ], right

    def attacks(self, baseline: Model, logits: Tensor) -> dict[str, Attack]:
        """Those of WEAK and STRONG by name, without "square" for l1, which it does not know.

        baseline: whose adversarials are carried over; logits: (n, classes), of x.
        """
        scale = _spread(margin(logits, self.labels))
        found: dict[str, Attack] = {
            "noise": self.noise,
            "fgsm": self.fgsm,
            "square": self.square,
            "margin": partial(self.pgd, loss="margin"),
            "rescaled": partial(self.pgd, model=lambda x: self.model(x) / scale),
            "transfer": partial(self.pgd, model=baseline),
        }
        return {name: attack for name, attack in found.items() if name != "square" or self.norm in SMOOTH}

    def under(self, attacks: Mapping[str, Attack], names: Iterable[str], correct: Tensor) -> dict[str, Tensor]:
        """Which of the samples `correct` (n,) bool are right under each of the attacks of these names: (n,) bool."""
        return {name: self.right(name, attacks[name], correct) for name in names if name in attacks}

    def far(self, logits: Tensor, loss: str = "ce") -> Check:
        """`checks.large_eps` of PGD on the loss. logits: (n, classes), of x."""
        eps = extent(self.x, self.norm, self.bounds)
        attack = partial(self.pgd, loss=loss, eps=eps, restarts=FAR_RESTARTS)
        answers = self.answers("large", attack, ~misclassified(logits, self.labels))
        who = "PGD" if loss == "ce" else f"PGD ({loss})"
        return checks.large_eps(self.labels, logits.argmax(dim=1), answers, f"{self.norm} eps = {eps:.3g}", who)

    def gradients(self, loss: str = "ce") -> tuple[Tensor, Tensor]:
        """Of a loss of classifiers with respect to x, like x, and the logits (n, classes)."""
        parts = zip(torch.split(self.x, BATCH), torch.split(self.labels, BATCH), strict=True)
        with attacking(self.model):
            found = [gradient(self.model, loss_named(loss), x, labels) for x, labels in parts]
        return torch.cat([grad for _, _, grad in found]), torch.cat([logits for _, logits, _ in found])

    @torch.no_grad()
    def answers(self, use: str, attack: Attack, correct: Tensor) -> Tensor:
        """The network's classes (n,) at x' of the samples `correct` (n,) bool; -1 for the others and for no answer."""
        found = torch.full_like(self.labels, -1)
        for start in range(0, len(found), BATCH):
            part = range(start, min(start + BATCH, len(found)))
            rows = correct[part.start : part.stop].nonzero()[:, 0]
            if len(rows):
                draws = PerSampleRNG((self.seed, USES.index(use), MASKING), part, self.x.device).of(rows)
                chosen = start + rows
                logits = self.model(attack(self.x[chosen], self.labels[chosen], draws))
                found[chosen] = logits.argmax(dim=1).where(logits.isfinite().all(dim=1), -1)
        return found

    def right(self, use: str, attack: Attack, correct: Tensor) -> Tensor:
        """Which of the samples `correct` are right at x', (n,) bool."""
        return self.answers(use, attack, correct) == self.labels

    def noise(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        """x + eps times a random direction: a corner of the cube (linf), a point of the sphere (l2, l1)."""
        z = draws.normal(*x.shape[1:])
        z = z.sign() if self.norm == "linf" else z / beside(length(z, self.norm), z)
        return clip(x + self.eps * z, self.bounds)

    def fgsm(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        return fgsm(make_problem(self.model, x, labels, eps=self.eps, norm=self.norm, bounds=self.bounds))

    def pgd(
        self,
        x: Tensor,
        labels: Tensor,
        draws: PerSampleRNG,
        *,
        model: Model | None = None,
        loss: str = "ce",
        eps: float | None = None,
        restarts: int = 1,
    ) -> Tensor:
        """On the network, within the eps in question and once, where nothing else is said."""
        problem = make_problem(
            self.model if model is None else model, x, labels, eps=self.eps if eps is None else eps, norm=self.norm,
            bounds=self.bounds, rng=draws,
        )  # fmt: skip
        return pgd(problem, loss=loss, steps=self.steps, restarts=restarts)

    def square(self, x: Tensor, labels: Tensor, draws: PerSampleRNG) -> Tensor:
        problem = make_problem(
            self.model, x, labels, eps=self.eps, norm=self.norm, bounds=self.bounds, rng=draws
        )  # fmt: skip
        return square(problem, queries=self.queries)


def extent(x: Tensor, norm: str, bounds: Bounds | None) -> float:
    """A radius at which the ball around each of the samples x (n, *shape) holds all of them, and all of the bounds."""
    flat = x.flatten(1)
    width = flat.amax(dim=0) - flat.amin(dim=0) if bounds is None else torch.full_like(flat[0], bounds[1] - bounds[0])
    return float(length(width[None], norm))


def _spread(margins: Tensor) -> float:
    """Root mean square of the margins (n,): logits divided by it keep a cross-entropy of ordinary size."""
    size = float(margins.double().square().mean().sqrt())
    return size if 0 < size < math.inf else 1.0


@dataclass(frozen=True)
class Panel:
    """Who of a few samples is right under other attacks within eps: (m,) bool by the names in WEAK and STRONG. A sample
    that was not asked, because it cannot matter, counts as right."""

    eps: float
    right: Mapping[str, Tensor]


@dataclass(frozen=True)
class Climb:
    """What the gradients of one loss are like, and how far they lead. dead, zero: of `checks.dead` and
    `checks.saturated_at`, (m,) bool; margins: of the latter; checks: those that are about the network and not about a
    row."""

    dead: Tensor
    zero: Tensor
    margins: tuple[float, float]
    checks: tuple[Check, ...]


def measure_panel(trial: Trial, baseline: Model, correct: Tensor) -> Entry:
    """The entry of a `Panel`, without what it is about. correct: whom the strong attacks try, (m,) bool.

    The others count as right, which says nothing against any row: samples that every recorded gradient attack fells
    are counted there already, and those that are certified cannot fall. Samples that are wrong from the beginning
    are right nowhere.
    """
    _, logits = trial.gradients()
    clean = ~misclassified(logits, trial.labels)
    attacks = trial.attacks(baseline, logits)
    strong = trial.under(attacks, STRONG, correct & clean)
    right = trial.under(attacks, WEAK, clean) | {name: each | (clean & ~correct) for name, each in strong.items()}
    return {"bits": {name: to_text(each) for name, each in right.items()}}


def measure_climb(trial: Trial, loss: str) -> Entry:
    """The entry of a `Climb`, without what it is about. loss: ce, margin or dlr."""
    gradients, logits = trial.gradients(loss)
    zero, margins = checks.saturated_at(logits, trial.labels)
    found = [checks.random_gradients(gradients, trial.gradients(loss)[0]), trial.far(logits, loss)]
    return {
        "bits": {"dead": to_text(checks.dead(gradients)), "zero": to_text(zero)},
        "margins": list(margins),
        "checks": [asdict(check) for check in found],
    }


def read(entry: Row) -> Panel | Climb | None:
    """Back from masking.json; None for an entry that neither function above makes: it is measured anew."""
    try:
        bits = {str(name): to_bits(text, entry["samples"]) for name, text in entry["bits"].items()}
        if "eps" in entry:
            return Panel(float(entry["eps"]), bits)
        middle, far = entry["margins"]
        found = tuple(Check(**each) for each in entry["checks"])
        return Climb(bits["dead"], bits["zero"], (float(middle), float(far)), found)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def to_text(bits: Tensor) -> str:
    """(m,) bool -> "0110…"."""
    return "".join("1" if each else "0" for each in bits.tolist())


def to_bits(text: str, count: int) -> Tensor:
    """Back. Raises ValueError for anything but so many letters 0 and 1."""
    if set(text) - {"0", "1"} or len(text) != count:
        raise ValueError(f"expected {count} letters 0 and 1, got {text[:20]}")
    return torch.tensor([letter == "1" for letter in text])


def linear_classifier(data: DataModule, device: torch.device | str = "cpu") -> nn.Module:
    """x (B, *shape) in data units -> logits of a multinomial logistic regression on some of the training samples, on
    `device`.

    Its training is a convex problem from zero, so that no seed is involved.
    """
    info = data.info
    x, labels = (each.to(device) for each in spread(data.split("train"), LEARNED_FROM))
    features = nn.Sequential(Normalise(info.mean, info.std, len(info.shape)), nn.Flatten()).to(device)
    head = nn.Linear(math.prod(info.shape), info.task.outputs, device="meta")  # draws nothing
    head = head.to_empty(device=device)
    with torch.no_grad():
        inputs = features(in_units(x))
        for parameter in head.parameters():
            parameter.zero_()
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        decay = DECAY * head.weight.square().sum()
        loss = nn.functional.cross_entropy(head(inputs), labels) + decay
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return nn.Sequential(features, head)


class GradientMasking(Quantity):
    """Signs of gradient masking (`checks`) in a network, on `samples` images spread evenly over the test set.

    The accuracy in question is that under PGD on the cross-entropy with `steps` steps from `restarts` starts within
    `eps`, data units, in `norm`, linf or l2. Square gets `queries`. Adversarials are carried over from `baseline`,
    another run on the same data, or from a linear classifier trained for the purpose. seed: of the noise and the
    random starts.

    Rows: "masking/<check> <norm> <eps>", the share of samples that the check found, and "masking/passes …", 1 or 0.
    masking.json in the run's folder has them with what was allowed and a sentence, for every network and setting.
    """

    name = "gradient_masking"
    gives = (
        "masking/zero_gradients", "masking/random_gradients", "masking/saturation", "masking/ordering",
        "masking/black_box", "masking/large_eps", "masking/logit_rescaling", "masking/transfer", "masking/passes",
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
        title, baseline = self._baseline(data, device)
        x, labels = (each.to(device) for each in spread(data.split("test"), self.samples))
        trial = Trial(
            network, in_units(x), labels, eps=self.eps, norm=self.norm, bounds=data.info.bounds, steps=self.steps,
            restarts=self.restarts, queries=self.queries, seed=self.seed,
        )  # fmt: skip
        with evaluating(network):
            found, right = trial.findings(baseline.to(device).eval(), title)
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

    def _baseline(self, data: DataModule, device: torch.device) -> tuple[str, nn.Module]:
        """Its name in a sentence and the network, which never saw the one in question."""
        if self.baseline is None:
            return "a linear classifier", linear_classifier(data, device)
        run, checkpoint = find(self.baseline, key="suite.gradient_masking.baseline")
        config = run.config()
        network = build_network(config, data.info)
        load_weights(checkpoint_path(run, checkpoint or "best"), network)
        return f"the run {run.id}", network
