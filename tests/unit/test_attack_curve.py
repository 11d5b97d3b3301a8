"""The curve of attacks and certificates, drawn from rows alone."""

import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

from robode.report.curves import score_against_attacks
from robode.report.figures import _score_against_noise
from robode.report.style import INK
from robode.runs import results
from robode.tasks.measure import CLASSIFICATION, wilson

SAME = {
    "run": "r", "checkpoint": "best", "weights": "w", "experiment": "", "model": "chnode", "data": "mnist5k",
    "split": "test", "depth": 4, "integrator": "etd", "params": 10, "seed": 0, "noise_seed": 0,
    "protocol": "data_space", "suite": "s", "space": "data", "repeat": 0, "n": 100, "seconds": 1.0,
    "flow_discrete": 1.0,
    "task": str(CLASSIFICATION),
}  # fmt: skip


def row(perturbation, norm, unit, severity, correct, **more):
    about = {"perturbation": perturbation, "norm": norm, "severity_unit": unit, "evaluation": perturbation + norm}
    return {**SAME, **about, "severity": severity, "score": correct / 100, **more}


ROWS = [
    row("clean", "none", "none", 0, 90), row("gaussian", "none", "variance", 0.2, 50),
    row("pgd", "linf", "eps", 0.1, 40), row("pgd", "l2", "eps", 1.0, 60), row("pgd", "l2", "eps", 0.5, 70),
    row("apgd", "l2", "eps", 0.5, 65), row("certified", "l2", "radius", 0.5, 30),
    row("smoothing", "l2", "radius with probability 0.99", 0.0, 80),
]  # fmt: skip


@pytest.fixture
def draw(tmp_path):
    """The figure of rows that went through a results file."""

    def through_a_file(rows):
        results.append_rows(tmp_path / "results.csv", rows)
        return score_against_attacks(results.summarise(results.newest(results.read_rows(tmp_path / "results.csv"))))

    return through_a_file


def curves(ax) -> dict[str, list[list[float]]]:
    return {each.get_label(): each[0].get_xydata().tolist() for each in ax.containers}


def test_a_panel_per_norm_whose_curves_begin_at_the_clean_accuracy(draw):
    maximum, euclidean = draw(ROWS).axes
    assert curves(maximum) == {"pgd": [[0, 0.9], [0.1, 0.4]]}
    assert curves(euclidean) == {
        "pgd": [[0, 0.9], [0.5, 0.7], [1.0, 0.6]],
        "apgd": [[0, 0.9], [0.5, 0.65]],
        "certified": [[0, 0.9], [0.5, 0.3]],
        "smoothing (radius with probability 0.99)": [[0, 0.8]],  # the accuracy of another network
    }
    assert [ax.get_title(loc="left") for ax in (maximum, euclidean)] == ["L∞", "L2"]


def test_bars_are_wilson_intervals_and_certificates_do_not_look_like_attacks(draw):
    maximum, euclidean = draw(ROWS).axes
    _, _, (bars,) = maximum.containers[0]
    assert bars.get_segments()[1][:, 1] == pytest.approx(wilson(40, 100))
    line = {each.get_label().split(" ")[0]: each[0] for each in euclidean.containers}
    assert [line[name].get_linestyle() for name in line] == ["-", "-", "--", ":"]
    assert line["certified"].get_color() == INK != line["pgd"].get_color() == maximum.containers[0][0].get_color()
    shaded = [sum(isinstance(each, PolyCollection) for each in ax.collections) for ax in (maximum, euclidean)]
    assert shaded == [0, 1]


def test_every_curve_is_named_once_and_the_certificates_last(draw):
    (legend,) = draw(ROWS).legends
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["pgd", "apgd", "certified", "smoothing (radius with probability 0.99)"]


def test_several_settings_of_an_attack_and_several_checkpoints_are_several_curves(draw):
    again = [row("pgd", "linf", "eps", 0.1, 35, evaluation="stronger")]
    last = [{**each, "checkpoint": "last", "weights": "v", "score": each["score"] - 0.1} for each in ROWS]
    maximum = draw([*ROWS, *again, *last]).axes[0]
    assert sorted(each for curve in curves(maximum).values() for each in curve) == sorted(
        [[0, 0.9], [0.1, 0.4], [0, 0.9], [0.1, 0.35], [0, 0.8], [0.1, 0.3]]
    )
    assert set(curves(maximum)) == {"pgd · best · pgdlinf", "pgd · best · stronger", "pgd · last · pgdlinf"}


def test_other_samples_make_another_curve_from_their_own_clean_score(draw):
    part = [row("clean", "none", "none", 0, 46, n=50, score=0.92, evaluation="c50")]
    part.append(row("pgd", "linf", "eps", 0.2, 10, n=50, score=0.2, evaluation="p50"))
    maximum = draw([*ROWS, *part]).axes[0]
    assert curves(maximum) == {"pgd · n = 100": [[0, 0.9], [0.1, 0.4]], "pgd · n = 50": [[0, 0.92], [0.2, 0.2]]}


def test_without_attacks_there_is_no_figure(draw):
    assert draw(ROWS[:2]) is None
    assert score_against_attacks(pd.DataFrame(columns=[*results.COLUMNS])) is None


def test_rows_without_a_clean_one_are_drawn_as_they_are(draw):
    assert curves(draw(ROWS[2:3]).axes[0]) == {"pgd": [[0.1, 0.4]]}


def test_a_radius_in_another_space_is_not_drawn_over_eps_in_data_units(tmp_path, draw):
    """PGD of a script on normalised images has eps in their units: a panel of its own, beside the noises."""
    script = row("pgd_script_linf", "linf", "eps_of_script", 0.03, 20) | {"space": "normalised", "protocol": "p"}
    results.append_rows(tmp_path / "results.csv", [script, row("clean", "none", "none", 0, 90, protocol="p")])
    maximum, _ = draw(ROWS).axes
    assert curves(maximum) == {"pgd": [[0, 0.9], [0.1, 0.4]]}
    figure = _score_against_noise(tmp_path / "results.csv")
    labels = {ax.get_title(loc="left"): ax.get_xlabel() for ax in figure.axes}
    assert labels == {"gaussian": "variance (data space)", "pgd script linf": "eps of script (normalised space)"}
