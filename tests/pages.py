"""The pages of the documentation as what they are to a reader: files to write, Python to run, commands to type.

A block is a file where the text before it names one (`./conf/model/x.yaml`) and ends with a colon. A block of `bash` is
typed as it stands; one of `sh` needs a GPU, a data set or hours.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
FILE = re.compile(r"`(?:\./)?([\w/]+/[\w/]+\.(?:py|yaml))`")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page. file: where its text is to be written, or ""."""

    language: str
    text: str
    file: str = ""

    @property
    def commands(self) -> list[list[str]]:
        """Its lines as words, without comments."""
        return [words for line in self.text.splitlines() if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    """Every fenced block, in order."""
    parts = re.split(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [
        Block(language, text, _file(before))
        for before, language, text in zip(parts[:-1:3], parts[1::3], parts[2::3], strict=True)
    ]


def _file(before: str) -> str:
    """The file that the paragraph before a block names, where it ends with a colon."""
    paragraph = before.rstrip().rpartition("\n\n")[2]
    named = FILE.findall(paragraph)
    return named[0] if named and paragraph.endswith(":") else ""


def commands(page: Path, *languages: str) -> list[list[str]]:
    """Every command line of robode on a page."""
    found = [words for block in blocks(page) if block.language in languages for words in block.commands]
    return [words for words in found if words[0] == "robode"]
