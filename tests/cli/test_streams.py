"""Output that cannot be shown, or that nobody reads, ends no job."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import SMALL

import robode
from robode.cli.main import main
from robode.runs.run import Run

SOURCE = str(Path(robode.__file__).parents[1])
LEGACY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"}, LEGACY], ids=str
)
def test_what_cannot_be_shown_is_replaced(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "robode", "list", "objectives", "papers"]
    known = {**os.environ, "PYTHONPATH": SOURCE, **environment}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=known, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"cross_entropy" in done.stdout and b"?" in done.stdout


def trained(words: tuple[str, ...], stream: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of a command whose standard output is this stream."""
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(["train", *SMALL, "epochs=1", *words]) == 0
    (config,) = Path("outputs").glob("*/*/config.yaml")
    return Run(config.parent)


def test_a_terminal_without_unicode_gets_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "shown").open("w", encoding="ascii") as stream:
        run = trained((), stream, monkeypatch)
    assert run.state == "done" and (run.folder / "report.html").is_file()
    assert "report:" in (tmp_path / "shown").read_text(encoding="ascii")


@pytest.mark.slow
def test_a_reader_that_has_gone_interrupts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as stream:
        run = trained((), stream, monkeypatch)
    assert run.state == "done" and (run.folder / "report.html").is_file()
