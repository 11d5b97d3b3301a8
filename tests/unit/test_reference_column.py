"""The score with the reference solver: from results.csv to the run's page and the table in the terminal."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from robode.report import tables
from robode.report.page import write_page
from robode.runs import results
from robode.tasks.measure import CLASSIFICATION


def row(severity, correct, reference, **changes):
    about = {
        "run": "r", "checkpoint": "best", "weights": "w", "split": "test", "protocol": "data_space", "seed": 0,
        "noise_seed": 0, "perturbation": "pgd_l2", "norm": "l2", "severity_unit": "eps", "repeat": 0, "n": 100,
    }  # fmt: skip
    found = {"severity": severity, "task": str(CLASSIFICATION), "score": correct / 100}
    found["score_reference"] = None if reference is None else reference / 100
    return dict.fromkeys(results.COLUMNS) | about | found | changes


CLEAN = row(0.0, 97, None, perturbation="clean", norm="none", severity_unit="none")
# Wilson's interval of 80 of 100 is [71.1, 86.7]: half of it is 7.8 points
SAME, OTHER, HIGHER = row(0.1, 80, 87), row(0.2, 80, 72), row(0.3, 80, 88)


def summary(tmp_path, *rows):
    results.append_rows(tmp_path / "results.csv", rows)
    return results.summarise(results.read_rows(tmp_path / "results.csv"))


def terminal(found, color=False):
    out = Console(file=io.StringIO(), width=140, force_terminal=color, color_system="standard" if color else None)
    out.print(tables.results_table(found))
    return out.file.getvalue()


def page_cells(tmp_path):
    """Of the last table of the page: heads and, line by line, (class, text) of each cell."""
    page = write_page(tmp_path).read_text()
    table = page.split("<h2>Results</h2>")[1].split("</table>")[0]
    lines = [
        re.findall(r'<td(?: class="([^"]*)")?(?: data-column="[^"]*")?>([^<]*)', line)
        for line in table.split("<tr>")[2:]
    ]
    return re.findall(r"<th(?: [^>]*)?>([^<]*)", table), lines, page


def test_the_summary_has_the_share_over_all_copies_and_none_where_a_copy_has_none(tmp_path):
    copies = [row(0.1, 80, 60), row(0.1, 70, 70, repeat=1), row(0.2, 50, 50), row(0.2, 50, None, repeat=1)]
    found = summary(tmp_path, *copies).set_index("severity")
    assert found.loc[0.1, "score_reference"] == pytest.approx(0.65) and np.isnan(found.loc[0.2, "score_reference"])
    assert "repeat" not in found


def test_rows_that_were_just_measured_are_summarised_like_those_of_a_file():
    more = {"code": "", "score": 0.8, "seconds": 1.0, "flow_discrete": 1.0}
    measured = [SAME | more, OTHER | more | {"score_reference": None}]
    shown = results.summarise(pd.DataFrame(measured))["score_reference"].tolist()
    assert shown[0] == 0.87 and np.isnan(shown[1])


def test_more_than_half_the_interval_is_a_difference_in_both_directions(tmp_path):
    found = summary(tmp_path, CLEAN, SAME, OTHER, HIGHER)
    assert [tables.differs(line) for _, line in found.iterrows()] == [False, False, True, True]
    assert [tables.reference(line) for _, line in found.iterrows()] == ["–", "87.0 %", "≠ 72.0 %", "≠ 88.0 %"]


def test_the_page_has_a_column_that_marks_differences_and_says_what_they_mean(tmp_path):
    summary(tmp_path, CLEAN, SAME, OTHER)
    heads, lines, page = page_cells(tmp_path)
    at = heads.index("reference solver")
    assert [line[at] for line in lines] == [("right", "–"), ("right", "87.0 %"), ("right differs", "≠ 72.0 %")]
    assert all(len(line) == len(heads) for line in lines)
    assert "belongs to the solver, not to the ODE" in page and "td.differs {" in page


def test_the_terminal_has_it_too_in_colour(tmp_path):
    found = summary(tmp_path, CLEAN, SAME, OTHER)
    text = terminal(found)
    assert "reference" in text and "≠ 72.0 %" in text and "to the ODE" in " ".join(text.split())
    colored = terminal(found, color=True)
    assert re.search(r"\x1b\[1;33m *≠ 72\.0 %", colored) and not re.search(r"\x1b\[1;33m *87\.0", colored)


def test_without_a_second_scoring_there_is_no_column(tmp_path):
    found = summary(tmp_path, CLEAN, row(0.1, 80, None))
    assert found["score_reference"].isna().all() and "reference" not in terminal(found)
    heads, lines, page = page_cells(tmp_path)
    assert len(lines) == 2 and "reference" not in "".join(heads)
    assert "Reference solver" not in page and "differs" not in page


def test_a_file_from_before_the_column_is_shown_as_it_was(tmp_path):
    summary(tmp_path, CLEAN, SAME)
    file = pd.read_csv(tmp_path / "results.csv", dtype=str, keep_default_na=False)
    file.drop(columns=list(results.ADDED)).to_csv(tmp_path / "results.csv", index=False)
    heads, lines, _ = page_cells(tmp_path)
    assert "reference solver" not in heads and [line[2][1] for line in lines] == ["97.0 %", "80.0 %"]
