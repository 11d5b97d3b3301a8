"""The figure between proof and attack."""

from types import SimpleNamespace

import pandas as pd
import pytest

from robode.papers.figures.gap import Gap, shares
from robode.tasks.measure import CLASSIFICATION

COLUMNS = ["row", "label", "group", "seed", "perturbation", "severity", "score"]


def rows(*lines):
    return pd.DataFrame(lines, columns=COLUMNS).assign(task=str(CLASSIFICATION))


FOUND = rows(
    (0, "ResNet", "", 1, "clean", 0.0, 0.9), (0, "ResNet", "", 2, "clean", 0.0, 0.8),
    (0, "ResNet", "", 1, "certified", 0.3, 0), (0, "ResNet", "", 1, "ensemble_l2", 0.3, 0.4),
    (0, "ResNet", "", 2, "certified", 0.3, 0.1), (0, "ResNet", "", 2, "ensemble_l2", 0.3, 0.6),
    (1, "CH-NODE", "N = 4", 1, "certified", 0.3, 0.7), (1, "CH-NODE", "N = 4", 1, "certified", 1.0, 0.05),
    (1, "CH-NODE", "N = 4", 1, "ensemble_l2", 0.3, 0.75), (1, "CH-NODE", "N = 4", 1, "pgd_l2", 1.0, 0.09),
)  # fmt: skip


def test_shares_are_means_over_seeds_where_a_radius_has_both():
    table = shares(FOUND, "ensemble_l2").set_index("row")
    assert table.loc[0, ["certified", "attacked", "clean"]].tolist() == pytest.approx([5, 50, 85])
    assert table.loc[1, "name"] == "N = 4  CH-NODE" and table.loc[1, "certified"] == 70
    assert len(table) == 2, "radius 1 has no attack of that name"
    assert shares(rows(), "ensemble_l2").empty
    assert shares(FOUND[FOUND["perturbation"] == "certified"], "ensemble_l2").empty


def test_the_picture_has_a_panel_for_each_radius():
    ((stem, figure, _, _),) = Gap().draw(SimpleNamespace(rows=FOUND))
    assert stem == "gap" and len(figure.axes) == 1
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["ResNet", "N = 4  CH-NODE"]
    assert Gap("square_l2").draw(SimpleNamespace(rows=FOUND)) == []
