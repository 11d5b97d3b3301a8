"""A network that only hides its gradients fails the checks, for the right reason; an honest one does not."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from masked_models import (
    FLOWS,
    Backbone,
    Constant,
    Drifting,
    Noisy,
    Quantised,
    Shouting,
    Sine,
    Votes,
    Wrapped,
    data_named,
    honest,
    relaxed,
)  # fmt: skip
from torch import nn

from robode.data.batches import in_units
from robode.data.module import spread
from robode.encoders import Encoder, States
from robode.masking.checks import ANOTHER_GRADIENT, Check, verdict
from robode.masking.reference_attacks import Trial
from robode.masking.substitutes import substitutes
from robode.network import Network, states_of

NORMS = ("linf", "l2")
EPS = {"bars": {"linf": 0.1, "l2": 0.6}, "moons": {"linf": 0.1, "l2": 0.1}, "digits": {"linf": 0.1, "l2": 1.0}}
SAMPLES = {"bars": 200, "moons": 200, "digits": 100}


def trial(network: nn.Module, data: str, norm: str = "linf", **changes) -> Trial:
    x, labels = spread(data_named(data).split("test"), SAMPLES[data])
    settings = {"eps": EPS[data][norm], "norm": norm, "bounds": data_named(data).info.bounds}
    settings |= {"steps": 40, "restarts": 2, "queries": 150, "seed": 0} | changes
    return Trial(network, in_units(x), labels, **settings)


def findings(network: nn.Module, data: str, norm: str = "linf") -> tuple[dict[str, Check], dict[str, float]]:
    torch.manual_seed(0)  # for the networks that are random only
    checks, right = trial(network, data, norm).findings(substitutes(network, data_named(data)))
    return {each.name: each for each in checks}, {name: float(each.float().mean()) for name, each in right.items()}


@functools.cache
def of_honest(model: str, data: str, norm: str = "linf") -> tuple[dict[str, Check], dict[str, float]]:
    """The findings about an honest network, with which those about the masked ones are compared."""
    return findings(honest(model, data), data, norm)


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if not check.passed}


HONEST = [*itertools.product(["chnode", "resnet", "linear"], ["bars", "moons"]), ("cnn", "bars"), ("cnn", "digits")]
FAST = {("chnode", "moons"), ("linear", "moons"), ("cnn", "bars")}


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("model", "data"), [pytest.param(*each, marks=[] if each in FAST else [pytest.mark.slow]) for each in HONEST]
)
def test_honest_networks_pass(model, data, norm):
    checks, right = of_honest(model, data, norm)
    assert failed(checks) == set(), [check.sentence for check in checks.values() if not check.passed]
    assert verdict(list(checks.values())) == "passes 9 gradient-masking checks"
    assert right["clean"] > 0.75 and right["pgd"] < right["clean"] - 0.02, "the attack had nothing to do"


@pytest.mark.slow
def test_the_true_accuracy_of_the_masked_networks_is_in_between():
    """So that to survive PGD is a lie, and to fall to Square or transferred images is no accident."""
    _, right = of_honest("chnode", "bars")
    assert 0.02 < right["pgd"] < 0.7 * right["clean"]


@pytest.mark.parametrize(
    ("hidden", "norm"),
    [(Votes, "linf"), *(pytest.param(*each, marks=pytest.mark.slow)
                        for each in ((Quantised, "linf"), (Quantised, "l2"), (Votes, "l2")))],
)  # fmt: skip
def test_a_staircase_has_no_gradients(hidden, norm):
    checks, right = findings(hidden(honest("chnode", "bars")), "bars", norm)
    assert failed(checks) >= {"zero_gradients", "large_eps", "transfer"}
    if hidden is Quantised:  # Square has nothing to climb either where the logits are votes
        assert "black_box" in failed(checks)
    assert failed(checks).isdisjoint({"random_gradients", "saturation"})
    assert checks["zero_gradients"].value == 1 and "no input gradient" in checks["zero_gradients"].sentence
    assert right["pgd"] > right["clean"] - 0.1, "PGD was stopped"
    assert "the input gradients vanish" in verdict(list(checks.values()))


@pytest.mark.parametrize(
    ("model", "norm"), [("linear", "linf"), *(pytest.param("chnode", each, marks=pytest.mark.slow) for each in NORMS)]
)
def test_logits_times_ten_thousand_are_saturated(model, norm):
    checks, right = findings(Shouting(honest(model, "bars")), "bars", norm)
    assert failed(checks) >= {"saturation", "logit_rescaling", "zero_gradients"}
    assert "random_gradients" not in failed(checks)
    assert checks["saturation"].value > 0.8
    _, truth = of_honest(model, "bars", norm)
    assert min(right["margin"], right["rescaled"]) == pytest.approx(truth["pgd"], abs=0.05), "not found after all"


def test_a_margin_that_saturates_the_loss_is_no_sign_where_it_does_no_harm():
    """Two classes with opposite rows of the head: what is left of the gradient still points the right way."""
    network = nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        network.bias.zero_()
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0.0])
    labels = (x[:, 0] < 0).long()
    common = {"eps": 2.0, "norm": "linf", "bounds": None, "steps": 20, "restarts": 1, "queries": 50, "seed": 0}
    loud = nn.Sequential(nn.Linear(2, 2, bias=False), network)
    with torch.no_grad():
        loud[0].weight.copy_(9 * torch.eye(2))
    checks, right = Trial(loud, x, labels, **common).findings({"itself": loud})
    found = {check.name: check for check in checks}
    assert found["saturation"].value > 0.5 and "without harm" in found["saturation"].sentence
    assert failed(found) == set()
    assert float(right["pgd"].float().mean()) == float((x[:, 0].abs() > 2).float().mean())


@pytest.mark.parametrize(
    ("model", "norm"), [("linear", "linf"), *(pytest.param("chnode", each, marks=pytest.mark.slow) for each in NORMS)]
)
def test_random_gradients_lead_nowhere(model, norm):
    checks, right = findings(Noisy(honest(model, "bars")), "bars", norm)
    assert failed(checks) >= {"random_gradients", "black_box", "transfer"}
    assert "zero_gradients" not in failed(checks) and "saturation" not in failed(checks)
    assert right["square"] < right["pgd"] - 0.1


@pytest.mark.slow  # fast: its verdict, in unit/test_verdicts.py
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("data", ["digits", "bars"])
def test_a_ripple_on_the_inputs_misleads_gradients_that_are_there_and_always_the_same(data, norm):
    checks, right = findings(Sine(honest("cnn", data)), data, norm)
    blind = {"zero_gradients", "random_gradients", "saturation", "large_eps", "logit_rescaling"}
    assert failed(checks).isdisjoint(blind) and failed(checks) >= {"smoothed_gradients"}
    _, truth = of_honest("cnn", data, norm)
    assert right["pgd"] > truth["pgd"] + 0.2 and right["smoothed"] < right["pgd"] - 0.1
    assert "gradients that are averaged over noise beat PGD" in verdict(list(checks.values()))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("height", "frequency"), [(0.08, 100), (0.06, 200), (0.04, 400), (0.0, 100)])
def test_averages_from_coarse_to_fine_climb_ripples_of_any_length(height, frequency, norm):
    """Averages over one ball find nothing where the ripple is as long as it, or as high; without a ripple nothing is
    left for them."""
    climb = trial(Sine(honest("linear", "bars"), height, frequency), "bars", norm, steps=20)
    everybody = torch.ones_like(climb.labels, dtype=torch.bool)
    right = climb.right("pgd", climb.pgd, everybody)
    found = float((right & ~climb.right("smoothed", climb.smoothed, right)).float().mean())
    assert found > 0.1 if height else found <= ANOTHER_GRADIENT


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("height", "frequency"), [(0.01, 400), (0.04, 200), (0.02, 800)])
def test_ripples_of_other_lengths_are_seen_through(height, frequency, norm):
    checks, right = findings(Sine(honest("cnn", "digits"), height, frequency), "digits", norm)
    assert "smoothed_gradients" in failed(checks) and right["smoothed"] < right["pgd"] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_a_ripple_too_flat_to_mislead_hides_nothing(norm):
    """Its slope stays within [0.75, 1.25]."""
    checks, right = findings(Sine(honest("cnn", "digits"), 0.0025, 100), "digits", norm)
    _, truth = of_honest("cnn", "digits", norm)
    assert failed(checks) == set() and right["pgd"] == pytest.approx(truth["pgd"], abs=0.05)


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.slow)])
def test_a_head_that_hides_is_beaten_from_its_backbone(norm):
    checks, right = findings(Backbone(honest("cnn", "bars")).eval(), "bars", norm)
    assert failed(checks) >= {"transfer", "zero_gradients"} and "and its backbone fools" in checks["transfer"].sentence
    assert right["its backbone"] < right["a student of its logits"] < right["pgd"] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("data", "norm"), [("bars", "linf"), ("bars", "l2"), ("digits", "linf")])
def test_a_stiff_ode_behind_a_backbone_is_beaten_from_the_backbone_with_a_linear_head(data, norm):
    """As SODEF: Kang et al., "Stable neural ODE with Lyapunov-stable equilibrium points", NeurIPS 2021."""
    plain, hidden = relaxed(data_named(data))
    _, truth = findings(plain, data, norm)
    checks, right = findings(hidden, data, norm)
    assert "transfer" in failed(checks) and "and its backbone fools" in checks["transfer"].sentence
    assert right["pgd"] > truth["pgd"] + 0.15, "nothing is hidden"
    assert right["its backbone"] < min(right["pgd"], right["margin"], right["a student of its logits"]) - 0.15


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_answers_that_are_drawn_anew_are_seen_through(norm):
    checks, _ = findings(Drifting(honest("chnode", "bars")), "bars", norm)
    assert failed(checks) >= {"random_gradients", "transfer", "smoothed_gradients"}


class Idle(Wrapped):
    """Has a part called backbone that it never asks."""

    def __init__(self, inner: nn.Module):
        super().__init__(inner)
        self.backbone = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_part_that_is_called_backbone_but_never_asked_is_none():
    network = Idle(honest("linear", "bars"))
    assert list(substitutes(network, data_named("bars"))) == ["a student of its logits"]
    del network.inner
    network.inner = Backbone(honest("cnn", "bars"))  # whose parts are now named after the idle one
    assert list(substitutes(network.eval(), data_named("bars"))) == ["a student of its logits", "its backbone"]


class Curved(Encoder):
    """Gives the flow a context beside its first state, all in one: what a call of the encoder alone would not show."""

    def __init__(self, shape: tuple[int, ...], states: States):
        super().__init__(shape, states)
        self.convolution = nn.Conv2d(shape[0], states.width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x).relu()

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        y = Curved.forward(self, x)
        return y, y.mean(dim=(2, 3))


def test_an_encoder_is_a_backbone_with_all_that_it_gives_unless_it_is_affine():
    flow, data = FLOWS["resnet"](), data_named("bars")
    network = Network(data.info, flow, Curved(data.info.shape, states_of(flow))).eval()
    others = substitutes(network, data)
    assert list(others) == ["a student of its logits", "its backbone", "its reference solver"]
    assert "its backbone" not in substitutes(honest("resnet", "bars"), data)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["bars", "moons"])
def test_a_constant_answer_is_explained(data):
    checks, right = findings(Constant(honest("chnode", data)), data)
    assert failed(checks) == {"large_eps"}
    share = float((spread(data_named(data).split("test"), 200).target == 1).float().mean())
    assert right["pgd"] == right["clean"] == pytest.approx(share)
    assert "answered class 1 wherever it was asked" in checks["large_eps"].sentence
    assert verdict(list(checks.values())) == (
        "fails 1 of 9 gradient-masking checks: the network always gives the same answer"
    )


@pytest.mark.slow
def test_a_staircase_in_the_plane_is_flagged_too():
    checks, _ = findings(Quantised(honest("resnet", "moons")), "moons")
    assert "zero_gradients" in failed(checks)


@pytest.mark.slow
def test_findings_are_functions_of_seed_and_image():
    """Not of the batch, the global generator or the other samples' fate."""
    network = honest("chnode", "bars")
    whole = trial(network, "bars", seed=3)
    torch.manual_seed(1)
    others = substitutes(network, data_named("bars"))
    _, right = whole.findings(others)
    torch.manual_seed(2)
    some = Trial(network, whole.x[:70], whole.labels[:70], whole.eps, "linf", whole.bounds, 40, 2, 150, 3)
    _, fewer = some.findings(others)
    for name in set(right) - {"rescaled"}:  # by a scale that is the samples'
        assert torch.equal(fewer[name], right[name][:70]), name
