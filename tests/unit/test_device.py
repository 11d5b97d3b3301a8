"""Where things run: the word `device`, data that lie on a device and are gathered there, GPUs that agree with CPUs."""

import copy
import math
import shutil
from types import SimpleNamespace

import pandas
import pytest
import torch
from pretend_device import THERE, There, pretending
from small_runs import composed, train
from torch import nn

from robode.api.certification import run_certify
from robode.api.evaluation import run_evaluation
from robode.api.training import run_training
from robode.attacks.apgd import APGD
from robode.attacks.ensemble import Ensemble
from robode.attacks.fmn import FMN
from robode.attacks.pgd import FGSM, PGD
from robode.attacks.square import Square
from robode.certificates.radius import Certified, constants
from robode.certificates.smoothing import Smoothing
from robode.corruptions.common import Blur, Contrast, Rotation, Translation
from robode.corruptions.noise import Clean, Gaussian, SaltAndPepper
from robode.corruptions.protocols import ChNode2022, DataSpace
from robode.data import batches
from robode.data.batches import EpochOrder, TensorBatches, in_units, placed
from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule
from robode.device import check_device, chosen_device
from robode.errors import BadInput
from robode.evaluation.copies import Copies, sample_grid
from robode.evaluation.measure import answered
from robode.evaluation.suite import Plan
from robode.families.chnode import CHNode
from robode.families.conv_gradient_flow import ConvGradientFlow
from robode.families.conv_stable_node import ConvStableNode
from robode.families.gradient_flow import GradientFlow
from robode.families.hdnn import HDNN
from robode.families.node import Node
from robode.files import read_json
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.runge_kutta import RK4
from robode.network import Network
from robode.runs.results import read_numbers, read_rows
from robode.runs.run import find
from robode.tasks.classification import Classification

GREY = DatasetInfo((1, 5, 4), (0.4,), (0.3,), (0.0, 1.0), Classification(tuple("abcd")))
N = 75  # a batch of 50 and a shorter one
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("word", ["gpu", "cuda:1", "", None, True])
def test_another_word_is_refused(word):
    with pytest.raises(BadInput, match=r"^device=.*: choose one of: auto, cpu, cuda$"):
        check_device(word)


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [str(chosen_device(word)) for word in ("auto", "cpu", "cuda")] == ["cuda:0", "cpu", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [str(chosen_device(word)) for word in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(BadInput, match="^device=cuda: torch sees no GPU; use device=cpu"):
        chosen_device("cuda")


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(run_of_one_epoch, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = {path: path.read_bytes() for path in run_of_one_epoch.folder.rglob("*") if path.is_file()}
    for verb, run in (("evaluate", run_evaluation), ("certify", run_certify)):
        with pytest.raises(BadInput, match="^device=cuda: torch sees no GPU"):
            run(composed(f"run={run_of_one_epoch.folder}", "device=cuda", verb=verb))
    assert {path: path.read_bytes() for path in run_of_one_epoch.folder.rglob("*") if path.is_file()} == before


def case(flow=None, info=GREY):
    torch.manual_seed(3)
    network = Network(info, flow or CHNode(4, 2, ETD())).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (N, *info.shape), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        network.head.bias -= network(in_units(x)).mean(0)
        labels = network(in_units(x)).argmax(1)
    labels[::6] = (labels[::6] + 1) % 4
    return network, x, labels


def every_perturbation():
    return {
        "clean": Clean(), "gaussian": Gaussian([0.05, 0.2]), "salt_and_pepper": SaltAndPepper([0.1]),
        "blur": Blur([1.0]), "rotation": Rotation([20.0]), "translation": Translation([1.5]),
        "contrast": Contrast([0.5]), "certified": Certified([0.001, 0.01]),
        "smoothing": Smoothing([0, 0.1], 0.25, 20, 100),
        "fgsm_linf": FGSM([0.05, 0.1]), "pgd_linf": PGD([0.05, 0.1], steps=4, restarts=2),
        "pgd_l1": PGD([1.0], norm="l1", steps=3), "apgd_dlr_l2": APGD([0.3], norm="l2", loss="dlr", steps=4),
        "square_linf": Square([0.1], queries=8), "square_l2": Square([0.1], norm="l2", queries=8),
        "ensemble_l2": Ensemble([0.3], norm="l2", steps=4, targets=2, queries=4),
        "fmn_l2": FMN([0.1, 0.3], steps=5),
    }  # fmt: skip


def evaluated(network, x, labels, suite, protocol=None, info=GREY, repeats=2, batch_size=50):
    """Rows without their seconds, and the scores of all samples."""
    plan = Plan(suite, protocol or DataSpace(), info, repeats)
    found = {}
    for answers in answered(network, x, labels, plan, plan.rows(), batch_size):
        found |= answers
    rows, scores = zip(*(found[place] for place in range(len(found))), strict=True)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows], torch.stack(scores)


@pytest.mark.parametrize(
    "protocol", [DataSpace(), pytest.param(ChNode2022(), marks=pytest.mark.slow)], ids=lambda each: each.name
)
def test_everything_is_computed_where_the_network_lies_and_the_samples_never_cross_the_bus(protocol):
    """A tensor of the host that meets one of the device is an error there: this fails wherever one is forgotten."""
    network, x, labels = case()
    suite = every_perturbation()
    rows, scores = evaluated(network, x, labels, suite, protocol)
    with pretending() as bus:
        there = copy.deepcopy(network).to(THERE)
        here = (x.to(THERE), labels.to(THERE))
        bus.moved.clear()
        again, other = evaluated(there, *here, suite, protocol)
    assert again == rows and torch.equal(other, scores) and 0 < float(scores.mean()) < 1
    assert torch.uint8 not in {kind for _, kind in bus.moved}
    images = [size for size, kind in bus.back if kind == torch.float32]
    per_repeat = [sum(len(each.severities) for each in suite.values()) + (protocol.name != "data_space"), 3]
    assert images == [N * count for count in per_repeat]  # the scores of a copy, at once, and nothing else


FLOWS = {
    "chnode": lambda: CHNode(4, 2, ETD()),
    "hdnn": lambda: HDNN(4, 2, Euler(), step=0.2),
    "node": lambda: Node(4, 2, RK4(), step=0.2),
    "gradient_flow": lambda: GradientFlow(20, 2, Euler()),
    "gradient_flow_conv": lambda: ConvGradientFlow(4, 3, Euler(), stages=1),
    "conv_stable_node": lambda: ConvStableNode(4, 3, Euler()),
}


@pytest.mark.parametrize("name", FLOWS)
def test_constants_are_worked_out_where_the_weights_lie(name):
    network, _, _ = case(FLOWS[name]())
    expected = constants(network, GREY.shape)
    with pretending() as bus:
        there = copy.deepcopy(network).to(THERE)
        bus.back.clear()
        found = constants(there, GREY.shape)
        assert isinstance(found.pairs, There)
        assert found.parts == pytest.approx(expected.parts, rel=1e-12)
        torch.testing.assert_close(found.pairs.cpu(), expected.pairs, rtol=1e-12, atol=0)


def test_anyones_chain_has_constants_there_too():
    chain = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    expected = constants(chain, GREY.shape)
    with pretending():
        there = copy.deepcopy(chain).to(THERE)
        assert constants(there, GREY.shape).parts == pytest.approx(expected.parts, rel=1e-12)


def test_the_sample_grid_comes_back():
    network, x, labels = case()
    suite = {"clean": Clean(), "gaussian": Gaussian([0.05]), "pgd_linf": PGD([0.05, 0.1], steps=3)}
    plan = Plan(suite, DataSpace(), GREY, repeats=1)
    expected = sample_grid(network, x[:8], labels[:8], plan)
    with pretending():
        found = sample_grid(copy.deepcopy(network).to(THERE), x[:8].to(THERE), labels[:8].to(THERE), plan)
    for one, two in zip(expected, found, strict=True):
        assert one[0] == two[0] and torch.equal(one[1], two[1]) and torch.equal(one[2], two[2])


def measured_on(device, run, monkeypatch, folder):
    """results.csv, numbers.csv and masking.json of an evaluation of a copy of the run."""
    shutil.copytree(run.folder, folder)
    monkeypatch.setattr("robode.api.evaluation.chosen_device", lambda word: device)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])
    words = ("suite.eps_r.budget=40", "suite.gradient_masking.samples=30", "verdicts=20", "limit=40", "repeats=2")
    suite = "suite=[noise,attacks_quick,certified,smoothing,eps_r,field_2d,wasserstein,gradient_masking]"
    more = ("suite.smoothing.n=50", "suite.smoothing.radii=[0]")
    run_evaluation(composed(f"run={folder}", suite, *words, *more, verb="evaluate"))
    rows = read_rows(folder / "results.csv").drop(columns=["run", "seconds"])
    return rows, read_numbers(folder / "numbers.csv").drop(columns="run"), read_json(folder / "masking.json")


@pytest.mark.slow
def test_a_whole_evaluation_with_verdicts_and_quantities_runs_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ("data=two_samples", "model=node", "model.width=2", "depth=2", "step=0.5", "epochs=1", "lr=0.05")
    more = ("suite=clean", "trainer.threads=1", "batch_size=25", "data.limit_train=60", "data.validation=0")
    run = find(run_training(composed(*words, *more)).run)[0]
    here = measured_on(torch.device("cpu"), run, monkeypatch, tmp_path / "here")
    with pretending():
        there = measured_on(THERE, run, monkeypatch, tmp_path / "there")
    for one, two in zip(here[:2], there[:2], strict=True):
        assert len(one) > 3
        pandas.testing.assert_frame_equal(one, two, rtol=1e-9)
    assert here[2].keys() == {"records", "panels", "verdicts"} and there[2]["verdicts"] == here[2]["verdicts"] != []


class Bytes(Source):
    info = GREY

    def load(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (N, *GREY.shape), dtype=torch.uint8, generator=generator)
        return Samples(x, torch.arange(N) % 4), Samples(x[:40], torch.arange(40) % 4)


def data_on(device):
    """A data module whose trainer computes there."""
    data = DataModule(Bytes(), 16, seed=2, validation=20)
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device))
    return data


def test_batches_are_gathered_where_the_trainer_computes_and_only_the_order_goes_there():
    here, data = data_on(torch.device("cpu")), data_on(THERE)
    digest = here.digest
    with pretending() as bus:
        loader = data.train_dataloader()
        assert [kind for _, kind in bus.moved] == [torch.uint8, torch.int64]  # the data set, once
        assert data.split("train", THERE) is data.split("train", THERE)
        for epoch in range(2):
            bus.moved.clear()
            loader.set_epoch(epoch)
            here.order.set_epoch(epoch)
            for (x, labels), (a, b) in zip(loader, here.train_dataloader(), strict=True):
                assert isinstance(x, There) and isinstance(labels, There) and x.dtype == torch.float32
                assert torch.equal(x.host, a) and torch.equal(labels.host, b)
            assert bus.moved == [(N - 20, torch.int64)]
        assert all(isinstance(x, There) for x, _ in data.val_dataloader())
        assert data.digest == digest, "of the host's copy"
        assert not isinstance(data.split("train").x, There)


def test_fixed_shares_of_a_rank_are_gathered_there(monkeypatch):
    monkeypatch.setattr(batches, "_rank_and_ranks", lambda: (1, 3))
    x, labels = torch.arange(10.0)[:, None], torch.arange(10)
    with pretending():
        found = [each.host for _, each in TensorBatches(x.to(THERE), labels.to(THERE), 2)]
        shuffled = [each.host for _, each in TensorBatches(x.to(THERE), labels.to(THERE), 2, EpochOrder(0))]
    assert torch.cat(found).tolist() == [1, 4, 7]
    assert torch.equal(torch.cat(shuffled), torch.cat([y for _, y in TensorBatches(x, labels, 2, EpochOrder(0))]))


def test_what_does_not_fit_stays_on_the_host(monkeypatch):
    tries = []

    class Large:
        def to(self, device):
            tries.append(device)
            raise torch.cuda.OutOfMemoryError("no room")

    x, labels = Large(), torch.zeros(3)
    assert placed(x, labels, THERE) == (x, labels)
    data = data_on(THERE)
    data.prepare()
    data._splits["train"] = Samples(x, labels)
    for _ in range(2):
        assert data.split("train", THERE) == (x, labels)
    assert len(tries) == 2, "it is tried once"


def test_bytes_are_the_same_numbers_on_every_device():
    """A GPU multiplies by 1/255 where it is told to divide by a number, which is another float for some bytes."""
    x = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(in_units(x), x.to(torch.float32) / 255)
    assert not torch.equal(in_units(x), x.to(torch.float32) * (1 / torch.tensor(255.0)))


@needs_gpu
def test_bytes_are_the_same_numbers_on_a_gpu():
    x = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(in_units(x.cuda()).cpu(), in_units(x))


@needs_gpu
def test_a_gpu_finds_what_a_cpu_finds():
    network, x, labels = case()
    x, labels = x.repeat(9, 1, 1, 1), labels.repeat(9)
    suite = {name: each for name, each in every_perturbation().items() if name in ("clean", "gaussian", "pgd_linf")}
    rows, _ = evaluated(network, x, labels, suite, batch_size=200)
    again, _ = evaluated(copy.deepcopy(network).cuda(), x.cuda(), labels.cuda(), suite, batch_size=200)
    for one, two in zip(rows, again, strict=True):
        assert one["evaluation"] == two["evaluation"] and abs(one["score"] - two["score"]) <= 2e-3


@needs_gpu
@pytest.mark.parametrize("name", FLOWS)
def test_certificates_agree_to_rounding(name):
    network, _, _ = case(FLOWS[name]())
    one, two = constants(network, GREY.shape), constants(copy.deepcopy(network).cuda(), GREY.shape)
    assert two.pairs.device.type == "cuda"
    torch.testing.assert_close(two.pairs.cpu(), one.pairs, rtol=1e-12, atol=1e-12)
    assert all(math.isclose(two.parts[part], value, rel_tol=1e-12) for part, value in one.parts.items())


@needs_gpu
def test_training_on_a_gpu_is_measured_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = set()
    plain = Copies.measure

    def watched(self, wanted, repeat, x, *rest):
        seen.add(x.device.type)
        return plain(self, wanted, repeat, x, *rest)

    monkeypatch.setattr(Copies, "measure", watched)
    words = ("trainer=gpu", "suite=[noise,attacks_quick,certified]", "callbacks=[default,robustness_sweep]")
    run = train("epochs=1", *words)
    assert seen == {"cuda"} and (run.folder / "report.html").is_file()
    rows = run_evaluation(composed(f"run={run.folder}", "suite=clean", "device=cpu", verb="evaluate")).rows
    assert len(rows) == 1 and seen == {"cuda"}, "what a GPU has measured is known"
