"""The page of `robode compare`: where configurations differ, curves in one picture, paired tests with intervals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from robode.files import make_folder, write_text
from robode.report.compare import SAME, Comparison, curves_figure
from robode.report.paper_page import place_of
from robode.report.style import picture, save, without_places, write_html
from robode.runs.run import Run

CAPTION = "Losses and scores that were logged in each training, over its epochs."


class Shown(NamedTuple):
    """A run on the page. name: in the tables; folder: below outputs/; link: to its own page, "" without one."""

    name: str
    id: str
    folder: str
    link: str
    state: str


def write_comparison(folder: Path, found: Comparison, text: str, command: str) -> Path:
    """Write report.html, comparison.txt (text) and figures/curves.png and .pdf, where something was logged. Returns the
    page. Raises `JobFailed` if the disk refuses."""
    make_folder(folder)
    write_text(folder / "comparison.txt", without_places(text) + "\n")
    figure = curves_figure(found.logs)
    drawn = [picture(save(figure, folder / "figures", "curves")[0], "Training", CAPTION)] if figure else []
    head, *differing = found.configurations
    return write_html(
        folder / "report.html",
        "compare_page.html.j2",
        runs=[_shown(name, run, found.states[name], folder.resolve()) for name, run in found.runs.items()],
        columns=head[1:],
        differing=differing,
        same=SAME,
        figures=drawn,
        questions=found.questions,
        tested=any(question.differences for question in found.questions),
        notes=found.notes,
        warnings=found.warnings,
        command=command,
    )


def _shown(name: str, run: Run, state: str, page: Path) -> Shown:
    where, _ = place_of(run.folder, page)
    own = run.folder.resolve() / "report.html"
    link = Path(os.path.relpath(own, page)).as_posix() if own.is_file() else ""
    return Shown(name, run.id, where, link, state)
