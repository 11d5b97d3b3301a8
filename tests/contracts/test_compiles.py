"""No step of training reads a value on the host: it compiles as one graph, and can be captured where a GPU is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from model_cases import batch, make
from torch import Tensor, nn

from robode.contracts.families import KINDS, project
from robode.network import Network

CASES = [
    ("chnode", "imex", {"gamma": "differentiable"}), ("chnode", "etd", {"norm_bound": 0.5}),
    ("hdnn", "symplectic_euler", {}), ("node", "rk4", {}), ("gradient_flow", "euler", {"tau": "learned"}),
    ("lipschitz_mlp", "euler", {}), ("continuous", "rk38", {"piece_end": "next"}), ("resnet18", "euler", {}),
    ("stable_node", "euler", {"stabilise": "none"}),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("chnode", "etd", {}), ("chnode", "euler", {}), ("chnode", "rk4", {"gamma": "script_mnist", "step": 0.1}),
        ("chnode", "etd", {"gamma": "factor", "factor": 1.5, "trainable_L": True}), ("resnet", "euler", {}),
        ("gradient_flow", "euler", {}),
    )),
]  # fmt: skip


def loss_of(network: Network, x: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(network(x), labels)


def one_step(network: Network, loss: Any, projection: Any) -> dict[str, Tensor]:
    """The state after a step of gradient descent and the projection, and the gradients."""
    x, labels = batch("vectors" if len(network.info.shape) == 1 else "images"), torch.arange(6) % 3
    loss(network, x, labels).backward()
    with torch.no_grad():
        for p in network.parameters():
            p.sub_(0.1 * p.grad)
    projection(network)
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__.startswith("2.11."), reason="its compiler loses attributes of traced dataclasses")
@pytest.mark.parametrize(("model", "integrator", "options"), CASES)
def test_a_training_step_is_one_graph_and_the_same_step(model: str, integrator: str, options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    plain, traced = make(model, integrator, **options), make(model, integrator, **options)
    compiled = torch.compile(loss_of, fullgraph=True, backend="eager")
    projected = torch.compile(project_all, fullgraph=True, backend="eager")
    expected = one_step(plain, loss_of, project)
    found = one_step(traced, compiled, lambda network: projected(network.encoder, network.flow, network.head))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7, msg=name)


def project_all(*modules: Any) -> None:
    for module in modules:
        if hasattr(module, "project_"):
            module.project_()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_training_step_is_captured() -> None:
    """Forward, backward and Adam in one CUDA graph; the projection, whose eigenvalues ask the host, between replays."""
    network = make("chnode", "etd", "images").cuda()
    plain = copy.deepcopy(network)
    x, labels = batch("images").cuda(), (torch.arange(6) % KINDS["images"].task.outputs).cuda()
    states = []
    for each, captured in ((plain, False), (network, True)):
        adam = torch.optim.Adam(each.parameters(), lr=0.01, capturable=True)
        states.append(_trained(each, adam, x, labels, captured))
    for name in states[0]:
        torch.testing.assert_close(states[1][name], states[0][name], rtol=1e-5, atol=1e-6, msg=name)


def _trained(network: Network, adam: torch.optim.Adam, x: Tensor, labels: Tensor, captured: bool) -> dict[str, Tensor]:
    def step() -> None:
        adam.zero_grad(set_to_none=False)
        loss_of(network, x, labels).backward()
        adam.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
            project(network)
    torch.cuda.current_stream().wait_stream(stream)
    if not captured:
        for _ in range(5):
            step()
            project(network)
        return {name: value.clone() for name, value in network.state_dict().items()}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(5):
        graph.replay()
        project(network)
    return {name: value.clone() for name, value in network.state_dict().items()}
