"""What every attack is given, and what all have in common: starts, the gradient, and several attempts in turn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.attacks.balls import Region, beside, check_norm, random_start, step_direction
from robode.config.levels import noise_levels
from robode.corruptions.noise import PerSampleRNG
from robode.corruptions.perturbation import Bounds, clip
from robode.errors import BadInput
from robode.foreign import apart, native
from robode.tasks.classification import Classification
from robode.tasks.task import AttackLoss, Task

NEAR = 0.1
"""Share of eps within which a first start is drawn: starts anywhere in the ball end on slopes of farther classes."""

DIRECTIONS = 8
"""In the space of outputs, with their opposites: how many an outward start tries. Of 500 states of the pendulum, three
networks and eps from .05 to .3, PGD found 99 to 100 % of the worst corner's error with 4 and 99.9 to 100 % with 8."""

CLASSES = Classification(())
"""The task of a problem that names none; attacks ask the outputs how many classes there are."""

Model = Callable[[Tensor], Tensor]
Attempt = Callable[["Problem"], tuple[Tensor, Tensor, Tensor]]
"""Some samples of a problem -> x' like x; whether it has failed, (B,) bool; else its loss, (B,), -inf for none.
Attempts that follow each other have losses to compare."""
Start = Callable[["Problem"], Tensor]
"""Some samples of a problem -> x' like x, from where a climb begins."""


@dataclass(frozen=True)
class Problem:
    """Samples x (B, *shape) in data units with targets (B, ...), whose answers shall fail or get worse within eps (B,).

    bounds: of the data, None for nowhere. rng: of these samples. from_x: whether the first start is x itself.
    """

    model: Model
    x: Tensor
    target: Tensor
    eps: Tensor
    norm: str
    bounds: Bounds | None
    rng: PerSampleRNG
    from_x: bool
    task: Task

    @property
    def endless(self) -> bool:
        """Whether nothing ever fails, as of errors, which can always be larger: the worst x' on the way counts."""
        return self.task.better == "lower"

    def failed(self, output: Tensor, target: Tensor) -> Tensor:
        """Where there is nothing left to do, (B,) bool."""
        return self.task.failed(output, target)

    def start(self, share: float) -> Tensor:
        """x' like x to begin from: anywhere within that share of eps, which is x itself for 0."""
        moved = self.x.clone()
        if share:
            moved += random_start(self.rng, self.x, share * self.eps, self.norm)
        return clip(moved, self.bounds)

    def outward_start(self, loss: AttackLoss) -> Tensor:
        """x' like x on the ball's border: the one of the largest loss that random directions of the output lead to.

        An error ||output - target|| is convex in the output and has a maximum on every side of it, of which a climb
        from x finds one. A direction v of the output is climbed furthest, as far as the network is linear, by the step
        along J^T v; the worst of all v is the worst of the ball. Source: Tashiro, Song, Ermon, "Diversity can be
        transferred: output diversification for white- and black-box attacks", NeurIPS 2020.
        """
        worst, most = self.x, torch.full_like(self.eps, -math.inf)
        for _ in range(DIRECTIONS):
            step = beside(self.eps, self.x) * step_direction(self._pulled_back(), self.norm)
            for moved in (self.x + step, self.x - step):
                moved = clip(moved, self.bounds)
                found = loss(self.model(moved), self.target)
                worst = torch.where(beside(found > most, moved), moved, worst)
                most = torch.maximum(found.to(most), most)
        return worst

    def _pulled_back(self) -> Tensor:
        """J^T v like x at x, v a random direction of each sample's output."""

        def along(output: Tensor, _: Tensor) -> Tensor:
            return (output * self.rng.normal(*output.shape[1:]).to(output)).flatten(1).sum(1)

        return gradient(self.model, along, self.x, self.target)[2]

    @property
    def region(self) -> Region:
        """Where x' may be."""
        return Region(self.x, self.eps, self.norm, self.bounds)

    def of(self, rows: Tensor) -> Problem:
        """The same for some of the samples. rows: (k,) int64."""
        x, target, eps, rng = self.x[rows], self.target[rows], self.eps[rows], self.rng.of(rows)
        return dataclasses.replace(self, x=x, target=target, eps=eps, rng=rng)


def make_problem(
    model: Model,
    x: Tensor,
    target: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "linf",
    bounds: Bounds | None = None,
    rng: PerSampleRNG | None = None,
    task: Task = CLASSES,
) -> Problem:
    """What an attack is given: samples x (B, *shape) in data units with targets (B, ...) of the task.

    eps: in data units, a number or (B,). rng: of these samples, for random starts; without it climbs begin at x, and
    other random numbers belong to places in the batch.

    Raises:
        BadInput: an unknown norm, or an eps that is not finite, negative, or of another shape.
    """
    check_norm(norm)
    if not isinstance(eps, Tensor):
        noise_levels("eps", eps, math.inf)
    # Copies, because tensors of a surrounding inference mode cannot be differentiated through.
    with torch.inference_mode(False):
        x, target = x.detach().clone(), target.clone()
        each = _of_each(torch.as_tensor(eps, dtype=x.dtype, device=x.device), len(x))
    own = rng or PerSampleRNG((0,), range(len(x)), x.device)
    if not isinstance(model, nn.Module) and not native(model):
        model = _apart(model)
    return Problem(model, x, target, each, norm, bounds, own, rng is None, task)


def _apart(function: Model) -> Model:
    """A function of somebody else's, which gets copies: it may work in place (modules: `foreign.apart`)."""
    return lambda x: function(x.clone())


def _of_each(eps: Tensor, n: int) -> Tensor:
    """(n,), a copy. eps: () or (n,); raises BadInput for another shape and for what is no radius."""
    if eps.shape not in ((), (n,)):
        raise BadInput(f"eps of shape {tuple(eps.shape)}: expected a number, or one for each of the {n} samples")
    bad = eps[~(eps.isfinite() & (eps >= 0))]
    if len(bad):
        raise BadInput(f"eps={float(bad[0]):g}: expected finite numbers of at least 0")
    return eps.expand(n).clone()


def loss_named(name: str | None, task: Task = CLASSES) -> AttackLoss:
    """One of the task's losses; the first one for None. Raises BadInput for another."""
    losses = task.attack_losses
    if name is None:
        return next(iter(losses.values()))
    if name not in losses:
        choices = f"one of {', '.join(losses)}" if len(losses) > 1 else ", ".join(losses)
        raise BadInput(f"loss={name}: expected {choices} for a {task.name} task")
    return losses[name]


@contextmanager
def attacking(model: Model) -> Iterator[None]:
    """Gradients with respect to x only: parameters do without theirs for the time being, and are left as they were.
    Modules of others get copies (`foreign.apart`)."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    with ExitStack() as after, torch.inference_mode(False), torch.no_grad(), apart(model):
        for parameter in wanted:
            after.callback(parameter.requires_grad_, True)
            parameter.requires_grad_(False)
        yield


def gradient(model: Model, loss: AttackLoss, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (B,), output (B, outputs), d loss/dx like x) at x, all detached.

    The gradient is 0 where the network has none to give (a network that is not differentiable, NaN).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        output = model(x)
        values = loss(output, target)
        if not values.requires_grad:
            return values, output, torch.zeros_like(x)
        (grad,) = torch.autograd.grad(values.sum(), x, materialize_grads=True)
    if not bool(grad.sum().isfinite()):
        grad = grad.nan_to_num(nan=0.0)
    return values.detach(), output.detach(), grad


def in_turn(problem: Problem, attempts: Iterable[Attempt]) -> Tensor:
    """x' like problem.x of several attempts, each of them only on the samples that have not failed yet.

    Where none of them makes a sample fail, the x' of the largest loss. Those that fail from the beginning stay as they
    are.
    """
    found, most = problem.x.clone(), torch.full_like(problem.eps, -math.inf)
    left = torch.nonzero(~problem.failed(problem.model(problem.x), problem.target))[:, 0]
    for attempt in attempts:
        if not len(left):
            break
        moved, fell, loss = attempt(problem.of(left))
        better = fell | (loss > most[left])
        found[left[better]], most[left[better]] = moved[better], loss[better].to(most)
        left = left[~fell]
    return found
