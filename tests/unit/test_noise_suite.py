"""Running a suite: tidy rows, the same noise for everyone, nothing moved."""

import logging

import pytest
import torch
from torch import nn

from robode.corruptions.noise import BLOCK
from robode.corruptions.perturbation import Clean, Gaussian, SaltAndPepper
from robode.corruptions.protocols import ChNode2022, Sound
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.suite import evaluate_suite, sample_grid
from robode.tasks.classification import Classification

IMAGES = DatasetInfo((1, 4, 4), (0.1307,), (0.3081,), (0.0, 1.0), Classification(("a", "b", "c")))
VECTORS = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b")))
SUITE = {"clean": Clean(), "gaussian": Gaussian([0.05, 0.2]), "salt_and_pepper": SaltAndPepper([0.1])}
N = 3 * BLOCK + 11


class Spy(nn.Module):
    """A linear classifier that keeps a copy of everything it is shown; eval mode matters to its dropout."""

    def __init__(self, size: int = 16, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(classes, size, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight)
        self.dropout = nn.Dropout(0.9)
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        assert not torch.is_grad_enabled()
        self.seen.append(x.clone())
        return self.dropout(x.flatten(1)) @ self.weight.T


def data(n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return x, torch.randint(0, 3, (n,), generator=generator)


def run(network, x, labels, suite=SUITE, protocol=None, info=IMAGES, repeats=2, **options):
    options = {"seed": 5, "batch_size": 64, **options}
    return evaluate_suite(
        network, x, labels, suite=suite, protocol=protocol or Sound(), info=info, repeats=repeats, **options
    )


def info_of(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_rows_are_tidy():
    rows = run(Spy(), *data())
    assert [(r["perturbation"], r["severity"], r["repeat"]) for r in rows] == [
        ("clean", 0.0, 0),
        ("gaussian", 0.05, 0),
        ("gaussian", 0.05, 1),
        ("gaussian", 0.2, 0),
        ("gaussian", 0.2, 1),
        ("salt_and_pepper", 0.1, 0),
        ("salt_and_pepper", 0.1, 1),
    ]
    assert {r["severity_unit"] for r in rows} == {"none", "variance", "amount"}
    for row in rows:
        assert row["n"] == N and 0 <= row["score"] <= 1 and row["score_finer"] is None and row["seconds"] > 0
        assert (row["space"], row["protocol"], row["norm"]) == ("data", "sound", "none")


def test_clean_accuracy_is_plain_accuracy():
    x, labels = data()
    network = Spy()
    logits = (x / 255).flatten(1) @ network.weight.T
    assert run(network, x, labels)[0]["score"] == int((logits.argmax(1) == labels).sum()) / N


@pytest.mark.parametrize("protocol", [Sound(), ChNode2022()], ids=lambda p: p.name)
def test_batch_size_does_not_change_the_noise(protocol):
    shown = []
    for batch_size in (1, 100, 1000):
        network = Spy()
        suite = {"gaussian": Gaussian(0.1)}
        run(network, *data(), suite=suite, protocol=protocol, batch_size=batch_size, repeats=1)
        levels = 1 + len(protocol.extras)
        shown.append([torch.cat(network.seen[level::levels]) for level in range(levels)])
    for other in shown[1:]:
        assert all(torch.equal(a, b) for a, b in zip(shown[0], other, strict=True))


def test_a_prefix_of_the_images_gets_the_same_noise():
    x, labels = data()
    whole, part = Spy(), Spy()
    suite = {"gaussian": Gaussian(0.1)}
    run(whole, x, labels, suite=suite, repeats=1)
    run(part, x[:30], labels[:30], suite=suite, repeats=1)
    assert torch.equal(torch.cat(part.seen), torch.cat(whole.seen)[:30])


def test_every_network_is_shown_the_same_noise_whatever_the_global_seed():
    one, two = Spy(seed=0), Spy(seed=1)
    torch.manual_seed(1)
    run(one, *data())
    torch.manual_seed(2)
    run(two, *data())
    assert torch.equal(torch.cat(one.seen), torch.cat(two.seen))
    other = Spy()
    run(other, *data(), seed=6)
    assert not torch.equal(torch.cat(one.seen), torch.cat(other.seen))


def test_repeats_differ_and_come_again():
    rows = run(Spy(), *data(), repeats=4)
    assert len({row["score"] for row in rows if row["severity"] == 0.2}) > 1
    assert info_of(rows) == info_of(run(Spy(), *data(), repeats=4))
    assert info_of(run(Spy(), *data(), repeats=1))[1] == info_of(rows)[1]


def test_nothing_is_moved():
    network = Spy()
    network.weight.requires_grad_(True)
    network.train()
    network.dropout.eval()
    x, labels = data()
    x = x / 255
    before, state = x.clone(), torch.get_rng_state()
    run(network, x, labels)
    assert network.training and not network.dropout.training
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
    assert network.weight.grad is None


def test_modes_come_back_after_a_failure():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError):
        run(network, *data())
    assert network.training


def test_legacy_protocol_adds_the_clip_alone_and_leaves_clean_data_untouched():
    network = Spy()
    x, labels = data(20)
    rows = run(network, x, labels, protocol=ChNode2022(), repeats=1)
    assert [row["perturbation"] for row in rows].count("clip_only") == 1
    spaces = {row["perturbation"]: row["space"] for row in rows}
    assert spaces.pop("clean") == "data" and set(spaces.values()) == {"normalised"}
    assert any(torch.equal(seen, x / 255) for seen in network.seen)
    only_clean = run(Spy(), x, labels, suite={"clean": Clean()}, protocol=ChNode2022())
    assert [row["perturbation"] for row in only_clean] == ["clean"]


def test_legacy_protocol_refuses_vectors():
    with pytest.raises(BadInput, match="protocol=sound"):
        run(Spy(2, 2), torch.rand(9, 2), torch.zeros(9).long(), protocol=ChNode2022(), info=VECTORS)


def test_salt_and_pepper_is_left_out_for_vectors_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        rows = run(Spy(2, 2), torch.rand(9, 2), torch.zeros(9).long(), info=VECTORS)
    assert {row["perturbation"] for row in rows} == {"clean", "gaussian"}
    assert caplog.messages == [
        "salt_and_pepper is left out: salt and pepper are the bounds of the data, and these data have none"
    ]


def test_logits_that_are_not_finite_are_wrong_answers():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), float("nan"))

    x, _ = data(10)
    rows = run(Broken(), x, torch.zeros(10).long())
    assert [row["score"] for row in rows] == [0] * len(rows)


def test_progress_counts_images_up_to_the_total():
    calls = []
    run(Spy(), *data(), progress=lambda done, total: calls.append((done, total)))
    # Three noisy levels in two copies, and the clean data once.
    assert calls[-1] == (7 * N, 7 * N) and calls == sorted(calls)


def test_only_missing_copies_are_made_and_counted_and_each_is_handed_over_when_it_is_done():
    calls, handed = [], []
    network = Spy()
    suite = {"clean": Clean(), "gaussian": Gaussian([0.05, 0.2])}
    rows = run(
        network, *data(), suite=suite, repeats=3, batch_size=N,
        progress=lambda done, total: calls.append((done, total)),
        known=lambda row: row["severity"] == 0.05 or row["repeat"] == 1,
        finished=lambda rows, right: handed.append(([(row["perturbation"], row["repeat"]) for row in rows], calls[-1])),
    )  # fmt: skip
    assert handed == [([("clean", 0), ("gaussian", 0)], (2 * N, 3 * N)), ([("gaussian", 2)], (3 * N, 3 * N))]
    assert [(row["perturbation"], row["repeat"]) for row in rows] == [("clean", 0), ("gaussian", 0), ("gaussian", 2)]
    assert len(network.seen) == 3
    assert run(network, *data(), suite=suite, known=lambda row: True) == [] and len(network.seen) == 3


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_was_handed_over_before_a_failure_is_not_lost(failing):
    handed = []

    def finished(rows, right):
        if rows[0]["repeat"] == failing:
            raise KeyboardInterrupt
        handed.extend(rows)

    with pytest.raises(KeyboardInterrupt):
        run(Spy(), *data(), repeats=3, finished=finished)
    assert {row["repeat"] for row in handed} == set(range(failing))


def test_repeats_below_one_are_bad_input():
    with pytest.raises(BadInput, match="repeats=0"):
        run(Spy(), *data(), repeats=0)


def test_the_sample_grid_shows_what_the_first_copy_evaluated():
    x, labels = data()
    network, grid_network = Spy(), Spy()
    run(network, x, labels, repeats=1, batch_size=N)
    grid = sample_grid(grid_network, x[:8], labels[:8], suite=SUITE, protocol=Sound(), info=IMAGES, seed=5)
    assert [title for title, _, _ in grid] == [
        "clean",
        "gaussian 0.05",
        "gaussian 0.2",
        "salt_and_pepper 0.1",
    ]
    evaluated = [seen[:8] for seen in network.seen]
    for _, moved, predictions in grid:
        assert any(torch.equal(moved, seen) for seen in evaluated)
        assert torch.equal(predictions, (moved.flatten(1) @ network.weight.T).argmax(1))
