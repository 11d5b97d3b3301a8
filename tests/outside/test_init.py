"""`robode init`: what it makes passes the contracts, its commands run as printed, and nothing is overwritten."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robode.cli.main import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """A command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBODE_CONFIG_PATH", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> tuple[int, str, str]:
        code = main(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def project(call: Call, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project, which is the working folder."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "fresh_lab"]:
        monkeypatch.delitem(sys.modules, name)
    code, out, err = call("init", "Fresh lab")
    assert (code, err) == (0, "") and "robode check fresh_lab" in out
    monkeypatch.chdir("Fresh lab")
    monkeypatch.syspath_prepend(".")
    monkeypatch.setenv("ROBODE_TRUST", "fresh_lab")
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    return Path.cwd()


def test_check_accepts_it_as_it_stands(project: Path, call: Call) -> None:
    code, out, err = call("check", "fresh_lab")
    assert (code, err) == (0, "") and "3 checked, ok" in out
    texts = {path: path.read_text() for path in project.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert not any("my_lab" in text or "my_lab" in str(path.name) for path, text in texts.items())
    assert len((project / "README.md").read_text().splitlines()) <= 25


def test_every_command_of_its_readme_is_one(project: Path, call: Call) -> None:
    for line in commands(project):
        words = shlex.split(line)[1:]
        if words[0] == "train":
            assert call(*words, "--cfg")[0] == 0
        elif words[0] == "reproduce":
            assert "2 jobs" in call(*words, "--dry-run")[1]


def commands(project: Path) -> list[str]:
    (block,) = re.findall(r"```bash\n(.*?)```", (project / "README.md").read_text(), re.S)
    lines = [line.split("#")[0].strip() for line in block.splitlines()]
    assert lines[0] == "export ROBODE_TRUST=fresh_lab PYTHONPATH=."
    return [line for line in lines if line.startswith("robode ")]


@pytest.mark.slow
def test_its_commands_and_its_tests_run_as_printed(project: Path, call: Call) -> None:
    for line in commands(project):
        code, out, err = call(*shlex.split(line)[1:])
        assert code == 0, f"{line}: {err}"
        if line.startswith("robode runs"):
            assert len(out.splitlines()) > 5 and "best by validation" in out
    source = Path(main.__code__.co_filename).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests"], capture_output=True, text=True,
        env={"PYTHONPATH": f"{source}:.", "PATH": "", "HOME": str(project), "ROBODE_TRUST": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_an_empty_folder_may_be_there_and_another_name_be_given(call: Call, tmp_path: Path) -> None:
    (tmp_path / "2026").mkdir()
    assert call("init", "2026", "name=years")[0] == 0
    assert (tmp_path / "2026" / "years" / "family.py").is_file() and (tmp_path / "2026" / ".gitignore").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "expected one folder"), (("a", "b"), "expected one folder"), (("full",), "it has kept.txt"),
        (("full/kept.txt",), "this is a file"), (("2026",), "name=PACKAGE is needed"), (("torch",), "there already"),
        (("new", "name=robode"), "there already"), (("new", "name=a-b"), "small letters"),
        (("new", "name=class"), "small letters"), (("new", "name="), "small letters"), (("new", "nam=x"), "one folder"),
    ],
)  # fmt: skip
def test_refused_in_a_line(words: tuple[str, ...], expected: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("kept")
    code, out, err = call("init", *words)
    assert code == 2 and expected in err and len(err.splitlines()) == 1 and out == ""
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "kept.txt"]


def test_a_full_disk_leaves_nothing(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def refuse(path: Path, *args: str, **kwargs: str) -> int:
        if path.suffix == ".toml":
            raise OSError(28, "No space left on device", str(path))
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", refuse)
    code, _, err = call("init", "deep/lab_new")
    assert code == 1 and "No space left" in err and list(tmp_path.iterdir()) == []
