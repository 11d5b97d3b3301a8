"""A plain multi-layer perceptron: the baseline without an ODE, on whole samples as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from robode.errors import BadInput
from robode.families.layers import LayersAlone
from robode.integrators.integrator import Integrator
from robode.linalg.activations import Activation, named_activation
from robode.linalg.norms import largest_eigenvalue
from robode.ode.step import Step

Shape = tuple[int, ...]


@dataclass(frozen=True)
class DenseStep(Step):
    """y -> sigma(W y + b): (B, n) -> (B, k). W: (k, n), b: (k)."""

    W: Tensor
    b: Tensor
    activation: Activation
    between_stages: bool

    def __call__(self, y: Tensor) -> Tensor:
        return self.activation(nn.functional.linear(y, self.W, self.b))

    def lipschitz(self) -> float:
        """S ||W||, certified."""
        return self.activation.slope_bound * float(largest_eigenvalue(self.W).sqrt())


class MLP(LayersAlone):
    """depth dense layers with an activation; the head is one more, without.

    width: the numbers of the first state (auto: of a sample). hidden: of every layer, or a list with those of each.
    Weights N(0, 2/n) of n inputs, biases 0 (He et al., Delving deep into rectifiers, 2015). Property: the product of
    the layers' certified constants S ||W||.

    Raises:
        BadInput: widths that are none, or not one for each of the depth layers.
    """

    flattens = True

    def __init__(
        self,
        width: int,
        depth: int,
        integrator: Integrator,
        step: float | str = "auto",
        horizon: float | None = None,
        *,
        activation: str = "relu",
        hidden: int | Sequence[int] = 128,
    ):
        super().__init__(width, depth, integrator, step, horizon)
        sizes = [hidden] * depth if isinstance(hidden, int) else list(hidden)
        if len(sizes) != depth or any(type(size) is not int or size < 1 for size in sizes):
            raise BadInput(
                f"model.hidden: expected a whole number >= 1, or one for each of depth={depth} layers, got {hidden}"
            )
        self.activation, self.hidden = named_activation(activation), sizes
        shapes = [(k, n) for n, k in pairwise([width, *sizes])]
        self.W = nn.ParameterList([(2 / n) ** 0.5 * torch.randn(k, n) for k, n in shapes])
        self.b = nn.ParameterList([torch.zeros(k) for k, _ in shapes])

    def build(self, shape: Shape) -> Shape:
        return (self.hidden[-1],)

    def enter(self, y: Tensor) -> Tensor:
        """Raises `BadInput` for images."""
        if y.dim() != 2:
            raise BadInput(f"model=mlp: expected states that are vectors, got {tuple(y.shape[1:])}; take encoder=auto")
        return y

    def steps(self, context: Tensor | None = None) -> list[Step]:
        layers = zip(self.W, self.b, strict=True)
        return [DenseStep(W, b, self.activation, W.shape[0] != W.shape[1]) for W, b in layers]
