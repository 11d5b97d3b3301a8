"""Points of the plane through the layers: what is measured, the stills, and the animation of a report."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from small_tables import ITEM
from small_tables import collected as table
from test_lecture_and_poster import built, collected

from robode.cli.main import main
from robode.papers.figures.layers import LayerAnimation, LayerStills, section
from robode.quantities.layer_states import FILE, LayerStates
from robode.report.layout import Animation, Picture
from robode.report.paper_page import write_report
from robode.verbs.report import kept

WORDS = ("experiment=lecture/planar_classification", "depth=3", "trainer.threads=1")
SHEARS = ("model=hdnn", "model.width=2", "model.separable=true", "integrator=symplectic_euler", "step=0.3")
DESCENT = ("model=gradient_flow", "model.rows=3", "model.tau=learned", "model.activation=tanh")


def measured(folder, *words):
    network, data = built(*WORDS, *words)
    assert LayerStates().suits(network)
    rows = LayerStates(points=40).measure(network, data, folder)
    return network, data, {row["quantity"]: row["value"] for row in rows}


@pytest.mark.parametrize("words", [(), ("model.width=2",), DESCENT, ("model=hdnn", "model.J=j2"), SHEARS])
def test_the_file_holds_the_states_and_the_plane_of_the_head(tmp_path, words):
    network, data, found = measured(tmp_path, *words)
    assert tuple(found) == LayerStates.gives and 0 < found["least_determinant"] <= 1.5
    with np.load(tmp_path / FILE) as file:
        arrays = dict(file)
    n = network.flow.width
    assert arrays["states"].shape == (4, 40, n) and arrays["step"] == pytest.approx(0.3 if words == SHEARS else 0.05)
    assert np.all(arrays["states"][0, :, 2:] == 0)
    x = torch.from_numpy(arrays["states"][0, :, :2]).float()
    with torch.no_grad():
        logits = network(x)
    difference = arrays["states"][-1] @ arrays["normal"] + arrays["offset"]
    assert difference == pytest.approx((logits[:, 1] - logits[:, 0]).numpy(), abs=1e-4)
    assert set(arrays["labels"]) == {0, 1}


def test_shears_have_determinant_1_with_any_weights_and_no_bulge(tmp_path):
    """What the theorem needs, at weights five times as large as those that networks begin with."""
    network, data, found = measured(tmp_path, *SHEARS)
    assert found["least_determinant"] == pytest.approx(1, abs=1e-9) and found["bulge"] <= 0
    with torch.no_grad():
        network.flow.K.mul_(5)
    found = {row["quantity"]: row["value"] for row in LayerStates(points=10).measure(network, data, tmp_path)}
    assert found["least_determinant"] == pytest.approx(1, abs=1e-9) and found["bulge"] <= 1e-3


def test_networks_of_the_plane_have_no_bulge_and_a_lifted_middle_has_one(tmp_path):
    """In the plane, homeomorphisms: at most 0. In R^3 the third entry may grow in the middle alone."""
    assert measured(tmp_path, "model.width=2")[2]["bulge"] <= 0
    network, data, _ = measured(tmp_path)
    with torch.no_grad():
        flow, head = network.flow, network.head
        for each in (flow.A, flow.B, flow.b):
            each.zero_()
        flow.B[:, 0, 0] = flow.B[:, 1, 0] = 1
        flow.b[:, 0], flow.b[:, 1] = 3, -3
        flow.A[:, 0, 2], flow.A[:, 1, 2] = 1, -1
        head.weight.copy_(torch.tensor([[0.0, 0, 0], [0, 0, 1]]))
    found = {row["quantity"]: row["value"] for row in LayerStates(points=10).measure(network, data, tmp_path)}
    assert found["bulge"] == pytest.approx(0, abs=1e-3), "a ridge reaches the rim"
    with torch.no_grad():
        flow.A[1], flow.B[1], flow.b[1] = flow.A[0], flow.B[0][:, [1, 0, 2]], flow.b[0]
    found = {row["quantity"]: row["value"] for row in LayerStates(points=10).measure(network, data, tmp_path)}
    assert found["bulge"] > 0.2 and found["least_determinant"] == pytest.approx(1, abs=1e-9)


def test_what_it_cannot_speak_of_is_refused(capsys):
    network, data = built("data=double_circles", "model=hdnn", "model.width=4", "depth=2", "trainer.threads=1")
    assert not LayerStates().suits(network) and LayerStates().refusal(data.info) is None
    assert not LayerStates().suits(built(*WORDS, "integrator=rk4")[0])
    digits = built("data=mnist5k", "data.limit_train=40", "depth=1")[1]
    assert "two classes of points" in LayerStates().refusal(digits.info)
    assert main(["train", *WORDS, "suite.layer_states.points=0", "--dry-run"]) == 2
    assert "suite.layer_states.points" in capsys.readouterr().err


def test_a_plane_is_cut_out_of_the_cube_corner_by_corner():
    corners = section(np.array([1.0, 1.0, 1.0]), 0.0, 1.0)
    assert len(corners) == 6 and np.abs(corners.sum(1)).max() <= 1e-12 and np.abs(corners).max() == 1
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
    assert sides == pytest.approx(np.full(6, np.sqrt(2))), "in their order: a hexagon's sides"
    assert section(np.array([0.0, 0.0, 1.0]), -0.5, 1.0)[:, 2] == pytest.approx(np.full(4, 0.5))
    assert len(section(np.array([0.0, 0.0, 1.0]), 5.0, 1.0)) == 0
    assert sorted(section(np.array([1.0, 0.0]), 0.0, 2.0).tolist()) == [[0, -2], [0, 2]]


@pytest.mark.parametrize(("words", "panels"), [((), 4), (("model.width=2",), 4)])
def test_the_stills_show_the_first_the_last_and_two_between(tmp_path, words, panels):
    measured(tmp_path, *words)
    ((stem, figure, _, _),) = LayerStills().draw(collected(tmp_path))
    assert stem == "layers_n_=_2" and len(figure.axes) == panels
    assert "layer 3" in figure.axes[-1].get_title() + figure.axes[-1].get_title(loc="left")
    assert LayerStills(seed=2).draw(collected(tmp_path)) == []


def test_the_animation_goes_layer_by_layer_and_then_around(tmp_path):
    measured(tmp_path)
    ((stem, animation, _, caption),) = LayerAnimation("ours").draw(collected(tmp_path))
    assert stem == "layers_animated" and "40 test points" in caption
    (ax,) = animation.figure.axes
    seen = []
    for number in range(animation.frames):
        animation.draw(number)
        with np.load(tmp_path / FILE) as file:
            state, labels = file["states"][min(number, 3)], file["labels"]
        drawn = np.stack(ax.lines[0].get_data_3d(), 1)
        assert drawn == pytest.approx(state[labels == 0])
        assert len(ax.collections) == (number >= 3), "the plane comes last"
        seen.append(ax.azim)
    assert seen[0] == seen[3] != seen[-1]
    assert LayerAnimation("theirs").draw(collected(tmp_path)) == []
    measured(tmp_path, "model.width=2")
    assert LayerAnimation("ours").draw(collected(tmp_path)) == [], "states of two numbers lie in no cube"


def test_a_report_keeps_an_animation_as_a_gif_in_its_page_and_when_it_is_made_again(tmp_path):
    figure = Figure(figsize=(2, 1))
    ax = figure.add_subplot(title="Grows", xlabel="x", ylabel="y")

    def draw(number):
        ax.clear()
        ax.plot([0, 1], [0, number])

    picture = Picture("grows", Animation(figure, 5, draw), "It grows", "five frames")
    found = table(tmp_path / "runs")
    page = write_report(tmp_path / "one", ITEM, found, {"figures": [picture]}).page
    gif = tmp_path / "one" / "figures" / "grows.gif"
    with Image.open(gif) as image:
        assert image.n_frames == 5 and image.info["loop"] == 0 and image.size == (160, 80)
        assert "5 frames" in image.info["comment"].decode()
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/gif;base64,") == 1 and "It grows" in text and 'alt="5 frames' in text
    again = Picture("grows", kept(tmp_path / "one", "grows"), "It grows", "five frames")
    write_report(tmp_path / "two", ITEM, found, {"figures": [again]})
    assert (tmp_path / "two" / "figures" / "grows.gif").read_bytes() == gif.read_bytes()
    assert kept(tmp_path / "one", "absent").suffix == ".png"
    write_report(tmp_path / "three", ITEM, found, {"figures": [picture]})
    assert (tmp_path / "three" / "figures" / "grows.gif").read_bytes() == gif.read_bytes(), "the same bytes again"
