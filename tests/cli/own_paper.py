"""The paper that docs/own_paper.md writes, as files."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "own_paper.md"
ITEM = "moons_2026/table2"


def write_own_paper(folder: Path) -> Path:
    """The files that docs/own_paper.md shows, as they stand there; the text before each block names it."""
    parts = re.split(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.S)
    names = [re.findall(r"`(conf/\S+\.yaml)`", before)[-1] for before in parts[:-1:2]]
    assert len(names) == 2
    for name, text in zip(names, parts[1::2], strict=True):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    return folder
