"""Whatever takes a run answers a misspelt name with the nearest one that there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer
from small_tables import run_folder

import robode as api
from robode.config.explain import nearest
from robode.runs.run import find


@pytest.fixture
def runs(folder: Path) -> str:
    """The name of a run, beside another one."""
    run_folder(Path("outputs/sweep"), 11, 90)
    return Path(run_folder(Path("outputs/sweep"), 2, 90)).name


@pytest.mark.parametrize(
    "words",
    [
        "evaluate run=NAME", "certify run=NAME", "export run=NAME to=there", "stabilise run=NAME delta=0",
        "train resume=NAME", "train start=NAME", "report NAME", "compare NAME NAME", "evaluate run=sweep/NAME",
        "evaluate run=outputs/sweep/NAME", "evaluate -m run=NAME,NAME2",
    ],
)  # fmt: skip
def test_every_verb_says_the_nearest_name(words: str, runs: str, robode: Callable[..., Answer]) -> None:
    misspelt = runs.replace("chnode", "chnod")
    answer = robode(*words.replace("NAME", misspelt).split())
    place = next((place for place in ("outputs/sweep/", "sweep/") if f"={place}" in words), "")
    assert answer.code == 2 and f"={place}{misspelt}: expected a run folder, the name of a run under" in answer.line
    assert answer.line.endswith(f"; did you mean '{place}{runs}'?")


@pytest.mark.parametrize("asked", [api.load, api.results, api.evaluate, api.certify])
def test_so_does_python(asked: Callable[[str], object], runs: str) -> None:
    with pytest.raises(api.BadInput, match=f"did you mean '{runs}'"):
        asked(runs.replace("chnode", "chnod"))


def test_what_is_like_no_run_is_only_refused(runs: str, robode: Callable[..., Answer]) -> None:
    line = robode("evaluate", "run=xyz").line
    assert line == "run=xyz: expected a run folder, the name of a run under outputs/ or a .ckpt file"


@pytest.mark.parametrize("name", ["a run", "lr=0.1,é+[b]*", ".hidden", "-x"])
def test_any_name_of_a_folder_is_one(name: str, runs: str, robode: Callable[..., Answer]) -> None:
    (Path("outputs/sweep") / runs).rename(Path("outputs/sweep") / name)
    assert find(name)[0].id == find(f"sweep/{name}")[0].id == name
    for other in (".", "..", "/", "*", "../outputs"):
        line = robode("evaluate", f"run={other}").line
        assert "expected" in line and f"did you mean '{other}'" not in line


def test_the_word_itself_is_no_hint() -> None:
    assert nearest("chnode", ["chnode"]) is None and nearest("chnode", ["chnode", "chnodes"]) == "chnodes"
