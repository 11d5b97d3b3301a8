"""Attacks and certificates of any `nn.Module`, one call each: x in data units, no run, no configuration.

import robode

attacked = robode.attack(module, x, y, attack="apgd_dlr_linf", eps=0.1, bounds=(0, 1))
certified = robode.certify_module(module, x, y)
smoothed = robode.smooth_module(module, x, sigma=0.25)

A module is called in eval mode and left as it was. It gets copies, so that it may work in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from robode.api.loading import check_values
from robode.api.named_attacks import attack_named
from robode.attacks.attack import Attack
from robode.certificates.branch_and_bound import Radii, radii
from robode.certificates.radius import Constants, certified_radii, constants
from robode.certificates.smoothing import ABSTAIN, Smoothing
from robode.config.config import Value
from robode.corruptions.noise import BLOCK, PerSampleRNG
from robode.corruptions.perturbation import Batch, Bounds
from robode.data.batches import device_of, evaluating
from robode.errors import BadInput
from robode.foreign import blamed
from robode.linalg.norms import ROUNDING
from robode.network import Network
from robode.runs.progress import shown_late, silent
from robode.tasks.classification import Classification
from robode.tasks.task import Task

BATCH = 500
SEED_OF_ATTACKS, SEED_OF_SMOOTHING = 1, 2  # equal seeds draw different numbers for different uses
ROUNDED = 1e-6  # of the range: what float32 may have added to a sample on its bounds
MOST_PARTS = 6  # that are printed of a module's constants
UNNAMED = "suite.smoothing."


@dataclass(frozen=True)
class Attacked:
    """What an attack left of B samples. adversarial: x' like x, x itself where it was answered wrongly before; robust:
    (B,) bool, right at x and at x'; clean, scores: (B,) float32, the task's scores at x and at x' (of classes 1 is
    right and 0 is wrong; of errors, where nothing is ever robust or not, they are all there is to say)."""

    adversarial: Tensor
    robust: Tensor
    clean: Tensor
    scores: Tensor

    def __repr__(self) -> str:
        """In a line: the form of x', and the mean scores at x and at x'."""
        return f"Attacked(adversarial={_form(self.adversarial)}, clean={_mean(self.clean)}, score={_mean(self.scores)})"

    @property
    def score(self) -> float:
        """The mean of the scores at x': of classes the robust accuracy, a fraction."""
        return float(self.scores.double().mean())


@dataclass(frozen=True)
class CertifiedModule:
    """What is proven about a module and B samples. radii: (B,) float64, the L2 radius in data units within which no x'
    gets another answer than its label; 0 where nothing is certified, negative for wrong answers. constants: its
    certified Lipschitz constants, in data units."""

    radii: Tensor
    constants: Constants

    def __repr__(self) -> str:
        """In a line: the shares that are right and certified at all, the median and the largest radius."""
        right, certified = _mean(self.radii >= 0), _mean(self.radii > 0)
        return (
            f"CertifiedModule(radii={_form(self.radii)}, right={right}, certified={certified}, {_radii(self.radii)}, "
            f"constants={self.constants})"
        )

    def accuracy(self, radius: float) -> float:
        """The share of samples that are right and provably so within that radius. Raises `BadInput` below 0."""
        if not radius >= 0:
            raise BadInput(f"radius={radius}: expected a number >= 0")
        return float((self.radii >= radius).logical_and(self.radii >= 0).double().mean())


@dataclass(frozen=True)
class Smoothed:
    """What randomised smoothing says of B samples. answers: (B,) int64, the smoothed network's classes, -1 where it
    abstains; radii: (B,) float64, in data units: each holds with probability >= 1 - alpha, 0 where it abstains."""

    answers: Tensor
    radii: Tensor

    def __repr__(self) -> str:
        """In a line: the share that abstains, the median and the largest radius."""
        return (
            f"Smoothed(answers={_form(self.answers)}, abstain={_mean(self.answers == ABSTAIN)}, {_radii(self.radii)})"
        )


class PrintedConstants(Constants):
    """Constants that are printed in a line. A class of its own, because those of `certificates.radius` are part of what
    decides weights, and how they read is not."""

    def __repr__(self) -> str:
        """Of each part (of many, of the first), then of the flow where there is one, and end to end."""
        said = [f"{name}={value:.4g}" for name, value in self.parts.items()]
        if len(said) > MOST_PARTS:
            said[MOST_PARTS:] = [f"… {len(said) - MOST_PARTS} more"]
        whole = {name: getattr(self, name) for name in ("flow_ode", "flow_discrete", "end_to_end")}
        said += [f"{name}={value:.4g}" for name, value in whole.items() if not math.isnan(value)]
        return f"Constants({', '.join(said)}, classes={self.classes})"


def _form(x: Tensor) -> str:
    return str(tuple(x.shape))


def _mean(x: Tensor) -> str:
    return f"{float(x.double().mean()):.4g}"


def _radii(radii: Tensor) -> str:
    if not len(radii):
        return "median_radius=nan"
    return f"median_radius={float(radii.median()):.4g}, largest_radius={float(radii.max()):.4g}"


@torch.no_grad()
def attack(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: str | Attack = "apgd_linf",
    eps: float,
    bounds: Bounds | None = None,
    batch_size: int = BATCH,
    quiet: bool = False,
    **options: Value,
) -> Attacked:
    """Look for x' within eps of each x that is answered wrongly.

    module: x (B, *shape) in data units -> logits (B, classes). y: (B,) int64 labels. attack: fgsm, pgd, apgd, square,
    fmn, ensemble or autoattack, with a loss and a norm behind it where it takes them: "apgd_dlr_linf", "pgd_l2",
    "square_linf"; or an `Attack` of your own. eps: in data units. bounds: of the data units, which x' keeps; a network
    of robode knows its own and its task, for any other module None is no bounds. options: keys of the attack (steps,
    restarts, queries, …). Random numbers belong to places in x, whatever the batch_size.

    Raises:
        BadInput: an unknown attack or option, x outside the bounds, not finite or of another form, labels that are
            none, or a module that gives no logits for x.
    """
    _check_ball(eps, bounds)
    chosen = attack_named(attack, eps, options)
    task, inside = _task_of(module), bounds
    if bounds is None and isinstance(module, Network):
        inside = module.bounds
    found: list[tuple[Tensor, ...]] = []
    with _ready(module, x, y, task, quiet):
        _check_inside(x, inside)
        if refusal := chosen.refusal(inside):
            raise BadInput(f"attack={chosen.name}: {refusal}")
        chosen.check(task)
        for rows in shown_late(_parts(len(x), batch_size), chosen.name):
            part, target = _placed(module, x[rows.start : rows.stop], y[rows.start : rows.stop])
            batch = Batch(part, target, None, inside, PerSampleRNG((SEED_OF_ATTACKS,), rows, part.device))
            found.append(_attacked(chosen, module, task, batch, eps))
    return Attacked(*(torch.cat(each).to(x.device) for each in zip(*found, strict=True)))


def _attacked(chosen: Attack, module: nn.Module, task: Task, batch: Batch, eps: float) -> tuple[Tensor, ...]:
    """The fields of `Attacked` for a batch."""
    x, target = batch.x, batch.targets
    clean = module(x)
    ((moved, score),) = chosen.climb(module, task, batch, [eps])
    robust = ~task.failed(clean, target) & ~task.failed(module(moved), target)
    return moved, robust, task.score(clean, target), score


@torch.no_grad()
def certify_module(
    module: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = BATCH, quiet: bool = False
) -> CertifiedModule:
    """Certified L2 radii by Lipschitz constants, for a network of robode or a chain of known layers
    (`robode.certificates.lipschitz`); any other module can say its constant in `certified_lipschitz(shape)`.

    module: x (B, *shape) in data units -> logits (B, classes). y: (B,) int64 labels.

    Raises:
        BadInput: a layer without a known constant, x or y of another form.
    """
    task = _task_of(module)
    with _ready(module, x, y, task, quiet):
        known, found = constants(module, x.shape[1:]), []
        for rows in shown_late(_parts(len(x), batch_size), "certify"):
            part, target = _placed(module, x[rows.start : rows.stop], y[rows.start : rows.stop])
            found.append(certified_radii(module, part, target, known.pairs))
    printed = PrintedConstants(**{each.name: getattr(known, each.name) for each in fields(Constants)})
    return CertifiedModule(torch.cat(found).to(x.device), printed)


@torch.no_grad()
def smooth_module(
    module: nn.Module,
    x: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    quiet: bool = False,
) -> Smoothed:
    """Randomised smoothing of any classifier (Cohen, Rosenfeld and Kolter, ICML 2019, procedure CERTIFY).

    module: x (B, *shape) in data units -> logits (B, classes). sigma: of the noise, in data units, not clipped. n0
    draws choose the class and n others bound its probability. alpha: with which probability each radius may be wrong.

    Raises:
        BadInput: numbers out of range, x of another form.
    """
    with _own_words():
        smoothing = Smoothing(0.0, sigma, n0, n, alpha)
    found: list[tuple[Tensor, Tensor]] = []
    with _ready(module, x, None, _task_of(module), quiet):
        for rows in shown_late(_parts(len(x), BLOCK), "smoothing"):
            part = x[rows.start : rows.stop].to(device_of(module))
            found.append(smoothing.certify(module, part, PerSampleRNG((SEED_OF_SMOOTHING, seed), rows, part.device)))
    answers, certified = (torch.cat(each).to(x.device) for each in zip(*found, strict=True))
    assert bool(((answers == ABSTAIN) == (certified == 0)).all())
    return Smoothed(answers, certified)


def logit_radii(logits: Tensor, y: Tensor, lipschitz: float | Tensor) -> Tensor:
    """Certified L2 radii from logits alone, (B,) float64: min_j (z_y - z_j) / L_yj.

    logits: (B, classes); y: (B,) int64 labels. lipschitz: a constant L of x -> logits in the 2-norm, for which L_yj is
    sqrt(2) L (Tsuzuku, Sato and Sugiyama, NeurIPS 2018, Proposition 1), or the constants of logit i - logit j, a tensor
    (classes, classes). Negative for wrong answers. See docs/theory.md, section 15.

    Raises:
        BadInput: logits, labels or constants of another form, or a constant below 0.
    """
    _check_labels(y, logits)
    classes = logits.shape[1]
    pairs = torch.as_tensor(lipschitz, dtype=torch.float64, device=logits.device)
    if pairs.shape not in ((), (classes, classes)) or not bool((pairs >= 0).all()):
        raise BadInput(f"lipschitz: expected a number of at least 0, or ({classes}, {classes}) of them")
    pairs = pairs if pairs.dim() else (math.sqrt(2) * ROUNDING * pairs).expand(classes, classes)
    z = logits.double()
    margins = z.gather(1, y[:, None]) - z
    # where a pair is 0, no x' changes their margin: +-inf
    found = torch.where(margins.isfinite(), margins / pairs[y], 0.0).nan_to_num(0.0, math.inf, -math.inf)
    return found.scatter(1, y[:, None], math.inf).amin(1)


def plane_radii(network: Network, points: Tensor, y: Tensor, *, reach: float) -> Radii:
    """Bounds from both sides of how far each point of the plane is from another answer, by branch and bound over boxes
    (`robode.certificates.branch_and_bound`), for networks of robode whose encoder and head are affine.

    points: (P, 2) in data units; y: (P,) int64 labels. Only radii up to `reach` are looked for.

    Raises:
        BadInput: data that are no points of the plane, or a network that boxes cannot be sent through.
    """
    return radii(network, points, y, reach=reach)


def _check_ball(eps: object, bounds: Bounds | None) -> None:
    """Raises `BadInput` for a distance that is no number, and for bounds that hold nothing between them."""
    if not isinstance(eps, int | float) or isinstance(eps, bool):
        raise BadInput(f"eps: expected a number, got {eps}; call it once for each")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise BadInput(f"bounds={bounds}: expected the smaller end first")


def _check_inside(x: Tensor, bounds: Bounds | None) -> None:
    """Raises `BadInput` for samples outside the bounds, where no x' could be near them."""
    if bounds is not None and float((x - x.clamp(*bounds)).abs().max()) > ROUNDED * (bounds[1] - bounds[0]):
        raise BadInput(f"x: expected numbers within bounds={bounds}, got {float(x.min()):g} to {float(x.max()):g}")


def _task_of(module: nn.Module) -> Task:
    return module.info.task if isinstance(module, Network) else Classification(())


def _parts(n: int, size: int) -> list[range]:
    if size < 1:
        raise BadInput(f"batch_size={size}: expected at least 1")
    return [range(first, min(first + size, n)) for first in range(0, n, size)]


def _placed(module: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    device = device_of(module)
    return x.to(device), y.to(device)


@contextmanager
def _ready(module: nn.Module, x: Tensor, y: Tensor | None, task: Task, quiet: bool) -> Iterator[None]:
    """The module in eval mode, after a look at what it gives for the first sample.

    Raises:
        BadInput: no module, no samples, a module that fails on them, labels that are none of its classes.
    """
    if not isinstance(module, nn.Module):
        raise BadInput(f"module: expected a torch.nn.Module, got a {type(module).__name__}")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2 or not len(x):
        got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise BadInput(f"x: expected (B, *shape) floating-point numbers in data units, got {got}")
    check_values(x, module.bounds if isinstance(module, Network) else None)
    name = type(module).__name__
    with silent(quiet), evaluating(module):
        with blamed(f"module: {name} fails on samples of shape {tuple(x.shape[1:])}"):
            logits = module(x[:1].to(device_of(module)))
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 1:
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise BadInput(f"module: expected {name} to give outputs (1, classes) for one sample, got {got}")
        if y is not None and len(y) != len(x):
            raise BadInput(f"y: expected {len(x)} targets, one a sample, got {len(y)}")
        if y is not None and isinstance(task, Classification):
            _check_labels(y, logits.expand(len(y), -1))
        yield


def _check_labels(y: Tensor, logits: Tensor) -> None:
    """Raises `BadInput` for logits (B, classes) that are none, and for y that is no label of one of their classes."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise BadInput(f"logits: expected (B, classes), got {tuple(logits.shape)}")
    if not isinstance(y, Tensor) or y.shape != logits.shape[:1]:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise BadInput(f"y: expected labels ({len(logits)},), got {got}")
    Classification(tuple(map(str, range(logits.shape[1])))).check(y, "y")


@contextmanager
def _own_words() -> Iterator[None]:
    """A complaint about a key of a suite as one about the argument of the same name."""
    try:
        yield
    except BadInput as error:
        raise BadInput(str(error).removeprefix(UNNAMED)) from error
