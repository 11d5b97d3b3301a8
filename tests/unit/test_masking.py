"""The checks on hand-made findings, the quantity `gradient_masking` and its section on the run's page."""

from __future__ import annotations

import json
import math

import pytest
import torch
from masked_models import Quantised, data_named, honest
from small_runs import composed, train
from torch import nn

from robode.api.evaluation import run_evaluation
from robode.data.module import spread
from robode.errors import BadInput
from robode.masking import checks
from robode.masking.checks import extent
from robode.masking.file import FILE, NOTHING_LEFT, failures, read_part
from robode.masking.reference_attacks import GradientMasking
from robode.masking.substitutes import substitutes
from robode.network import weights_digest
from robode.report.masking_section import Section, masking_section
from robode.report.page import write_page
from robode.runs import results

HEADING = "<h2>Gradient-masking checks</h2>"


def mask(right: int, n: int = 1000) -> torch.Tensor:
    """The first `right` of n samples are right."""
    return torch.arange(n) < right


def test_gradients_that_are_zero_or_not_finite_are_counted():
    gradients = torch.ones(1000, 2, 2)
    gradients[:8] = 0
    gradients[8:19, 0, 0] = math.nan
    gradients[19:, 1] = 0  # some entries may be
    found = checks.zero_gradients(checks.dead(gradients))
    assert found.value == found.threshold == 0.019 and found.passed and found.reason == ""
    gradients[19] = -0.0
    found = checks.zero_gradients(checks.dead(gradients))
    assert found.value == 0.02 and not found.passed and "2.0 %" in found.sentence


def test_gradients_that_round_differently_are_the_same_and_random_ones_are_not():
    first = 1e-30 * torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    assert checks.random_gradients(first, first * (1 + 1e-6)).value == 0
    assert checks.random_gradients(first, torch.zeros_like(first)).value == 1
    assert checks.random_gradients(torch.zeros(3, 2), torch.zeros(3, 2)).passed


def test_the_cross_entropy_is_zero_from_a_margin_of_log_2_24_on():
    margins = torch.tensor([16.5, 16.7, 49.3, 120.0])
    logits, labels = torch.stack([margins, torch.zeros(4)], dim=1), torch.zeros(4, dtype=torch.long)
    harmed = checks.saturation(*checks.saturated_at(logits, labels), mask(4, 4), mask(0, 4))
    assert harmed.value == 0.75 and harmed.threshold == checks.SATURATED and not harmed.passed
    harmless = checks.saturation(*checks.saturated_at(logits, labels), mask(4, 4), mask(4, 4))
    assert harmless.value == 0.75 and harmless.passed and "without harm" in harmless.sentence
    assert "median 33," in harmless.sentence
    assert checks.saturation(*checks.saturated_at(logits / 50, labels), mask(4, 4), mask(0, 4)).passed


@pytest.mark.parametrize(
    ("noise", "fgsm", "pgd", "passed"),
    [
        (900, 500, 300, True),
        (900, 500, 500, True),
        (500, 505, 505, True),
        (500, 600, 300, False),
        (900, 300, 350, False),
    ],
)
def test_a_stronger_attack_may_not_leave_more_right(noise, fgsm, pgd, passed):
    found = checks.ordering(mask(noise), mask(fgsm), mask(pgd))
    assert found.passed == passed == (found.value <= found.threshold)
    assert found.value == pytest.approx(max(fgsm - noise, pgd - fgsm) / 1000)


@pytest.mark.parametrize("n", [1, 20, 40, 200, 500, 1000])
@pytest.mark.parametrize("tolerance", [checks.TOLERANCE, checks.ANOTHER_GRADIENT, checks.LOSSES_DIFFER])
def test_a_network_within_the_tolerance_fails_with_a_probability_of_at_most_the_level(n, tolerance):
    """The exact sum of binomial probabilities beyond what is allowed, and one sample fewer would be too strict."""

    def beyond(most: int) -> float:
        return sum(math.comb(n, k) * tolerance**k * (1 - tolerance) ** (n - k) for k in range(most + 1, n + 1))

    most = round(n * checks.allowed(tolerance, n))
    assert beyond(most) <= checks.LEVEL < beyond(most - 1)


def test_differences_that_equal_attacks_show_by_chance_are_allowed():
    """Of 100 samples on which the attacks disagree: 63 against 37 happens in 0.6 % of all cases, 64 in 0.3 %."""
    for worse, passed in ((63, True), (64, False)):
        weak, strong = mask(500), mask(500)
        weak[: 100 - worse] = True
        strong[: 100 - worse] = False
        strong[600 : 600 + worse] = True
        found = checks.ordering(weak, strong, mask(0))
        assert found.value == pytest.approx((2 * worse - 100) / 1000) and found.passed == passed
        assert found.threshold == pytest.approx(0.026)
    few, many = mask(540), mask(500)
    assert not checks.ordering(many, few, mask(0)).passed and checks.ordering(few, many, mask(0)).passed


@pytest.mark.parametrize(
    "check", [checks.smoothed, lambda a, b: checks.transfer(a, {"a student": b, "its backbone": mask(990)})]
)
def test_what_another_attack_finds_among_the_survivors_of_pgd(check):
    few, many = check(mask(500), mask(461)), check(mask(500), mask(460))
    assert few.value == few.threshold == pytest.approx(0.039) and few.passed
    assert many.value == pytest.approx(0.04) and not many.passed
    assert check(mask(300), mask(500)).value == 0, "what PGD fooled is nobody's find"


def test_a_long_random_search_may_find_a_little_more_than_any_gradient():
    assert checks.black_box(mask(500), mask(440)).passed and not checks.black_box(mask(500), mask(400)).passed


def test_what_several_other_networks_show_counts_together():
    one, two = mask(500), mask(500)
    one[:25], two[100:125] = False, False
    found = checks.transfer(mask(500), {"a student": one, "its backbone": two})
    assert found.value == pytest.approx(0.05) and not found.passed
    assert found.sentence.startswith("What PGD finds on a student and its backbone fools 5.0 % of the samples")


def test_the_best_of_the_other_losses_counts_and_may_find_a_little_more():
    found = checks.rescaled(mask(500), mask(440), mask(495))
    assert found.value == pytest.approx(0.06) and found.passed and "PGD on the margin" in found.sentence
    assert not checks.rescaled(mask(500), mask(400), mask(495)).passed


def test_unlimited_changes_must_fool_all_and_a_constant_is_explained():
    labels = torch.arange(1000) % 10
    missed = torch.where(mask(30), labels, -1)
    found = checks.large_eps(labels, labels, missed, "linf eps = 1")
    assert found.value == 0.03 and not found.passed and "the truth is 0.0 %" in found.sentence
    assert checks.large_eps(labels, labels, (labels + 1) % 10, "linf eps = 1").passed
    always = torch.full_like(labels, 7)
    constant = checks.large_eps(labels, always, torch.where(labels == 7, 7, -1), "linf eps = 1")
    assert constant.value == 0.1 and "answered class 7 wherever" in constant.sentence and "10.0 %" in constant.sentence
    assert "same answer" in constant.reason


def test_the_verdict_has_every_reason():
    good, bad = (checks.zero_gradients(torch.full((2,), dead)) for dead in (False, True))
    worse = checks.black_box(mask(900), mask(0))
    assert checks.verdict([good]) == "passes 1 gradient-masking check"
    expected = "fails 2 of 3 gradient-masking checks: the input gradients vanish; a black-box attack beats PGD"
    assert checks.verdict([bad, good, worse]) == expected


def test_the_large_ball_holds_all_samples_and_the_whole_box():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert float(torch.cdist(x, x, p=math.inf).max()) <= extent(x, "linf", None)
    assert float(torch.cdist(x, x).max()) <= extent(x, "l2", None)
    image = torch.rand(2, 1, 4, 4)
    assert (extent(image, "linf", (0.0, 1.0)), extent(image, "l2", (0.0, 1.0))) == (1.0, 4.0)


def test_samples_are_spread_over_sets_that_are_ordered_by_class():
    data = data_named("moons")
    assert set(spread(data.split("test"), 40).target.tolist()) == {0, 1}
    assert len(spread(data.split("test"), 10**6).target) == len(data.split("test").target)


@pytest.mark.parametrize("data", ["bars", "moons"])
def test_a_student_answers_like_the_network_and_the_global_generator_stays(data):
    network, before = honest("resnet", data), torch.get_rng_state()
    others = substitutes(network, data_named(data))
    assert torch.equal(before, torch.get_rng_state()) and not network._forward_hooks
    assert list(others) == ["a student of its logits", "its reference solver"]
    x, _ = data_named(data).split("test")
    answers = network(x).argmax(1)
    for name, other in others.items():
        assert float((other(x).argmax(1) == answers).float().mean()) > 0.9, name
    again = substitutes(network, data_named(data))["a student of its logits"]
    assert torch.equal(again(x), others["a student of its logits"](x))


QUICK = {"samples": 60, "steps": 10, "queries": 20}


@pytest.mark.slow
def test_measuring_gives_rows_and_a_file_and_changes_nothing(tmp_path):
    network, data = honest("chnode", "bars").train(), data_named("bars")
    digest, generator = weights_digest(network), torch.get_rng_state()
    quantity = GradientMasking(**QUICK)
    rows = quantity.measure(network, data, tmp_path)
    assert torch.equal(generator, torch.get_rng_state()) and network.training and weights_digest(network) == digest
    assert all(p.requires_grad for p in network.parameters())
    network.eval()
    assert [each["quantity"] for each in rows] == [f"{name} linf 0.1" for name in GradientMasking.gives]
    assert {each["kind"] for each in rows} == {"measured"} and rows[-1]["value"] == 1.0
    (record,) = read_part(tmp_path, "records")
    assert (
        record["weights"] == digest
        and record["verdict"] == "passes 9 gradient-masking checks"
        and record["samples"] == 60
    )
    assert [(c["name"], c["value"]) for c in record["checks"]] == [
        (each["quantity"].split("/")[1].split()[0], each["value"]) for each in rows[:-1]
    ]
    assert rows == quantity.measure(network, data, tmp_path) and len(read_part(tmp_path, "records")) == 1


@pytest.mark.slow
def test_it_is_known_for_the_same_network_and_settings_only(tmp_path):
    network, data = honest("chnode", "bars"), data_named("bars")
    quantity, weights = GradientMasking(**QUICK), weights_digest(network)
    assert not quantity.known(tmp_path, weights)
    rows = quantity.measure(network, data, tmp_path)
    assert not quantity.known(tmp_path, weights), "killed before numbers.csv was written"
    results.append_numbers(tmp_path / "numbers.csv", [each | {"run": "r", "weights": weights} for each in rows])
    assert quantity.known(tmp_path, weights) and not quantity.known(tmp_path, "another")
    for other in ({"eps": 0.2}, {"norm": "l2"}, {"steps": 11}, {"seed": 1}):
        assert not GradientMasking(**{**QUICK, **other}).known(tmp_path, weights), other
    GradientMasking(**{**QUICK, "eps": 0.2}).measure(network, data, tmp_path)
    assert quantity.known(tmp_path, weights) and len(read_part(tmp_path, "records")) == 2
    (tmp_path / FILE).write_text("{half")
    assert not quantity.known(tmp_path, weights)


@pytest.mark.parametrize(
    "wrong",
    [{"eps": 0}, {"eps": math.inf}, {"norm": "l1"}, {"samples": 0}, {"steps": 0}, {"restarts": 0}, {"queries": 0}],
)
def test_settings_out_of_range_are_bad_input(wrong):
    (key,) = wrong
    with pytest.raises(BadInput, match=key):
        GradientMasking(**wrong)


@pytest.mark.slow
def test_a_run_is_measured_through_the_suite_and_may_be_the_baseline_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    words = ("suite=gradient_masking", *(f"suite.gradient_masking.{key}={value}" for key, value in QUICK.items()))
    one, two = train("epochs=1", "seed=1"), train("epochs=1", "seed=2")
    page = one.folder / "report.html"
    assert HEADING not in page.read_text()
    run_evaluation(
        composed(f"run={one.folder}", *words, f"suite.gradient_masking.baseline={two.folder}", verb="evaluate")
    )
    assert HEADING in page.read_text() and f"the run {two.id}" in page.read_text()
    assert len(results.read_numbers(one.folder / "numbers.csv")) == len(GradientMasking.gives)
    with pytest.raises(BadInput, match="suite.gradient_masking.baseline=nobody"):
        run_evaluation(composed(f"run={two.folder}", *words, "suite.gradient_masking.baseline=nobody", verb="evaluate"))


def page_of(folder, network: nn.Module) -> str:
    GradientMasking(**QUICK).measure(network, data_named("bars"), folder)
    return write_page(folder).read_text()


@pytest.mark.slow
def test_the_page_says_what_was_tried_and_what_failed(tmp_path):
    page = page_of(tmp_path, honest("chnode", "bars"))
    assert HEADING in page and "Passes 9 gradient-masking checks." in page and "✗" not in page and page.count("✓") == 9
    (tmp_path / FILE).unlink()
    assert HEADING not in write_page(tmp_path).read_text()
    page = page_of(tmp_path, Quantised(honest("chnode", "bars")))
    assert "of 9 gradient-masking checks: the input gradients vanish" in page and "100.0 % of the samples have" in page


@pytest.mark.slow
def test_the_page_escapes_and_names_a_damaged_file(tmp_path):
    page_of(tmp_path, honest("chnode", "bars"))
    content = json.loads((tmp_path / FILE).read_text())
    content["records"][0]["verdict"] = "<script>alert(1)</script>"
    content["records"][0]["checks"][0] |= {"sentence": "<b>bold</b>", "name": "<i>"}
    (tmp_path / FILE).write_text(json.dumps(content))
    page = write_page(tmp_path).read_text()
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page and "<script" not in page and "<i>" not in page
    for damaged in ("{half", "[]", '{"records": [1]}', '{"records": [{"weights": "a"}]}', '{"records": 3}'):
        (tmp_path / FILE).write_text(damaged)
        page = write_page(tmp_path).read_text()
        assert "masking.json could not be read" in page and HEADING not in page


def test_the_section_is_about_the_network_of_the_page():
    settings = {"norm": "linf", "eps": 0.1, "steps": 40, "restarts": 2, "queries": 300}
    record = {
        "weights": "a",
        "settings": settings,
        "samples": 5,
        "accuracy": {"clean": 1.0},
        "verdict": "passes 8 gradient-masking checks",
    }
    content = {"records": [record | {"checks": []}, record | {"weights": "b", "checks": []}]}
    assert len(masking_section(content, "a").examined) == 1 and len(masking_section(content, None).examined) == 2
    assert masking_section(content, "c") == masking_section({}, "a") == Section()


def test_a_file_in_the_words_of_an_earlier_version_is_read_in_todays(tmp_path):
    about = {
        "weights": "a",
        "split": "test",
        "evaluation": "e",
        "noise_seed": 0,
        "norm": "l2",
        "perturbation": "pgd_l2",
    }
    about |= {"n": 100, "samples": 40, "left": 0.5}
    passed, failed = (
        {"name": name, "value": 0.0, "threshold": 0.01, "sentence": ""} for name in ("transfer", "beaten")
    )
    passed, failed = passed | {"passed": True}, failed | {"passed": False}
    said = {
        0.1: ("believable", [passed, passed], "passes 2 gradient-masking checks"),
        0.2: (
            "suspicious because PGD finds more",
            [passed, failed],
            "fails 1 of 2 gradient-masking checks: PGD finds more",
        ),
        0.3: ("believable: 96.7 of the 97.4 % are proven", [], "passes without checks: 96.7 of the 97.4 % are proven"),
        0.4: ("believable", [], NOTHING_LEFT),
    }
    verdicts = [
        about | {"eps": eps, "verdict": old, "believable": old.startswith("believable"), "checks": found}
        for eps, (old, found, _) in said.items()
    ]
    (tmp_path / FILE).write_text(json.dumps({"verdicts": verdicts}))
    for each in read_part(tmp_path, "verdicts"):
        assert each["verdict"] == said[each["eps"]][2] and each["robust_accuracy"] == 0.5
        assert each["passes"] == (each["eps"] != 0.2) and not {"believable", "left"} & set(each)
    assert list(failures(tmp_path).values()) == ["PGD finds more"]
    section = masking_section(json.loads((tmp_path / FILE).read_text()), "a")
    assert [row.verdict for row in section.judged] == [new for *_, new in said.values()]


def test_numbers_of_an_earlier_version_are_read_under_todays_name(tmp_path):
    row = {"run": "r", "weights": "w", "quantity": "masking/believable linf 0.1", "value": 1.0, "kind": "measured"}
    results.append_numbers(tmp_path / "numbers.csv", [row])
    assert results.read_numbers(tmp_path / "numbers.csv")["quantity"].tolist() == ["masking/passes linf 0.1"]
