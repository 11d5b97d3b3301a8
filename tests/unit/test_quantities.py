"""Numbers that are no accuracies: what they write, when they are known, and what they refuse."""

from __future__ import annotations

import importlib
import math
import pkgutil

import numpy as np
import pandas as pd
import pytest
import torch

import robode
from robode.config.config import Part
from robode.config.parse import part
from robode.data.info import DatasetInfo
from robode.data.module import DataModule
from robode.data.toy import SixPoints
from robode.errors import BadInput
from robode.evaluation.measure import build_measurement
from robode.evaluation.request import Described, SuiteRequest
from robode.evaluation.suite import settings_digest
from robode.families.chnode import CHNode
from robode.files import write_json
from robode.integrators.euler import Euler
from robode.masking.reference_attacks import GradientMasking
from robode.network import Network
from robode.quantities.adversarial_samples import AdversarialSamples
from robode.quantities.noise_samples import NoiseSamples
from robode.quantities.plane import EpsR, Field2D
from robode.quantities.quantity import Quantity
from robode.quantities.training_logs import BSMExtremes, GammaSettles, GradientStability, TrainingCost, last_change
from robode.runs import results
from robode.runs.run import Run
from robode.runs.table import BSM_NORMS, METRICS
from robode.tasks.classification import Classification

IMAGES, POINTS = (
    DatasetInfo((1, 4, 4), (0.1,), (0.3,), (0.0, 1.0), Classification(tuple("0123456789"))),
    SixPoints().info,
)


@pytest.fixture
def six() -> DataModule:
    return DataModule(SixPoints(), batch_size=6, seed=0)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(POINTS, CHNode(2, 3, Euler(), step=0.05, shared=True, kappa=0.1))


def log_gamma(folder, values, steps_an_epoch=10):
    rows = [
        {"epoch": i // steps_an_epoch, "step": i + 1, "name": name, "value": value}
        for i, gamma in enumerate(values)
        for name, value in (("flow/gamma", gamma), ("flow/epsilon", gamma - 1))
    ]
    METRICS.append(folder / "metrics.csv", rows)


def test_a_suite_may_mix_perturbations_and_quantities_which_are_measured_once_for_each_network(tmp_path, six, network):
    suite = {
        "clean": {"_target_": "robode.corruptions.noise.Clean", "suite": "clean"},
        "eps_r": {"_target_": "robode.quantities.plane.EpsR", "gap": 0.05},
    }
    described = Described(model="chnode", data="six_points", integrator="euler", depth=3, seed=3, nodes={})
    protocol = Part("robode.corruptions.protocols.DataSpace", "protocol", {})

    def asked(nodes):
        parts = {name: part(node, f"suite.{name}") for name, node in nodes.items()}
        return build_measurement(described, SuiteRequest(parts, protocol, 1, 3), six.info)

    measurement = asked(suite)
    assert list(measurement.plan.suite) == ["clean"] and list(measurement.quantities) == ["eps_r"]
    assert measurement.notes == []
    pictures = {"_target_": "robode.quantities.noise_samples.NoiseSamples"}
    with pytest.raises(BadInput, match=r"suite.mine: is for images, not for shape \(2,\); leave it out"):
        asked({**suite, "mine": pictures})
    run = Run(tmp_path)
    about = measurement.about(run, network, split="test", checkpoint="last", digest=six.digest)
    assert len(measurement.numbers(about, run, network, six)) == 2
    assert measurement.numbers(about, run, network, six) == [], "measured twice"
    numbers = results.read_numbers(tmp_path / "numbers.csv").set_index("kind")
    assert set(numbers.index) == {"certified_lower", "attack_upper"} and set(numbers["seed"]) == {3}
    radii = np.load(tmp_path / "eps_r.npz")
    assert numbers["value"]["certified_lower"] == radii["lower"].min()
    assert numbers["value"]["attack_upper"] == radii["upper"].min()
    with torch.no_grad():
        network.head.bias.add_(1.0)
    changed = measurement.about(run, network, split="test", checkpoint="last", digest=six.digest)
    assert len(measurement.numbers(changed, run, network, six)) == 2, "another network has numbers of its own"
    with pytest.raises(BadInput, match=r"suite=\[clean,eps_r\]"):
        asked({"eps_r": suite["eps_r"]})


def test_a_quantity_with_other_settings_is_another_measurement(tmp_path, six, network):
    """What was measured with other settings, or before these were written down, never stands for what is asked."""
    described = Described(model="chnode", data="six_points", integrator="euler", depth=3, seed=3, nodes={})
    protocol = Part("robode.corruptions.protocols.DataSpace", "protocol", {})
    clean = part({"_target_": "robode.corruptions.noise.Clean", "suite": "clean"}, "suite.clean")

    def with_gap(gap):
        eps_r = part({"_target_": "robode.quantities.plane.EpsR", "gap": gap}, "suite.eps_r")
        return build_measurement(described, SuiteRequest({"clean": clean, "eps_r": eps_r}, protocol, 1, 3), six.info)

    run, rough, fine = Run(tmp_path), with_gap(0.5), with_gap(0.05)
    about = rough.about(run, network, split="test", checkpoint="last", digest=six.digest)
    weights = about.columns["weights"]
    assert rough.numbers(about, run, network, six) and rough.knows("eps_r", tmp_path, weights)
    assert not fine.knows("eps_r", tmp_path, weights) and not fine.knows("eps_r", tmp_path, weights, any_code=True)
    assert fine.numbers(about, run, network, six) and fine.knows("eps_r", tmp_path, weights)
    rows = results.NUMBERS.read(tmp_path / "numbers.csv")
    assert len(rows) == 2 and set(rows["settings"]) == {settings_digest(EpsR(gap=0.05))}, "the last ones count"
    file = tmp_path / "numbers.csv"
    pd.read_csv(file, dtype=str).drop(columns="settings").to_csv(file, index=False)
    assert not fine.knows("eps_r", tmp_path, weights), "an earlier version did not say with which"
    assert fine.knows("eps_r", tmp_path, weights, any_code=True), "which code=any takes, with a dagger"


def test_no_two_quantities_give_rows_of_one_name():
    """A row of another quantity's name passes for one that other code measured, and both are measured for ever."""
    for module in pkgutil.walk_packages(robode.__path__, "robode."):
        if module.name.startswith(("robode.quantities.", "robode.masking.")):
            importlib.import_module(module.name)
    kinds = [kind for kind in Quantity.__subclasses__() if kind.__module__.startswith("robode.")]
    names = [name for kind in kinds for name in kind.gives]
    assert len(kinds) > 15 and not [name for name in set(names) if names.count(name) > 1]


def test_field_2d_saves_what_the_network_does(tmp_path, six, network):
    quantity = Field2D(radius=0.5)
    (row,) = quantity.measure(network, six, tmp_path)
    arrays = np.load(tmp_path / "field_2d.npz")
    states, x = arrays["states"], six.split("train").x
    assert states.shape == (4, 6, 2) and arrays["circles"].shape[:2] == (4, 6)
    assert row["value"] == pytest.approx(np.linalg.norm(states - states[0], axis=2).max())
    logits = states[-1] @ arrays["W"].T + arrays["b"]
    with torch.no_grad():
        assert np.allclose(logits, network(x).numpy(), atol=1e-5)
    assert np.allclose(np.linalg.norm(arrays["circles"][0] - states[0][:, None], axis=2), 0.5)
    i, j = 120, 40  # of the grid: row y, column x
    with torch.no_grad():
        at = network.double()(torch.tensor([[arrays["x"][j], arrays["y"][i]]]))[0]
    assert arrays["classes"][i, j] == int(at.argmax()) and arrays["margin"][i, j] == pytest.approx(float(at[1] - at[0]))


def test_bsm_extremes_are_those_of_the_whole_log(tmp_path, six, network):
    with pytest.raises(BadInput, match="no rows"):
        BSMExtremes().measure(network, six, tmp_path)
    low = dict.fromkeys(BSM_NORMS.columns, 1.0) | {"step": 0, "layer": 1, "bsm_norm_of_mean": 0.3, "bsm_median": 0.5}
    high = low | {"step": 4, "layer": 2, "bsm_max": 7.0, "bsm_median": 2.0, "bsm_norm_of_mean": 1.5}
    BSM_NORMS.append(tmp_path / "bsm.csv", [low, high])
    found = {row["quantity"]: row["value"] for row in BSMExtremes().measure(network, six, tmp_path)}
    assert list(found.values()) == [0.3, 1.5, 0.5, 2.0, 7.0] and tuple(found) == BSMExtremes.gives


def test_gradient_stability_is_of_one_point_in_decimal_logarithms(tmp_path, six, network):
    with pytest.raises(BadInput, match="nothing of a test sample; train with callbacks=gradients"):
        GradientStability().measure(network, six, tmp_path)
    layers = [
        {"step": step, "layer": layer, "bsm_point": norm, "gradient": norm / 10, "gradient_bound": norm / 5}
        for step, norms in ((0, (1e-6, 1e-1)), (10, (1e-4, 10.0)))
        for layer, norm in enumerate(norms, 1)
    ]
    rest = dict.fromkeys(("bsm_median", "bsm_max", "step_median", "step_max"), 1.0)
    BSM_NORMS.append(tmp_path / "bsm.csv", [rest | each | {"bsm_min": 1.0, "bsm_norm_of_mean": 0.0} for each in layers])
    found = {row["quantity"]: row["value"] for row in GradientStability().measure(network, six, tmp_path)}
    assert tuple(found) == GradientStability.gives
    assert list(found.values()) == pytest.approx([-6, 1, -4, 1, 0, -300, np.log10((1e-5 + 1e-5) / 2), 0.5])


@pytest.mark.parametrize(
    ("values", "change", "settled", "failures"),
    [
        ([5.0] * 60 + [2.0] * 40, 0.0, 1, 0),
        ([2.0 + 0.02 * i for i in range(100)], 0.2 / 3.98, 0, 0),  # 0.5 % a step
        ([0.9, math.nan] + [2.0] * 98, 0.0, 1, 2),
    ],
)
def test_gamma_settles_where_the_last_tenth_of_the_training_is_flat(
    tmp_path, six, network, values, change, settled, failures
):
    log_gamma(tmp_path, values)
    found = [row["value"] for row in GammaSettles().measure(network, six, tmp_path)]
    assert found == [pytest.approx(change, rel=0.15), settled, failures]


def test_a_drift_of_half_a_percent_a_step_is_not_settled_although_each_epoch_is_one_step(tmp_path):
    log_gamma(tmp_path, [1.005**i for i in range(60)], steps_an_epoch=1)
    gamma = METRICS.read(tmp_path / "metrics.csv").query("name == 'flow/gamma'")
    assert last_change(gamma) == pytest.approx(1 - 1.005**-6, rel=0.2)


def test_what_they_refuse(tmp_path, six):
    with pytest.raises(BadInput, match="expected model=chnode"):
        GammaSettles().measure(None, six, tmp_path)
    for quantity in (EpsR(), Field2D()):
        assert "plane" in quantity.refusal(IMAGES) and quantity.refusal(POINTS) is None
    assert NoiseSamples().refusal(IMAGES) is None
    wide = Network(POINTS, CHNode(4, 2, Euler(), step=0.05))
    with pytest.raises(BadInput, match="model.width=2"):
        Field2D().measure(wide, six, tmp_path)
    for make in (lambda: EpsR(gap=1.0), lambda: EpsR(budget=0), lambda: Field2D(radius=0), lambda: NoiseSamples(0)):
        with pytest.raises(BadInput, match="expected"):
            make()


def test_training_cost_adds_up_sessions(tmp_path, six, network):
    with pytest.raises(BadInput, match="says nothing of wall time"):
        TrainingCost().measure(network, six, tmp_path)
    earlier = {"1": {"wall_seconds": 60}, "2": {"wall_seconds": None}}
    write_json(tmp_path / "environment.json", {"wall_seconds": 30.0, "earlier": earlier})
    (row,) = TrainingCost().measure(network, six, tmp_path)
    assert row["quantity"] == "training_minutes" and row["value"] == pytest.approx(1.5)


@pytest.mark.parametrize("wrong", [0, 2.5, True, "three"])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: EpsR(budget=n),
        lambda n: NoiseSamples(count=n),
        lambda n: AdversarialSamples(count=n),
        lambda n: GradientMasking(queries=n),
    ],
)
def test_counts_are_whole_numbers_of_at_least_one(make, wrong):
    with pytest.raises(BadInput, match=rf"^suite\.\w+\.\w+={wrong}: expected a whole number of at least 1$"):
        make(wrong)


def test_rows_that_a_network_does_not_have_are_not_sought_again(tmp_path, six, network):
    """A quantity says which of its rows every network has; by those it is known, and without them it is not."""

    class Some(EpsR):
        gives, certain = ("always", "sometimes"), ("always",)

    about = {"run": "a", "checkpoint": "last", "weights": "w", "seed": 1, "value": 1.0, "kind": "measured"}
    results.append_numbers(tmp_path / "numbers.csv", [about | {"quantity": "sometimes"}])
    assert not Some().known(tmp_path, "w")
    results.append_numbers(tmp_path / "numbers.csv", [about | {"quantity": "always"}])
    assert Some().known(tmp_path, "w") and not Some().known(tmp_path, "other")
    Some.certain = ()
    results.append_numbers(tmp_path / "numbers.csv", [about | {"weights": "other", "quantity": "always"}])
    assert Some().known(tmp_path, "w") and not Some().known(tmp_path, "other")
