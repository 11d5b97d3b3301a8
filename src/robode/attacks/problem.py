"""What every attack is given, and what all have in common: who is attacked, the gradient, several attempts in turn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.attacks.balls import NORMS, Region, check_norm, inside, random_start
from robode.attacks.losses import Loss, failing, fallen
from robode.config.levels import noise_levels
from robode.corruptions.noise import Draws
from robode.corruptions.perturbation import Bounds
from robode.errors import BadInput
from robode.tasks.task import Task

NEAR = 0.1
"""Share of eps within which a first start is drawn: starts anywhere in the ball end on slopes of farther classes."""

Model = Callable[[Tensor], Tensor]
Attempt = Callable[["Problem"], tuple[Tensor, Tensor, Tensor]]
"""Some samples of a problem -> x' like x; whether it has failed, (B,) bool; else its loss, (B,), -inf for none.
Attempts that follow each other have losses to compare."""


@dataclass(frozen=True)
class Problem:
    """Samples x (B, *shape) in data units with labels (B, ...) whose answers shall fail within eps (B,).

    bounds: of the data, None for nowhere. draws: of these samples. failed: (output, labels) -> (B,) bool.
    """

    model: Model
    x: Tensor
    labels: Tensor
    eps: Tensor
    norm: str
    bounds: Bounds | None
    draws: Draws
    failed: Loss = fallen

    def start(self, share: float) -> Tensor:
        """x' like x to begin from: anywhere within that share of eps, which is x itself for 0."""
        moved = self.x.clone()
        if share:
            moved += random_start(self.draws, self.x, share * self.eps, self.norm)
        return inside(moved, self.bounds)

    @property
    def region(self) -> Region:
        """Where x' may be."""
        return Region(self.x, self.eps, self.norm, self.bounds)

    def of(self, rows: Tensor) -> Problem:
        """The same for some of the samples. rows: (k,) int64."""
        x, labels, eps, draws = self.x[rows], self.labels[rows], self.eps[rows], self.draws.of(rows)
        return dataclasses.replace(self, x=x, labels=labels, eps=eps, draws=draws)


def pose(
    model: Model,
    x: Tensor,
    labels: Tensor,
    *,
    eps: float | Tensor,
    norm: str,
    bounds: Bounds | None,
    draws: Draws | None,
    norms: tuple[str, ...] = NORMS,
    task: Task | None = None,
) -> Problem:
    """Check the arguments that all attacks share. Without draws, random numbers belong to places in the batch; without
    a task, it is classification.

    Raises:
        BadInput: a norm that is not among `norms`, or an eps that is not finite, negative, or of another shape.
    """
    check_norm(norm, norms)
    if not isinstance(eps, Tensor):
        noise_levels("eps", eps, math.inf)
    # Copies, because tensors of a surrounding inference mode cannot be differentiated through.
    with torch.inference_mode(False):
        x, labels = x.detach().clone(), labels.clone()
        each = _of_each(torch.as_tensor(eps, dtype=x.dtype, device=x.device), len(x))
    draws = draws or Draws((0,), range(len(x)), x.device)
    return Problem(model, x, labels, each, norm, bounds, draws, failing(task))


def _of_each(eps: Tensor, n: int) -> Tensor:
    """(n,), a copy. eps: () or (n,); raises BadInput for another shape and for what is no radius."""
    if eps.shape not in ((), (n,)):
        raise BadInput(f"eps of shape {tuple(eps.shape)}: expected a number, or one for each of the {n} samples")
    bad = eps[~(eps.isfinite() & (eps >= 0))]
    if len(bad):
        raise BadInput(f"eps={float(bad[0]):g}: expected finite numbers of at least 0")
    return eps.expand(n).clone()


@contextmanager
def attacking(model: Model) -> Iterator[None]:
    """Gradients with respect to x only: parameters do without theirs for the time being, and are left as they were."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    with ExitStack() as after, torch.inference_mode(False), torch.no_grad():
        for parameter in wanted:
            after.callback(parameter.requires_grad_, True)
            parameter.requires_grad_(False)
        yield


def gradient(model: Model, loss: Loss, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (B,), logits (B, classes), d loss/dx like x) at x, all detached.

    The gradient is 0 where the network has none to give (a network that is not differentiable, NaN).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        values = loss(logits, labels)
        if not values.requires_grad:
            return values, logits, torch.zeros_like(x)
        (grad,) = torch.autograd.grad(values.sum(), x, materialize_grads=True)
    if not bool(grad.sum().isfinite()):
        grad = grad.nan_to_num(nan=0.0)
    return values.detach(), logits.detach(), grad


def in_turn(problem: Problem, attempts: Iterable[Attempt]) -> Tensor:
    """x' like problem.x of several attempts, each of them only on the samples that have not failed yet.

    Where none of them makes a sample fail, the x' of the largest loss. Those that fail from the beginning stay as they
    are.
    """
    found, most = problem.x.clone(), torch.full_like(problem.eps, -math.inf)
    left = torch.nonzero(~problem.failed(problem.model(problem.x), problem.labels))[:, 0]
    for attempt in attempts:
        if not len(left):
            break
        moved, fell, loss = attempt(problem.of(left))
        better = fell | (loss > most[left])
        found[left[better]], most[left[better]] = moved[better], loss[better].to(most)
        left = left[~fell]
    return found
