"""The lecture's map of the circle: its penalty, what is measured of it, and how it is drawn."""

import numpy as np
import pytest
import torch
from small_runs import composed
from test_lecture_and_poster import collected

from robode.errors import BadInput
from robode.network import build_network
from robode.objectives.norm_penalty import NormPenalty
from robode.papers.figures.circle_map import CircleMaps
from robode.quantities.circle_map import CircleError
from robode.training.assembly import build_data

WORDS = ("experiment=lecture/circle_map", "trainer.threads=1")


def built(*words):
    config = composed(*WORDS, *words)
    data = build_data(config)
    data.prepare()
    torch.manual_seed(0)
    return build_network(config, data.info), data


def numbers(folder, *words):
    network, data = built(*words)
    return {row["quantity"]: row["value"] for row in CircleError().measure(network, data, folder)}


def test_the_norm_is_kept_by_the_architecture_before_any_training_and_not_without_it(tmp_path):
    kept, free = numbers(tmp_path), numbers(tmp_path, "model.preserve=none")
    assert kept["norm_defect"] <= 1e-15 < 0.1 < free["norm_defect"]
    assert kept["mse"] <= kept["largest_error"] ** 2 <= 4 + 1e-9
    ((_, figure, _, caption),) = CircleMaps().draw(collected(tmp_path))
    assert len(figure.axes) == 2 and "0.34" in caption
    assert CircleMaps(seed=2).draw(collected(tmp_path)) == []


def test_both_have_as_many_parameters():
    with_it, without = (built(*words)[0] for words in ((), ("model.preserve=none",)))
    assert sum(p.numel() for p in with_it.parameters()) == sum(p.numel() for p in without.parameters()) == 4482


def test_the_penalty_is_the_lectures_divided_by_the_numbers_of_an_output():
    network, data = built("model.preserve=none")
    x, target = data.split("train")
    (term,) = NormPenalty(weight=3.0)(network, x, target).values()
    lengths = np.linalg.norm(network(x).detach().numpy(), axis=1)
    assert float(term.detach()) == pytest.approx(3 * ((1 - lengths) ** 2).mean() / 2, rel=1e-5)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(BadInput, match="norm_penalty.weight: expected a number > 0, got 0"):
        NormPenalty(weight=0)
    equations = build_data(composed("data=sparse_regression", "model=mlp")).info
    assert "expected targets like the samples, (50,), got 1" in NormPenalty(1.0).refusal(equations)
    assert "data=circle_map" in CircleError().refusal(equations)
