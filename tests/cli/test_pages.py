"""Every page of docs/ that shows commands: they compose, and they run as printed, one after the other."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
from command_line import calling
from pages import PAGES, README, ROOT, Block, blocks, commands

from robode.cli.main import main
from robode.config.config import CONFIGS

TYPED = [page for page in PAGES if any(block.language in ("bash", "python") for block in blocks(page))]
ELSEWHERE = {"extending.md", "own_data.md", "own_paper.md"}
"""Have tests that look at what they print."""
COMPOSED = [(page, words) for page in [README, *PAGES] for words in commands(page, "bash", "sh") if words[1] in CONFIGS]
OWN = ("own_", "extending")
"""Pages whose commands need the files that they show."""


def test_there_is_something_to_check() -> None:
    assert len(TYPED) >= 8 and {page.name for page in TYPED} >= ELSEWHERE and len(COMPOSED) > 30


@pytest.mark.parametrize(
    ("page", "words"), [(page.name, words) for page, words in COMPOSED if not page.name.startswith(OWN)]
)
def test_every_command_composes(page: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rest = [word for word in words[1:] if word != "--dry-run"]
    assert main([*rest, "--cfg"]) == 0, capsys.readouterr().err


def test_the_file_of_a_block_is_the_one_that_the_text_before_it_names() -> None:
    shown = [block.file for block in blocks(ROOT / "docs" / "own_attack.md") if block.file]
    assert shown == ["line_lab/line.py", "conf/suite/line.yaml"]


def write(block: Block) -> None:
    """The file that a block is, in a package where its folder is one."""
    path = Path(block.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".py":
        (path.parent / "__init__.py").touch()
    path.write_text(block.text)
    importlib.invalidate_caches()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in TYPED if page.name not in ELSEWHERE], ids=lambda page: page.stem)
def test_a_page_runs_as_printed(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])  # they have tests of their own
    names: dict[str, object] = {}
    call = calling(capsys)
    for block in blocks(page):
        if block.file:
            write(block)
        elif block.language == "python":
            exec(compile(block.text, page.name, "exec"), names)
        for words in block.commands if block.language == "bash" else []:
            if words[0] == "export":
                monkeypatch.setenv(*words[1].split("=", 1))
                continue
            answer = call(*words[1:])
            assert words[0] == "robode" and answer.code == 0, f"{' '.join(words)}: {answer.err}"
    assert os.listdir(folder)
