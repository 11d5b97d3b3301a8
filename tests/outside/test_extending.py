"""docs/extending.md: its package passes the contracts, its commands run as printed, and what it says is so."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robode.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
PYTHON, YAML = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.S) for language in ("python", "yaml"))
(COMMANDS,) = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
Lab = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lab:
    """A command line in a folder with the page's files."""
    files = re.findall(r"`(?:\./)?((?:conf|sequences_lab)/[\w/]+\.(?:py|yaml))`", PAGE)
    for name, text in zip((files[0], *files[2:]), (PYTHON[0], *YAML), strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / files[1]).write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ROBODE_TRUST", "sequences_lab")
    monkeypatch.delenv("ROBODE_CONFIG_PATH", raising=False)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    exec(compile(PYTHON[1], "extending.md", "exec"), {})

    def call(line: str) -> tuple[int, str, str]:
        program, *words = shlex.split(line)
        assert program == "robode"
        code = main(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_check_accepts_the_package_and_a_step_hears_its_own_number_alone(lab: Lab) -> None:
    code, out, err = lab("robode check sequences_lab")
    assert (code, err) == (0, "") and "3 checked, ok" in out
    names: dict[str, type] = {}
    exec(compile(PYTHON[0], "recurrent.py", "exec"), names)
    from robode.integrators.euler import Euler

    torch.manual_seed(0)
    flow = names["Recurrent"](5, 4, Euler(), 0.3)
    x = torch.randn(2, 4)
    other = x.clone()
    other[:, 2] += 1
    before, after = (flow.states(torch.zeros(2, 5), each) for each in (x, other))
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, True, False, False]


@pytest.mark.slow
def test_the_commands_run_as_printed_and_the_memory_learns(lab: Lab) -> None:
    exported, lines = (
        [line for line in COMMANDS.splitlines() if line.startswith("export ") == which] for which in (True, False)
    )
    assert exported == ["export ROBODE_TRUST=sequences_lab", "export PYTHONPATH=."] and len(lines) == 4
    said = []
    for line in lines:
        code, out, err = lab(line)
        assert code == 0, f"{line}: {err}"
        said.append(out)
    (accuracy,) = re.findall(r"clean +– +([\d.]+) %", said[1])
    assert float(accuracy) > 95 and "vacuous" in said[3]
