"""Small derivatives of the logits with respect to the input (Hoffman, Roberts and Yaida 2019, Robust learning with
Jacobian regularization)."""

from __future__ import annotations

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.network import Network
from robode.ode.implicit import ImplicitMidpoint


class JacobianPenalty:
    """weight times the mean over the batch of ||J||_F^2, J = d logits / d x in data units: (classes, d) per sample.

    ||J||_F^2 is estimated without J, as classes/k sum_i ||J^T v_i||^2 with k = `projections` orthonormal directions v_i
    drawn anew for each sample: without bias for every k (each v_i is uniform on the sphere, E v v^T = I/classes), and
    exact for k = classes. Every direction costs one backward pass with a graph. The published lambda_JR is 2 weight.
    The draws come from torch's global generator, which is in every checkpoint.

    Raises:
        BadInput: weight is no number >= 0, projections is no whole number >= 1, or (at the first step) there are more
        projections than classes, or the integrator is implicit_midpoint, which can be differentiated only once.
    """

    def __init__(self, weight: float = 0.01, projections: int = 1):
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise BadInput(f"objective.jacobian_penalty.weight: expected a number >= 0, got {weight}")
        if type(projections) is not int or projections < 1:
            raise BadInput(f"objective.jacobian_penalty.projections: expected a whole number >= 1, got {projections}")
        self.weight, self.projections = weight, projections

    def __call__(self, network: Network, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; the labels play no part."""
        if isinstance(network.flow.integrator, ImplicitMidpoint):  # its Newton matrix is a constant to autograd
            raise BadInput("objective.jacobian_penalty: expected any integrator but implicit_midpoint; e.g. imex")
        x = x.detach().requires_grad_()
        logits = network(x)
        k, classes = self.projections, logits.shape[1]
        if k > classes:
            raise BadInput(f"objective.jacobian_penalty.projections: expected at most the {classes} classes, got {k}")
        squares = logits.new_zeros(len(x))
        for v in orthonormal(logits, k):
            (pulled,) = torch.autograd.grad(logits, x, v, create_graph=True)  # J^T v of each sample
            squares = squares + pulled.flatten(1).square().sum(1)
        return {"jacobian_penalty": self.weight * classes / k * squares.mean()}


def orthonormal(logits: Tensor, k: int) -> Tensor:
    """k random orthonormal directions for each row of logits (B, classes): (k, B, classes)."""
    Q = torch.linalg.qr(torch.randn(*logits.shape, k, dtype=logits.dtype, device=logits.device)).Q
    return Q.movedim(2, 0)
