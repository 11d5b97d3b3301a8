"""Certified constants of anyone's layers: from both sides where they are exact, never below a Jacobian elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from problems import norm2
from torch import Tensor, nn

from robode.certificates.lipschitz import LAYERS, factors, last_matrix, lipschitz
from robode.errors import BadInput
from robode.linalg.activations import STEEPEST
from robode.network import Normalise

IMAGE = (3, 6, 8)


def largest_jacobian(module: nn.Module, shape: tuple[int, ...], seed: int = 0, samples: int = 8) -> float:
    """The largest norm of the Jacobian at random points: a lower bound of the Lipschitz constant."""
    module = module.double().eval()
    points = torch.randn(samples, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def norm(x: Tensor) -> float:
        J = torch.autograd.functional.jacobian(lambda y: module(y[None]).flatten(), x)
        return norm2(J.flatten(1))

    return max(norm(x) for x in points)


def batch_norm(module: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """With statistics of its own."""
    torch.manual_seed(2)
    nn.init.normal_(module.weight)
    module.running_var.uniform_(0.1, 2)
    return module


EXACT = {
    "linear": (nn.Linear(5, 7), (5,)),
    "batch norm": (batch_norm(nn.BatchNorm2d(3)), IMAGE),
    "no affine": (nn.BatchNorm2d(3, affine=False), IMAGE),
    "max pool": (nn.MaxPool2d(2), IMAGE),
    "max pool, a stride": (nn.MaxPool2d(2, 3, padding=1), IMAGE),
    "average pool": (nn.AvgPool2d(2), IMAGE),
    "average pool, other windows": (nn.AvgPool2d((3, 2), divisor_override=5), IMAGE),
    "adaptive average": (nn.AdaptiveAvgPool2d((2, None)), IMAGE),
    "global average": (nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive max": (nn.AdaptiveMaxPool2d(2), IMAGE),
    "normalise": (Normalise((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), 3), IMAGE),
    "flatten": (nn.Flatten(), IMAGE),
    "pad": (nn.ZeroPad2d(2), IMAGE),
    "shuffle": (nn.PixelUnshuffle(2), IMAGE),
    "dropout": (nn.Dropout(0.5), IMAGE),
    "parametrised": (nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), (4,)),
}


@pytest.mark.parametrize("name", EXACT)
def test_layers_whose_constant_is_exact(name: str) -> None:
    module, shape = EXACT[name]
    assert largest_jacobian(module, shape) == pytest.approx(lipschitz(module, shape), rel=1e-6)


BOUNDED = {
    "overlapping max": nn.MaxPool2d(3, 1),
    "overlapping max, strided": nn.MaxPool2d(3, 2, ceil_mode=True),
    "overlapping average": nn.AvgPool2d(3, 1, padding=1),
    "average, edges divided by less": nn.AvgPool2d(3, padding=1, count_include_pad=False),
    "average, ceil": nn.AvgPool2d(4, ceil_mode=True),
    "conv": nn.Conv2d(3, 4, 3, padding=1),
    "conv, same with an even kernel": nn.Conv2d(3, 4, (4, 2), padding="same"),
    "conv, valid": nn.Conv2d(3, 4, 3, padding="valid"),
    "conv, strided": nn.Conv2d(3, 4, 3, 2, 1),
    "conv, groups": nn.Conv2d(3, 6, 3, padding=1, groups=3),
    "conv, dilated": nn.Conv2d(3, 2, 3, padding=2, dilation=2),
    "conv, circular": nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"),
    "conv, reflecting": nn.Conv2d(3, 2, 3, padding=2, padding_mode="reflect"),
    "conv, replicating and strided": nn.Conv2d(3, 2, 3, 2, 1, padding_mode="replicate"),
    "conv, replicating the same size": nn.Conv2d(3, 2, (4, 3), padding="same", padding_mode="replicate"),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_layers_whose_constant_is_a_bound(name: str) -> None:
    torch.manual_seed(1)
    true, bound = largest_jacobian(BOUNDED[name], IMAGE), lipschitz(BOUNDED[name], IMAGE)
    assert true <= bound * (1 + 1e-9) and bound <= 4 * true


def chain() -> nn.Sequential:
    torch.manual_seed(4)
    stage = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), batch_norm(nn.BatchNorm2d(4)), nn.GELU())
    head = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.Tanh(), nn.Dropout(), nn.Linear(6, 5), nn.Identity())
    return nn.Sequential(stage, head)


def test_a_nested_chain_is_the_product_of_its_layers() -> None:
    module = chain().train()
    found = factors(module, IMAGE)
    assert [factor.name for factor in found] == [
        *(f"Sequential.0.{i}" for i in range(3)), *(f"Sequential.1.{i}" for i in range(6))
    ]  # fmt: skip
    assert lipschitz(module, IMAGE) == pytest.approx(math.prod(factor.constant for factor in found))
    assert module.training and next(module.parameters()).dtype == torch.float32
    assert largest_jacobian(module, IMAGE) <= lipschitz(chain(), IMAGE)
    body, W = last_matrix(found) or (0.0, torch.empty(0))
    assert torch.equal(W, module[1][4].weight.double())
    assert body == pytest.approx(math.prod(factor.constant for factor in found[:-2]))


def test_without_a_linear_layer_at_the_end_there_is_no_matrix() -> None:
    assert last_matrix(factors(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), (3,))) is None
    assert last_matrix(factors(nn.Sequential(nn.Linear(3, 2)), (4, 3))) is None  # not the only one of its outputs
    assert last_matrix([]) is None


class Residual(nn.Module):
    """x - W^T relu(W x) with ||W|| <= sqrt 2, which vouches for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x - torch.relu(self.W(x)) @ self.W.weight

    def certified_lipschitz(self, shape: tuple[int, ...]) -> float:
        return max(1.0, abs(1 - norm2(self.W.weight) ** 2))


def test_a_module_may_vouch_for_itself() -> None:
    module = nn.Sequential(Residual(), nn.Linear(4, 3))
    assert lipschitz(module, (4,)) == pytest.approx(lipschitz(module[1], (4,)))
    assert largest_jacobian(module, (4,)) <= lipschitz(module, (4,))


class Vouching(nn.Identity):
    """A layer of somebody's, whose method gives or raises what it was told."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def certified_lipschitz(self, shape: tuple[int, ...]) -> object:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [2, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor([[2.0]])], ids=repr)
def test_any_real_number_is_an_answer(answer: object) -> None:
    assert lipschitz(Vouching(answer), (4,)) == 2.0
    assert lipschitz(Vouching(math.inf), (4,)) == math.inf


NUMBER = "expected certified_lipschitz to give a number of at least 0, got"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (KeyError("x"), "its certified_lipschitz failed (KeyError: 'x')"),
        (SystemExit(3), "its certified_lipschitz failed (SystemExit: 3)"),
        (BadInput("layer 2: odd"), "its certified_lipschitz failed (layer 2: odd)"),
        ("1.0", f"{NUMBER} '1.0'"),
        (None, f"{NUMBER} None"),
        (math.nan, f"{NUMBER} nan"),
        (-1.0, f"{NUMBER} -1.0"),
        (True, f"{NUMBER} True"),
        (1j, f"{NUMBER} 1j"),
        (torch.ones(2, 1), f"{NUMBER} a tensor of shape (2, 1)"),
        (torch.tensor(math.nan), f"{NUMBER} nan"),
        (np.ones(2), f"{NUMBER} array([1., 1.])"),
    ],
    ids=repr,
)
def test_a_module_that_vouches_for_nothing_is_refused_by_its_name_and_class(answer: object, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        lipschitz(nn.Sequential(nn.Identity(), Vouching(answer)), (4,))
    assert str(caught.value).startswith(f"layer Sequential.1 (Vouching): {expected}") and "\n" not in str(caught.value)


def answering(answer: Callable[[Tensor], object]) -> nn.Module:
    """A layer that vouches for itself and gives something else than it should."""
    layer = Vouching(1.0)
    layer.forward = answer  # type: ignore[method-assign,assignment]
    return layer


def leave(x: Tensor) -> object:
    raise SystemExit(3)


class Mine(nn.Linear):
    """What its forward does is not known."""

    def forward(self, x: Tensor) -> Tensor:
        return 100 * super().forward(x)


class Helped(nn.Conv2d):
    """Neither is that of a forward whose helper is another."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return 100 * super()._conv_forward(x, weight, bias)


class Awake(nn.BatchNorm1d):
    """Stays in training mode, where a sample's answer depends on its batch."""

    def train(self, mode: bool = True) -> Awake:
        return super().train()


class Backwards(nn.Sequential):
    """Another order, or the same modules several times."""

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([*super().__iter__()] * 3)


class Mixin:
    """In front of a known layer in the order of its classes."""

    def forward(self, x: Tensor) -> Tensor:
        return 100 * x


class Mixed(Mixin, nn.Identity):
    pass


def hooked(before: bool = False) -> nn.Module:
    layer = nn.Linear(4, 4)
    if before:
        layer.register_forward_pre_hook(lambda module, x: (100 * x[0],))
    else:
        layer.register_forward_hook(lambda module, x, y: 100 * y)
    return layer


def patched(**methods: Callable[..., Tensor]) -> nn.Module:
    """A layer, methods of which were set on the layer itself."""
    layer = nn.Conv2d(4, 4, 1) if "_conv_forward" in methods else nn.Linear(4, 4)
    for name, method in methods.items():
        setattr(layer, name, method)
    return layer


class Scatter(nn.Module):
    """A parametrization that draws."""

    def forward(self, W: Tensor) -> Tensor:
        return W * (1 + torch.rand(()))


def scattered() -> nn.Module:
    layer = nn.Linear(4, 4)
    nn.utils.parametrize.register_parametrization(layer, "weight", Scatter())
    return layer


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.LayerNorm(4), (4,), "layer Sequential.1: no certified constant is known for LayerNorm"),
        (Mine(4, 4), (4,), "no certified constant is known, because forward of Linear was written anew"),
        (Helped(3, 3, 1), IMAGE, "because _conv_forward of Conv2d was written anew"),
        (Awake(4), (4,), "expected a module that eval() takes out of training mode"),
        (Backwards(nn.Linear(4, 4)), (4,), "because __iter__ of Sequential was written anew"),
        (Mixed(), (4,), "because forward of Identity was written anew"),
        (patched(forward=lambda x: 100 * x), (4,), "because forward of Linear was written anew"),
        (patched(_conv_forward=lambda x, weight, bias: 100 * x), (4, 2, 2), "because _conv_forward of Conv2d"),
        (hooked(before=True), (4,), "layer Sequential.1: expected a layer without hooks"),
        (scattered(), (4,), "its parametrised weight changes from one call to the next"),
        (nn.LSTM(4, 4), (4,), "known for LSTM"),
        (hooked(), (4,), "layer Sequential.1: expected a layer without hooks"),
        (nn.utils.spectral_norm(nn.Linear(4, 4)), (4,), "without hooks"),
        (answering(lambda x: (x, x)), (4,), "layer Sequential.1: expected a layer that gives one tensor, got tuple"),
        (answering(lambda x: x.sum()), (4,), "layer Sequential.1: expected a layer that keeps samples apart"),
        (answering(leave), (4,), "does not take samples of shape (4,) (SystemExit: 3)"),
        (nn.Conv2d(3, 2, 3, padding=7, padding_mode="reflect"), IMAGE, "expected padding smaller than the image"),
        (nn.BatchNorm2d(3, track_running_stats=False), IMAGE, "expected running statistics"),
        (nn.AdaptiveAvgPool2d(5), IMAGE, "layer Sequential.1: expected an output size that divides 6 x 8"),
        (nn.MaxPool2d(2, dilation=2), IMAGE, "expected dilation 1"),
        (nn.Flatten(0), IMAGE, "expected a layer that keeps samples apart"),
        (nn.Linear(5, 2), (4,), "does not take samples of shape (4,)"),
        (nn.Conv2d(3, 1, 9), IMAGE, "is larger than the image"),
        (nn.ModuleList([nn.ReLU()]), (4,), "known for ModuleList"),
    ],
)  # fmt: skip
def test_what_has_no_constant_is_refused_by_the_name_of_the_layer(
    layer: nn.Module, shape: tuple[int, ...], expected: str
) -> None:
    with pytest.raises(BadInput) as caught:
        lipschitz(nn.Sequential(nn.Identity(), layer), shape)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_weights_that_are_not_finite_certify_nothing() -> None:
    layer = nn.Linear(3, 3)
    nn.init.constant_(layer.weight, math.nan)
    assert lipschitz(layer, (3,)) == math.inf


def test_the_certificate_knows_every_layer_that_the_message_names() -> None:
    with pytest.raises(BadInput) as caught:
        lipschitz(nn.LayerNorm(4), (4,))
    assert all(kind.__name__ in str(caught.value) for kind in [*LAYERS, *STEEPEST])


def test_hooks_on_all_modules_are_refused() -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda module, x, y: 100 * y)
    try:
        with pytest.raises(BadInput, match="expected a layer without hooks"):
            lipschitz(nn.Linear(4, 4), (4,))
    finally:
        handle.remove()


def test_a_class_that_was_patched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: 100 * x)
    with pytest.raises(BadInput, match="because forward of ReLU was written anew"):
        lipschitz(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (4,))


class Peer(nn.Sequential):
    """A Sequential of somebody's, who adds methods and leaves alone what it computes with."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 8), nn.ReLU(), Plain(8, 3))

    def logits(self, x: Tensor) -> Tensor:
        return self(x)


class Plain(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.weight)
        nn.init.zeros_(self.bias)


def test_classes_that_leave_the_computation_alone_have_the_constant_of_what_they_derive_from() -> None:
    peer = Peer(4)
    same = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    same.load_state_dict(peer.state_dict())
    assert lipschitz(peer, (4,)) == lipschitz(same, (4,)) >= largest_jacobian(peer, (4,))
    matrix = last_matrix(factors(peer, (4,)))
    assert matrix is not None and torch.equal(matrix[1], peer[2].weight.double())


def test_a_layer_that_comes_twice_counts_twice() -> None:
    layer = nn.Linear(3, 3)
    with torch.no_grad():
        nn.init.eye_(layer.weight).mul_(5)
    chain = nn.Sequential(layer, nn.Identity(), layer)
    assert lipschitz(chain, (3,)) == pytest.approx(25) and largest_jacobian(chain, (3,)) == pytest.approx(25)


def test_parametrised_weights_are_certified_at_the_values_that_eval_mode_has() -> None:
    """Power iteration of a spectral norm that has hardly begun: the weight that runs has a norm above 1."""
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8), n_power_iterations=1)
    chain = nn.Sequential(layer, nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU())
    for _ in range(3):
        with torch.no_grad():
            layer.parametrizations.weight.original.copy_(torch.randn(8, 8))
        chain.train()(torch.randn(5, 8))
        chain.eval()
        W, V = (chain[place].weight.detach().double() for place in (0, 1))
        assert norm2(W) > 1.01 and lipschitz(chain, (8,)) == pytest.approx(norm2(W) * norm2(V), rel=1e-6)
