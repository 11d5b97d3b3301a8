"""`robode certify`, and `module=` there and in `evaluate`: from the command line to the files, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from command_line import Answer, calling

from robode.api.certification import number, vacuous
from robode.certificates.radius import Constants
from robode.masking.file import read_part
from robode.masking.reference_attacks import GradientMasking
from robode.runs.results import read_numbers, read_rows
from robode.runs.run import Run

NETS = """
import subprocess
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = make()

    def forward(self, x):
        return self.body(x)

def three():
    return nn.Sequential(nn.Linear(2, 3))

def images():
    return nn.Conv2d(1, 2, 3)

def broken():
    raise ValueError("no such weights")

def leaves(*given): raise SystemExit(3)

class Stubborn(Odd): load_state_dict = leaves

def number():
    return 5
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """One command line in an empty folder, without figures."""
    monkeypatch.chdir(tmp_path)
    for name in ("ROBODE_CONFIG_PATH", "ROBODE_DATA", "ROBODE_DEBUG", "ROBODE_TRUST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    return calling(capsys)


@pytest.fixture
def nets(tmp_path: Path, call: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of the user's, trusted, and weights for it."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "their_nets.py").write_text(NETS)
    (tmp_path / "place" / "their_script.py").write_text("import sys\nsys.exit()\n")
    monkeypatch.syspath_prepend(str(tmp_path / "place"))
    monkeypatch.setenv("ROBODE_TRUST", "their_nets,their_script")
    import their_nets  # type: ignore[import-not-found]

    torch.manual_seed(0)
    torch.save(their_nets.make().state_dict(), "good.pt")
    torch.save({"state_dict": their_nets.Odd().state_dict(), "epoch": 3}, "odd.pt")
    torch.save(their_nets.three().state_dict(), "three.pt")
    torch.save(their_nets.images().state_dict(), "images.pt")
    Path("text.pt").write_text("no weights")
    yield
    import sys

    sys.modules.pop("their_nets", None)


def files() -> list[str]:
    return sorted(path.as_posix() for path in Path("outputs").rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_run_is_certified(call: Callable[..., Answer], run_of_one_epoch: Run) -> None:
    run = run_of_one_epoch
    answer = call("certify", f"run={run.id}", "radii=[0.001,0.01,100.0]")
    assert answer.code == 0, answer.err
    for word in ("encoder", "step 1", "step 2", "head", "flow_ode", "flow_discrete", "end_to_end", "pairs_max"):
        assert word in answer.out
    assert "vacuous from radius 100 on" in answer.out
    rows = read_rows(run.folder / "results.csv")
    certified = rows[rows["perturbation"] == "certified"].set_index("severity")
    clean = rows[rows["perturbation"] == "clean"]["score"].iloc[0]
    assert clean >= certified["score"][0.001] >= certified["score"][0.01] >= certified["score"][100.0] == 0
    content = json.loads((run.folder / "certificate.json").read_text(), parse_constant=pytest.fail)
    assert [each["score"] for each in content["certified"]] == certified["score"].tolist()
    assert content["clean"][0]["score"] == clean and content["norm"] == "l2" and content["split"] == "test"
    assert content["weights"] == rows["weights"].iloc[0] and len(content["data_digest"]) == 12
    product = 1.0
    for value in content["parts"].values():
        product *= value
    assert content["end_to_end"] == pytest.approx(product, rel=1e-6)
    assert rows["end_to_end"].dropna().iloc[-1] == pytest.approx(product, rel=1e-6)
    assert content["pairs_max"] == max(map(max, content["pairs"]))


def test_evaluate_prints_the_constant_of_the_whole_network(call: Callable[..., Answer], run_of_one_epoch: Run) -> None:
    run = run_of_one_epoch
    answer = call("evaluate", f"run={run.id}", "suite=clean")
    (value,) = read_rows(run.folder / "results.csv")["end_to_end"].unique()
    assert f"x -> output (end_to_end) {value:.4g}" in answer.out


@pytest.mark.slow
def test_a_module_is_certified_and_evaluated(call: Callable[..., Answer], nets: None) -> None:
    words = ("module=their_nets:make", "checkpoint=good.pt", "data=double_moons", "data.limit_train=100")
    answer = call("certify", *words, "radii=0.1")
    assert answer.code == 0, answer.err
    (folder,) = Path("outputs/modules").iterdir()
    assert folder.name.startswith("make-")
    assert {"certificate.json", "module.json", "results.csv", "report.html"} <= {path.name for path in folder.iterdir()}
    rows = read_rows(folder / "results.csv").set_index("perturbation")
    assert rows["score"]["clean"] > rows["score"]["certified"] > 0
    assert rows["flow_ode"].isna().all() and rows["end_to_end"]["clean"] > 0
    assert list(json.loads((folder / "certificate.json").read_text())["parts"]) == [f"Sequential.{i}" for i in range(3)]
    answer = call("evaluate", *words, "suite=[noise,clean]", "repeats=2")
    assert answer.code == 0, answer.err
    assert len(list(Path("outputs/modules").iterdir())) == 1
    assert set(read_rows(folder / "results.csv")["perturbation"]) == {"clean", "certified", "gaussian"}
    again = call("evaluate", *words, "suite=clean")
    assert "nothing to evaluate" in again.out


def test_a_module_without_a_constant_is_evaluated_and_not_certified(call: Callable[..., Answer], nets: None) -> None:
    words = ("module=their_nets:Odd", "checkpoint=odd.pt", "data=double_moons", "data.limit_train=100")
    answer = call("certify", *words)
    assert (answer.code, files()) == (2, [])
    assert answer.line.startswith("layer Odd: no certified constant is known for Odd")
    assert call("evaluate", *words, "suite=[certified,clean]").code == 2 and files() == []
    answer = call("evaluate", *words, "suite=clean")
    assert answer.code == 0, answer.err
    assert "(end_to_end) inf" in answer.out


@pytest.mark.slow
def test_gradient_masking_checks_of_a_module(call: Callable[..., Answer], nets: None) -> None:
    words = ("module=their_nets:Odd", "checkpoint=odd.pt", "data=double_moons", "data.limit_train=100")
    few = ("samples=4", "steps=2", "restarts=1", "queries=3")
    answer = call("evaluate", *words, "suite=gradient_masking", *(f"suite.gradient_masking.{word}" for word in few))
    assert answer.code == 0, answer.err
    (folder,) = Path("outputs/modules").iterdir()
    numbers = read_numbers(folder / "numbers.csv")
    assert set(numbers["run"]) == {folder.name} and numbers["seed"].isna().all()
    assert set(numbers["quantity"]) == {f"{name} linf 0.1" for name in GradientMasking.gives}
    (record,) = read_part(folder, "records")
    assert set(numbers["weights"]) == {record["weights"]} and len(record["checks"]) == len(GradientMasking.gives) - 1
    assert "masking/passes linf 0.1" in answer.out and "gradient-masking check" in (folder / "report.html").read_text()


GOOD = {"module": "their_nets:make", "checkpoint": "good.pt", "data": "double_moons"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"module": "their_nets"}, "module=their_nets: expected PACKAGE:FACTORY"),
        ({"module": "os:getcwd"}, "'os' is not trusted to run code; to admit a package of your own set"),
        ({"module": "robode.cli.main:main"}, "is not trusted"),
        ({"module": "their_nets.deeper:make"}, "'their_nets.deeper' cannot be imported"),
        ({"module": "their_nets:nothing"}, "expected a function or a class called nothing in their_nets"),
        ({"module": "their_nets:subprocess"}, "expected a function or a class called subprocess"),
        ({"module": "their_nets:broken"}, "broken() failed (ValueError: no such weights)"),
        ({"module": "their_nets:leaves"}, "their_nets:leaves() failed (SystemExit: 3)"),
        ({"module": "their_script:make"}, "module=their_script:make: 'their_script' cannot be imported (SystemExit)"),
        ({"module": "their_nets:number"}, "expected a factory that returns a torch.nn.Module, got int"),
        ({"module": "their_nets:three", "checkpoint": "three.pt"}, "logits (2, 2) for data=double_moons, got (2, 3)"),
        ({"module": "their_nets:images", "checkpoint": "images.pt"}, "fails on double_moons, shape (2, 2)"),
        ({"checkpoint": "best"}, "checkpoint=best: expected the file with the weights of module=their_nets:make"),
        ({"checkpoint": "odd.pt"}, "holds another network than their_nets:make() makes"),
        ({"module": "their_nets:Stubborn"}, "another network than their_nets:Stubborn() makes (SystemExit: 3)"),
        ({"checkpoint": "text.pt"}, "checkpoint=text.pt: expected a state dict saved by torch.save"),
        ({"data": None}, "data: expected the data set for module=their_nets:make, for example data=mnist5k"),
        ({"run": "some"}, "run=some and module=their_nets:make: give one of them"),
        ({"suite": "[clean,certified,eps_r]"}, "suite: eps_r: cannot be measured of this network; leave it out"),
        ({"split": "validation", "data.validation": "0"}, "has no validation split"),
    ],
)  # fmt: skip
def test_mistakes_about_modules_write_nothing(
    changes: dict[str, str | None], expected: str, call: Callable[..., Answer], nets: None
) -> None:
    words = [f"{key}={value}" for key, value in (GOOD | changes).items() if value is not None]
    answer = call("certify", *words)
    assert expected in answer.line
    assert (answer.code, files()) == (2, [])


def test_a_package_must_be_trusted(
    call: Callable[..., Answer], nets: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ROBODE_TRUST")
    answer = call("evaluate", *(f"{key}={value}" for key, value in GOOD.items()), "suite=clean")
    assert answer.code == 2 and "set ROBODE_TRUST=their_nets in the environment" in answer.line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "run: expected the run to certify"),
        (("norm=linf",), "norm=linf: choose l2"),
        (("suite=noise",), "suite: expected the suite certified among others"),
        (("radii=[-1]",), "radii=-1: expected a number"),
        (("radii=abc",), "radii=abc: expected a number"),
        (("checkpoint=first",), "checkpoint=first: choose one of: best, last"),
        (("data=mnist5k",), "data=mnist5k: a run has its own data"),
    ],
)
def test_mistakes_about_runs(words: tuple[str, ...], expected: str, call: Callable[..., Answer]) -> None:
    run = () if not words else ("run=nothing",)
    answer = call("certify", *run, *words)
    assert expected in answer.line and answer.code == 2


def test_dry_run(call: Callable[..., Answer], nets: None, run_of_one_epoch: Run) -> None:
    run = run_of_one_epoch
    answer = call("certify", f"run={run.id}", "--dry-run")
    assert answer.code == 0 and run.id in answer.out
    refused = call("evaluate", f"run={run.id}", "suite=lyapunov_plane", "--dry-run")
    assert refused.code == 2 and "lyapunov_plane: cannot be measured of this network" in refused.line
    assert "speaks of runs only" in call("certify", *(f"{k}={v}" for k, v in GOOD.items()), "--dry-run").line


def test_where_a_bound_is_vacuous_its_largest_factor_is_named() -> None:
    bounds = Constants({"encoder": 2.0, "step 1": 30.0, "head": 0.5}, 1.0, 30.0, 60.0, None, 2)
    rows = [{"perturbation": "certified", "severity": r, "score": c} for r, c in ((0.1, 5), (0.2, 0), (0.3, 0))]
    first, second = vacuous(bounds, rows, 0.0)
    assert "from radius 0.2 on" in first and "bound 30 is that of step 1: 30" in second
    assert vacuous(bounds, rows[:1], 0.0) == []


def test_numbers_without_a_word_in_json() -> None:
    assert [number(value) for value in (1.5, float("inf"), float("nan"))] == [1.5, "inf", None]
