"""The energy along states as a quantity, its antiderivatives, and its figure."""

import numpy as np
import pytest
import torch
from problems import tanh_energy
from test_lecture_and_poster import built, collected

from robode.cli.main import main
from robode.data.module import spread
from robode.errors import BadInput
from robode.linalg.activations import ACTIVATIONS, named_activation
from robode.linalg.leaky import leaky_tanh
from robode.linalg.potentials import potential
from robode.papers.figures.energy import EnergyPaths
from robode.quantities.energy import FILE, Energy

POINTS = ("data=swiss_roll", "model.width=4", "depth=3", "trainer.threads=1")
HNN = ("model=hdnn", "model.separable=true", "integrator=symplectic_euler", "step=0.5")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_antiderivative_of_every_activation_has_it_as_its_slope(name: str) -> None:
    """Differences of sigma~ are integrals of sigma, here by Gauss and Legendre with 40 nodes on short intervals."""
    sigma, ends = named_activation(name), torch.linspace(-30, 30, 241, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(40))
    middle, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
    integrals = half * (sigma(middle[:, None] + half[:, None] * nodes) @ weights)
    torch.testing.assert_close(potential(sigma, ends).diff(), integrals, rtol=1e-7, atol=1e-9)


def test_an_activation_without_one_is_refused() -> None:
    with pytest.raises(BadInput, match="model.activation: expected one of tanh, .* got leaky_tanh"):
        potential(leaky_tanh(0.1), torch.zeros(1))


def measured(folder, *words, **keys):
    network, data = built(*POINTS, *words)
    assert Energy().suits(network)
    return network, data, {row["quantity"]: row["value"] for row in Energy(**keys).measure(network, data, folder)}


def test_the_ode_of_hdnn_keeps_its_energy_and_the_network_does_not(tmp_path) -> None:
    _, _, found = measured(tmp_path, *HNN, samples=30)
    assert tuple(found) == Energy.gives
    for name in ("energy_ode", "energy_ode_rise", "energy_ode_fall"):
        assert abs(found[name]) <= 1e-8
    assert found["energy_network_rise"] > 1e-3 < found["energy_network_fall"]
    assert found["energy_deviation"] > 1e-3


def test_the_ode_of_chnode_loses_energy_in_every_layer_and_so_does_etd(tmp_path) -> None:
    _, _, found = measured(tmp_path, "model=chnode", samples=30)
    assert found["energy_ode_rise"] < 0 and found["energy_network_rise"] < 0
    assert found["energy_ode"] < -0.1 and found["energy_network"] < -0.1


@pytest.mark.parametrize("words", [HNN, ("model=hdnn", "step=0.5"), ("model=chnode", "integrator=euler", "step=0.05")])
def test_shorter_steps_of_a_method_of_order_one_deviate_less_in_proportion(tmp_path, words) -> None:
    """The same time, with four times the layers of equal weights (model.shared)."""
    shared = ("model.shared=true",)
    _, _, long = measured(tmp_path, *words, *shared, "depth=3", samples=20)
    short = [f"step={float(word.removeprefix('step=')) / 4}" if word.startswith("step=") else word for word in words]
    _, _, fine = measured(tmp_path, *short, *shared, "depth=12", samples=20)
    assert long["energy_ode"] == pytest.approx(fine["energy_ode"], rel=1e-6, abs=1e-9)
    assert 2.5 < long["energy_deviation"] / fine["energy_deviation"] < 7


def test_the_file_holds_the_changes_of_both_and_the_figure_shows_them_apart(tmp_path) -> None:
    network, data, found = measured(tmp_path, *HNN, samples=7, times=5)
    with np.load(tmp_path / FILE) as file:
        arrays = dict(file)
    assert arrays["ode"].shape == (16, 7) and arrays["network"].shape == (4, 7)
    assert arrays["time"][-1] == arrays["layers"][-1] == 1.5 and np.all(arrays["network"][0] == 0)
    x = spread(data.split("test"), 7).x
    flow = network.flow.exact()
    y, field = network.embed(x).double().detach().T, flow.bind()[0][0]
    with torch.no_grad():
        first = tanh_energy(field, flow.steps()[0](y)) - tanh_energy(field, y)
    assert arrays["network"][1][0] == pytest.approx(float(first[0]), rel=1e-6)
    assert found["energy_network"] == np.median(arrays["network"][-1])
    ((stem, figure, _, caption),) = EnergyPaths().draw(collected(tmp_path))
    assert stem == "energy" and "seed 1" in caption
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["ours: ODE", "ours: network"]
    for ax, name in zip(figure.axes, ("ode", "network"), strict=True):
        assert np.array_equal(np.array([line.get_ydata() for line in ax.lines[:7]]).T, arrays[name])
    assert EnergyPaths(seed=2).draw(collected(tmp_path)) == []


def test_an_images_energy_is_that_of_its_pixels(tmp_path) -> None:
    network, data = built("data=mnist5k", "data.limit_train=40", "depth=2", "model=chnode", "trainer.threads=1")
    rows = Energy(samples=2, times=2).measure(network, data, tmp_path)
    assert {row["quantity"] for row in rows} == set(Energy.gives)
    x = data.split("test").x[:: len(data.split("test").x) - 1].float() / 255
    flow = network.flow.exact()
    y = flow.enter(network.embed(x).double().detach())
    with torch.no_grad():
        first = tanh_energy(flow.bind()[0][0], flow.steps()[0](y)) - tanh_energy(flow.bind()[0][0], y)
    with np.load(tmp_path / FILE) as file:
        assert file["network"][1] == pytest.approx(first.view(2, -1).sum(1).numpy(), rel=1e-5)


@pytest.mark.parametrize("words", [("model=residual",), ("model=plain",), ("model=hdnn_ms2",)])
def test_networks_without_such_an_energy_are_refused_before_they_are_measured(words) -> None:
    assert not Energy().suits(built(*POINTS, *words)[0])


def test_nonsense_is_refused_in_a_line(capsys) -> None:
    with pytest.raises(BadInput, match="times=0: expected a whole number of at least 1"):
        Energy(times=0)
    assert main(["train", *POINTS, *HNN, "suite=energy", "suite.energy.samples=0", "--dry-run"]) == 2
    assert "suite.energy.samples" in capsys.readouterr().err
