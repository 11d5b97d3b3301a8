"""What the figures say: which curves, on which axes, with which labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import robode.report
from robode.errors import JobFailed
from robode.report import figures, style
from robode.report.curves import score_against_attacks, score_against_noise, score_by_epoch
from robode.report.figures import bsm_norms, log_norms, noise_grid, training_curves
from robode.runs import results
from robode.runs.table import BSM_NORMS, METRICS


def metrics(*series: tuple[str, list[float]], per_epoch: int = 2) -> pd.DataFrame:
    rows = [(i // per_epoch, i + 1, name, value) for name, values in series for i, value in enumerate(values)]
    return pd.DataFrame(rows, columns=list(METRICS.columns))


def summary(levels: list[tuple[str, float, float]], **more: object) -> pd.DataFrame:
    rows = [
        {name: "" for name in results.COLUMNS}
        | {"run": "r", "protocol": "data_space", "space": "data", "split": "test", "depth": 4, "n": 100}
        | {"perturbation": name, "severity": severity, "severity_unit": "variance", "score": accuracy}
        | {"score_low": accuracy - 0.1, "score_high": accuracy + 0.05}
        | more
        for name, severity, accuracy in levels
    ]
    return pd.DataFrame(rows)


def panel(figure: Figure, word: str):
    return next(ax for ax in figure.axes if word in ax.get_title(loc="left"))


def labels(ax) -> set[str]:
    return set(ax.get_legend_handles_labels()[1])


def test_the_two_certificates_never_share_a_label():
    figure = training_curves(metrics(("flow/flow_ode", [0.9, 0.8]), ("flow/flow_discrete", [1.0, 0.9])))
    ax = panel(figure, "Lipschitz")
    assert {"ODE (flow_ode)", "network (flow_discrete)"} == labels(ax)
    drawn = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    assert len({line.get_color() for line in drawn}) == len({line.get_linestyle() for line in drawn}) == 2


def test_the_axis_is_logarithmic_only_where_values_span_decades():
    figure = training_curves(metrics(("gamma", [1.0, 500.0]), ("train/loss", [2.0, 1.0])))
    assert panel(figure, "γ").get_yscale() == "log"
    assert panel(figure, "Loss").get_yscale() == "linear"


def test_x_counts_completed_epochs():
    figure = training_curves(metrics(("validation/loss", [4.0, 3.0, 2.0, 1.0]), per_epoch=2))
    line = panel(figure, "Loss").get_lines()[0]
    assert list(line.get_xdata()) == [0.5, 1.0, 1.5, 2.0]


def test_a_running_epoch_is_not_stretched():
    figure = training_curves(metrics(("validation/loss", [1.0] * 5), per_epoch=4))
    assert panel(figure, "Loss").get_lines()[0].get_xdata()[-1] == 1.25


def test_means_over_windows_of_several_lengths_make_no_kink():
    ends = [50, 79, 100, 150, 158]  # every 50 steps, and at the ends of epochs of 79
    means = [100.0 - (start + end) / 2 for start, end in zip([0, *ends], ends, strict=False)]  # of 100 - step
    rows = [(int(end > 79), end, "train/loss", mean) for end, mean in zip(ends, means, strict=True)]
    rows += [(epoch, end, "validation/loss", 100.0 - end) for epoch, end in enumerate((79, 158))]
    train, validation = panel(training_curves(pd.DataFrame(rows, columns=list(METRICS.columns))), "Loss").get_lines()
    for line in (train, validation):
        assert line.get_ydata() == pytest.approx(100.0 - 79 * np.asarray(line.get_xdata()))


def test_values_that_are_not_finite_are_left_out():
    figure = training_curves(metrics(("flow_discrete", [np.inf, 2.0]), ("flow_ode", [np.nan, np.inf])))
    assert labels(panel(figure, "Lipschitz")) == {"network (flow_discrete)"}


def bsm(layers: int) -> pd.DataFrame:
    rows = [(s, j, 0.9, 1.2, 0.7, 0.9, 1.0) for s in (0, 50) for j in range(1, layers + 1)]
    return pd.DataFrame(rows, columns=list(BSM_NORMS.columns)[:7])  # a file of an earlier version


def test_bsm_shows_median_largest_and_norm_of_mean_and_the_line_at_one():
    figure = bsm_norms(bsm(4))
    lines = figure.axes[0].get_lines()
    assert {line.get_linestyle(): line.get_ydata()[0] for line in lines[:12]} == {
        "-": 0.9,
        "--": 1.2,
        ":": 0.7,
    }
    assert list(lines[12].get_ydata()) == [1.0, 1.0]
    assert figure.legends[0].get_title().get_text() == ""


def test_the_log_norm_lies_in_a_band_below_the_one_that_is_allowed():
    metrics = pd.DataFrame(
        [
            (0, step, f"flow/{name}", value)
            for name, values in (("delta_upper", [0.5, 0.4]), ("delta_lower", [0.3, 0.2]), ("delta", [0.6, 0.6]))
            for step, value in zip((0, 9), values, strict=True)
        ],
        columns=list(METRICS.columns),
    )
    (ax,) = log_norms(metrics).axes
    assert labels(ax) == {"at most (proved)", "at least (attained)", "δ̄ (allowed)"}
    upper, lower, allowed = ax.get_lines()[:3]
    assert list(upper.get_xdata()) == [0, 1] and list(upper.get_ydata()) == [0.5, 0.4]
    assert list(lower.get_ydata()) == [0.3, 0.2] and set(allowed.get_ydata()) == {0.6}
    corners = ax.collections[0].get_paths()[0].vertices
    assert {(0, 0.3), (0, 0.5), (1, 0.2), (1, 0.4)} <= {(x, y) for x, y in corners.tolist()}
    assert log_norms(metrics[metrics["name"] != "flow/delta_lower"]) is None


def test_inference_stopped_early_is_drawn_over_time_and_over_its_cost(tmp_path):
    right = np.array([[0, 0], [0, 1], [1, 1]], dtype=bool)
    arrays = {"time": [0, 0.5, 1], "calls": [0, 4, 8], "loss": np.array([[1, 1.2], [0.5, 0.5], [0, 0.2]])}
    np.savez(tmp_path / "early_stopping.npz", right=right, **arrays)
    lines = [
        ax.get_lines()[0].get_xydata().tolist() for ax in figures._early_stopping(tmp_path / "early_stopping.npz").axes
    ]
    assert lines == [[[0, 0], [0.5, 0.5], [1, 1]], [[0, 0], [4, 0.5], [8, 1]], [[0, 1.1], [0.5, 0.5], [1, 0.1]]]
    assert [path.stem for path in figures.draw_figures(tmp_path)] == ["early_stopping"]


def test_hidden_layers_are_counted():
    assert bsm_norms(bsm(16)).legends[0].get_title().get_text() == "6 of 16 layers shown"


def test_noise_levels_start_at_the_clean_accuracy_and_carry_intervals():
    table = summary([("clean", 0, 0.9), ("gaussian", 0.2, 0.5), ("gaussian", 0.05, 0.8), ("blur", 1, 0.6)])
    figure = score_against_noise(table)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["gaussian", "blur"]
    ax = figure.axes[0]
    line, _, bars = ax.containers[0]
    assert line.get_xydata().tolist() == [[0, 0.9], [0.05, 0.8], [0.2, 0.5]]
    assert bars[0].get_segments()[1] == pytest.approx(np.array([[0.05, 0.7], [0.05, 0.85]]))
    assert ax.get_xlabel() == "variance (data space)"


def test_protocols_are_separate_lines_and_the_clip_alone_is_marked():
    legacy = summary([("clean", 0, 0.9), ("clip_only", 0, 0.7), ("gaussian", 0.2, 0.4)], protocol="chnode_2022")
    figure = score_against_noise(pd.concat([summary([("gaussian", 0.2, 0.6)]), legacy], ignore_index=True))
    assert labels(figure.axes[0]) == {"data_space", "chnode_2022", "clip only, no noise"}


def test_seeds_of_the_noise_are_separate_lines_and_weights_are_named_only_where_needed():
    levels = [("clean", 0, 0.9), ("gaussian", 0.2, 0.6)]
    best, last = (summary(levels, checkpoint=name, weights=name[0] * 12, noise_seed=0) for name in ("best", "last"))
    other = summary(levels, checkpoint="last", weights="l" * 12, noise_seed=5)
    figure = score_against_noise(pd.concat([best, last, other], ignore_index=True))
    assert labels(figure.axes[0]) == {"best · 0", "last · 0", "last · 5"}
    two = pd.concat([best, best.assign(weights="f" * 12)], ignore_index=True)
    assert labels(score_against_noise(two).axes[0]) == {"b" * 12, "f" * 12}


@pytest.mark.slow
@pytest.mark.parametrize("draw", [score_against_noise, score_against_attacks])
def test_the_names_of_many_curves_do_not_fill_the_figure(tmp_path, draw, recwarn):
    levels = [("clean", 0, 0.9), ("gaussian", 0.2, 0.6)]
    norm = "l2" if draw is score_against_attacks else "none"
    many = pd.concat([summary(levels, noise_seed=seed, norm=norm) for seed in range(120)], ignore_index=True)
    many["norm"] = many["norm"].where(many["perturbation"] != "clean", "none")
    figure = draw(many)
    (text,) = figure.legends[0].get_texts()
    assert text.get_text() == "120 curves, which differ in noise seed"
    style.save(figure, tmp_path, "many")
    assert not [str(each.message) for each in recwarn if "layout" in str(each.message)]
    ax = figure.axes[0]
    assert ax.get_window_extent().height > 0.4 * figure.bbox.height
    few = draw(many[many["noise_seed"] < 3])
    assert len(few.legends[0].get_texts()) == 3


def test_level_0_of_a_line_is_the_clean_score_of_the_same_samples():
    whole = summary([("clean", 0, 0.91), ("gaussian", 0.2, 0.6)], evaluation="w")
    part = summary([("clean", 0, 0.925), ("gaussian", 0.1, 0.7)], evaluation="p", n=20)
    ax = score_against_noise(pd.concat([whole, part], ignore_index=True)).axes[0]
    lines = {each.get_label(): each[0].get_xydata().tolist() for each in ax.containers}
    assert lines == {"n = 100": [[0, 0.91], [0.2, 0.6]], "n = 20": [[0, 0.925], [0.1, 0.7]]}


def test_levels_of_one_setting_are_one_line_and_another_setting_is_another_whose_name_is_its_hash():
    clean = summary([("clean", 0, 0.9)], evaluation="c")
    first, later = (summary([("gaussian", level, 0.6)], evaluation="aaaaaaaa") for level in (0.2, 0.1))
    ax = score_against_noise(pd.concat([clean, first, later], ignore_index=True)).axes[0]
    (line,) = (container[0] for container in ax.containers)
    assert list(line.get_xdata()) == [0, 0.1, 0.2] and labels(ax) == set()
    attack, stronger = (summary([("pgd", 0.1, x)], evaluation=str(x)) for x in (0.5, 0.4))
    figure = score_against_noise(pd.concat([clean, first, attack, stronger], ignore_index=True))
    assert [labels(ax) for ax in figure.axes] == [set(), {"0.5", "0.4"}]
    assert [list(c[0].get_ydata()) for c in figure.axes[1].containers] == [[0.9, 0.5], [0.9, 0.4]]


def test_the_sweep_draws_clean_and_every_level_over_completed_epochs():
    epochs = [summary([("clean", 0, 0.8), ("gaussian", 0.1, 0.5), ("gaussian", 0.2, 0.3)], epoch=e) for e in (1, 0)]
    ax = score_by_epoch(pd.concat(epochs, ignore_index=True)).axes[0]
    assert labels(ax) == {"clean", "0.1", "0.2"}
    assert all(list(line.get_xdata()) == [1, 2] for line in ax.get_lines())


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (2, 3, 5, 5, 1), (2, 3, 5, 5, 3)])
def test_the_grid_marks_wrong_predictions_in_words(shape):
    figure = noise_grid(
        np.full(shape, 1.5), np.array([0, 1, 2]), np.array([[0, 1, 2], [0, 2, 2]]), ["clean", "noisy"], "abc"
    )
    assert [ax.get_title() for ax in figure.axes[:3]] == ["a", "b", "c"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["a", "b", "c", "a", "✗ c", "c"]


def test_points_in_the_plane_become_scatter_panels():
    figure = noise_grid(
        np.random.default_rng(0).normal(size=(2, 4, 2)),
        np.array([0, 0, 1, 1]),
        np.eye(2, 4),
        ["clean", "noisy"],
    )
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["clean", "noisy"]
    crosses = [next(line for line in ax.get_lines() if line.get_marker() == "x") for ax in figure.axes]
    assert [len(line.get_xdata()) for line in crosses] == [3, 3]


def test_the_grid_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected x .* got \(2, 3, 1, 5, 5\)"):
        noise_grid(np.zeros((2, 3, 1, 5, 5)), np.zeros(3), np.zeros((2, 3)), ["a", "b"])


def test_save_writes_png_and_pdf_with_text_that_stays_text_and_nothing_else(tmp_path, monkeypatch, fonts_of_pdfs):
    monkeypatch.setitem(style.STYLE, "pdf.fonttype", fonts_of_pdfs)
    png, pdf = style.save(training_curves(metrics(("train/loss", [2.0, 1.0]))), tmp_path / "figures", "training")
    assert sorted(path.name for path in png.parent.iterdir()) == ["training.pdf", "training.png"]
    content = pdf.read_bytes()
    assert png.read_bytes()[:4] == b"\x89PNG" and content[:4] == b"%PDF"
    assert b"/FontFile2" in content and b"/Type3" not in content  # fonts that journals take


def test_a_folder_that_cannot_be_written_fails_the_job(tmp_path):
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(JobFailed, match="cannot write"):
        style.save(Figure(), tmp_path / "figures", "x")


def test_the_report_knows_neither_models_nor_pyplot():
    for source in Path(robode.report.__file__).parent.glob("*.py"):
        imports = [line for line in source.read_text().splitlines() if line.startswith(("import", "from"))]
        assert not [line for line in imports if "torch" in line or "pyplot" in line or "robode.ode" in line]


def test_a_figure_brings_its_description_for_those_who_do_not_see_it(tmp_path):
    table = summary([("clean", 0, 0.9), ("gaussian", 0.2, 0.5), ("gaussian", 0.05, 0.8)])
    two = pd.concat([table.assign(noise_seed=0), table.assign(noise_seed=1, score=0.25)], ignore_index=True)
    (png, _) = style.save(score_against_noise(two), tmp_path, "noise")
    alt = style.picture(png, "Accuracy against noise", "Mean.")["alt"]
    assert alt.startswith("gaussian: accuracy over variance (data space): ")
    assert "0 from 0.9 at 0 to 0.5 at 0.2, 1 from 0.25 at 0 to 0.25 at 0.2" in alt
    assert style.described(score_against_noise(table)).endswith(": from 0.9 at 0 to 0.5 at 0.2")
    grid = noise_grid(np.zeros((2, 3, 5, 5)), np.zeros(3, int), np.zeros((2, 3), int), ["clean", "noise"])
    assert style.described(grid) == "6 pictures"
    (tmp_path / "own.png").write_bytes(b"no picture")
    assert style.picture(tmp_path / "own.png", "own")["alt"] == ""
