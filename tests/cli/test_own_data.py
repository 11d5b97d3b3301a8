"""docs/own_data.md does what it says, and a data set of the user's own files behaves like any other."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import Answer, Jobs, calling
from omegaconf import OmegaConf
from own_files import points, write_arrays, write_pictures

from robode.cli.completion import candidates
from robode.config.config import DataConfig
from robode.config.instantiate import to_plain
from robode.config.parse import parse
from robode.contracts.findings import data

PAGE = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text(encoding="utf-8")
SMALL = ("model=resnet", "model.width=4", "depth=2", "epochs=1", "batch_size=20", "suite=clean", "trainer.threads=1")
ARRAYS = ("data=arrays", "data.file=points.npz")


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command line with real work, from an empty folder."""
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    return calling(capsys)


def runs() -> list[str]:
    return sorted(path.parent.name for path in Path("outputs").glob("*/*/config.yaml"))


@pytest.mark.slow
def test_the_page_runs_as_printed(call: Callable[..., Answer]) -> None:
    names: dict[str, object] = {}
    trained = []
    for language, block in re.findall(r"```(python|bash)\n(.*?)```", PAGE, re.S):
        if language == "python":
            exec(compile(block, "own_data.md", "exec"), names)
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            answer = call(*words)
            assert program == "robode" and answer.code == 0, f"{line}: {answer.err}"
            trained.append(answer.out)
    assert len(runs()) == 4, "the last training was there"
    assert "epoch 1/2" in trained[0] and "epoch" not in trained[-1]
    samples = np.load("outputs/default/first/samples.npz")
    assert samples["class_names"].tolist() == ["disc", "square"], "the grid of samples shows names"


def test_the_keys_of_the_page_are_those_of_the_files(robode: Callable[..., Answer]) -> None:
    told = set(re.findall(r"`data\.(\w+)`", PAGE))
    for name in ("folder", "arrays"):
        node = yaml.safe_load((Path(__file__).parents[2] / "conf/data" / f"{name}.yaml").read_text())
        assert set(node) - {"name", "source", "allowed", "info"} <= told, name


@pytest.mark.slow
def test_changed_files_are_another_run_and_refused_by_the_first(call: Callable[..., Answer]) -> None:
    write_arrays(Path("points.npz"))
    assert call("train", *ARRAYS, *SMALL).code == 0
    (first,) = runs()
    x, y = points()
    np.savez("points.npz", x=x + 1, y=y)
    for verb in (("evaluate", f"run={first}"), ("train", f"resume={first}", "epochs=2")):
        answer = call(*verb)
        assert answer.code == 2 and "data" in answer.line and "epoch" not in answer.out
    assert call("train", *ARRAYS, *SMALL).code == 0 and len(runs()) == 2


@pytest.mark.slow
def test_moved_files_are_found_by_data_root_and_no_place_is_exported(call: Callable[..., Answer]) -> None:
    pytest.importorskip("safetensors")
    write_pictures(Path("set/pictures"), 10)
    write_arrays(Path("set/points.npz"))
    here = Path.cwd()
    pictures = ("data=folder", f"data.root={here}/set/pictures", "data.size=8")
    assert call("train", *pictures, *SMALL, "model=chnode", "model.width=4", "run=pictures").code == 0
    assert call("train", "data=arrays", f"data.file={here}/set/points.npz", *SMALL, "run=points").code == 0
    Path("set").rename("moved")
    for run, root, key in (("pictures", "moved/pictures", "data.root"), ("points", "moved", "data.file")):
        answer = call("evaluate", f"run={run}", "suite=clean")
        assert answer.code == 2 and answer.line.startswith(f"{key}="), answer.err
        assert call("evaluate", f"run={run}", f"data.root={root}", "suite=noise", "repeats=1").code == 0
        assert call("train", f"resume={run}", f"data.root={root}", "epochs=2").code == 0
        assert call("export", f"run={run}", f"to=out/{run}").code == 0
        text = Path(f"out/{run}/config.yaml").read_text()
        assert str(here) not in text and "moved" in text


REFUSED = {
    "data=folder": "data.root=null: expected a folder",
    "data=folder data.root=gone": "data.root=gone: expected a folder",
    "data=folder data.root=set data.sise=8": "unknown key 'data.sise': did you mean 'data.size'?",
    "data=folder data.root=set +data.typo=8": "unknown key 'data.typo': data has name, root, validation, limit",
    "data=folder data.root=set data.size=big": "data.size=big: expected integer in [1, 4096]",
    "data=folder data.root=set data.channels=2": "data.channels=2: choose one of: 1, 3",
    "data=folder data.root=set data.std=[0]": "data.std=[0]: expected auto or list of number > 0",
    "data=arrays": "data.file=null: expected a file",
    "data=arrays data.file=gone.npz": "data.file=gone.npz: expected a file",
    "data=arrays data.file=points.npz data.task=guess": "data.task=guess: choose one of: classification, regression",
    "data=arrays data.file=points.npz data.test=1": "data.test=1: expected number in (0, 1)",
    "data=arrays data.file=points.npz data.task=regression": "objective=cross_entropy and data=arrays: expected data",
    "data=mnist5k +data.size=3": "unknown key 'data.size': data has name, root, validation, limit_train, source",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused_without_reading_a_file(words: str, robode: Callable[..., Answer], jobs: Jobs) -> None:
    write_pictures(Path("set"), 1)
    write_arrays(Path("points.npz"))
    answer = robode("train", *words.split())
    assert answer.code == 2 and REFUSED[words] in answer.line and not jobs.configs
    assert not Path("outputs").exists()


SPOILED = {
    "nan": ({"x": np.full((20, 2), np.nan), "y": np.arange(20) % 2}, "x: sample 0 is nan at (0), expected finite"),
    "one class": ({"x": np.zeros((20, 2)), "y": np.zeros(20, int)}, "y: one class, 0; expected at least two"),
    "signals": ({"x": np.zeros((20, 2, 32)), "y": np.arange(20) % 2}, "x has the shape (20, 2, 32), expected (n, d)"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_found_when_the_file_is_read_leaves_no_folder(name: str, call: Callable[..., Answer]) -> None:
    arrays, line = SPOILED[name]
    np.savez("points.npz", **arrays)
    for words in ((), ("--dry-run",), ("-m", "seed=0,1")):
        answer = call("train", *ARRAYS, *SMALL, *words)
        assert answer.code == 2 and answer.line.startswith("data.file=points.npz, ") and line in answer.line
        assert not Path("outputs").exists()


def test_the_same_pictures_elsewhere_are_the_same_run(call: Callable[..., Answer]) -> None:
    write_pictures(Path("a"), 5)
    shutil.copytree("a", "b")
    for root in ("a", "b"):
        answer = call("train", "-m", "data=folder", f"data.root={root}", "data.size=8", *SMALL, "seed=0", "--dry-run")
        assert answer.code == 0
        names = re.findall(r"resnet-N2-s0-\w{8}", answer.out)
    assert len(set(names)) == 1


def test_the_words_are_completed(folder: Path) -> None:
    assert {"data=folder", "data=arrays"} <= set(candidates("robode train data="))
    assert "data.size=" in candidates("robode train data=folder data.s")
    assert "data.label=" in candidates("robode train data=arrays data.l")


def test_check_says_that_nobody_has_chosen_the_files(folder: Path) -> None:
    (folder / "data").mkdir()
    write_pictures(folder / "set", 20)
    for name, root, said in (
        ("folder", None, "not checked: data.root=null: expected a folder"), ("folder", "set", ""),
        ("arrays", None, "not checked: data.file=null: expected a file ending in .npz or .csv"),
    ):  # fmt: skip
        node = yaml.safe_load((Path(__file__).parents[2] / "conf/data" / f"{name}.yaml").read_text())
        section = to_plain(OmegaConf.create({"data": {**node, "root": root}}))["data"]
        found = data(f"data={name}", parse(DataConfig, section))
        assert not found.violations and found.note == said and (found.contracts > 0) == (root is not None)
