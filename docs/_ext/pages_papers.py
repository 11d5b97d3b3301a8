"""The reproduced papers: a page for each item of docs/results, and a list of all items of conf/paper."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tables import prose, table

from robode.config.listing import options
from robode.papers.spec import Item, Paper, load
from robode.verbs.report import kept

RESULTS = "results"


def pages(docs: Path) -> dict[str, str]:
    """File name -> text."""
    papers = [load(name) for name in options("paper")]
    done = {where: item for paper in papers for item in paper.items.values() for where in _places(item)
            if (docs / RESULTS / where / "report.json").is_file()}  # fmt: skip
    found = {f"papers/{name}.md": _page(docs / RESULTS / name, item) for name, item in done.items()}
    return {"papers/index.md": "\n".join(_index(papers, set(done))), **found}


def _places(item: Item) -> dict[str, str]:
    """Where the report of each variant is -> what its title is."""
    default, *others = item.experiment
    titles = {default: prose(item.title)} | {each: f"{prose(item.title)} (variant={each})" for each in others}
    return {f"{item.paper.name}/{item.of_variant(each)}": title for each, title in titles.items()}


def _index(papers: list[Paper], done: set[str]) -> Iterator[str]:
    yield "# Reproduced papers\n\nMade from the tables in docs/results. [How to reproduce one](../../reproduce.md).\n"
    for paper in papers:
        about = next(iter(paper.items.values())).paper
        yield f"## {prose(about.title)}\n\n{prose(about.citation)}\n"
        rows = [(f"[`{where}`]({where}.md)" if where in done else f"`{where}` (not run)", title)
                for item in paper.items.values() for where, title in _places(item).items()]  # fmt: skip
        yield table(("item", "what"), rows)
    listed = "\n".join(sorted(done))
    yield f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def _page(folder: Path, item: Item) -> str:
    known: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    where = f"{item.paper.name}/{folder.name}"
    up = f"../../../{RESULTS}/{where}"
    parts = [f"# {_places(item)[where]}\n", f"{prose(item.paper.citation)}\n"]
    if known["label"]:
        parts.append(f"**{prose(known['label'])}**\n")
    parts += [f"```text\n{known['command']}\n```\n", f"{prose(item.note)}\n"]
    parts += [f"{prose(known['about_variant'])}.\n"] if known["about_variant"] and len(item.experiment) > 1 else []
    for stem, title, caption in known.get("figures", []):
        file = kept(folder, stem)
        parts.append(f"![{prose(title)}]({up}/figures/{file.name})\n\n*{prose(title)}*: {prose(caption)}\n")
    text = (folder / "table.md").read_text(encoding="utf-8").partition("\n")[2]
    text = text.replace(f"**{known['label']}**\n", "", 1)  # stands above already
    parts.append(f"## Table\n\n{text}\n" + _differences(item) + _files(folder, up, known))
    return "\n".join(parts)


def _differences(item: Item) -> str:
    rows = [[prose(each) for each in (found.about, found.text, found.experiment, found.here)]
            for found in item.paper.differences]  # fmt: skip
    shown = table(("about", "the paper's text", "its published experiment", "here"), rows)
    return f"\n## Known differences\n\n{shown}\n" if rows else ""


def _files(folder: Path, up: str, known: dict[str, Any]) -> str:
    names = ("report.html", "table.csv", "table.tex", "rows.csv", "numbers.csv", "runs.csv", "paired.csv")
    links = [f'<a href="{up}/{name}">{name}</a>' for name in names if (folder / name).is_file()]
    made = "; ".join(f"{name} {version}" for name, version in known.get("versions", {}).items())
    return f"\n## Files\n\n{', '.join(links)}\n\nCommits {known.get('commit', '')}; {prose(made)}.\n"
