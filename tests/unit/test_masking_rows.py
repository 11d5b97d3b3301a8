"""The verdict on an attacked accuracy from hand-made bits: flagged where it should be, and not where it is honest."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from robode.masking import checks
from robode.masking.file import PASSES
from robode.masking.reference_attacks import Climb, Panel
from robode.masking.verdict import Attacked, Evidence, judge, settled

N = 1000
CHOSEN = torch.arange(0, N, 5)  # every fifth sample: shares of the panel are those of all


def first(right: int) -> torch.Tensor:
    """The first `right` of N samples are right."""
    return torch.arange(N) < right


def attacked(name: str, right: int, eps: float = 0.1) -> Attacked:
    return Attacked(name, name.rpartition("_")[2], eps, first(right))


def panel(eps: float = 0.1, **right: int) -> Panel:
    """What an honest network's panel finds beside PGD that leaves 500, unless something else is said."""
    usual = {"noise": 950, "fgsm": 600, "square": 520, "margin": 495, "rescaled": 495, "smoothed": 495, "student": 900}
    return Panel(eps, {name: first(count)[CHOSEN] for name, count in (usual | right).items()})


def climb(dead: int = 0, zero: int = 0, *more: checks.Check) -> Climb:
    return Climb(first(dead)[CHOSEN], first(zero)[CHOSEN], (3.0, 9.0), more)


def known(*panels: Panel, **changes) -> Evidence:
    return Evidence(chosen=CHOSEN, panels=panels or (panel(),), climb=climb(), **changes)


def failed(row: Attacked, evidence: Evidence) -> set[str]:
    text, found = judge(row, evidence)
    assert text.startswith(PASSES) == all(check.passed for check in found)
    return {check.name for check in found if not check.passed}


def text_of(row: Attacked, evidence: Evidence) -> str:
    return judge(row, evidence)[0]


@pytest.mark.parametrize(
    ("name", "loss", "title"),
    [
        ("fgsm_linf", "ce", "FGSM"),
        ("pgd_margin_linf", "margin", "PGD (margin)"),
        ("apgd_dlr_l2", "dlr", "APGD (dlr)"),
        ("apgd_dlr_targeted_l2", "dlr", "APGD (dlr, targeted)"),
        ("pgd_l1", "ce", "PGD"),
        ("ensemble_l2", None, "robode ensemble"),
        ("autoattack_linf", None, "AutoAttack"),
        ("fmn_l2", None, "FMN"),
        ("square_linf", None, "Square"),
        ("my_own_linf", None, "my (own)"),
    ],
)
def test_the_name_of_a_row_says_what_its_attack_climbs(name, loss, title):
    row = attacked(name, 10)
    assert (row.loss, row.title) == (loss, title)
    assert row.white_box == (row.kind != "square")


@pytest.mark.parametrize(
    "name", ["fgsm_linf", "pgd_linf", "pgd_margin_linf", "apgd_dlr_l2", "ensemble_l2", "square_l2"]
)
def test_an_honest_accuracy_passes(name):
    text, found = judge(attacked(name, 520 if name in ("fgsm_linf", "square_l2") else 500), known())
    assert text == f"passes {len(found)} gradient-masking checks" and len(found) >= 2


def test_one_step_fails_where_another_row_finds_much_more():
    evidence = known(others=[attacked("apgd_dlr_linf", 310), attacked("pgd_linf", 400)])
    text, found = judge(attacked("fgsm_linf", 920), evidence)
    assert text.endswith("fails 1 of 6 gradient-masking checks: APGD (dlr) finds 61.0 % more")
    assert "logit_rescaling" not in {check.name for check in found}, "any PGD beats one step"


def test_rows_alone_decide_where_there_is_no_panel():
    row, other = attacked("fgsm_linf", 920), attacked("pgd_linf", 310)
    assert text_of(row, Evidence(others=[other])) == "fails 1 of 1 gradient-masking check: PGD finds 61.0 % more"
    assert text_of(other, Evidence(others=[row])) == "passes 1 gradient-masking check"


def test_an_attack_with_a_smaller_eps_is_named_with_it():
    evidence = Evidence(others=[attacked("apgd_linf", 300, eps=0.05)])
    assert text_of(attacked("pgd_linf", 500), evidence).endswith("APGD at eps 0.05 finds 20.0 % more")


def test_rows_of_one_attack_with_several_settings_all_count():
    row, better, worse = (attacked("pgd_linf", right) for right in (500, 200, 510))
    for others in ([better, worse], [worse, better]):
        text = text_of(row, Evidence(others=others))
        assert text == "fails 1 of 1 gradient-masking check: PGD with other settings finds 30.0 % more"


def test_the_panel_counts_and_several_small_finds_add_up():
    assert "PGD (margin) finds 20.0 % more" in text_of(attacked("pgd_dlr_linf", 500), known(panel(margin=300)))
    row, parts = attacked("ensemble_linf", 900), (range(0, 60), range(100, 160), range(200, 260))
    others = []
    for number, part in enumerate(parts):
        right = row.right.clone()
        right[list(part)] = False
        others.append(Attacked(f"x{number}_linf", "linf", 0.1, right))
    assert failed(row, Evidence(others=others[:1])) == set(), "6 % by one: within tolerance and sampling error"
    assert text_of(row, Evidence(others=others)).endswith("check: other attacks together find 18.0 % more")


def test_a_few_more_are_within_the_tolerance():
    row = attacked("pgd_linf", 500)
    assert failed(row, known(others=[attacked("apgd_dlr_linf", 455)])) == set()
    assert failed(row, known(others=[attacked("apgd_dlr_linf", 400)])) == {"beaten"}


def test_a_dead_gradient_counts_where_it_can_do_harm():
    row = attacked("pgd_linf", 500)
    everywhere = known()
    assert failed(row, dataclasses.replace(everywhere, climb=climb(dead=500))) == {"zero_gradients"}
    fell = dataclasses.replace(everywhere, climb=Climb(~first(500)[CHOSEN], first(0)[CHOSEN], (1.0, 2.0), ()))
    assert failed(row, fell) == set(), "they fell all the same"
    proven = dataclasses.replace(everywhere, climb=climb(dead=400), proven=first(400))
    assert failed(row, proven) == set(), "nobody can fell these"
    assert "input gradient: that of the difference of logits ratio" in " ".join(
        check.sentence for check in judge(attacked("apgd_dlr_linf", 500), known())[1]
    )


@pytest.mark.parametrize("name", ["ensemble_linf", "fmn_linf", "square_linf"])
def test_attacks_without_a_single_loss_are_not_judged_by_gradients(name):
    evidence = dataclasses.replace(known(), climb=climb(dead=1000, zero=1000))
    assert failed(attacked(name, 500), evidence) == set()


def test_saturation_counts_for_the_cross_entropy_and_where_smaller_logits_find_more():
    harmed = dataclasses.replace(known(panel(rescaled=300)), climb=climb(zero=900))
    assert failed(attacked("pgd_linf", 500), harmed) >= {"saturation", "logit_rescaling"}
    for name in ("pgd_margin_linf", "fgsm_linf"):
        assert "saturation" not in failed(attacked(name, 500), harmed)
    assert failed(attacked("pgd_linf", 500), dataclasses.replace(known(), climb=climb(zero=900))) == set()


def test_a_stronger_attack_may_not_leave_more_than_a_weaker_one_but_a_random_search_may():
    evidence = known(panel(noise=950, fgsm=300, margin=300, rescaled=300, square=520))
    assert "ordering" in failed(attacked("apgd_linf", 500), evidence)
    assert "ordering" not in failed(attacked("square_linf", 520), evidence)
    beats_both = failed(attacked("apgd_dlr_linf", 300), known(panel(noise=400, fgsm=800)))
    assert "ordering" not in beats_both, "that one step on the cross-entropy is worse than noise is not its fault"
    assert "ordering" in failed(attacked("fgsm_linf", 600), known(panel(noise=400)))
    assert "ordering" not in failed(attacked("fgsm_linf", 600), known(panel(noise=950, fgsm=100)))


def test_what_a_black_box_or_another_network_finds_speaks_against_an_attack():
    row = attacked("pgd_linf", 500)
    assert "black_box" in failed(row, known(panel(square=380)))
    assert "transfer" in failed(row, known(panel(student=400)))
    assert "a black-box attack beats PGD" in text_of(row, known(panel(square=380)))
    assert "black_box" not in failed(attacked("square_linf", 520), known(panel(square=380)))
    without = Panel(0.1, {name: bits for name, bits in panel().right.items() if name != "square"})
    assert failed(attacked("pgd_l1", 500), known(without)) == set(), "Square does not know l1"


def test_averaged_gradients_speak_against_any_attack_and_not_for_another_loss():
    for name in ("pgd_linf", "ensemble_linf", "fgsm_linf", "square_linf"):
        assert "smoothed_gradients" in failed(attacked(name, 500), known(panel(smoothed=400))), name
    assert "smoothed_gradients" not in failed(attacked("pgd_linf", 500), known(panel(margin=420, smoothed=400)))
    text = text_of(attacked("pgd_linf", 500), known(panel(smoothed=400)))
    assert text.startswith("fails 2 of 8 gradient-masking checks: PGD (averaged gradients) finds 10.0 % more; ")
    assert text.endswith("; gradients that are averaged over noise beat PGD")


def test_checks_of_the_network_are_among_those_of_the_row():
    bad = checks.Check("large_eps", 0.3, 0.01, "PGD with linf eps = 1 leaves 30.0 % right.", "it stays right")
    evidence = dataclasses.replace(known(), climb=climb(0, 0, bad))
    assert text_of(attacked("pgd_linf", 500), evidence).endswith(" gradient-masking checks: it stays right")
    assert failed(attacked("ensemble_linf", 500), evidence) == set(), "it climbs something else"


def test_next_to_nothing_left_passes_without_any_check():
    assert settled(first(10), None).startswith("passes without checks: next to nothing is left")
    assert judge(attacked("pgd_linf", 10), known())[1] == []
    assert settled(first(11), None) == ""


def test_what_is_proven_passes_whatever_attacks_say():
    row = attacked("fgsm_l2", 974)
    verdict = judge(row, Evidence(proven=first(967)))
    assert verdict == ("passes without checks: 96.7 of the 97.4 % are proven", [])
    assert settled(row.right, first(960)) == settled(row.right, None) == ""
