"""`module=PACKAGE:FACTORY`: whose network it is, where its weights stand in a file, and what it is given."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import composed
from torch import Tensor, nn

from robode.data.info import DatasetInfo, Samples, Source
from robode.data.module import DataModule
from robode.errors import BadInput
from robode.evaluation.target import EvaluationTarget, normalisation_hint, target_of
from robode.network import Normalise
from robode.tasks.classification import Classification

FACTORY = """
from robode.data.toy import SixPoints
from robode.families.chnode import CHNode
from robode.network import Network
from robode.integrators.etd import ETD

def make():
    return Network(SixPoints().info, CHNode(2, 3, ETD()))
"""


def test_gamma_and_h_of_a_network_of_robode_stay_in_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_flow.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ROBODE_TRUST", "their_flow")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    import their_flow

    made = their_flow.make()
    torch.save(made.state_dict(), "weights.pt")
    words = ("module=their_flow:make", "checkpoint=weights.pt", "data=six_points", "suite=clean")
    found = target_of(composed(*words, verb="evaluate")).network
    assert found.flow.gamma.dtype == torch.float64
    assert torch.equal(found.flow.gamma, made.flow.gamma) and torch.equal(found.flow.h, made.flow.h)
    sys.modules.pop("their_flow", None)


NETS = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))

class Place(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 2)

    def forward(self, x):
        return self.body(x.sub_(100))
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EvaluationTarget]]:
    """What is evaluated, of a factory in `their_nets` with what was saved in w.pt."""
    (tmp_path / "their_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ROBODE_TRUST", "their_nets")
    monkeypatch.chdir(tmp_path)

    def of(factory: str, content: object, *words: str) -> EvaluationTarget:
        torch.save(content, "w.pt")
        words = (f"module=their_nets:{factory}", "checkpoint=w.pt", "data=double_moons", "suite=clean", *words)
        return target_of(composed(*words, verb="evaluate"))

    yield of
    sys.modules.pop("their_nets", None)


def saved(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))


def behind(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


STATE = saved().state_dict()
ADAM = torch.optim.Adam(saved().parameters())
saved()(torch.zeros(1, 2)).sum().backward()
FILES: dict[str, tuple[Any, str]] = {
    "bare": (STATE, ""),
    "state_dict": ({"state_dict": STATE, "epoch": 3}, "the key state_dict"),
    "model": ({"model": STATE, "optimizer": ADAM.state_dict(), "epoch": 3, "best": 0.5}, "the key model"),
    "net": ({"net": STATE, "acc": 95.0}, "the key net"),
    "ema": ({"ema": {"module": STATE, "decay": 0.9}}, "the key ema.module"),
    "module.": (behind("module.", STATE), "the names module.*"),
    "module.model.": ({"net": behind("module.model.", STATE)}, "the key net the names module.model.*"),
    "others beside": (behind("model.", STATE) | {"loss.weight": torch.ones(3)}, "the names model.*"),
    "average": (behind("module.", STATE) | {"n_averaged": torch.tensor(3)}, "the names module.*"),
}


@pytest.mark.parametrize("name", FILES)
def test_weights_are_found_wherever_a_file_has_them(name: str, target: Callable[..., EvaluationTarget]) -> None:
    content, place = FILES[name]
    found = target("make", content)
    assert all(torch.equal(value, STATE[key]) for key, value in found.network.state_dict().items())
    assert found.hints == ((f"checkpoint=w.pt: weights taken from {place}",) if place else ())


@pytest.mark.parametrize(("content", "says"), [
    ({"model": STATE, "ema": saved(1).state_dict()}, "the key model and the key ema fit their_nets:make()"),
    (behind("model.", STATE) | behind("ema.", STATE), "the names model.* and the names ema.* fit"),
    ({"a": {"x": torch.ones(1)}, "b": {"y": torch.ones(1)}}, "got the state dicts a, b, none of which fits"),
    ({"epoch": 3}, "got no state dict"), ([1, 2], "got no state dict"),
    ({"0.weight": torch.ones(1)}, "; the file lacks 0.bias"),
    (behind("body.", STATE), "; the names body.* would fit: save that part alone, if it is the network"),
    (behind("body.", {"first": torch.ones(1)}), "; the file has body.first, which is strange to it and lacks 0.weight"),
    (behind("module.", STATE | {"0.weight": torch.ones(1)}), "holds another network than their_nets:make() makes (Run"),
    (saved(), "got an object of torch.nn.modules.container.Sequential, and only tensors are read"),
    ({"model": saved(), "epoch": 3}, "got an object of torch.nn.modules.container.Sequential, and only tensors"),
])  # fmt: skip
def test_other_files_are_refused_in_one_clean_line(
    content: object, says: str, target: Callable[..., EvaluationTarget]
) -> None:
    with pytest.raises(BadInput) as caught, warnings.catch_warnings():
        warnings.filterwarnings("error", module="torch|robode")  # Hydra's own are silenced elsewhere
        target("make", content)
    line = str(caught.value)
    assert line.startswith("checkpoint=w.pt: ") and says in line
    assert line.isprintable() and "weights_only" not in line


def test_a_network_that_works_in_place_leaves_the_data_as_they_are(target: Callable[..., EvaluationTarget]) -> None:
    found = target("Place", {"body.weight": torch.eye(2), "body.bias": torch.zeros(2)})
    again = target("make", STATE)
    assert torch.equal(found.data.split("test").x, again.data.split("test").x)


class Far(Source):
    """Points far from 0; the class is on which side of the mean the first coordinate lies."""

    mean, std = (50.0, -3.0), (2.0, 0.5)

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo((2,), self.mean, self.std, None, Classification(("left", "right")))

    def load(self) -> tuple[Samples, Samples]:
        z = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        x, target = z * torch.tensor(self.std) + torch.tensor(self.mean), (z[:, 0] > 0).long()
        return Samples(x[:200], target[:200]), Samples(x[200:], target[200:])


def test_a_network_that_wants_normalised_inputs_is_told_so() -> None:
    data = DataModule(Far(), 50, 0, name="far")
    data.prepare()
    sided = nn.Linear(2, 2)
    sided.load_state_dict({"weight": torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), "bias": torch.zeros(2)})
    line = normalisation_hint(sided, data, "lab:net")
    own = 100 * (data.split("test").target == 1).double().mean()
    assert line.startswith(f"module=lab:net: {own:.3g} % of 200 test samples are classified correctly, and 100 % after")
    assert line.endswith("for example robode.network.Normalise((50.0, -3.0), (2.0, 0.5), 1)")
    untrained = nn.Linear(2, 2)
    nn.init.zeros_(untrained.weight)
    for other in (nn.Sequential(Normalise(Far.mean, Far.std, 1), sided), untrained):
        assert normalisation_hint(other, data, "lab:net") == ""
