"""Certified Lipschitz constants of whole networks, and the L2 radius within which an answer cannot change.

logits = readout(Phi(lift(normalise(x)))): two logits i, j differ by at most L ||w_i - w_j|| ||x' - x|| more at x' than
at x, with L = L_embed L_flow and w_i the readout's rows. All constants are upper bounds in float64, in data units, for
the weights in exact arithmetic. Source: specs, Lipschitz networks 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.network import Network
from robode.ode.norms import ROUNDING
from robode.robustness.corruptions import Batch, Perturbation
from robode.robustness.levels import noise_levels


def embed_lipschitz(network: Network) -> float:
    """Certified 2-norm of lift(normalise(x)) per data unit. Raises `BadInput` for a lift that gives none."""
    lipschitz: Any = getattr(network.lift, "lipschitz", None)
    if lipschitz is None:
        raise BadInput(f"suite=certified: expected a lift with a certified constant, got {type(network.lift).__name__}")
    return float(lipschitz(network.normalise.std, network.facts.shape))


def logit_lipschitz(readout: nn.Linear) -> Tensor:
    """||w_i - w_j||, the constant of logit i minus logit j in the features: (classes, classes) float64.

    At most sqrt(2) ||W||, which the cruder product certificate uses for every pair.
    """
    W = readout.weight.detach().double()
    return torch.stack([(row - W).norm(dim=1) for row in W]) * ROUNDING


@torch.no_grad()
def pair_lipschitz(network: Network) -> Tensor:
    """Certified Lipschitz constants of logit i - logit j in data units: (classes, classes) float64, maybe inf."""
    body = embed_lipschitz(network) * network.flow.certificate()["flow_discrete"]
    pairs = logit_lipschitz(network.readout)
    return torch.where(pairs > 0, body * pairs, 0.0)


@torch.no_grad()
def certified_radii(network: Network, x: Tensor, labels: Tensor, pairs: Tensor | None = None) -> Tensor:
    """The L2 radius in data units within which no x' gets another answer than its label y, (B,) float64:
    min_j (logit_y - logit_j) / pairs[y, j], with the logits of the same weights in float64.

    Negative, with no further meaning, for wrong answers; 0 where nothing is certified.
    x: (B, *shape) in data units; labels: (B,); pairs: `pair_lipschitz(network)`, to save its time.
    """
    pairs = pair_lipschitz(network) if pairs is None else pairs
    state = {name: v.double() if v.is_floating_point() else v for name, v in network.state_dict().items()}
    logits = torch.func.functional_call(network, state, (x.double(),))
    margins = logits.gather(1, labels[:, None]) - logits
    # Where two rows of the readout are equal, no x' changes their margin: +-inf.
    found = torch.where(margins.isfinite(), margins / pairs[labels], 0.0).nan_to_num(0.0, math.inf, -math.inf)
    return found.scatter(1, labels[:, None], math.inf).amin(1)


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
        self._weights: dict[str, Tensor] = {}  # what `_pairs` was computed for
        self._pairs = torch.empty(0)
        self._batch: tuple[Tensor, Tensor, Tensor] | None = None  # the last x and labels, and their radii

    def perturb(self, network: nn.Module, batch: Batch, severity: float) -> Tensor:
        return batch.x

    def right(self, network: nn.Module, x: Tensor, labels: Tensor, severity: float) -> Tensor:
        """Right answers (as in the clean row) whose radius is at least `severity`."""
        return super().right(network, x, labels, severity) & (self._radii(network, x, labels) >= severity)

    def _radii(self, network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        """Worked out once for all severities of a batch; the constants once for all batches of the same weights."""
        if not isinstance(network, Network):
            raise BadInput(f"suite=certified: expected a network of robode, got a {type(network).__name__}")
        state = network.state_dict()
        if self._weights.keys() != state.keys() or any(not torch.equal(v, self._weights[k]) for k, v in state.items()):
            self._weights = {name: value.clone() for name, value in state.items()}
            self._pairs, self._batch = pair_lipschitz(network), None
        if self._batch is None or self._batch[0] is not x or self._batch[1] is not labels:
            self._batch = (x, labels, certified_radii(network, x, labels, self._pairs))
        return self._batch[2]
