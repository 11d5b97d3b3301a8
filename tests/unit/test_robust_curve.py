"""The figure of accuracy against eps with the published points and the certified share, from a collected item."""

from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

from robode.config.instantiate import build
from robode.errors import BadInput
from robode.papers.figures.robust_curve import ATTACKS, RobustCurve, shares
from robode.papers.spec import items
from robode.report.statistics import estimate
from robode.report.style import PALETTE, save
from robode.tasks.measure import CLASSIFICATION

COLUMNS = ["row", "label", "group", "column", "seed", "perturbation", "norm", "severity", "repeat", "task", "score"]
CELLS = {
    "clean": ("clean", "none", 0.0), "PGD .1": ("pgd_l2", "l2", 0.1), "PGD .5": ("pgd_l2", "l2", 0.5),
    "APGD .5": ("apgd_margin_l2", "l2", 0.5), "certified .1": ("certified", "l2", 0.1),
    "certified .5": ("certified", "l2", 0.5),
}  # fmt: skip
BETTER = {1: 0, 2: 2, 3: 7, 4: 0, 5: 2}  # of 100 images, by seed
PRINT = {"ResNet": {"clean": 91.0, "PGD .1": 42.0, "PGD 1": 1.0, "APGD .5": 30.0}, "not there": {"clean": 5.0}}


def lines(row, label, *right, seeds=(1, 2, 3), columns=tuple(CELLS)):
    """Rows of a collected item; right: of 100 images in each of the columns, with seed 1."""
    cells = zip(columns, right, strict=True)
    return [
        (row, label, "", name, seed, *CELLS[name], 0, str(CLASSIFICATION), (count + BETTER[seed]) / 100)
        for name, count in cells
        for seed in seeds
    ]


def collected(*rows, labels=("ResNet", "CH-NODE")):
    runs = pd.DataFrame([{"row": row, "label": label, "group": "", "seed": 1} for row, label in enumerate(labels)])
    return SimpleNamespace(rows=pd.DataFrame([line for each in rows for line in each], columns=COLUMNS), runs=runs)


RESNET, CHNODE = lines(0, "ResNet", 80, 40, 1, 0, 10, 0), lines(1, "CH-NODE", 70, 65, 50, 45, 60, 40)


def curves(ax):
    """Points of what has error bars: curve, marks, certified."""
    return [each[0].get_xydata().round(9).tolist() for each in ax.containers]


def test_a_point_is_the_mean_over_seeds_with_the_interval_of_a_further_seed_or_all_of_few_seeds():
    few = shares(collected(RESNET).rows, ["pgd_l2"]).set_index("severity").loc[0.1]
    assert few[["mean", "low", "high"]].tolist() == pytest.approx([0.43, 0.40, 0.47])
    five = collected(lines(0, "ResNet", 80, 40, 1, 0, 10, 0, seeds=(1, 2, 3, 4, 5)))
    table = shares(five.rows, ("clean", "pgd_l2")).set_index(["perturbation", "severity"])
    found, over = table.loc["pgd_l2", 0.1], estimate([0.40, 0.42, 0.47, 0.40, 0.42])
    assert found[["mean", "low", "high"]].tolist() == pytest.approx([over.mean, over.pi_low, over.pi_high])
    assert table.loc["pgd_l2", 0.5]["low"] == 0, "shares are not negative"
    one = shares(collected(lines(0, "ResNet", 80, columns=["clean"], seeds=(1,))).rows, ["clean"]).iloc[0]
    assert one["seeds"] == 1 and pd.isna(one["low"])


def test_noisy_copies_are_averaged_before_the_seeds_and_a_measurement_in_two_columns_counts_once():
    rows = pd.DataFrame(
        [
            (0, "ResNet", "", column, seed, "pgd_l2", "l2", 0.1, repeat, str(CLASSIFICATION), correct / 100)
            for column in ("a", "b")
            for seed, repeat, correct in ((1, 0, 10), (1, 1, 30), (2, 0, 50))
        ],
        columns=COLUMNS,
    )
    (found,) = shares(rows, ["pgd_l2"]).itertuples()
    assert (found.mean, found.seeds) == (pytest.approx(0.35), 2)


def test_each_row_has_a_panel_with_its_attacks_its_print_and_what_is_certified():
    ((stem, figure, _, caption),) = RobustCurve(published=PRINT).draw(collected(RESNET, CHNODE))
    left, right = figure.axes
    assert stem == "robust_curve" and [ax.get_title(loc="left") for ax in figure.axes] == ["ResNet", "CH-NODE"]
    attacked, marks, proven = curves(right)
    assert attacked == [[0, 0.73], [0.1, 0.68], [0.5, 0.53]] and proven == [[0, 0.73], [0.1, 0.63], [0.5, 0.43]]
    assert marks == [[0.5, 0.48]]
    assert [each[0].get_linestyle() for each in right.containers] == ["-", "None", "--"]
    (published,) = [each for each in left.lines if each.get_marker() == "D"]
    assert published.get_xydata().tolist() == [[0, 0.91], [0.1, 0.42]], "no column measures PGD 1; APGD is no curve"
    assert published.get_markerfacecolor() == "none" and published.get_color() == left.containers[0][0].get_color()
    assert {each[0].get_color() for ax in figure.axes for each in ax.containers} == set(PALETTE[:2])
    assert all(any(isinstance(each, PolyCollection) for each in ax.collections) for ax in figure.axes)
    assert "3 seeds, with the smallest and the largest;" in caption and "Not attacked" not in caption


def named(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_legend_names_what_is_drawn_and_nothing_else():
    draw = RobustCurve(published=PRINT).draw
    assert named(draw(collected(RESNET, CHNODE))[0][1]) == ["PGD", "APGD", "certified", "published", "PGD, other rows"]
    assert named(draw(collected(CHNODE))[0][1]) == ["PGD", "APGD", "certified"]
    pgd = lines(1, "CH-NODE", 70, 50, columns=["clean", "PGD .5"])
    assert named(draw(collected(pgd))[0][1]) == ["PGD"]


def test_rows_that_are_missing_or_only_clean_are_named(tmp_path):
    clean = lines(1, "CH-NODE", 70, columns=["clean"])
    ((stem, figure, _, caption),) = RobustCurve().draw(collected(RESNET, clean))
    assert len(figure.axes) == 1 and caption.endswith("Not attacked yet: CH-NODE.")
    png, _ = save(figure, tmp_path, stem)
    assert png.stat().st_size > 10_000
    assert RobustCurve().draw(collected(clean)) == [] == RobustCurve().draw(collected())


def test_the_lectures_figures_have_the_printed_numbers_of_their_rows():
    found = items()
    notes, digits = (found[f"lecture/robust_classification{name}"] for name in ("", "_mnist"))
    (node,) = notes.figures
    assert node["published"] == {row.name: dict(row.published) for row in notes.rows if row.published}
    assert build(dict(node)).published["ResNet"]["clean"] == 89.0 and not build(dict(digits.figures[0])).published
    for item in (notes, digits):
        assert {"clean", "certified", *ATTACKS} == {each.perturbation for each in item.columns.values()}
    radii = {kind: [each.severity for each in notes.columns.values() if each.perturbation == kind]
             for kind in ("pgd_l2", "certified")}  # fmt: skip
    assert radii["certified"] == radii["pgd_l2"] and len(radii["pgd_l2"]) == 8


@pytest.mark.parametrize("wrong", [{"published": 5}, {"published": {"ResNet": 5}}, {"attacks": 5}])
def test_a_figure_that_was_set_up_wrongly_is_one_line(wrong):
    with pytest.raises(BadInput):
        build({"_target_": "robode.papers.figures.robust_curve.RobustCurve", **wrong})


def test_all_panels_have_the_same_size_so_that_slopes_compare():
    rows = [lines(number, f"net {number}", 90, 50, columns=["clean", "PGD .5"]) for number in range(7)]
    ((_, figure, _, _),) = RobustCurve().draw(collected(*rows))
    figure.draw_without_rendering()
    sizes = {tuple(round(float(each), 2) for each in ax.get_position().size) for ax in figure.axes}
    assert len(figure.axes) == 7 and len(sizes) == 1
