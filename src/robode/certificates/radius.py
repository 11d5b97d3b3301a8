"""Certified Lipschitz constants of whole networks, and the L2 radius within which an answer cannot change.

Theorem (Hein and Andriushchenko, NeurIPS 2017, Theorem 2.1, with constants that hold everywhere). Let L_ij be a
Lipschitz constant of f_i - f_j in the 2-norm. If ||x' - x|| < min_{j != y} (f_y(x) - f_j(x)) / L_yj, then f_y(x') is
still the largest output. Proof: f_y(x') - f_j(x') >= f_y(x) - f_j(x) - L_yj ||x' - x|| > 0.

The constants. Lipschitz constants of maps in a row multiply, so that f = head(Phi(encode(normalise(x)))) has
L = L_head L_flow L_encoder / std (end_to_end). Then L_ij <= sqrt(2) L (Tsuzuku, Sato and Sugiyama, NeurIPS 2018,
Proposition 1), because |(e_i - e_j)^T v| <= sqrt(2) ||v||; where the head is W y + b with rows w_i, it is
L_flow L_encoder ||w_i - w_j||, which is never more. L_flow: robode.ode.bounds, step by step.

All constants are upper bounds in float64, in data units, for the weights in exact arithmetic. Anyone's chain of layers
(certificates.lipschitz) has them too. See docs/theory.md, section 15.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from robode.certificates.lipschitz import exact_copy, factors, last_matrix
from robode.config.levels import noise_levels
from robode.corruptions.perturbation import Batch, Curve, Perturbation, Scoring
from robode.data.batches import device_of
from robode.errors import BadInput
from robode.foreign import apart, patched, rewritten, speaks_of
from robode.heads import Linear
from robode.linalg.norms import ROUNDING
from robode.network import Network
from robode.ode.flow import certified, products
from robode.tasks.classification import Classification
from robode.tasks.task import Task

# What the network as it runs (in float32) can add to what is proven of its weights: a share of the largest logit, so
# many times the error of its logits at x, and a share of the radius. A margin below the first two or an x' beyond the
# radius by the third is rounding, not a broken certificate. The second tells of sums that cancel inside the network;
# at x' the error is another of that size, and no bound of it is proven: the proven ones cost more than they protect.
LOGIT_ROUNDING, TIMES_ERROR, RADIUS_ROUNDING = 2.0**-16, 16, 1e-4


@dataclass(frozen=True)
class Constants:
    """Certified 2-norm constants of a network, in data units, and what they are made of; inf where there is none.

    parts: in the order of x -> logits, by name. flow_ode, flow_discrete: of the flow; nan where there is none.
    matrix: the last layer W (classes, features) where the logits are W y + b, and `body` that of x -> y. classes: how
    many outputs are compared with each other.
    """

    parts: dict[str, float]
    flow_ode: float
    flow_discrete: float
    body: float
    matrix: Tensor | None
    classes: int

    @property
    def end_to_end(self) -> float:
        """Of x -> logits, the product of the parts."""
        return _product(self.parts.values())

    @cached_property
    def pairs(self) -> Tensor:
        """Of logit i - logit j: (classes, classes) float64, zero on the diagonal."""
        if self.matrix is None:
            apart = 1 - torch.eye(self.classes, dtype=torch.float64)
            return torch.where(apart > 0, math.sqrt(2) * ROUNDING * self.end_to_end, 0.0)
        found = row_distances(self.matrix)
        return torch.where(found > 0, self.body * found, 0.0)


def constants(network: nn.Module, shape: Sequence[int]) -> Constants:
    """The certified constants of a network of robode, or of anyone's chain of layers on samples of that shape, worked
    out where its weights lie.

    Raises:
        BadInput: a layer without a known constant, a network that was patched or has hooks of others.
        JobFailed: weights that are not finite.
    """
    # in float64 before anything is worked out: weights that are computed from others must not be rounded on the way
    network = exact_copy(network)
    return _of_network(network) if isinstance(network, Network) else _of_chain(network, tuple(shape))


@torch.no_grad()
def _of_network(network: Network) -> Constants:
    _check_as_built(network)
    steps, head = network.flow.step_bounds(), network.head
    encoder, flow = _own(network.encoder, network.normalise.std), products(steps)
    parts = {"encoder": encoder} | {f"step {j}": discrete for j, (_, discrete) in enumerate(steps, 1)}
    parts["head"] = _own(head)
    W = head.weight.detach() if isinstance(head, Linear) and not rewritten(type(head), Linear) else None
    body = _product((encoder, flow["flow_discrete"]))
    return Constants(parts, body=body, matrix=W, classes=network.info.task.compared, **flow)


def _check_as_built(network: Network) -> None:
    """Raises `BadInput` for a network whose class, hooks or patches do something of which nothing is known."""
    changed = rewritten(type(network), Network)
    places = [("network", network), ("encoder", network.encoder), ("flow", network.flow), ("head", network.head)]
    for place, part in [*places, ("normalise", network.normalise)]:
        if found := (patched(part) or changed):
            raise BadInput(
                f"{place}: nothing is certified of a {type(part).__name__} with {', '.join(found)} of somebody else's, "
                "because what it computes is not known; expected a network as it was built"
            )


def _own(part: nn.Module, *given: Tensor) -> float:
    """What an encoder or a head says of itself in its method `lipschitz`; inf where it says nothing, or inherits that
    from a class that computed something else."""
    known = getattr(part, "lipschitz", None)
    if known is None or not speaks_of(type(part), "lipschitz"):
        return math.inf
    return certified(lambda: float(known(*given)))


@torch.no_grad()
def _of_chain(module: nn.Module, shape: tuple[int, ...]) -> Constants:
    chain = factors(module, shape)
    logits = module(torch.zeros(1, *shape, dtype=torch.float64, device=device_of(module)))
    body, W = last_matrix(chain) or (math.nan, None)
    parts = {factor.name: factor.constant for factor in chain}
    return Constants(parts, math.nan, math.nan, body, W, logits.shape[1])


def _product(values: Collection[float]) -> float:
    """A factor 0 makes the map constant, however large the others are."""
    return 0.0 if 0.0 in values else math.prod(values)


def row_distances(W: Tensor) -> Tensor:
    """||w_i - w_j|| of the head's rows W (classes, features), the constant of logit i minus logit j in the features:
    (classes, classes) float64, rounded up."""
    W = W.detach().double()
    return torch.stack([(row - W).norm(dim=1) for row in W]) * ROUNDING


def pair_lipschitz(network: nn.Module, shape: Sequence[int] = ()) -> Tensor:
    """Certified Lipschitz constants of logit i - logit j in data units: (classes, classes) float64, maybe inf.

    shape: of one sample; a network of robode knows its own.
    """
    return constants(network, shape).pairs


@torch.no_grad()
def certified_radii(
    network: nn.Module, x: Tensor, labels: Tensor, pairs: Tensor | None = None, rounding: float = 0.0
) -> Tensor:
    """The L2 radius in data units within which no x' gets another answer than its label y, (B,) float64:
    min_j (logit_y - logit_j) / pairs[y, j], with the logits of the same weights in float64.

    Negative, with no further meaning, for wrong answers; 0 where nothing is certified.
    x: (B, *shape) in data units; labels: (B,); pairs: `pair_lipschitz(network)`, to save its time; rounding: a share of
    the largest logit that every margin must exceed; if not 0, so must it TIMES_ERROR times the error of the logits in
    the precision of x.
    """
    pairs = (pair_lipschitz(network, x.shape[1:]) if pairs is None else pairs).to(x.device)
    with apart(network):
        logits, output = in_float64(network, x), network(x) if rounding else None
    margins = logits.gather(1, labels[:, None]) - logits
    least = rounding * logits.abs().amax(1, keepdim=True)
    if output is not None:
        error = (output.double() - logits).abs().amax(1, keepdim=True)
        least = torch.maximum(least, TIMES_ERROR * error).nan_to_num(math.inf)
    margins = torch.where(margins > 0, torch.relu(margins - least), margins)
    # Where two rows of the head are equal, no x' changes their margin: +-inf.
    found = torch.where(margins.isfinite(), margins / pairs[labels], 0.0).nan_to_num(0.0, math.inf, -math.inf)
    return found.scatter(1, labels[:, None], math.inf).amin(1)


def in_float64(network: nn.Module, x: Tensor) -> Tensor:
    """What a network of the same weights gives in float64 for x (B, *shape)."""
    state = {name: v.double() if v.is_floating_point() else v for name, v in network.state_dict().items()}
    output: Tensor = torch.func.functional_call(network, state, (x.double(),))
    return output


class Certified(Perturbation):
    """Samples that are answered correctly and provably so for every x' within an L2 radius, in data units.

    radii: one or more. Nothing is drawn and nothing is attacked: each count is a lower bound on what any attack of
    that length leaves. Whatever the protocol, inputs are clean, and x' may be anything (a clip would only help).
    """

    name = "certified"
    severity_unit = "radius"
    norm = "l2"
    corrupts = False

    def __init__(self, radii: float | Sequence[float], suite: str = "certified") -> None:
        super().__init__(suite, noise_levels("suite.certified.radii", radii, math.inf))

    def prepare(self, network: nn.Module, shape: tuple[int, ...]) -> Tensor:
        """Certified constants, (outputs, outputs) float64: of the whole output on the diagonal, of output i - output j
        off it."""
        found = constants(network, shape)
        return found.pairs.clone().fill_diagonal_(found.end_to_end)

    def perturbed(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Iterator[Tensor]:
        return (batch.x for _ in levels)

    def scores(self, network: nn.Module, task: Task, batch: Batch, levels: Sequence[float]) -> Curve:
        """The clean score where it is proven within each radius, and else what is; with room for float32's rounding
        (TIMES_ERROR): what is proven here is not to be broken by any attack on the network that runs."""
        scoring = Scoring(network, task, batch)
        clean = scoring.score(batch.x)
        proven = _proven(network, task, batch)
        for level in levels:
            scoring.add(task.worse(clean, proven(level * (1 + RADIUS_ROUNDING))), batch.x)
        return scoring.curve


@torch.inference_mode()
def _proven(network: nn.Module, task: Task, batch: Batch) -> Callable[[float], Tensor]:
    """The score (B,) that is certified within a radius; what all radii have in common is worked out here."""
    assert batch.prepared is not None, "see Certified.prepare"
    if isinstance(task, Classification):  # its radii leave room for the rounding of the logits too
        radii = certified_radii(network, batch.x, batch.targets, batch.prepared, LOGIT_ROUNDING)
        return lambda radius: (radii >= radius).float()
    pairs, output = batch.prepared.to(batch.x.device), in_float64(network, batch.x)
    rounding = LOGIT_ROUNDING * output.norm(dim=1) + TIMES_ERROR * (network(batch.x).double() - output).norm(dim=1)
    return lambda radius: task.certified(output, batch.targets, pairs, radius, rounding)
