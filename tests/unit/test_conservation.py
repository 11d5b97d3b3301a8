"""Invariants of learned flow maps after many steps: the rows say what is true of maps that are known."""

import math

import numpy as np
import pytest
import torch
from small_runs import composed
from test_lecture_and_poster import collected
from torch import nn

from robode.data.henon_heiles import HenonHeiles
from robode.data.module import DataModule
from robode.data.oscillator import Oscillator
from robode.data.sir import SIR
from robode.data.spherical_pendulum import SphericalPendulum
from robode.errors import BadInput
from robode.network import build_network
from robode.papers.figures.conserved import VIEWS, Conserved
from robode.quantities.conservation import FILE, Conservation
from robode.runs.results import append_numbers


class Linear(nn.Module):
    def __init__(self, A):
        super().__init__()
        self.register_buffer("A", torch.tensor(A, dtype=torch.float64))

    def forward(self, x):
        return x @ self.A.mT


def measured(network, source, folder, **keys):
    data = DataModule(source, 10, 0)
    data.prepare()
    return {line["quantity"]: line["value"] for line in Conservation(**keys).measure(network, data, folder)}


def test_what_a_map_multiplies_is_off_by_its_power(tmp_path):
    found = measured(Linear(1.01 * np.eye(3)), SIR(train=4, test=9), tmp_path, iterates=20, invariants=["mass"])
    assert set(found) == Conservation(invariants=["mass"]).in_numbers()
    assert found["mass_defect"] == pytest.approx(0.01, abs=1e-6)
    assert found["mass_defect_iterated"] == pytest.approx(1.01**20 - 1, abs=1e-6)
    assert 0.05 < found["next_rmse"] < found["iterated_rmse"] < 1
    with np.load(tmp_path / FILE) as arrays:
        assert arrays["network"].shape == arrays["exact"].shape == (21, 3, 3)
        assert np.allclose(arrays["mass"], 1.01 ** np.arange(21) - 1, atol=1e-6)
        assert arrays["error"][0] == 0 and arrays["time"][-1] == 20


def test_the_largest_defect_of_the_way_counts_and_not_that_of_the_end(tmp_path):
    """A map that has stretched one axis and shrunk the other one, and after two steps is the identity again."""
    A = [[0.0, 2.0], [0.5, 0.0]]
    found = measured(Linear(A), Oscillator(train=4, test=5), tmp_path, iterates=2)
    assert found["energy_defect_iterated"] == found["energy_defect"] > 0.1
    with np.load(tmp_path / FILE) as arrays:
        assert arrays["energy"][2] == pytest.approx(0, abs=1e-12)


def test_the_exact_map_is_off_by_nothing_and_a_map_that_leaves_all_bounds_by_infinity(tmp_path):
    c, s = math.cos(0.1), math.sin(0.1)
    exact = measured(Linear([[c, s], [-s, c]]), Oscillator(train=4, test=9), tmp_path)
    assert max(exact.values()) < 1e-12
    gone = measured(Linear(1e10 * np.eye(4)), HenonHeiles(train=4, test=9), tmp_path)
    assert gone["energy_defect_iterated"] == gone["iterated_rmse"] == math.inf


@pytest.mark.parametrize(("experiment", "kept"), [("sir", "mass"), ("advection", "norm"), ("constrained", "length")])
def test_untrained_networks_keep_it_to_rounding_and_as_large_ones_without_do_not(experiment, kept, tmp_path):
    found = []
    for words in ((), ("model.preserve=none",)):
        config = composed(f"experiment=lecture/{experiment}", "trainer.threads=1", *words)
        data = DataModule(config.data.source.build(), 10, 0)
        data.prepare()
        torch.manual_seed(0)
        network = build_network(config, data.info)
        rows = config.suite["conservation"].build().measure(network, data, tmp_path)
        count = sum(each.numel() for each in network.parameters())
        found.append(({line["quantity"]: line["value"] for line in rows}, count))
    (with_it, size), (without, as_large) = found
    assert with_it[f"{kept}_defect_iterated"] <= 1e-12 < 1e-3 < without[f"{kept}_defect_iterated"] and size == as_large
    assert with_it["next_rmse"] > 0.01
    for first in VIEWS:
        ((_, figure, _, caption),) = Conserved([kept], first=first).draw(collected(tmp_path))
        assert len(figure.axes) == 3 and "grey: the exact" in caption
    assert Conserved([kept], seed=2).draw(collected(tmp_path)) == []


def test_constraints_are_measured_without_the_rounding_of_the_samples(tmp_path):
    found = measured(nn.Identity(), SphericalPendulum(train=4, test=9), tmp_path, iterates=1, invariants=["length"])
    assert found["length_defect"] == 0
    with np.load(tmp_path / FILE) as arrays:
        assert np.abs(np.linalg.norm(arrays["network"][0, :, :3], axis=1) - 1).max() < 1e-15


def test_rows_are_found_again_for_as_many_iterates(tmp_path):
    rows = measured(Linear(np.eye(3)), SIR(train=4, test=9), tmp_path, iterates=5, invariants=["mass"])
    about = {"run": "r", "checkpoint": "last", "weights": "w", "seed": 0, "commit": "", "code": "", "kind": "measured"}
    append_numbers(tmp_path / "numbers.csv", [about | {"quantity": k, "value": v} for k, v in rows.items()])
    assert Conservation(5, invariants=["mass"]).known(tmp_path, "w")
    assert not Conservation(6, invariants=["mass"]).known(tmp_path, "w")
    assert not Conservation(5, invariants=["energy"]).known(tmp_path, "w")
    assert not Conservation(5, invariants=["mass"]).known(tmp_path, "other")


def test_what_it_cannot_measure_is_refused():
    assert "knows no invariant energy of these data; they have mass" in str(Conservation().refusal(SIR().info))
    assert "flow maps of one time" in str(Conservation().refusal(Oscillator(times=2).info))
    other = composed("data=circle_map", "suite=clean").data.source.build().info
    assert "this is a regression task" in str(Conservation().refusal(other))
    with pytest.raises(BadInput, match=r"suite.conservation.iterates: expected a whole number >= 1, got 0"):
        Conservation(iterates=0)
    with pytest.raises(BadInput, match=r"Conserved.first: expected one of time, profile, plane, got cube"):
        Conserved(["mass"], first="cube")
