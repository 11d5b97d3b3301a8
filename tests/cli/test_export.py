"""`robode export`: what other programs need of a trained network, in one folder."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Answer, calling
from small_runs import composed

import robode
from robode.api import load
from robode.errors import BadInput
from robode.evaluation.target import of_run
from robode.network import weights_digest
from robode.runs.run import Run


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    return calling(capsys)


@pytest.mark.slow
def test_the_export_holds_the_weights_and_their_certificate(call: Callable[..., Answer], run_of_one_epoch: Run) -> None:
    reader = pytest.importorskip("safetensors.torch")
    run = run_of_one_epoch
    assert call("certify", f"run={run.id}", "radii=0.01").code == 0
    answer = call("export", f"run={run.id}", "to=there/for you")
    assert answer.code == 0, answer.err
    folder = Path("there/for you")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "certificate.json", "config.yaml", "data.json", "load.py", "model.safetensors", "program.pt2",
        "sample.pt",
    ]  # fmt: skip
    network = of_run(composed(f"run={run.folder}", "to=x", verb="export")).network
    tensors, state = reader.load_file(folder / "model.safetensors"), network.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) and tensors[name].dtype == state[name].dtype for name in state)
    mine, theirs = (json.loads((place / "certificate.json").read_text()) for place in (run.folder, folder))
    assert mine == theirs and theirs["weights"] == weights_digest(network) and theirs["certified"]
    assert (folder / "config.yaml").read_text() == (run.folder / "config.yaml").read_text()


def test_without_a_measured_certificate_the_constants_are_there(
    call: Callable[..., Answer], run_of_one_epoch: Run
) -> None:
    pytest.importorskip("safetensors")
    run = run_of_one_epoch
    (run.folder / "certificate.json").write_text('{"weights": "of others", "certified": [1]}')
    assert call("export", f"run={run.id}", "to=out").code == 0
    content = json.loads(Path("out/certificate.json").read_text())
    assert content["end_to_end"] > 0 and "certified" not in content


def test_what_is_exported_is_loaded_again_and_runs_without_robode(
    call: Callable[..., Answer], run_of_one_epoch: Run
) -> None:
    pytest.importorskip("safetensors")
    assert call("export", f"run={run_of_one_epoch.id}", "to=out").code == 0
    with zipfile.ZipFile("out/program.pt2") as program:  # nothing says where code lay on the machine that exported it
        source = str(Path(robode.__file__).parent).encode()
        assert program.namelist() and not any(source in program.read(name) for name in program.namelist())
    network, again = load(run_of_one_epoch.folder), load("out")
    x = torch.rand(7, *network.info.shape, generator=torch.Generator().manual_seed(5))
    assert torch.equal(network(x), again(x)) and not again.training
    with pytest.raises(BadInput, match="^x: expected"):
        again(x[:, 1:])
    torch.save({"x": x, "outputs": network(x).detach()}, "other.pt")
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("largest difference from the stored outputs: ") and done.stdout.endswith("0 1\n")
    text = Path("out/README.md").read_text() + Path("out/load.py").read_text()
    assert str(Path.cwd()) not in text and weights_digest(network) in text


ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(["robode", "lightning", "torchvision", "safetensors", "hydra", "pandas"]))
import torch
load = runpy.run_path("out/load.py")["load"]
other = torch.load("other.pt")
assert torch.allclose(load()(other["x"]), other["outputs"], rtol=0, atol=1e-5)
codes = []
for shift in (0, 1):
    sample = torch.load("out/sample.pt")
    torch.save({**sample, "outputs": sample["outputs"] + shift}, "out/sample.pt")
    try:
        runpy.run_path("out/load.py", run_name="__main__")
    except SystemExit as end:
        codes.append(int(end.code))
print(*codes)
"""


@pytest.mark.parametrize(("file", "content", "says"), [
    ("model.safetensors", b"{}", r"^out/model.safetensors: holds no network of config.yaml \("),
    ("data.json", b'{"shape": [0], "bounds": null, "class_names": ["a"]}', "^out/data.json: damaged .*shape"),
    ("data.json", b'{"shape": [2], "bounds": null}', "^out/data.json: damaged"),
    ("certificate.json", b'{"weights": "others", "code": "CODE"}', "^out: model.safetensors holds other weights than"),
    ("certificate.json", b'{"code": "of others"}', r"^export out was made by other code \(.*code=any"),
])  # fmt: skip
def test_a_damaged_export_and_one_of_other_code_are_refused(
    file: str, content: bytes, says: str, call: Callable[..., Answer], run_of_one_epoch: Run
) -> None:
    pytest.importorskip("safetensors")
    assert call("export", f"run={run_of_one_epoch.id}", "to=out").code == 0
    code = json.loads(Path("out/certificate.json").read_text())["code"]
    Path("out", file).write_bytes(content.replace(b"CODE", code.encode()))
    with pytest.raises(BadInput, match=says):
        load("out")


def test_a_network_of_own_data_is_loaded_where_the_data_are_not(call: Callable[..., Answer]) -> None:
    pytest.importorskip("safetensors")
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.savez("mine.npz", x=x, y=(x[:, 0] > 0).astype(np.int64))
    words = ("data=arrays", "data.file=mine.npz", "model=resnet", "model.width=4", "depth=2", "epochs=1", "suite=clean")
    assert call("train", *words, "callbacks=none", "run=mine", "trainer.threads=1").code == 0
    assert call("export", "run=mine", "to=out").code == 0
    expected = load("mine")(torch.from_numpy(x))
    Path("mine.npz").unlink()
    again = load("out")
    assert torch.equal(again(torch.from_numpy(x)), expected) and again.info.task.outputs == 2


def test_an_export_without_a_program_says_why_and_leaves_none_of_an_earlier_one(
    call: Callable[..., Answer], run_of_one_epoch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    assert call("export", f"run={run_of_one_epoch.id}", "to=out").code == 0 and Path("out/program.pt2").is_file()
    monkeypatch.setattr("robode.api.exporting.program_of", lambda network, info: "it cannot be recorded")
    answer = call("export", f"run={run_of_one_epoch.id}", "to=out")
    assert answer.code == 0 and "program.pt2 is left out: it cannot be recorded" in answer.out
    assert not {"program.pt2", "load.py", "sample.pt"} & {path.name for path in Path("out").iterdir()}
    assert "There is no program for torch alone: it cannot be recorded." in Path("out/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "run: expected the run to export"),
        (("run=RUN",), "to: expected the folder to write, for example to=exported"),
        (("run=RUN", "to=file"), "to=file: expected a folder, and this is a file"),
        (("run=RUN", "to=out", "checkpoint=first"), "checkpoint=first: choose one of: best, last"),
        (("run=RUN", "to=out"), "needs the package safetensors, which is not installed: pip install 'robode[export]'"),
    ],
)
def test_what_is_lacking_is_said_in_one_line(
    words: tuple[str, ...],
    expected: str,
    call: Callable[..., Answer],
    run_of_one_epoch: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("robode.config.validate.find_spec", lambda name: None)
    Path("file").write_text("")
    answer = call("export", *(word.replace("RUN", run_of_one_epoch.id) for word in words))
    assert answer.code == 2 and expected in answer.line
    assert not Path("out").exists()


@pytest.mark.parametrize("to", ["{run}", "outputs", ".", ""])
def test_an_export_replaces_nothing_but_an_earlier_export(
    to: str, call: Callable[..., Answer], run_of_one_epoch: Run
) -> None:
    """In the folder of a run its configuration would stand beside the weights of another."""
    run = run_of_one_epoch
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    answer = call("export", f"run={run.id}", f"to={to.format(run=run.folder)}")
    assert answer.code == 2 and answer.err.startswith("robode: to=") and answer.err.count("\n") == 1
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_a_link_leads_to_the_folder_that_the_user_means(call: Callable[..., Answer], run_of_one_epoch: Run) -> None:
    """It is the user's own word; but a link to nothing or to a file is no folder, and one to a run stays a run's."""
    Path("elsewhere").mkdir()
    Path("file").write_text("mine")
    leads = {"link": "elsewhere", "to_run": run_of_one_epoch.folder, "to_file": "file", "to_nothing": "gone"}
    for name, target in leads.items():
        Path(name).symlink_to(Path(target).absolute())
    for name in ("to_run", "to_file", "to_nothing", "to_nothing/deeper"):
        answer = call("export", f"run={run_of_one_epoch.id}", f"to={name}")
        assert answer.code == 2 and answer.line.startswith(f"to={name}: expected a"), answer
    assert Path("file").read_text() == "mine" and not Path("gone").exists()
    (Path("elsewhere") / "model.safetensors").symlink_to(Path("file").absolute())  # replaced, not written through
    (Path("elsewhere") / "certificate.json").touch()
    assert call("export", f"run={run_of_one_epoch.id}", "to=link").code == 0
    assert Path("link").is_symlink() and not (Path("elsewhere") / "model.safetensors").is_symlink()
    assert (Path("elsewhere") / "config.yaml").is_file() and Path("file").read_text() == "mine"


@pytest.mark.parametrize("look", [(), ("--dry-run",)])
@pytest.mark.parametrize("to", ["/proc/x", "/proc/deep/er", "~nobody_of_this_name/x"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(
    look: tuple[str, ...],
    to: str,
    call: Callable[..., Answer],
    run_of_one_epoch: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.setattr("robode.api.exporting.of_run", lambda config: pytest.fail("the network was read"))
    answer = call("export", f"run={run_of_one_epoch.id}", f"to={to}", *look)
    assert answer.code == 2 and answer.line.startswith(f"to={to}: expected a folder that can be made and written (")
    assert call("report", run_of_one_epoch.id, f"to={to}").line == answer.line


def test_looking_ahead_leaves_no_folder(call: Callable[..., Answer], run_of_one_epoch: Run) -> None:
    pytest.importorskip("safetensors")
    before = sorted(Path().rglob("*"))
    assert call("export", f"run={run_of_one_epoch.id}", "to=for/others", "--dry-run").code == 0
    assert sorted(Path().rglob("*")) == before
