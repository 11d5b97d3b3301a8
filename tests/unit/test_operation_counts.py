"""What one training step makes torch do: a guard against a slower step that no clock disturbs."""

from collections import Counter

import pytest
from small_runs import composed
from torch.utils._python_dispatch import TorchDispatchMode

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
FALLBACKS = 9  # times that the projection of gradient_flow looks whether its iteration has come to its end


class Counted(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


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
