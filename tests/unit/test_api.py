"""`robode.api`: what the command line does, from Python."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robode.api import certify, evaluate, export, load, results, train
from robode.api.loading import _check_samples
from robode.data.info import DatasetInfo
from robode.data.toy import SixPoints
from robode.errors import BadInput, JobFailed
from robode.families.resnet import ResNet
from robode.integrators.euler import Euler
from robode.network import Network
from robode.runs.checkpoints import read_checkpoint
from robode.runs.run import find
from robode.tasks.classification import Classification

SMALL = {
    "model": "chnode", "data": "six_points", "depth": 2, "model.width": 2, "epochs": 2, "callbacks": "none",
    "suite": ["clean"], "repeats": 1, "trainer.threads": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])  # they have tests of their own


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the run `mine` was trained."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
        train(**SMALL, run="mine")
    return folder


@pytest.fixture
def mine(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(outputs)


def test_a_run_is_trained_found_again_and_loaded() -> None:
    first = train(**SMALL, run="mine")
    again = train(**SMALL, run="mine")
    assert first.run == again.run == find("mine")[0].folder and first.report.is_file()
    assert (first.reused, again.reused) == (False, True)
    assert first.score is not None and 0 <= first.score <= 1 and first.flow_discrete <= 1
    said = (
        f"Trained(run='{first.run}', score={first.score:.4g}, report='{first.report}', flow_ode={first.flow_ode:.4g}, "
    )
    assert repr(first).startswith(said) and repr(again) == repr(first).replace(", report", ", reused=True, report")
    assert replace(first, score=0.0).__repr__().count("score=0,") == 1
    network, x = load("mine"), SixPoints().load()[1].x
    assert not network.training and load(first.run / "last.ckpt")(x).shape == (6, 2)
    right = network(x).argmax(1) == SixPoints().load()[1].target
    assert int(right.sum()) / len(x) == first.score
    saved = read_checkpoint(first.run / "last.ckpt")["state_dict"]
    assert torch.equal(saved["network.flow.K"], network.flow.K)


def test_two_underscores_are_a_dot_and_a_key_is_given_once() -> None:
    small = {key.replace(".", "__"): value for key, value in SMALL.items()}
    assert train(**small, quiet=True).run.name == train(**SMALL, quiet=True).run.name
    with pytest.raises(BadInput, match=r"^unknown key 'model\.widht': did you mean 'model\.width'"):
        train(**small, model__widht=2)
    with pytest.raises(BadInput, match=r"^model\.width: given twice"):
        train(**small, **{"model.width": 3})


@pytest.mark.usefixtures("mine")
def test_a_job_prints_nothing_where_it_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate("mine", suite="clean", quiet=True)
    assert capsys.readouterr().out == ""
    evaluate("mine", suite="clean")
    assert "report:" in capsys.readouterr().out


@pytest.mark.usefixtures("mine")
def test_results_of_a_run_of_several_and_of_a_pattern_are_one_table() -> None:
    run = find("mine")[0].folder
    table = results("mine")
    assert list(table["perturbation"]) == ["clean"] and list(table["folder"]) == [str(run)]
    assert table["score"].iloc[0] == evaluate("mine", suite="clean").score and str(table["depth"].dtype) == "Int64"
    for several in ([run, "mine"], "outputs/**", f"{run.parent}/*", results.__defaults__[0]):  # type: ignore[index]
        assert results(several).equals(table)
    described = str(results.__doc__)
    assert not [name for name in table if not re.search(rf"\b{name}\b", described)]
    with pytest.raises(BadInput, match="run=nowhere"):
        results("nowhere")
    with pytest.raises(BadInput, match=r"^runs=elsewhere/\*: expected a pattern"):
        results("elsewhere/*")
    copied = shutil.copytree(run, run.with_name("a[1]"))
    assert list(results(copied)["folder"]) == [str(copied)], "a folder, and no pattern"


def test_without_runs_the_table_is_empty_and_has_its_columns() -> None:
    assert len(results()) == 0 and {"folder", "score", "severity"} <= set(results())


@pytest.mark.usefixtures("mine")
def test_bytes_that_were_not_scaled_are_refused() -> None:
    with pytest.raises(BadInput, match=r"^x: expected data units as floating-point numbers \(images: x / 255\), got "):
        load("mine")(torch.ones(3, 2, dtype=torch.uint8))


@pytest.mark.parametrize(("x", "got"), [
    (torch.zeros(2), r"\(2,\)"), (torch.zeros(3, 5), r"\(3, 5\)"), (torch.zeros(1, 3, 2), r"\(1, 3, 2\)"),
    (torch.zeros(()), r"\(\)"), ([[0.0, 0.0]], "a list"),
])  # fmt: skip
@pytest.mark.usefixtures("mine")
def test_x_of_another_shape_is_refused_in_one_line(x: object, got: str) -> None:
    with pytest.raises(BadInput, match=rf"^x: expected \(B, 2\).*, got {got}$"):
        load("mine")(x)


@pytest.mark.parametrize(("x", "says"), [
    (torch.ones(3, 2, dtype=torch.float64), r"^x: expected torch.float32, like the network, got torch.float64; write"),
    (torch.tensor([[0.0, math.nan]]), "^x: expected finite numbers, got NaN or infinity$"),
    (torch.tensor([[0.0, -math.inf]]), "^x: expected finite numbers, got NaN or infinity$"),
])  # fmt: skip
@pytest.mark.usefixtures("mine")
def test_values_that_no_sample_has_are_refused_in_one_line(x: torch.Tensor, says: str) -> None:
    network = load("mine")
    with pytest.raises(BadInput, match=says):
        network(x)
    assert network(torch.zeros(0, 2)).shape == (0, 2) and network.double()(x.double().nan_to_num(0, 0, 0)).shape[1] == 2


def test_images_from_0_to_255_are_refused_and_noisy_ones_are_not() -> None:
    images = DatasetInfo((1, 4, 4), (0.3,), (0.2,), (0.0, 1.0), Classification(tuple("ab")))
    network, x = Network(images, ResNet(4, 1, Euler())), torch.rand(5, 1, 4, 4)
    _check_samples(network, (x + 2 * torch.randn(5, 1, 4, 4),))
    says = r"^x: expected data units, in \[0.0, 1.0\], got values from "
    with pytest.raises(BadInput, match=says + ".* to .*; write x / 255$"):
        _check_samples(network, (255 * x,))
    with pytest.raises(BadInput, match=says + r"-[\d.]+ to -[\d.]+$"):
        _check_samples(network, (x - 100,))


@pytest.mark.usefixtures("mine")
def test_a_loaded_network_goes_through_a_compiler_and_the_transforms_of_torch() -> None:
    network, x = load("mine"), torch.rand(3, 2)
    with torch.no_grad():
        torch.testing.assert_close(torch.func.vmap(lambda v: network(v[None])[0])(x), network(x))
    assert torch.func.jacrev(network)(x).shape == torch.func.jacfwd(network)(x).shape == (3, 2, 3, 2)
    exported = torch.export.export(network, (x,))
    torch.testing.assert_close(exported.module()(x), network(x))


def test_a_finished_run_that_is_resumed_is_reused_and_one_with_more_epochs_is_not() -> None:
    first = train(**SMALL, run="mine")
    again = train(resume=str(first.run))
    assert (again.run, again.reused, again.score) == (first.run, True, first.score)
    longer = train(resume="mine", epochs=3)
    assert (longer.run, longer.reused) == (first.run, False)


@pytest.mark.slow
def test_a_run_is_evaluated_certified_and_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    run = train(**{**SMALL, "encoder": "identity", "head": "orthonormal"}, run="mine").run
    more = evaluate(run, suite=["clean", "noise"], repeats=1, **{"suite.gaussian.var": [0.1]})
    assert {row["perturbation"] for row in more.rows} == {"clean", "gaussian"} and more.report.is_file()
    certified = certify("mine", radii=[0.1])
    assert certified.certificate.is_file() and 0 < certified.end_to_end < 10
    exported = export(run, "there")
    assert exported.program == exported.to / "program.pt2" and exported.program.is_file()
    with pytest.raises(BadInput, match="split=all"):
        evaluate(run, split="all")


@pytest.mark.parametrize(("overrides", "says"), [
    ({"depth": 0}, "depth=0"), ({"model": "nothing"}, "nothing"), ({"nonsense": 1}, "nonsense"),
    ({"model.gamma": "magic"}, "model.gamma=magic"), ({"run": "a b"}, "run: expected a name"),
    ({"seeds": 3}, "seeds=3"),
])  # fmt: skip
def test_what_the_command_line_refuses_is_bad_input(overrides: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as error:
        train(**{**SMALL, **overrides})
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not Path("outputs").exists()


def test_a_training_that_fails_is_a_failed_job() -> None:
    with pytest.raises(JobFailed, match="smaller lr"):
        train(**{**SMALL, "model": "hdnn", "optimizer": "sgd", "lr": 1e30, "epochs": 20, "step": 0.5})


@pytest.mark.parametrize(("words", "says"), [
    ({"run": "nowhere"}, "run=nowhere"), ({"run": "mine", "checkpoint": "third"}, "checkpoint=third"),
    ({"run": "mine", "device": "tpu"}, "device=tpu"), ({"run": "mine", "code": "foo"}, "code=foo: choose one of"),
    ({"run": 5}, "run=5: expected a run"), ({"run": None}, "run=None: expected a run"),
])  # fmt: skip
@pytest.mark.usefixtures("mine")
def test_what_cannot_be_loaded_is_one_line(words: dict[str, str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        load(**words)  # type: ignore[arg-type]
