"""Small derivatives of the output with respect to the input (Hoffman, Roberts and Yaida 2019, Robust learning with
Jacobian regularization)."""

from __future__ import annotations

import torch
from torch import Tensor

from robode.errors import BadInput
from robode.network import Network
from robode.objectives.objective import Objective


class JacobianPenalty(Objective):
    """weight times the mean over the batch of ||J||_F^2, J = d output / d x in data units: (outputs, d) per sample.

    ||J||_F^2 is estimated without J, as outputs/k sum_i ||J^T v_i||^2 with k = `projections` orthonormal directions v_i
    drawn anew for each sample: without bias for every k (each v_i is uniform on the sphere, E v v^T = I/outputs), and
    exact for k = outputs. Every direction costs one backward pass with a graph. The published lambda_JR is 2 weight.
    The draws come from torch's global generator, which is in every checkpoint.

    Raises:
        BadInput: weight is no number >= 0, projections is no whole number >= 1; by `check`, there are more projections
        than outputs, or the integrator can be differentiated only once (implicit_midpoint, the adjoint).
    """

    def __init__(self, weight: float = 0.01, projections: int = 1):
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise BadInput(f"objective.jacobian_penalty.weight: expected a number >= 0, got {weight}")
        if type(projections) is not int or projections < 1:
            raise BadInput(f"objective.jacobian_penalty.projections: expected a whole number >= 1, got {projections}")
        self.weight, self.projections = weight, projections

    def check(self, network: Network) -> None:
        k, outputs = self.projections, network.info.task.outputs
        if k > outputs:
            raise BadInput(f"objective.jacobian_penalty.projections: expected at most the {outputs} outputs, got {k}")
        if not network.flow.integrator.twice_differentiable:
            raise BadInput(
                "objective.jacobian_penalty: expected an integrator that can be differentiated twice, neither "
                "implicit_midpoint nor integrator.gradient=adjoint; e.g. imex"
            )

    def __call__(self, network: Network, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        """x: (B, *shape) in data units; the target plays no part."""
        x = x.detach().requires_grad_()
        output = network(x)
        k, outputs = self.projections, output.shape[1]
        squares = output.new_zeros(len(x))
        for v in orthonormal(output, k):
            (pulled,) = torch.autograd.grad(output, x, v, create_graph=True)  # J^T v of each sample
            squares = squares + pulled.flatten(1).square().sum(1)
        return {"jacobian_penalty": self.weight * outputs / k * squares.mean()}


def orthonormal(output: Tensor, k: int) -> Tensor:
    """k random orthonormal directions for each row of output (B, outputs): (k, B, outputs)."""
    Q = torch.linalg.qr(torch.randn(*output.shape, k, dtype=output.dtype, device=output.device)).Q
    return Q.movedim(2, 0)
