"""The pages that nobody writes: from conf/, the docstrings and docs/results into docs/_generated, before the build."""

import re
import shutil
from pathlib import Path

import pages_api
import pages_leaderboard
import pages_papers
import pages_words
from sphinx.application import Sphinx

FOLDER = "_generated"
REST = "(every other page)"


def write(app: Sphinx) -> None:
    """Every page that changed; those that nothing makes any more go."""
    docs = Path(app.srcdir)
    folder = docs / FOLDER
    found = {**pages_words.pages(), **pages_api.pages(), **pages_papers.pages(docs), **pages_leaderboard.pages(docs)}
    for old in set(folder.rglob("*.md")) - {folder / name for name in found}:
        old.unlink()
    for name, text in found.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def list_the_rest(app: Sphinx, docname: str, source: list[str]) -> None:
    """In the front page's lists of pages, those that it does not name: a new page needs no entry."""
    if docname == "index":
        named = {"index", *re.findall(r"^\w+$", source[0], re.M)}
        rest = sorted(page.stem for page in Path(app.srcdir).glob("*.md") if page.stem not in named)
        source[0] = source[0].replace(REST, "\n".join(rest))


def copy_reports(app: Sphinx, error: Exception | None) -> None:
    """The published reports beside the pages, with the files that they link to."""
    for report in sorted(Path(app.srcdir).glob("results/*/*/report.html")):
        folder = report.parent
        shutil.copytree(folder, Path(app.outdir) / folder.relative_to(app.srcdir), dirs_exist_ok=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("source-read", list_the_rest)
    app.connect("build-finished", copy_reports)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
