"""‡: an accuracy that fails gradient-masking checks is marked in every table, with how many runs and why."""

from __future__ import annotations

import pandas as pd
import pytest
from small_tables import ITEM, collected, run_folder

from robode.masking.file import write_part
from robode.papers.publish import restore
from robode.report import tables
from robode.report.cells import build_table, compare
from robode.report.paper_page import write_runs_report
from robode.report.values import DOUBT, combine

REASON = "APGD (dlr) finds 61.0 % more"
LEGEND = f"‡ gaussian 0.2: fails gradient-masking checks in 1 of 3 runs: {REASON}."


def verdict(seed: int, eps: float, text: str, **changes) -> dict:
    about = {"weights": "0a1b", "split": "test", "evaluation": "e1", "noise_seed": seed, "eps": eps}
    return about | {"verdict": text} | changes


@pytest.fixture
def folders(tmp_path):
    """Three seeds of one configuration; the accuracy at 0.2 fails in the second of them alone."""
    runs = [run_folder(tmp_path / "runs", seed, 60 + seed) for seed in (1, 2, 3)]
    for seed, run in enumerate(runs, start=1):
        word = (
            f"fails 1 of 9 gradient-masking checks: {REASON}"
            if seed == 2
            else "passes without checks: 96.7 of the 97.4 % are proven"
        )
        write_part(run, "verdicts", [verdict(seed, 0.2, word), verdict(seed, 0.05, "passes 9 gradient-masking checks")])
    other = verdict(3, 0.2, "fails 1 of 9 gradient-masking checks: it is of other weights", weights="gone")
    write_part(runs[2], "verdicts", [other, {"eps": "?"}])
    return runs


@pytest.mark.slow
def test_a_cell_is_marked_where_one_seed_fails_and_says_why(folders, tmp_path):
    page = write_runs_report(tmp_path / "report", folders, {}).page
    text, tex, html = ((tmp_path / "report" / name).read_text() for name in ("table.md", "table.tex", page.name))
    (line,) = (line for line in text.splitlines() if line.startswith("| chnode"))
    *others, marked = line.strip("| ").split(" | ")
    assert marked.endswith(" ‡") and not any("‡" in each for each in others), "levels ascend: 0.2 comes last"
    assert f"- {LEGEND}" in text and text.count("‡") == 2
    assert tex.count(r"$^\ddagger$") == 2 and "finds 61.0 \\% more" in tex
    assert html.count("‡") == 2 and f"<li>{LEGEND}</li>" in html
    assert f"fails gradient-masking checks in 1 of 3 runs: {REASON}" in html, "where the pointer rests on the cell"
    table = pd.read_csv(tmp_path / "report" / "table.csv")
    assert table["doubted"].tolist() == [0, 0, 1] and table["doubt"].tolist()[-1] == REASON
    rows = pd.read_csv(tmp_path / "report" / "rows.csv", keep_default_na=False)
    assert rows[rows[DOUBT] != ""][["seed", "severity", DOUBT]].to_numpy().tolist() == [[2, 0.2, REASON]]


def test_a_report_that_is_made_again_from_its_tables_keeps_the_doubt(tmp_path):
    found = collected(tmp_path)
    doubtful = found.rows.assign(**{DOUBT: [REASON, *[""] * (len(found.rows) - 1)]})
    for name, frame in (("rows.csv", doubtful), ("numbers.csv", found.numbers), ("runs.csv", found.runs)):
        frame.to_csv(tmp_path / name, index=False)
    again = restore(tmp_path, ITEM).values
    assert again[DOUBT].dropna().loc[lambda each: each != ""].tolist() == [REASON]
    found.rows.to_csv(tmp_path / "rows.csv", index=False)
    assert set(restore(tmp_path, ITEM).values[DOUBT].fillna("")) == {""}, "of an earlier version"


@pytest.mark.slow
def test_without_a_failure_no_table_speaks_of_it(folders, tmp_path):
    write_part(folders[1], "verdicts", [])
    page = write_runs_report(tmp_path / "report", folders, {}).page
    assert not any("‡" in (tmp_path / "report" / name).read_text() for name in ("table.md", page.name))


def test_reasons_of_several_cells_are_summed_up_by_column(tmp_path):
    found = collected(tmp_path)
    reasons = [f"{REASON[:-1]}{number}" if column == "s&p .2" else "" for number, column in
               zip(found.rows["row"], found.rows["column"], strict=True)]  # fmt: skip
    doubtful = combine(found.runs, found.rows.assign(**{DOUBT: reasons}), found.numbers)
    cells = compare(ITEM, doubtful)
    table = build_table(ITEM, cells, doubtful.runs)
    (legend,) = (note for note in table.notes if note.startswith("‡"))
    assert legend == f"‡ s&p .2: fails gradient-masking checks in 6 of 6 runs: {reasons[1]}, and the like."
    (both,) = (cell for _, lines in table.groups for line in lines for cell in line.cells if cell.marks == " † ‡")
    assert both.doubt == f"in 3 of 3 runs: {REASON[:-1]}1" == both.behind["fails gradient-masking checks"]
    assert " † ‡" in tables.markdown(table) and r"$^\dagger$ $^\ddagger$" in tables.latex(table)


def test_tables_of_earlier_versions_have_no_such_column(tmp_path):
    found = collected(tmp_path)
    assert DOUBT not in found.rows and set(found.values[DOUBT].fillna("")) == {""}
    table = build_table(ITEM, compare(ITEM, found), found.runs)
    assert not any("‡" in note for note in table.notes) and "‡" not in tables.markdown(table)
