"""Encoders and heads: constants against dense Jacobians, constraints that hold, and what fits together."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from problems import norm2, randn

from robode.certificates.radius import row_distances
from robode.data.info import DatasetInfo
from robode.encoders import Augment, BoundedConv, Conv, Dense, FlatLinear, FlatPad, States, usual_encoder
from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.families.gradient_flow import GradientFlow
from robode.heads import Identity, Linear, Orthonormal
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.linalg.orthonormal import orthonormal, random_orthonormal, slack
from robode.network import Network, features, states_of
from robode.ode.flow import Constrained
from robode.tasks.classification import Classification
from robode.training.callbacks import useless

GREY = DatasetInfo((1, 5, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(tuple("abc")))
COLOUR = DatasetInfo((3, 4, 4), (0.5, 0.4, 0.3), (0.1, 0.3, 0.4), (0.0, 1.0), Classification(tuple("abcd")))
VECTORS = DatasetInfo((2,), (0.5, 1.0), (0.5, 2.0), None, Classification(tuple("abc")))
CASES = [(info, flow) for info in (GREY, COLOUR, VECTORS) for flow in ("pixels", "flat", "flat, wide")]


def network(info: DatasetInfo, flow: str, bounded: bool = True) -> Network:
    torch.manual_seed(0)
    made = CHNode(4, 1, ETD()) if flow == "pixels" else GradientFlow(60 if flow == "flat, wide" else 8, 1, Euler())
    encoder = usual_encoder(info.shape, states_of(made), bounded)
    head = Orthonormal(features(info, encoder, made), info.task.outputs) if bounded else None
    return Network(info, made, encoder, head)


def embedding(net: Network) -> torch.Tensor:
    """The Jacobian of normalise and encoder, which are affine."""
    shape = (1, *net.info.shape)
    J = torch.autograd.functional.jacobian(lambda x: net.embed(x).flatten(), torch.zeros(shape).double())
    return J.flatten(1)


@pytest.mark.parametrize(
    ("info", "flow"), CASES, ids=lambda v: v if isinstance(v, str) else "x".join(map(str, v.shape))
)
def test_encoders_are_nonexpansive_and_the_certified_constant_is_above_the_true_one(
    info: DatasetInfo, flow: str
) -> None:
    net = network(info, flow).double()
    true = norm2(embedding(net))
    assert 0.5 < true <= net.encoder.lipschitz(net.normalise.std) <= 1
    assert bool((net.normalise.std == 1).all())


@pytest.mark.parametrize(
    ("info", "flow"), CASES, ids=lambda v: v if isinstance(v, str) else "x".join(map(str, v.shape))
)
def test_without_the_key_std_counts(info: DatasetInfo, flow: str) -> None:
    net = network(info, flow, bounded=False).double()
    assert norm2(embedding(net)) <= net.encoder.lipschitz(net.normalise.std)
    assert type(net.head) is Linear and not bool((net.normalise.std == 1).any())


def test_zero_padding_is_an_isometry() -> None:
    for encoder in (FlatPad((1, 5, 4), States(33, True)), Augment((2,), States(5, False))):
        x, y = torch.rand(6, *encoder.shape), torch.rand(6, *encoder.shape)
        moved = (encoder(x) - encoder(y)).norm(dim=1)
        torch.testing.assert_close(moved, (x - y).flatten(1).norm(dim=1))
        assert encoder.lipschitz(torch.ones(1)) == 1


def test_a_wide_channel_encoder_starts_as_an_isometry_of_what_is_inside_the_image() -> None:
    torch.manual_seed(1)
    encoder = BoundedConv((1, 8, 8), States(12, False)).double()
    x = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    x[:, :, 2:6, 2:6] = randn(3, 1, 4, 4, seed=1)
    without_bias = encoder(x) - encoder(torch.zeros_like(x))
    torch.testing.assert_close(without_bias.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("flow", ["pixels", "flat"])
def test_constraints_are_restored_and_a_second_projection_changes_nothing(flow: str) -> None:
    net = network(COLOUR, flow)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
    assert net.encoder.lipschitz(net.normalise.std) > 1
    both = [module for module in (net.encoder, net.head) if isinstance(module, Constrained)]
    assert len(both) == 2
    for each in both:
        each.project_()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert net.encoder.lipschitz(net.normalise.std) <= 1
    for each in both:
        each.project_()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("inputs", "outputs"), [(40, 10), (10, 10), (2, 3)])
def test_no_pair_of_logits_is_further_apart_than_sqrt_2(inputs: int, outputs: int) -> None:
    head = Orthonormal(inputs, outputs)
    with torch.no_grad():
        head.weight.add_(0.3 * torch.randn_like(head.weight))
    head.project_()
    pairs = row_distances(head.weight)
    assert norm2(head.weight.detach().double()) <= 1
    assert float(pairs.max()) <= math.sqrt(2)
    if outputs <= inputs:  # and none closer: all classes are alike
        distances = pairs[~torch.eye(outputs, dtype=torch.bool)]
        assert float(distances.min()) >= math.sqrt(2) * (1 - slack(head.weight))


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (2, 4, 6), (200, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthonormal_rows(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    W = randn(*shape, seed=2).to(dtype)
    Q = orthonormal(W)
    wide = Q if shape[-2] <= shape[-1] else Q.mT
    gram = wide.double() @ wide.double().mT
    assert Q.dtype == dtype and norm2(Q.double()) <= 1
    assert float((gram - torch.eye(gram.shape[-1])).abs().max()) <= 2 * slack(Q)
    assert torch.equal(orthonormal(Q), Q)
    spanned = W if shape[-2] <= shape[-1] else W.mT  # every row of W is a combination of rows of Q
    torch.testing.assert_close(spanned @ wide.mT @ wide, spanned, rtol=0, atol=200 * slack(Q))


def test_rows_that_coincide_and_weights_that_are_not_finite() -> None:
    W = torch.ones(3, 6)
    assert norm2(orthonormal(W).double() @ orthonormal(W).double().mT - torch.eye(3)) <= 4 * slack(W)
    assert bool(orthonormal(torch.full((2, 3), math.nan)).isnan().all())
    encoder = BoundedConv((1, 4, 4), States(2, False))
    encoder.weight.data.fill_(math.inf)
    encoder.project_()
    assert useless(encoder) is not None and useless(BoundedConv((1, 4, 4), States(2, False))) is None


def test_random_rows_come_from_torchs_generator() -> None:
    torch.manual_seed(4)
    first = random_orthonormal(2, 5)
    torch.manual_seed(4)
    assert torch.equal(first, random_orthonormal(2, 5))


def test_the_usual_encoder_follows_data_and_flow() -> None:
    assert type(network(GREY, "flat").encoder) is FlatLinear and type(network(GREY, "flat, wide").encoder) is FlatPad
    assert type(network(GREY, "pixels").encoder) is BoundedConv
    assert type(network(GREY, "pixels", bounded=False).encoder) is Conv


def test_a_free_dense_encoder_has_a_certified_constant() -> None:
    torch.manual_seed(0)
    flow = GradientFlow(8, 1, Euler())
    net = Network(GREY, flow, Dense(GREY.shape, states_of(flow))).double()
    assert norm2(embedding(net)) <= net.encoder.lipschitz(net.normalise.std) <= norm2(embedding(net)) * (1 + 1e-6)


@pytest.mark.parametrize("make", [
    lambda: Conv((2,), States(4, False)), lambda: Conv((1, 5, 4), States(4, True)),
    lambda: Augment((1, 5, 4), States(4, False)), lambda: Augment((3,), States(2, False)),
    lambda: FlatPad((1, 5, 4), States(4, True)), lambda: Identity(4, 3),
    lambda: Network(GREY, CHNode(4, 1, ETD()), Dense(GREY.shape, States(6, True))),
    lambda: Network(GREY, GradientFlow(8, 1, Euler()), Conv(GREY.shape, States(8, False))),
])  # fmt: skip
def test_what_does_not_fit_together_is_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(BadInput, match="^(encoder|head|model.width)") as error:
        make()
    assert "\n" not in str(error.value)


def test_the_identity_head_gives_the_state_itself() -> None:
    head, y = Identity(3, 3), torch.randn(4, 3)
    assert head(y) is y and head.lipschitz() == 1 and not list(head.parameters())
