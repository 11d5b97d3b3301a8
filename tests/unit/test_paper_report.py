"""The report of a table: cells, verdicts, text, page, and the way back to the runs."""

import dataclasses
import html
import io
import itertools
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from small_runs import composed
from small_tables import COLUMNS, DIFFERENCES, ITEM, SEEDS, collected, run_folder

from robode.errors import BadInput
from robode.papers.publish import pairs_of, render, restore
from robode.report import tables
from robode.report.cells import CELL_COLUMNS, SYMBOLS, build_table, compare, ours, summary, tally
from robode.report.paired import outcomes, paired
from robode.report.paper_page import _blocks, paper_and_ours, write_report, write_runs_report
from robode.report.runs_page import runs_report, runs_table
from robode.report.statistics import estimate
from robode.report.style import without_places
from robode.report.tables import terminal
from robode.runs import results
from robode.runs.run import Run
from robode.tasks.regression import Regression


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def cells(found):
    return compare(ITEM, found)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """outputs/reports/chnode_2022/table1 beside the runs, one of which has a page."""
    outputs = tmp_path_factory.mktemp("outputs")
    there = collected(outputs)
    (outputs / "chnode_2022" / "table1" / "run-0-s1" / "report.html").touch()
    context = {
        "size": "quick", "variant": "script", "label": "quick: <i>not comparable</i>", "commit": "9e6a183",
        "command": "robode reproduce chnode_2022/table1 data.root=/home/someone/data", "versions": {"torch": "2.11"},
        "configs": {"N = 4 CH-NODE": "data:\n  root: /home/someone/data\n"},
    }  # fmt: skip
    return write_report(outputs / "reports" / "chnode_2022" / "table1", ITEM, there, context).page


def cell(cells, row, column):
    return cells[(cells["row"] == row) & (cells["column"] == column)].iloc[0]


def test_there_is_one_line_per_cell_in_percent_over_seeds(cells):
    assert list(cells.columns) == list(CELL_COLUMNS) and len(cells) == 9
    clean = cell(cells, 0, "test")
    assert clean["mean"] == pytest.approx(97.0) and clean["n"] == 3 and clean["published"] == 97.01
    assert clean["t_low"] > clean["pi_low"] and clean["t_high"] < clean["pi_high"]
    assert clean["runs"] == [f"run-0-s{seed}" for seed in SEEDS] and clean["samples"] == 400
    noisy = cell(cells, 1, "s&p .2")
    assert noisy["repeats"] == 2 and noisy["repeat_std"] == pytest.approx(np.std([0.0, 0.5], ddof=1))
    assert noisy["mark"] and not cell(cells, 0, "s&p .2")["mark"]


def test_every_verdict_is_where_it_belongs(cells):
    assert cell(cells, 0, "test")["verdict"] == "agrees"
    assert cell(cells, 1, "test")["verdict"] == "higher"
    assert cell(cells, 1, "s&p .2")["verdict"] == "lower"
    assert cell(cells, 0, "s&p .2")["verdict"] == "undecided"
    assert cell(cells, 2, "test")["verdict"] == cell(cells, 2, "s&p .2")["verdict"] == "not run"
    assert tally(cells) == {"agrees": 1, "higher": 2, "lower": 1, "spread": 0, "undecided": 1, "not run": 1}
    said = "6 cells: 1 agrees, 2 higher, 1 lower, 1 undecided, 1 not run; 3 without a published number"
    assert summary(cells, pd.Series({0: 3, 1: 3, 2: 3})) == said
    more = int((cells[cells["row"] == 0]["n"] > 0).sum())
    assert summary(cells, pd.Series({0: 4, 1: 3, 2: 3})) == f"{said}; {more} with fewer seeds than planned"


def test_a_cell_says_what_its_verdict_calls_for(tmp_path):
    row = dataclasses.replace(ITEM.rows[0], seeds=tuple(range(1, 13)))
    wide = dataclasses.replace(ITEM, rows=(row, *ITEM.rows[1:]))
    there = collected(tmp_path)
    values = there.values[(there.values["row"] == 0) & (there.values["column"] == "s&p .2")]
    many = [values.iloc[:1].assign(seed=seed, value=0.1 * seed, run=f"r{seed}", folder=None) for seed in range(1, 11)]
    there = dataclasses.replace(there, values=pd.concat(many, ignore_index=True))
    cells = compare(wide, there)
    spread = cell(cells, 0, "s&p .2")
    assert (spread["verdict"], spread["percentile"]) == ("spread", 40.0) and np.isnan(spread["needed"])
    table = build_table(wide, cells, there.runs)
    shown = table.groups[0][1][0].cells[1]
    assert shown.judged == "spread (40 %)" and any(note.startswith("spread (35 %)") for note in table.notes)
    report = write_report(tmp_path / "report", wide, there, {}).page
    assert "↔ spread (40\u00a0%)</span>" in report.read_text() and "1 spread" in table.summary
    assert "spread (40 \\%)" in (report.parent / "table.tex").read_text()
    for seeds, needed in ((1, 2), (3, 10)):
        few = compare(wide, dataclasses.replace(there, values=there.values.iloc[:seeds]))
        found = build_table(wide, few, there.runs)
        assert found.groups[0][1][0].cells[1].judged == f"undecided (n = {needed})"
        assert any(note.startswith("undecided (n = 14)") for note in found.notes)


def test_bounds_of_a_number_are_shown_as_what_they_are(cells):
    radius = cell(cells, 0, "ε_r")
    assert ours(radius, "prediction") == "0.62 … 0.72" and radius["verdict"] == "higher"
    one_sided = pd.Series(radius.to_dict() | {"mean_high": np.inf, "pi_high": np.inf})
    assert ours(pd.Series({**one_sided, "max": 0.63}), "prediction") == "≥ 0.620 (0.610 … 0.630)"
    assert ours(pd.Series({**one_sided, "n": 5}), "prediction") == "≥ 0.620 ± 0.050"


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([10.0, 90.0], "50.0 (10.0 … 90.0)"),  # its prediction interval is 50.0 ± 880.3
        ([98.0, 99.0, 90.0, 80.0, 95.0], "92.4 [68.8, 100.0]"),
        ([92.0, 93.0, 90.0, 91.0, 95.0], "92.2 ± 5.9"),
    ],
)
def test_a_percentage_is_never_said_to_be_beyond_0_and_100(seeds, said):
    found = estimate(seeds)
    cell = {"mean_low": found.mean, "mean_high": found.mean, "unit": "%", "min": min(seeds), "max": max(seeds)}
    assert ours(pd.Series(dataclasses.asdict(found) | cell), "prediction") == said


@pytest.mark.parametrize(("seeds", "label"), [(SEEDS, ""), ((1,), "one seed in every cell")])
def test_a_table_of_single_seeds_is_not_called_full(tmp_path, seeds, label):
    there = collected(tmp_path)
    keep = {
        name: getattr(there, name)[lambda frame: frame["seed"].isin(seeds)] for name in ("values", "rows", "numbers")
    }
    report = write_report(tmp_path / "report", ITEM, dataclasses.replace(there, **keep), {"size": "full"})
    page, text = report.page.read_text(), (tmp_path / "report" / "table.md").read_text()
    assert report.table.label == label and ("<span>size <b>full</b></span>" in page) == (not label)
    assert (f"**{label}**" in text) == bool(label) == ("one seed in every cell" in page)


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_breaks_no_cell_and_no_name(cells, found, width):
    table = build_table(ITEM, cells, found.runs)
    pieces = terminal(table, width)
    assert len(pieces) == (1 if width == 200 else 2)
    out = Console(file=io.StringIO(), width=width)
    for piece in pieces:
        out.print(piece)
    text = out.file.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…\n" not in text
    for group, rows in table.groups:
        for row in rows:
            assert group in text and all(
                f"{each.ours}{each.marks} {SYMBOLS[each.verdict]}" in text for each in row.cells
            )


def test_runs_of_one_row_that_differ_are_refused_with_the_key(tmp_path):
    there = collected(tmp_path, with_bits=False)
    config = tmp_path / "chnode_2022" / "table1" / "run-1-s2" / "config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"depth": 5}))
    with pytest.raises(BadInput, match="^depth: expected one value .* 4 in run-1-s1, 5 in run-1-s2$"):
        compare(ITEM, there)


def test_markdown_has_the_same_columns_in_every_line(cells, found):
    text = tables.markdown(build_table(ITEM, cells, found.runs, "quick: not comparable"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {len(COLUMNS) + 4}
    assert (
        r"97.01 \| 97.00 (96.75 … 97.25) \| agrees" in text
        and r"42.02 \| 50.2 (40.2 … 60.2) \| undecided (n = 10)" in text
    )
    assert r"89.01 \| – \| not run" in text and r"99.90 \| 60.25 (60.00 … 60.50) † \| lower" in text
    assert "**quick: not comparable**" in text and r"ResNet\_1 & co" in text and "- † some" in text


def test_every_line_of_a_latex_table_fills_its_columns(cells, found):
    text = tables.latex(build_table(ITEM, cells, found.runs, "100 % of γ_min, 日"))
    blocks = re.findall(r"\\begin{tabular}{(.*?)}\n(.*?)\\end{tabular}", text, re.DOTALL)
    assert len(blocks) == 2  # three columns of the paper do not fit beside each other
    for kinds, body in blocks:
        width = len(re.sub(r"@{.*?}", "", kinds))
        lines = [line for line in body.splitlines() if line.endswith(r" \\")]
        for line in lines:
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn{(\d+)}", line))
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == width
    assert r"ResNet\_1 \& co" in text and r"100 \% of $\gamma$\_min" in text and r"$\varepsilon$\_r" in text
    assert text.isascii() and text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_the_csv_has_every_cell(cells):
    again = pd.read_csv(io.StringIO(tables.csv(cells)), keep_default_na=False, na_values=[""])
    assert list(again.columns) == list(CELL_COLUMNS)
    assert again["mean"].to_numpy() == pytest.approx(cells["mean"].to_numpy(), rel=1e-5, nan_ok=True)
    assert again["runs"].fillna("").tolist() == [" ".join(names) for names in cells["runs"]]


@pytest.mark.parametrize(("columns", "blocks"), [(0, 1), (1, 1), (8, 1), (9, 2), (19, 3)])
def test_a_wide_table_goes_on_below_and_lacks_no_column(columns, blocks):
    found = _blocks(columns)
    assert len(found) == blocks and found[0][0] == 0 and found[-1][1] == columns
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(found))
    sizes = [end - start for start, end in found]
    assert max(sizes) <= 8 and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2])
def test_the_figure_shows_its_whole_legend_and_keeps_rows_apart(cells, rows, columns):
    shown = cells[(cells["row"] < rows) & cells["column"].isin(list(COLUMNS)[:columns])]
    figure = paper_and_ours(shown)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_texts()[-1].get_text() == "paper"
    whole, box = figure.bbox, legend.get_window_extent()
    assert box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 - lower.y1 > 0.3 * lower.height for upper, lower in itertools.pairwise(labels))
    assert all(ax.get_tightbbox().y0 >= box.y1 for ax in figure.axes)


def test_every_value_of_a_page_says_its_column_where_there_is_no_head(report):
    """Narrow screens hide the heads of tables and show the names of columns before the values."""
    page = report.read_text()
    for kind in ("cells", "pairs paragraphs", "runs stack", "certificates stack"):
        table = page.partition(f'<table class="{kind}">')[2].partition("</table>")[0]
        head = re.findall(r"<th[^>]*>([^<]+)</th>", table.partition("</thead>")[0])
        shown = set(re.findall(r'data-column="([^"]*)"', table))
        assert head and set(map(html.unescape, head)) - {"status", "run"} <= set(map(html.unescape, shown)), kind


def test_networks_are_paired_by_seed_on_the_copies_that_both_saw(found):
    warnings = []
    tests = paired(ITEM, found, warnings)
    assert len(tests) == 2 * len(SEEDS) and not warnings  # two columns; row 2 has no partner in its group
    noisy = [test for test in tests if test["column"] == "s&p .2"]
    assert {(test["copies"], test["samples"]) for test in noisy} == {(2, 400)}
    assert all(test["only_a"] == 0 or test["only_b"] == 0 for test in noisy)
    (clean, under_noise) = outcomes(tests)
    assert (clean.a_better, clean.b_better, clean.seeds) == (3, 0, 3)
    assert clean.difference == pytest.approx(0.07)
    assert (under_noise.a_better, under_noise.b_better) == (0, 2)  # in seed 3 they are alike but for one sample


def test_other_noise_is_not_paired_and_a_damaged_file_is_named(tmp_path):
    there = collected(tmp_path)
    mine = there.rows["row"] == 1
    moved = dataclasses.replace(there, rows=there.rows.assign(evaluation=there.rows["evaluation"].where(~mine, "e0")))
    assert paired(ITEM, moved, []) == []
    damaged = sorted(tmp_path.glob("**/scores/*.npy"))[0]
    damaged.write_bytes(b"half")
    warnings = []
    assert len(paired(ITEM, there, warnings)) == 2 * len(SEEDS) - 1
    assert len(warnings) == 1 and damaged.name in warnings[0]


def test_the_page_says_everything_and_is_self_contained(report):
    page = report.read_text()
    for word in ("agrees", "higher", "lower", "undecided", "not run"):
        assert re.search(rf"{re.escape(SYMBOLS[word])} {word}( \(.*?\))?</span>", page)  # never by colour alone
    for each in DIFFERENCES:
        for text in (each.about, each.text, each.experiment.replace("<b>", "&lt;b&gt;"), each.here):
            assert text in page
    assert "quick: &lt;i&gt;not comparable&lt;/i&gt;" in page and "<i>not" not in page
    assert page.count('<details class="card" id="row-') == 3 and "not started" in page and "no space" in page
    assert page.count("data:image/png;base64,") == 1
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not re.findall(r"https?://|<script|<link|@import|url\(", page)


def test_the_page_leads_back_to_the_runs(report):
    page = report.read_text()
    (link,) = re.findall(r'<a href="([^"]*report.html)">run-0-s1</a>', page)
    assert (report.parent / link).is_file()
    assert "in chnode_2022/table1/" in page and "run-1-s2" in page


def test_no_file_of_a_report_knows_where_it_was_made(report):
    outputs = str(report.parents[3])
    for path in report.parent.glob("*.*"):
        assert outputs not in path.read_text() and "/home/" not in path.read_text(), path.name


def test_a_report_can_be_made_again_from_its_own_tables(report, cells, tmp_path):
    there = restore(report.parent, ITEM)
    pd.testing.assert_frame_equal(compare(ITEM, there).drop(columns="mark"), cells.drop(columns="mark"))
    render(tmp_path, ITEM, there, {}, [], pairs_of(report.parent))
    for name in ("paired.csv", "rows.csv", "numbers.csv"):
        assert (tmp_path / name).read_text() == (report.parent / name).read_text()
    pairs = [page.read_text().partition("<h2>Networks against each other")[2].partition("<h2>")[0]
             for page in (report, tmp_path / "report.html")]  # fmt: skip
    assert pairs[0] == pairs[1] != ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot write /home/a b/c", "cannot write …/a b/c"),
        ("root: /somewhere/data", "root: …/data"),
        ("data.root=C:\\users\\x\\data now", "data.root=…/data now"),
        ("train/loss at 3/4, km/h, 5 / 6", "train/loss at 3/4, km/h, 5 / 6"),
        ("outputs/a/b ./c/d https://x.org/a/b", "outputs/a/b ./c/d https://x.org/a/b"),
    ],
)
def test_absolute_paths_are_cut_down_to_their_last_name(text, expected):
    assert without_places(text) == expected


def test_runs_are_grouped_by_configuration_without_seed(tmp_path):
    folders = [run_folder(tmp_path, seed, 80 + seed, lr=lr) for lr in (0.1, 0.01) for seed in (2, 1)]
    groups = runs_table([*folders, folders[0]])
    assert [group.label for group in groups] == ["chnode, N = 4, lr=0.1", "chnode, N = 4, lr=0.01"]
    assert [group.seeds for group in groups] == [(1, 2), (1, 2)]
    assert [group.settings for group in groups] == [{"lr": 0.1}, {"lr": 0.01}]


def test_a_run_that_repeats_a_seed_is_no_further_sample(tmp_path):
    folders = [run_folder(tmp_path / name, 1, 80) for name in "ab"]
    warnings = []
    (group,) = runs_table(folders, warnings)
    assert len(group.runs) == 1 and "same seed" in warnings[0]


def test_any_runs_get_a_table_with_the_interval_of_the_mean(tmp_path):
    folders = [run_folder(tmp_path / "runs", seed, 80 + seed) for seed in (1, 2, 3)]
    folders.append(run_folder(tmp_path / "runs", 1, 70, lr=0.5))
    page = write_runs_report(tmp_path / "report", folders, {"command": "robode report"}).page
    text = (page.parent / "table.md").read_text()
    assert "4 runs, 2 configurations" in text and "| clean | gaussian 0.05 | gaussian 0.2 |" in text
    assert (
        "| chnode, N = 4, lr=0.1 | 3 | 10 | 95.00 (95.00 … 95.00) † | 82.0 (81.0 … 83.0) † | 72.0 (71.0 … 73.0) † |"
        in text
    )
    assert "70.00 (1 seed)" in text and "t-interval" in text and "paper" not in text
    assert re.search(r"<td>lr</td><td [^>]*>0.1</td><td [^>]*>0.5</td>", page.read_text())


def test_runs_that_were_measured_on_other_numbers_of_samples_share_no_column(tmp_path):
    folders = [run_folder(tmp_path / "runs", 1, 80), run_folder(tmp_path / "runs", 1, 80, lr=0.5)]
    rows = results.read_rows(folders[1] / "results.csv").assign(n=20, score=0.9)
    (folders[1] / "results.csv").unlink()
    results.append_rows(
        folders[1] / "results.csv", rows[rows["perturbation"] == "clean"][[*results.COLUMNS]].to_dict("records")
    )
    text = (write_runs_report(tmp_path / "report", folders, {}).page.parent / "table.md").read_text()
    assert "| clean (n = 100) | clean (n = 20) | gaussian 0.05 |" in text
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| chnode")]
    assert [line[3:5] for line in lines] == [["95.00 (1 seed) †", "not run"], ["not run", "90.00 (1 seed) †"]]


def test_runs_without_a_measurement_get_a_page_too(tmp_path):
    folder = run_folder(tmp_path, 1, 80)
    (folder / "results.csv").unlink()
    assert "nothing measured yet" in write_runs_report(tmp_path / "report", [folder], {}).page.read_text()


def test_published_tables_that_count_right_answers_give_the_same_cells(tmp_path):
    found = collected(tmp_path, with_bits=False)
    write_report(tmp_path / "new", ITEM, found, {})
    (tmp_path / "old").mkdir()
    for name in ("numbers.csv", "runs.csv", "rows.csv"):
        table = pd.read_csv(tmp_path / "new" / name, dtype=str, keep_default_na=False)
        if name == "rows.csv":
            correct = (table["score"].astype(float) * table["n"].astype(int)).round().astype(int)
            table = table.assign(correct=correct).drop(columns=["score", "task"])
        table.to_csv(tmp_path / "old" / name, index=False)
    new, old = (compare(ITEM, restore(tmp_path / name, ITEM)) for name in ("new", "old"))
    pd.testing.assert_frame_equal(old, new, check_exact=True)
    assert new["mean"].notna().any()


def test_which_of_two_errors_is_better_depends_on_the_task():
    test = {"group": "", "a": 0, "b": 1, "label_a": "A", "label_b": "B", "column": "c", "difference": 0.5, "p": 0.01}
    (shares,) = outcomes([test])  # of an earlier version: a classification
    (errors,) = outcomes([test | {"task": str(Regression(2).measure)}])
    assert (shares.a_better, shares.b_better) == (1, 0) and (errors.a_better, errors.b_better) == (0, 1)


def test_a_label_names_callbacks_by_the_keys_in_which_they_differ(tmp_path):
    """Of those that one run has and another has not, no Python: neither their class nor a mapping."""
    words = {
        "none": ("callbacks=none",),
        "one": ("callbacks=early_stopping",),
        "longer": ("callbacks=early_stopping", "callbacks.early_stopping.patience=7"),
        "bare": ("callbacks=none", "+callbacks.mine._target_=robode.training.callbacks.ProjectConstraints"),
    }
    for name, each in words.items():
        run = Run(tmp_path / name)
        run.folder.mkdir()
        run.save_config(composed("data=double_moons", *each))
    labels = [group.label for group in runs_table([tmp_path / name for name in ("none", "one", "longer")])]
    assert labels == [
        "chnode, N = 8, monitor=–, mode=–, patience=–",
        "chnode, N = 8, monitor=validation/accuracy, mode=max, patience=5",
        "chnode, N = 8, monitor=validation/accuracy, mode=max, patience=7",
    ]
    labels = [group.label for group in runs_table([tmp_path / name for name in ("none", "bare")])]
    assert labels == ["chnode, N = 8, callbacks=–", "chnode, N = 8, callbacks=mine"]


def started(folder, *words, start=None):
    run = Run(folder)
    run.folder.mkdir(parents=True)
    config = composed("data=double_moons", *words)
    run.save_config(dataclasses.replace(config, start=start, start_weights=start and f"digest of {start}"))
    return run.folder


def test_a_label_names_the_run_that_a_training_began_with(tmp_path):
    starts = [None, "conv_stable_node-N4-s1-0a1b2c3d", "outputs/default/two", "outputs/default/two/last.ckpt"]
    folders = [started(tmp_path / str(i), start=start) for i, start in enumerate(starts)]
    groups = runs_table(folders)
    names = ["–", starts[1], "two", "two/last.ckpt"]
    assert [group.label for group in groups] == [f"chnode, N = 8, start={name}" for name in names]
    assert all(list(group.settings) == ["start"] for group in groups)


def test_which_integrators_a_model_allows_is_no_setting(tmp_path):
    folders = [started(tmp_path / name, f"model={name}") for name in ("chnode", "stable_node")]
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders]
    assert configs[0]["model"].get("integrators") != configs[1]["model"].get("integrators")
    _, _, context = runs_report(folders)
    assert "model.gamma" in context["settings"] and "model.integrators" not in context["settings"]


@pytest.mark.parametrize(
    ("counts", "planned", "said"),
    [([0, 1], 1, "0 or 1 of 1"), ([0, 3], 3, "0 to 3 of 3"), ([2, 3], 3, "2 or 3 of 3"), ([1, 1], 1, "1")],
)
def test_the_seeds_of_a_row_are_said_in_words(cells, found, counts, planned, said, tmp_path):
    runs = found.runs[found.runs["row"] == 0].head(planned)
    here = cells[cells["row"] == 0].head(2).assign(n=counts)
    assert build_table(ITEM, here, runs).groups[0][1][0].seeds == said
    few = dataclasses.replace(ITEM, rows=(dataclasses.replace(ITEM.rows[0], seeds=(1,)),))
    first = {name: frame[(frame["row"] == 0) & (frame["seed"] == 1)] for name, frame in vars(found).items()}
    first["values"] = first["values"][first["values"]["column"] == "test"]
    page = write_report(tmp_path, few, dataclasses.replace(found, **first), {}).page.read_text()
    assert "0 or 1 of 1 seed<" in page


def test_a_column_of_labels_is_as_wide_as_their_longest_word(found, tmp_path):
    name = "start=conv_stable_node_of_the_second_kind"
    item = dataclasses.replace(ITEM, rows=(dataclasses.replace(ITEM.rows[0], label=f"N = 4, {name}"), *ITEM.rows[1:]))
    page, table = write_report(tmp_path, item, found, {})
    assert f'style="--word: {len(name)}"' in page.read_text() and "var(--word)" in page.read_text()
    out = Console(file=io.StringIO(), width=80)
    for piece in terminal(table, 80):
        out.print(piece)
    text = out.file.getvalue()
    assert name in text and max(map(len, text.splitlines())) <= 80
