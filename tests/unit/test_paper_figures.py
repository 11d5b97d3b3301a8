"""The paper's figures show what the files of the runs say, and do without what is not there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.patches import Circle

from robode.config.instantiate import build
from robode.papers.figures.fig1 import Regions
from robode.papers.figures.fig2 import Corrupted
from robode.papers.figures.fig3 import Sensitivities
from robode.papers.figures.matched import Matched, differences
from robode.papers.figures.settling import Settling
from robode.papers.figures.tradeoff import Tradeoff
from robode.papers.spec import load
from robode.report.values import RUNS, VALUES, Collected
from robode.runs.table import BSM_NORMS, METRICS

FIGURES = (Regions(), Corrupted(), Sensitivities(), Settling(), Tradeoff({"κ": "model.kappa", "T": "horizon"}))


def collected(runs=(), values=(), numbers=()):
    """What `paper.collect` gives; runs are done."""
    lines = [{"row": row, "label": label, "group": "", "seed": seed, "folder": str(folder), "status": "done"}
             for row, label, seed, folder in runs]  # fmt: skip
    return Collected(
        runs=pd.DataFrame(lines, columns=list(RUNS)),
        values=pd.DataFrame(list(values), columns=list(VALUES)),
        rows=pd.DataFrame(),
        numbers=pd.DataFrame(list(numbers), columns=["row", "label", "seed", "quantity", "kind", "value"]),
    )


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: type(figure).__name__)
def test_runs_that_are_not_there_or_have_no_files_cost_their_figure_only(figure, tmp_path):
    assert figure.draw(collected()) == []
    assert figure.draw(collected([(0, "A", 1, tmp_path)])) == []


def test_every_figure_of_the_papers_can_be_built():
    items = load("chnode_2022", []).items.values()
    drawn = [build(dict(node)) for item in items for node in item.figures]
    assert {type(each).__name__ for each in drawn} == {type(each).__name__ for each in FIGURES}


def test_fig1_draws_the_proven_balls_and_names_both_bounds(tmp_path):
    grid = np.linspace(-1, 1, 5)
    states = np.array([[[0.0, 0.0], [0.5, 0.5]], [[0.1, 0.0], [0.6, 0.5]]])
    np.savez(
        tmp_path / "field_2d.npz", x=grid, y=grid, classes=np.eye(5, dtype=np.uint8), margin=np.add.outer(grid, grid),
        at=np.zeros((2, 2, 2)), field=np.ones((2, 2, 2)), states=states, labels=np.array([0, 1]),
        circles=np.repeat(states[:, :, None], 4, axis=2), W=np.eye(2), b=np.zeros(2), radius=0.3,
    )  # fmt: skip
    np.savez(
        tmp_path / "eps_r.npz", points=states[0], labels=np.array([0, 1]), lower=np.array([0.25, 0.125]),
        upper=np.array([0.3, 0.13]), nearest=np.array([[0.2, 0.2], [np.nan, np.nan]]),
    )  # fmt: skip
    numbers = [(0, "A", 1, "eps_r", "certified_lower", 0.125), (0, "A", 1, "eps_r", "attack_upper", 0.13)]
    both = Regions(seed=1, published={"A": 0.21}).draw(collected([(0, "A", 1, tmp_path)], numbers=[dict(zip(
        ("row", "label", "seed", "quantity", "kind", "value"), line, strict=True)) for line in numbers]))  # fmt: skip
    (_, figure, _, _), (_, seeds, _, _) = both
    left = figure.axes[0]
    assert "[0.1250, 0.1300]" in left.get_title("left") and "published: 0.21" in left.get_title("left")
    radii = sorted(patch.radius for patch in left.patches if isinstance(patch, Circle))
    assert radii == [0.125, 0.125, 0.125, 0.25], "each point's own ball, and the smallest around all"
    shown = [tuple(line.get_ydata()) for line in seeds.axes[0].lines]
    assert (0.125,) in shown and (0.21,) in shown


def test_fig2_scales_every_row_alike(tmp_path):
    x = np.zeros((2, 1, 4, 4, 1))
    x[1, 0, 0, 0] = -0.25
    np.savez(
        tmp_path / "noise_samples.npz",
        labels=np.array([7]),
        **{"x/chnode_2022": x, "names/chnode_2022": np.array(["clean", "s"]), "predictions/chnode_2022": [[7], [1]]},
    )
    ((stem, figure, _, caption),) = Corrupted().draw(collected([(0, "A", 2, tmp_path)]))
    clean, noisy = (ax.images[0].get_array() for ax in figure.axes)
    assert stem == "fig2_chnode_2022" and "black is -0.25" in caption and "A, seed 2" in caption
    assert clean.min() == clean.max() == 0.2 and noisy.min() == 0.0


def test_fig3_names_the_extremes_over_all_seeds(tmp_path):
    for seed, norm in ((1, 0.4), (2, 3.0)):
        row = dict.fromkeys(BSM_NORMS.columns, 1.0) | {"bsm_norm_of_mean": norm, "bsm_max": 9.0}
        rows = [row | {"step": step, "layer": layer} for step in (0, 1) for layer in (1, 2)]
        (tmp_path / str(seed)).mkdir()
        BSM_NORMS.append(tmp_path / str(seed) / "bsm.csv", rows)
    runs = [(0, "A", seed, tmp_path / str(seed)) for seed in (1, 2)]
    ((_, figure, _, caption),) = Sensitivities(low=0.3214, high=1.0).draw(collected(runs))
    assert "A: norm of the mean in [0.4, 3], single samples up to 9" in caption
    assert len(figure.axes) == 3 and len(figure.axes[0].lines) == 2 * 2 + 2


def test_settling_counts_the_seeds_whose_gamma_is_flat(tmp_path):
    for seed, slope in ((1, 0.0), (2, 1.0)):
        rows = [{"epoch": i, "step": i + 1, "name": "flow/gamma", "value": 3 + slope * i} for i in range(20)]
        (tmp_path / str(seed)).mkdir()
        METRICS.append(tmp_path / str(seed) / "metrics.csv", rows)
    runs = [(0, "A", seed, tmp_path / str(seed)) for seed in (1, 2)]
    ((_, figure, _, caption),) = Settling().draw(collected(runs))
    assert figure.axes[0].get_title("left") == "A\n1 of 2 settled" and "1 of 2 trainings settle" in caption


def test_tradeoff_puts_a_row_at_the_centre_into_every_panel(tmp_path):
    values, settings = [], [(1.0, 0.3), (3.0, 0.3), (1.0, 3.0)]  # κ, T
    for row, (kappa, horizon) in enumerate(settings):
        folder = tmp_path / str(row)
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"kappa": kappa}, "horizon": horizon}))
        values += [
            {"row": row, "column": "test", "seed": seed, "value": 0.5 + 0.1 * row + 0.01 * seed, "kind": "score",
             "unit": "%",              "folder": str(folder)}
            for seed in range(1, 6)
        ]  # fmt: skip
    ((_, figure, _, caption),) = FIGURES[-1].draw(collected(values=values))
    drawn = {}
    for ax in figure.axes:
        (line, _, (bars,)) = ax.containers[0]
        x, y = line.get_xydata().T
        drawn[ax.get_xlabel()] = (x.tolist(), y.tolist())
        half = np.diff([segment[:, 1] for segment in bars.get_segments()])[:, 0] / 2
        assert half == pytest.approx([2.776445 * 0.01 * 0.5**0.5] * 2, rel=1e-5), "95 % t-interval of five seeds"
    assert drawn == {
        "κ": ([1.0, 3.0], [pytest.approx(0.53), pytest.approx(0.63)]),
        "T": ([0.3, 3.0], [pytest.approx(0.53), pytest.approx(0.73)]),
    }
    assert "κ = 1, T = 0.3" in caption and "5 seeds with 95 % t-intervals" in caption


def scores(rows, columns=("test", "PGD")):
    """Values of a collected item: {label: [(test, PGD) of each seed]}."""
    return [
        {
            "row": row,
            "label": label,
            "group": "G",
            "column": column,
            "seed": seed,
            "value": value,
            "kind": "score",
            "unit": "%",
        }
        for row, (label, seeds) in enumerate(rows.items())
        for seed, both in enumerate(seeds, start=1)
        for column, value in zip(columns, both, strict=True)
    ]


def test_rows_are_compared_where_their_clean_scores_agree_and_seed_by_seed():
    """0.3 points apart in the mean over seeds: compared; 0.6: not. Differences belong to seeds."""
    rows = {"free": [(0.960, 0.40), (0.954, 0.50)], "δ̄ = 1": [(0.961, 0.45), (0.959, 0.52)], "δ̄ = 2": [(0.963, 0.9)]}
    found = differences(collected(values=scores(rows)), ["test", "PGD"], "δ̄", 0.005)
    assert set(found["line"]) == {"δ̄ = 1 − free"}
    attacked = found[found["column"] == "PGD"].set_index("seed")["difference"]
    assert attacked.to_dict() == {1: pytest.approx(0.05), 2: pytest.approx(0.02)}


def test_matched_writes_each_difference_with_its_interval():
    rows = {"free": [(0.95, 0.40), (0.95, 0.40), (0.95, 0.40)], "δ̄ = 1": [(0.95, 0.41), (0.95, 0.42), (0.95, 0.43)]}
    ((_, figure, _, caption),) = Matched(["test", "PGD"], "δ̄").draw(collected(values=scores(rows)))
    texts = [text.get_text() for text in figure.axes[0].texts]
    half = 4.302652729911275 / np.sqrt(3)  # Student's t with 2 degrees of freedom, deviation 1 point
    assert texts == ["+0.0 (+0.0 … +0.0)", f"+2.0 (−{half - 2:.1f} … +{2 + half:.1f})"] and "3 seeds" in caption
    assert Matched(["test", "PGD"], "no such").draw(collected(values=scores(rows))) == []
