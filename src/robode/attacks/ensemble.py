"""Several attacks in turn, each on what the others have left: robode's ensemble, and AutoAttack as published.

robode's has the plan of AutoAttack (Croce and Hein, ICML 2020) without its member FAB, for any number of classes and
for data without bounds. The published one comes from the package pyautoattack (the extra robode[attacks]).
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from robode.attacks.apgd import apgd
from robode.attacks.attack import Attack
from robode.attacks.balls import SMOOTH, check_norm
from robode.attacks.problem import Model, Problem, attacking, in_turn
from robode.attacks.square import square
from robode.corruptions.perturbation import Bounds
from robode.errors import BadInput
from robode.tasks.classification import margin

LEAST_CLASSES = 4
"""The losses of AutoAttack need as many logits, and so does DLR with a target."""
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def ensemble(problem: Problem, *, steps: int = 100, targets: int = 9, queries: int = 1000) -> Tensor:
    """x' (like x) of APGD-CE, APGD-DLR, targeted APGD-DLR and Square, each only on what is still answered correctly.

    Where none of them changes the answer, the x' of the largest margin. With fewer than 4 classes the margin takes the
    place of DLR. problem: a classification, with norm linf or l2; targets: at most, of the best other classes; steps:
    of each APGD; queries: of Square.
    """
    check_norm(problem.norm, SMOOTH)
    with attacking(problem.model):
        many = len(problem.x) > 0 and problem.model(problem.x[:1]).shape[1] >= LEAST_CLASSES
        loss = "dlr" if many else "margin"
        members = [
            functools.partial(apgd, loss="ce", steps=steps),
            functools.partial(apgd, loss=loss, steps=steps),
            functools.partial(apgd, loss=loss, steps=steps, targets=targets),
            functools.partial(square, queries=queries),
        ]
        return in_turn(problem, [functools.partial(_attempt, attack=member) for member in members])


def _attempt(problem: Problem, *, attack: Callable[[Problem], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    moved = attack(problem)
    logits = problem.model(moved)
    return moved, problem.failed(logits, problem.target), margin(logits, problem.target)


def autoattack(problem: Problem, *, seed: int = 0) -> Tensor:
    """x' (like x) of the standard version: APGD-CE, targeted APGD-DLR, targeted FAB, Square with 5 000 queries.

    problem: images (C, H, W) in [0, 1] with labels (B,), and one eps for all. Its random numbers belong to places in
    the batch; torch's global generator is left as it was.
    Raises BadInput without the package, for other bounds, or fewer than 4 classes.
    """
    check_installed()
    reason = why_not(problem.bounds)
    if reason:
        raise BadInput(reason)
    x = problem.x
    with attacking(problem.model):
        classes = problem.model(x[:1]).shape[1]
        if classes < LEAST_CLASSES:
            raise BadInput(f"AutoAttack needs at least {LEAST_CLASSES} classes, these data have {classes}")
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad():
            return _run(problem.model, x.clone(), problem, seed, classes)


def _run(model: Model, x: Tensor, problem: Problem, seed: int, classes: int) -> Tensor:
    package = importlib.import_module("pyautoattack")
    logging.getLogger("auto-attack").setLevel(logging.ERROR)  # it tells its progress as warnings
    norm, eps = NAMES[problem.norm], float(problem.eps[0])
    adversary = package.AutoAttack(model, norm=norm, eps=eps, seed=seed, version="standard", device=x.device)
    for attack in (adversary.apgd_targeted, adversary.fab):
        attack.n_target_classes = min(9, classes - 1)
    found = adversary.run_standard_evaluation(x, problem.target.clone(), batch_size=len(x))
    moved: Tensor = found[0] if isinstance(found, tuple) else found
    return moved.detach()


def check_installed() -> None:
    """Raises BadInput where the package is missing."""
    if find_spec("pyautoattack") is None:
        raise BadInput("AutoAttack needs the package pyautoattack: pip install 'robode[attacks]'")


def why_not(bounds: Bounds | None) -> str | None:
    """Why AutoAttack cannot work on data with these bounds, in one line, or None."""
    return None if bounds == (0.0, 1.0) else f"AutoAttack is for images in [0, 1], these data have bounds {bounds}"


class Ensemble(Attack):
    """robode's ensemble: APGD-CE, APGD-DLR, targeted APGD-DLR and Square in turn."""

    norms = SMOOTH
    needs_classes = True
    steps: int
    targets: int
    queries: int

    def __init__(
        self,
        eps: float | Sequence[float],
        norm: str = "linf",
        steps: int = 100,
        targets: int = 9,
        queries: int = 1000,
        suite: str = "attacks",
    ) -> None:
        super().__init__("ensemble", eps, norm, suite, steps=steps, targets=targets, queries=queries)

    def find(self, problem: Problem) -> Tensor:
        return ensemble(problem, steps=self.steps, targets=self.targets, queries=self.queries)


class AutoAttack(Attack):
    """The published AutoAttack, standard version (extra robode[attacks]); for images in [0, 1] of 4 classes or more.

    Its random numbers belong to places in the batch: another batch size may flip a few samples. skip_certified:
    do not attack what cannot fail (l2 and l1): of a network with a good certificate most of the time is saved.
    """

    needs_classes = True
    least_classes = LEAST_CLASSES

    def __init__(
        self,
        eps: float | Sequence[float],
        norm: str = "linf",
        suite: str = "attacks",
        skip_certified: bool = False,
    ) -> None:
        super().__init__("autoattack", eps, norm, suite)
        if not isinstance(skip_certified, bool):
            raise BadInput(f"skip_certified={skip_certified}: expected true or false")
        if skip_certified:
            self.skip_certified()
        check_installed()

    def refusal(self, bounds: Bounds | None) -> str | None:
        return why_not(bounds)

    def find(self, problem: Problem) -> Tensor:
        return autoattack(problem)
