"""Engines that take a batch through all layers at once: what they compute, and when they are left out."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import train

from robode.api import evaluate
from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.families.hdnn import HDNN
from robode.families.resnet import ResNet
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.integrator import Substeps
from robode.integrators.symplectic_euler import SymplecticEuler
from robode.integrators.verlet import Verlet
from robode.linalg.activations import ACTIVATIONS
from robode.ode import chain, fused_numba
from robode.ode.fused_numba import TILE
from robode.ode.layer import Layer
from robode.ode.step import Chain
from robode.runs.results import read_rows

TANH = ACTIVATIONS["tanh"]
INTERPRETED = """
import torch
from robode.ode import chain, fused_triton
torch.manual_seed(0)
for n, N, M in ((4, 2, 70), (8, 3, 150), (16, 2, 130)):
    eye = torch.eye(n)
    A, B, K, b, y, slope = (torch.randn(*shape) for shape in ((N, n, n),) * 3 + ((N, n), (n, M), (n, M)))
    A, B, K = eye - 0.1 * A, 0.3 * B, 0.7 * K
    found = (fused_triton.forward(y, (A, B, K, b)), *fused_triton.backward(y, (A, B, K, b), slope, (True,) * 4))
    exact = [each.double().requires_grad_() for each in (y, A, B, K, b)]
    last = chain.in_turn(*exact)
    right = (last, *torch.autograd.grad(last, exact, slope.double()))
    print(n, max(float((a - b).norm() / b.norm()) for a, b in zip(found, right)))
"""


def weights(N, n, k, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def some(*shape):
        return torch.randn(*shape, generator=generator)

    return torch.eye(n) - 0.1 * some(N, n, n), 0.3 * some(N, n, k), 0.7 * some(N, k, n), some(N, k)


def last_and_gradients(function, inputs, slope):
    inputs = [each.detach().requires_grad_() for each in inputs]
    last = function(*inputs)
    return [last.detach(), *torch.autograd.grad(last, inputs, slope.to(last.dtype))]


def by_numba(*inputs):
    return chain.ByEngine.apply("numba", *inputs)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 8), st.integers(1, 8), st.integers(1, 5),
    st.sampled_from([1, 7, TILE - 1, TILE, TILE + 1, 5 * TILE + 3]), st.integers(0, 1000),
)  # fmt: skip
def test_states_and_gradients_are_those_of_the_layers_in_turn(n, k, N, M, seed):
    """Nearly as near to float64 as torch's float32, where layers are not saturated."""
    generator = torch.Generator().manual_seed(seed)
    y, slope = torch.randn(n, M, generator=generator), torch.randn(n, M, generator=generator)
    A, B, K, b = weights(N, n, k, seed)
    inputs = [y, A, B, 0.3 * K, 0.3 * b]
    exact = last_and_gradients(chain.in_turn, [each.double() for each in inputs], slope)
    single = last_and_gradients(chain.in_turn, inputs, slope)
    for found, torchs, right in zip(last_and_gradients(by_numba, inputs, slope), single, exact, strict=True):
        assert float((found - right).norm()) <= 4 * float((torchs - right).norm()) + 2e-6 * float(right.norm())


def test_its_tanh_is_that_of_float64_to_six_units_in_the_last_place():
    x = torch.cat([torch.linspace(-12, 12, 200001), torch.logspace(-30, 0, 1000)])
    one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    unit = zero, one, one, zero[0]
    found = fused_numba.forward(x[None], unit)[0].double()
    right = torch.tanh(x.double())
    assert float((found / right - 1)[x != 0].abs().max()) <= 4e-7
    assert float(found.abs().max()) <= 1
    slopes = fused_numba.backward(x[None], unit, torch.ones(1, len(x)), (False,) * 4)[0][0].double()
    assert float((slopes - (1 - right.square())).abs().max()) <= 1e-6, "absolute: a slope of 1 - s^2 has the error of s"


@pytest.mark.parametrize("steep", [1e1, 1e3, 1e6])
def test_saturated_units_have_no_slope_however_steep_they_are(steep):
    """1 - s^2 of an s that is nearly 1 is not 0, and K makes it any number."""
    eye = torch.eye(2)[None]
    inputs = [torch.ones(2, 5), eye, eye, steep * eye, torch.zeros(1, 2)]
    slopes = last_and_gradients(by_numba, inputs, torch.ones(2, 5))
    assert torch.equal(slopes[1], torch.ones(2, 5)) and not slopes[4].any() and not slopes[5].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_a_number_that_is_none_stays_in_its_sample(n, bad):
    y, slope = torch.randn(n, 4 * TILE + 1), torch.randn(n, 4 * TILE + 1)
    y[0, 5], slope[0, 9] = bad, bad
    found, back, *_ = last_and_gradients(by_numba, [y, *weights(2, n, n)], slope)
    assert (~found.isfinite()).any(0).nonzero().flatten().tolist() == [5]
    wrong = (~back.isfinite()).any(0).nonzero().flatten().tolist()
    assert wrong in ([9], [5, 9]), "a unit that is saturated by inf has no slope, so that 5 may keep its gradient"


@pytest.mark.parametrize("wanted", [(0,), (0, 3, 4), (2,), (1, 4), (0, 1, 2, 3, 4)])
def test_gradients_that_nobody_wants_do_not_change_the_others(wanted):
    inputs, slope = [torch.randn(5, 700), *weights(3, 5, 4)], torch.randn(5, 700)
    every = last_and_gradients(by_numba, inputs, slope)[1:]
    some = [each.requires_grad_(i in wanted) for i, each in enumerate(inputs)]
    found = torch.autograd.grad(by_numba(*some), [some[i] for i in wanted], slope)
    assert all(torch.equal(each, every[i]) for i, each in zip(wanted, found, strict=True))


def test_many_gradients_at_once_and_dual_numbers_are_left_to_the_layers():
    inputs = [torch.randn(4, 6, requires_grad=True), *weights(2, 4, 4)]
    directions = torch.randn(3, 4, 6)
    (found,) = torch.autograd.grad(by_numba(*inputs), inputs[0], directions, is_grads_batched=True)
    (right,) = torch.autograd.grad(chain.in_turn(*inputs), inputs[0], directions, is_grads_batched=True)
    assert torch.allclose(found, right, atol=1e-6)
    steps = layers()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(torch.randn(4, 6), torch.randn(4, 6))
        assert chain.engine(steps, dual) == "reference"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_rounding_alone_and_runs_repeat(threads):
    before = torch.get_num_threads()
    y, slope = torch.randn(8, 20000), torch.randn(8, 20000)
    inputs = [y, *weights(4, 8, 8)]
    one = last_and_gradients(by_numba, inputs, slope)
    try:
        torch.set_num_threads(threads)
        several, again = (last_and_gradients(by_numba, inputs, slope) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(one, several, again, strict=True):
        assert torch.equal(b, c)
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))


def test_gradients_of_gradients_are_those_of_the_layers_in_turn():
    inputs = [torch.randn(4, 30), *weights(3, 4, 4)]

    def penalty(function, inputs):
        inputs = [each.detach().requires_grad_() for each in inputs]
        (slope,) = torch.autograd.grad(function(*inputs).square().sum(), inputs[0], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), inputs)

    exact = penalty(chain.in_turn, [each.double() for each in inputs])
    for found, right in zip(penalty(by_numba, inputs), exact, strict=True):
        assert float((found - right).norm()) <= 1e-5 * float(right.norm())


@pytest.mark.parametrize("flow", [CHNode(8, 4, ETD(), step=0.1), HDNN(4, 3, Euler()), ResNet(8, 4, Euler())])
def test_a_flow_is_one_operation_and_its_parameters_get_their_gradients(flow, monkeypatch):
    y = torch.randn(3, flow.width, 5, 6)

    def gradients():
        flow.zero_grad()
        last = flow(y)
        last.square().sum().backward()
        return last.detach(), [each.grad.clone() for each in flow.parameters() if each.grad is not None]

    assert flow.engine() == "numba"
    assert "ByEngineBackward" in names_behind(flow(y))
    last, found = gradients()
    monkeypatch.setenv(chain.CHOICE, "reference")
    assert flow.engine() == "reference" and "ByEngineBackward" not in names_behind(flow(y))
    right, gradients_in_turn = gradients()
    assert torch.allclose(last, right, atol=1e-5) and len(found) == len(gradients_in_turn)
    for a, b in zip(found, gradients_in_turn, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))


def names_behind(output):
    """Of the operations that autograd would go through."""
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [behind for behind, _ in node.next_functions]
    return [node.name() for node in seen]


class Louder(Layer):
    def __call__(self, y):
        return 2 * super().__call__(y)


def layers(kind=Layer, n=4, activation="tanh", dtype=torch.float32):
    parts = [part.to(dtype) for part in weights(2, n, n)]
    return [kind(A, B, K, b[:, None], ACTIVATIONS[activation]) for A, B, K, b in zip(*parts, strict=True)]


def test_a_copy_of_a_network_has_its_engine():
    flow = CHNode(4, 2, ETD(), step=0.1)
    assert copy.deepcopy(flow).engine() == flow.engine() == "numba"


def test_what_an_engine_cannot_do_is_left_to_the_layers():
    y = torch.randn(4, 10)
    assert chain.engine(layers(), y) == "numba"
    assert chain.engine(layers(Louder), y) == "reference"
    assert chain.engine(layers(activation="relu"), y) == "reference"
    assert chain.engine(layers(dtype=torch.float64), y.double()) == "reference"
    assert chain.engine(layers(n=9), torch.randn(9, 10)) == "reference"
    assert chain.engine([replace(layer, A=layer.A.double()) for layer in layers()], y) == "reference"
    assert chain.engine([replace(layer, A=layer.A[:1, :1]) for layer in layers()], y) == "reference"
    bound = [replace(layer, b=layer.b.expand(4, 10)) for layer in layers()]  # to the data, as controlled fields are
    assert chain.engine(bound, y) == "reference" and torch.equal(chain.run(bound, y), bound[1](bound[0](y)))
    assert chain.engine([], y) == "reference" and chain.engine(layers(), y[:, :0]) == "reference"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert chain.engine(layers(), y) == "reference"
    seen = []
    steps = layers()
    torch.func.vmap(lambda z: seen.append(chain.engine(steps, z[:, None])) or z)(y.T)
    assert seen == ["reference"]


@pytest.mark.parametrize("count", [2, 16, 40])
def test_substeps_go_to_the_engine_as_the_layers_that_they_are(count):
    """Chains of one layer many times, also longer than what an engine takes at once."""
    y, slope = torch.randn(4, 300), torch.randn(4, 300)
    parts = [y, *weights(2, 4, 4)]

    def nested(y, A, B, K, b):
        return [
            Chain([Chain([Layer(*each, TANH)] * (count // 2))] * 2) for each in zip(A, B, K, b[..., None], strict=True)
        ]

    def in_turn(y, *weights):
        for step in nested(y, *weights):
            y = step(y)
        return y

    A, B, K, b = parts[1:]
    small = [y, torch.eye(4) + (A - torch.eye(4)) / count, B / count, K, b]
    assert chain.engine(nested(*small), y) == "numba"
    exact = last_and_gradients(in_turn, [each.double() for each in small], slope)
    found = last_and_gradients(lambda y, *rest: chain.run(nested(y, *rest), y), small, slope)
    for a, right in zip(found, exact, strict=True):
        assert float((a - right).norm()) <= 1e-5 * float(right.norm())


@pytest.mark.parametrize("integrator", [Euler(4), Verlet(), SymplecticEuler(), Substeps(ETD(), 2)])
def test_steps_of_several_layers_have_an_engine(integrator):
    flow = HDNN(4, 2, integrator, step=0.1, separable=True)
    y = torch.randn(30, 4)
    assert flow.engine() == "numba"
    assert torch.allclose(flow(y), flow.double()(y.double()).float(), atol=1e-5)


class Twice(Chain):
    def __call__(self, y):
        return super().__call__(super().__call__(y))


def test_a_chain_that_computes_something_else_is_taken_at_its_word():
    y, steps = torch.randn(4, 10), [Twice(layers())]
    assert chain.engine(steps, y) == "reference" and torch.equal(chain.run(steps, y), steps[0](y))


def test_transforms_and_subclasses_compute_what_they_say():
    y = torch.randn(4, 10)
    louder, plain = chain.run(layers(Louder), y), chain.run(layers(), y)
    assert not torch.allclose(louder, plain)
    first, second = layers()
    J = torch.func.vmap(torch.func.jacrev(lambda z: chain.run([first, second], z[:, None])[:, 0]))(y.T)
    assert torch.allclose(J, second.jacobian(first(y)) @ first.jacobian(y), atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_traced_flow_computes_what_it_is_given():
    """A trace would keep what an engine found of the example."""
    steps, y = layers(), torch.randn(4, 10)
    with torch.no_grad():
        traced = torch.jit.trace(lambda z: chain.run(steps, z), torch.randn(4, 10))
        assert torch.allclose(traced(y), chain.run(steps, y), atol=1e-6)


def test_an_unknown_engine_is_refused(monkeypatch):
    monkeypatch.setenv(chain.CHOICE, "abacus")
    with pytest.raises(BadInput, match="ROBODE_ENGINE: expected auto, reference or one of numba, triton, got 'abacus'"):
        chain.engine(layers(), torch.randn(4, 10))


def test_runs_and_rows_name_their_engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train("run=A")
    assert json.loads((run.folder / "environment.json").read_text())["engine"] == "numba"
    assert set(read_rows(run.folder / "results.csv")["engine"]) == {"numba"}
    monkeypatch.setenv(chain.CHOICE, "reference")
    evaluate("A", suite="noise", repeats=1)
    assert set(read_rows(run.folder / "results.csv")["engine"]) == {"numba", "reference"}


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_a_training_in_another_precision_names_what_took_its_batches(precision, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train("run=A", f"trainer.precision={precision}")
    assert json.loads((run.folder / "environment.json").read_text())["engine"] == "reference"
    assert set(read_rows(run.folder / "results.csv")["engine"]) == {"numba"}, "it is measured in float32"


@pytest.mark.parametrize("count, operations", [(32, 1), (33, 2), (80, 3)])
def test_flows_of_more_than_64_layers_go_in_parts(count, operations):
    flow = CHNode(4, 2, Euler(count), step=0.1)
    assert names_behind(flow(torch.randn(3, 4))).count("ByEngineBackward") == operations


def test_triton_under_its_interpreter_computes_the_same():
    """All widths, 16 too, where sums over 16 numbers would become products in tf32 on a GPU."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    errors = dict(map(float, line.split()) for line in done.stdout.splitlines())
    assert set(errors) == {4, 8, 16} and max(errors.values()) <= 2e-6
