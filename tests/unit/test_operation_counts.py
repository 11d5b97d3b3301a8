"""What one training step makes torch do: a guard against a slower step that no clock disturbs.

Operations, numbers that Python looks at, memory that is asked for, and nodes of the graph that autograd keeps."""

from collections import Counter

import pytest
import torch
from small_runs import composed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from robode.ode import chain
from robode.training.assembly import assemble
from robode.training.callbacks import constrained

READ = "aten._local_scalar_dense.default"  # a number that Python looks at: a GPU would wait there
# Operations of the forward pass with its loss, of the backward pass, and of project_; as measured, and a seventh more
# for other versions of torch. The first three by numba, eight layers in one operation.
MOST = {
    "model=chnode depth=8": (120, 119, 50),
    "model=hdnn depth=8": (101, 119, 32),
    "model=resnet depth=8": (65, 71, 0),
    "model=node": (443, 937, 0),
    "model=gradient_flow depth=4": (55, 105, 80),
    "model=lyanet": (225, 242, 0),
}
IN_TURN = {
    "model=chnode depth=8": (179, 237, 50),
    "model=hdnn depth=8": (160, 237, 32),
    "model=resnet depth=8": (124, 141, 0),
}
# Nodes of autograd's graph, and MB that the forward and the backward pass ask for; by torch's layers in turn CH-NODE
# keeps 108 nodes and asks for 46 and 101 MB
KEPT = {
    "model=chnode depth=8": (41, 10.3, 7.5),
    "model=hdnn depth=8": (41, 10.3, 7.5),
    "model=resnet depth=8": (24, 10.2, 7.5),
    "model=gradient_flow depth=4": (46, 1.7, 2.1),
    "model=lyanet": (183, 100, 110),
}
FALLBACKS = 9  # times that the projection of gradient_flow looks whether its iteration has come to its end


class Counted(TorchDispatchMode):
    """counts: of each operation; made: bytes of the results that are no views of what went in."""

    def __init__(self):
        super().__init__()
        self.counts, self.made = Counter(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function)] += 1
        found = function(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in tensors((args, kwargs))}
        made = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors(found)}
        self.made += sum(size for where, size in made.items() if where not in given)
        return found


def tensors(tree):
    return [each for each in tree_flatten(tree)[0] if isinstance(each, torch.Tensor)]


def nodes(loss):
    """How many nodes autograd keeps for the backward pass."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [each for each, _ in node.next_functions]
    return len(seen)


def one_step(words):
    """What the second step does: (forward, backward, project_), each a Counter of operations."""
    parts = assemble(composed("data=mnist5k", "data.limit_train=200", *words.split()))
    network, optimizer = parts.network, parts.module.optimizer
    x, target = next(iter(parts.data.train_dataloader()))

    def step():
        optimizer.zero_grad()
        with Counted() as forward:
            loss, _ = parts.module.loss_of(x, target)
        with Counted() as backward:
            loss.backward()
        optimizer.step()
        with Counted() as projection:
            for module in constrained(network):
                module.project_()
        return forward.counts, backward.counts, projection.counts

    step()
    return step()


@pytest.mark.parametrize("words", MOST)
def test_a_step_does_no_more_operations_than_it_did(words):
    found = one_step(words)
    for counts, most in zip(found, MOST[words], strict=True):
        assert counts.total() <= most * 8 / 7
    forward, backward, projection = found
    assert forward[READ] == backward[READ] == 0
    assert projection[READ] <= (FALLBACKS if "gradient_flow" in words else 0)


@pytest.mark.parametrize("words", IN_TURN)
def test_nor_without_an_engine_where_layers_come_in_turn(words, monkeypatch):
    monkeypatch.setenv(chain.CHOICE, "reference")
    for counts, most, by_engine in zip(one_step(words), IN_TURN[words], MOST[words], strict=True):
        assert by_engine * 6 / 7 <= counts.total() <= most * 8 / 7


@pytest.mark.parametrize("words", KEPT)
def test_a_step_asks_for_no_more_memory_and_keeps_no_larger_graph(words):
    parts = assemble(composed("data=mnist5k", "data.limit_train=200", *words.split()))
    x, target = next(iter(parts.data.train_dataloader()))
    with Counted() as forward:
        loss, _ = parts.module.loss_of(x, target)
    kept = nodes(loss)
    with Counted() as backward:
        loss.backward()
    most_nodes, most_forward, most_backward = KEPT[words]
    assert kept <= most_nodes * 8 / 7
    assert forward.made <= most_forward * 2**20 * 8 / 7
    assert backward.made <= most_backward * 2**20 * 8 / 7
