"""Which networks torch.export records as programs: all but those whose iterations depend on the values of x."""

from __future__ import annotations

import io

import pytest
import torch
from model_cases import MODELS, PAIRS, load, make

from robode.api.programs import TOLERANCE, Program, made_up, program_of

ITERATIVE = ("dopri5", "implicit_midpoint")
FEW = [("chnode", "etd"), ("sympflow", "euler")]
FIRST = [(model, load("model", model)["integrators"][0]) for model in MODELS]


def _runs_for_every_size_of_the_batch(model: str, integrator: str) -> None:
    network = make(model, integrator)
    program = program_of(network, network.info)
    assert isinstance(program, Program), program
    again, x = torch.export.load(io.BytesIO(program.program)).module(), made_up(network.info, 5)
    expected = network.eval()(x).detach()
    torch.testing.assert_close(again(x), expected, rtol=0, atol=TOLERANCE * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize(("model", "integrator"), FEW)
def test_a_program_gives_what_the_network_gives(model: str, integrator: str) -> None:
    _runs_for_every_size_of_the_batch(model, integrator)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "integrator"), [pair for pair in FIRST if pair not in FEW])
def test_every_model_has_a_program(model: str, integrator: str) -> None:
    _runs_for_every_size_of_the_batch(model, integrator)


@pytest.mark.parametrize("integrator", ITERATIVE)
def test_iterations_that_depend_on_the_values_have_no_program_and_say_so(integrator: str) -> None:
    assert ("resnet", integrator) in PAIRS
    network = make("resnet", integrator)
    said = program_of(network, network.info)
    assert said == "torch.export cannot record it, because how many iterations it makes depends on the values of x"


def test_a_program_that_differs_is_none() -> None:
    network = make("resnet", "euler")
    network.register_forward_hook(lambda module, given, found: found + 0.01 * torch.rand(()).item())
    said = program_of(network, network.info)
    assert isinstance(said, str) and said.startswith("torch.export")
