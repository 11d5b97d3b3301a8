"""States along a flow as the head reads them: which there are, what they pass through, and what that leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robode.data.info import DatasetInfo
from robode.encoders import Stem
from robode.errors import BadInput
from robode.families.continuous import Continuous
from robode.families.conv_gradient_flow import ConvGradientFlow
from robode.families.mlp import MLP
from robode.families.resnet import ResNet
from robode.families.resnet18 import ResNet18
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4
from robode.network import Network, states_of, weights_digest
from robode.ode.flow import Flow
from robode.ode.read_outs import fields_at, frozen_statistics
from robode.ode.step import Step
from robode.tasks.classification import Classification

IMAGES = DatasetInfo((1, 8, 8), (0.5,), (0.5,), (0.0, 1.0), Classification(tuple("abc")))
VECTORS = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(tuple("abc")))
MAKE: dict[str, Callable[[], Flow]] = {
    "continuous": lambda: Continuous(4, 9, RK4()),
    "resnet18": lambda: ResNet18(4, 8, Euler()),
    "gradient_flow_conv": lambda: ConvGradientFlow(4, 5, Euler(), pool="mean"),
    "resnet": lambda: ResNet(4, 3, Euler()),
}
# N + 1, but for the blocks of resnet18 that are changes of stage, three of them
COUNT = {"continuous": 10, "resnet18": 6, "gradient_flow_conv": 6, "resnet": 4}


def network(model: str, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    flow = MAKE[model]()
    stem = model in ("continuous", "resnet18")
    return Network(IMAGES, flow, Stem(IMAGES.shape, states_of(flow)) if stem else None)


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *IMAGES.shape, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("model", MAKE)
def test_the_last_read_out_is_the_forward_pass_and_leaves_the_same_statistics(model: str, training: bool):
    net = network(model).train(training)
    other = copy.deepcopy(net)
    outputs, expected = net.read_outs(images()), other(images())
    assert len(outputs) == COUNT[model] and {tuple(each.shape) for each in outputs} == {(5, 3)}
    assert torch.allclose(outputs[-1], expected, atol=1e-5)  # an engine sums in another order
    assert weights_digest(net) == weights_digest(other)  # running statistics are those of a forward pass alone
    assert all(not torch.equal(a, b) for a, b in zip(outputs[1:], outputs[:-1], strict=True))


@torch.no_grad()
def test_a_state_passes_later_stitches_and_the_mean_and_no_block():
    net = network("continuous").eval()
    flow, y = net.flow, net.embed(images())
    first, second, third = flow.stitches
    states, outputs = flow.states(y), net.read_outs(images())

    def read(state: Tensor, *stitches: torch.nn.Module) -> Tensor:
        for stitch in stitches:
            state = stitch(state)
        return net.head(state.mean((2, 3)))

    torch.testing.assert_close(outputs[0], read(y, first, second, third))
    for place in (1, 2, 3):
        torch.testing.assert_close(outputs[place], read(states[place], second, third))
    for place in (4, 5, 6):
        torch.testing.assert_close(outputs[place], read(states[place], third))
    torch.testing.assert_close(outputs[8], read(states[8]))


@torch.no_grad()
def test_a_field_sets_out_behind_the_stitch_of_its_layer():
    flow = network("continuous").eval().flow
    y = torch.randn(2, 4, 8, 8)
    states, found = flow.states(y), fields_at(flow, y)
    starts = [start for _, start in found]
    assert torch.equal(starts[0], flow.stitches[0](y)) and torch.equal(starts[1], states[1])
    assert torch.equal(starts[3], flow.stitches[1](states[3])) and torch.equal(starts[8], states[8])
    assert [field(0.0, start).shape for field, start in found] == [start.shape for start in starts]
    assert fields_at(network("resnet18").flow, y) == []


@torch.no_grad()
def test_blocks_with_stride_are_changes_of_stage():
    net = network("resnet18").eval()
    blocks, states, outputs = net.flow.blocks, net.flow.states(net.embed(images())), net.read_outs(images())
    through = blocks[6](blocks[4](blocks[2](states[1])))
    torch.testing.assert_close(outputs[1], net.head(through.mean((2, 3))))
    # the state behind block 3 is the one in front of it, read out: of the two there is one
    torch.testing.assert_close(outputs[2], net.head(blocks[6](blocks[4](states[3])).mean((2, 3))))
    torch.testing.assert_close(outputs[3], net.head(blocks[6](blocks[4](states[4])).mean((2, 3))))


@torch.no_grad()
def test_without_stages_the_head_reads_every_state():
    net = network("resnet")
    for output, state in zip(net.read_outs(images()), net.flow.states(net.embed(images())), strict=True):
        assert torch.equal(output, net.head(state.flatten(1)))


@torch.no_grad()
def test_a_layer_of_a_perceptron_that_changes_the_width_is_a_change_of_stage():
    torch.manual_seed(0)
    net = Network(VECTORS, MLP(2, 4, Euler(), hidden=[5, 5, 6, 6]))
    x = torch.randn(7, 2)
    states, outputs = net.flow.states(net.embed(x)), net.read_outs(x)
    assert len(outputs) == 3 and torch.equal(outputs[-1], net(x))
    steps = net.flow.steps()
    torch.testing.assert_close(outputs[0], net.head(steps[2](states[1])))  # in front of layers 1 and 2 alike
    torch.testing.assert_close(outputs[1], net.head(states[3]))


@torch.no_grad()
def test_statistics_are_frozen_for_the_moment_and_eval_mode_uses_them():
    norm = torch.nn.BatchNorm2d(3)
    norm(torch.randn(4, 3, 2, 2))
    mean, x = norm.running_mean.clone(), 5 + torch.randn(4, 3, 2, 2)
    with frozen_statistics(norm):
        torch.testing.assert_close(norm(x).mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)  # of the batch
        assert torch.equal(norm.running_mean, mean) and int(norm.num_batches_tracked) == 1
        norm.eval()
        assert float(norm(x).mean()) > 1  # of the past
        norm.train()
    norm(x)
    assert not torch.equal(norm.running_mean, mean) and int(norm.num_batches_tracked) == 2


class Half(Step):
    def __call__(self, y: Tensor) -> Tensor:
        return y[:, :2]


class Halving(Flow):
    """Changes the shape of its state without a word."""

    solves_an_ode = pixelwise = False

    def steps(self, context: Tensor | None = None) -> list[Step]:
        return [Half()] * self.depth

    def build(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *shape[1:])


def test_states_that_cannot_be_read_out_are_bad_input():
    net = Network(VECTORS, Halving(4, 2, Euler()))
    with pytest.raises(BadInput, match=r"states of Halving cannot be read out: one after 0 of 2 .* \(4,\), .* \(2,\)"):
        net.read_outs(torch.randn(3, 2))
