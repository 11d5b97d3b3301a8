"""Data sets of users: what is not as its info say is one line with the sample, its value and what was expected."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.tasks.classification import Classification
from robode.tasks.regression import Regression

IMAGES = DatasetInfo((1, 2, 3), (0.5,), (0.3,), (0.0, 1.0), Classification(("a", "b", "c")))
VECTORS = DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(("a", "b", "c")))
NUMBERS = replace(VECTORS, task=Regression(1))
LABELS = torch.arange(6) % 3


class Given(Source):
    """What a test gives."""

    def __init__(self, info: DatasetInfo, train: object, test: object = None):
        self.given, self.parts = info, (train, train if test is None else test)

    @property
    def info(self) -> DatasetInfo:
        return self.given

    def load(self):
        return self.parts


def refusal(source: Source) -> str:
    with pytest.raises(BadInput) as error:
        DataModule(source, 2, 0, name="mine").prepare()
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("data=mine")


def changed(x: torch.Tensor, index: tuple[int, ...], value: float) -> torch.Tensor:
    x = x.clone()
    x[index] = value
    return x


GREY, POINTS = torch.rand(6, 1, 2, 3), torch.randn(6, 2)


@pytest.mark.parametrize("x", [GREY, (255 * GREY).byte(), torch.zeros(6, 1, 2, 3), torch.ones(6, 1, 2, 3)])
def test_what_is_as_it_should_be_passes(x: torch.Tensor):
    for train, test in ((Samples(x, LABELS), None), ((x, LABELS), [x[:1], LABELS[:1]])):  # a pair is a pair
        data = DataModule(Given(IMAGES, train, test), 2, 0)
        data.prepare()
        assert torch.equal(data.split("train").x, x) and torch.equal(data.split("train").target, LABELS)
        assert torch.equal(data.split("test").x, x if test is None else x[:1])


TARGETS = {
    "1 … K": (
        LABELS + 1,
        ", train: a label is outside 0 to 2: that of sample 2 is 3; labels begin with 0: write target",
    ),
    "beyond": (LABELS * 2, ", train: a label is outside 0 to 2: that of sample 2 is 4"),
    "int32": (LABELS.int(), ", train: expected labels (n,) int64, got (6,) torch.int32; write target.long()"),
    "float": (LABELS.float(), "got (6,) torch.float32; write target.long()"),
    "column": (LABELS[:, None], "got (6, 1) torch.int64; write target.squeeze(1).long()"),
    "one hot": (torch.eye(3)[LABELS], "got (6, 3) torch.float32; write target.argmax(1)"),
    "numpy": (LABELS.numpy(), ", train: targets are a ndarray, expected a tensor; write torch.as_tensor"),
    "one number": (torch.tensor(3), ", train: 6 samples and 0 targets"),
    "too few": (LABELS[:5], ", train: 6 samples and 5 targets, expected as many, at least one"),
    "empty class": (LABELS.clamp(max=1), ", train: no sample of class 2 (c), expected at least one of each of the 3"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_labels(name: str):
    target, line = TARGETS[name]
    assert line in refusal(Given(IMAGES, Samples(GREY, target)))


SAMPLES = {
    "0 … 255": (IMAGES, 255 * torch.ones(6, 1, 2, 3), ", train: sample 0 is 255 at (0, 0, 0), expected values in [0, 1]"
                ", "
                "the bounds of these data; write x / 255, or x.byte()"),
    "below": (IMAGES, changed(GREY, (4, 0, 1, 2), -0.5), ", train: sample 4 is -0.5 at (0, 1, 2), expected values"),
    "nan": (IMAGES, changed(GREY, (3, 0, 1, 2), float("nan")), ", train: sample 3 is nan at (0, 1, 2), expected"),
    "inf": (VECTORS, changed(POINTS, (5, 1), float("inf")), ", train: sample 5 is inf at (1), expected finite numbers"),
    "float64": (VECTORS, POINTS.double(), ", train: samples are float64, expected float32, or uint8 standing"),
    "int64": (IMAGES, (255 * GREY).long(), "samples are int64, expected float32, or uint8 standing for x/255; write"),
    "NHWC": (IMAGES, GREY.permute(0, 2, 3, 1), ", train: samples have the shape (6, 2, 3, 1), expected (n, 1, 2, 3): "
             "channels come first; write x.permute(0, 3, 1, 2)"),
    "no channel": (IMAGES, GREY[:, 0], "samples have the shape (6, 2, 3), expected (n, 1, 2, 3); write x.unsqueeze(1)"),
    "flat": (IMAGES, GREY.flatten(1), "samples have the shape (6, 6), expected (n, 1, 2, 3); write x.reshape(-1, 1,"),
    "other": (VECTORS, torch.randn(6, 5), ", train: samples have the shape (6, 5), expected (n, 2)"),
    "with gradients": (VECTORS, POINTS.clone().requires_grad_(), "samples are no plain numbers on the CPU; write x.de"),
    "sparse": (VECTORS, POINTS.to_sparse(), "samples are no plain numbers on the CPU; write x.to_dense()"),
    "elsewhere": (VECTORS, POINTS.to("meta"), "samples are no plain numbers on the CPU; write x.detach().cpu()"),
    "bytes of another range": (
        replace(IMAGES, bounds=(0.0, 255.0)), (255 * GREY).byte(), "bytes, which stand for x/255 in [0, 1], and"
    ),
    "numpy": (VECTORS, POINTS.numpy(), ", train: samples are a ndarray, expected a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str):
    info, x, line = SAMPLES[name]
    assert line in refusal(Given(info, Samples(x, LABELS)))


def test_the_test_split_is_looked_at_too():
    assert refusal(Given(VECTORS, Samples(POINTS, LABELS), Samples(POINTS[:0], LABELS[:0]))).startswith(", test: 0 ")


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (torch.zeros(6), "expected targets (n, 1) float32, got (6,) torch.float32; write target[:, None]"),
        (torch.zeros(6, 1).double(), "got (6, 1) torch.float64; write target.float()"),
        (changed(torch.zeros(6, 1), (4, 0), float("nan")), ", train: a target is not finite: that of sample 4"),
    ],
)
def test_targets_that_are_numbers(target: torch.Tensor, line: str):
    assert line in refusal(Given(NUMBERS, Samples(POINTS, target)))


INFO = {
    "signals": (
        replace(VECTORS, shape=(2, 32)),
        ": shape is (2, 32), expected (d,) for vectors or (C, H, W)",
    ),
    "one mean": (replace(VECTORS, mean=(0.0,)), ": mean and std have 1 and 2 numbers, expected 2: one a channel"),
    "std 0": (
        replace(IMAGES, std=(0.0,)),
        ": std[0] is 0.0, expected a number above 0; write 1 for what",
    ),
    "std nan": (replace(VECTORS, std=(1.0, float("nan"))), ": std[1] is nan, expected a number above 0"),
    "mean inf": (replace(VECTORS, mean=(1.0, float("inf"))), ": mean[1] is inf, expected a finite number"),
    "mean in grey levels": (
        replace(IMAGES, mean=(33.0,), std=(78.0,)),
        ": mean[0] is 33, expected a number in [0, 1], the bounds of these data; mean and std are in data units",
    ),
    "one number": (replace(VECTORS, mean=0.0), ": mean is a float, expected a tuple of numbers"),
    "a tensor": (replace(VECTORS, std=torch.ones(2)), ": std is a Tensor, expected a tuple of numbers"),
    "texts": (replace(VECTORS, mean=("0", "0")), ": mean is ('0', '0'), expected a tuple of numbers"),
    "half a pixel": (replace(VECTORS, shape=(2.5,)), ": shape is (2.5,), expected a tuple of whole numbers"),
    "three bounds": (replace(IMAGES, bounds=(0, 1, 2)), ": bounds are (0, 1, 2), expected (low, high) or None"),
    "how many classes": (
        replace(VECTORS, task=Classification(3)),
        ": class_names are 3, expected a tuple of texts, one a class",
    ),
    "bounds": (replace(IMAGES, bounds=(1.0, 0.0)), ": bounds are (1.0, 0.0), expected (low, high) or None"),
    "one class": (replace(VECTORS, task=Classification(("a",))), ": the task has 1 outputs, expected at least 2"),
    "a dict": ({"shape": (2,)}, ": Given.info gives a dict, expected DatasetInfo with a Task"),
    "no task": (replace(VECTORS, task="classes"), ": Given.info gives a DatasetInfo, expected DatasetInfo with a Task"),
}


@pytest.mark.parametrize("name", INFO)
def test_info(name: str):
    info, line = INFO[name]
    assert line in refusal(Given(info, Samples(POINTS, LABELS)))


@pytest.mark.parametrize(
    "loaded",
    [None, (1, 2), Samples(POINTS, LABELS), [Samples(POINTS, LABELS)]],
    ids=["None", "numbers", "one", "a list"],
)
def test_load_that_gives_something_else(loaded: object):
    source = Given(VECTORS, None)
    source.parts = loaded
    assert "Given.load() gives no (train, test) of Samples(x, target) each" in refusal(source)


def raising(error: Callable[[], object]) -> Source:
    source = Given(VECTORS, None)
    source.load = error
    return source


def test_a_file_that_is_not_there_is_named():
    line = refusal(raising(lambda: open("points.npz")))
    assert line.startswith(": cannot read points.npz (No such file or directory); put the file there, or change the ke")
    assert "cannot read points.npy (No such" in refusal(raising(lambda: np.load("points.npy")))


def test_whatever_a_source_raises_is_one_line():
    assert refusal(raising(lambda: {}["x"])) == ": Given.load() fails (KeyError: 'x')"
    assert refusal(raising(lambda: torch.randn(2) @ torch.randn(3))).startswith(": Given.load() fails (RuntimeError: ")


def test_what_is_no_source():
    assert refusal(torch.nn.Linear(1, 1)) == ": Linear is no robode.data.info.Source"
