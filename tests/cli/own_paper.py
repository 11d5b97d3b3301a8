"""The paper that docs/own_paper.md writes, as files."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "own_paper.md"
ITEM = "moons_2026/table2"


def write_own_paper(folder: Path) -> Path:
    """The files that docs/own_paper.md shows."""
    blocks = re.findall(r"```yaml\n# (conf/\S+)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    for name, text in blocks:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    return folder
