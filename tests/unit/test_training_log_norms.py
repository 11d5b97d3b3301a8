"""The log-norm of the fields in the training log: both bounds hold at every epoch, and logging changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_runs import composed, train

from robode.errors import BadInput
from robode.families.chnode import CHNode
from robode.families.gradient_flow import GradientFlow
from robode.families.node import Node
from robode.families.resnet import ResNet
from robode.families.stable_node import StableNode
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.ode.bounds import Scalar
from robode.ode.field import GradientField, OneLayerField
from robode.ode.flow import Flow
from robode.ode.lognorm_exact import maximum
from robode.report.figures import draw_figures
from robode.report.page import write_page
from robode.runs.checkpoints import read_checkpoint
from robode.runs.identity import config_hash
from robode.runs.run import Run
from robode.runs.table import METRICS, texts
from robode.training.callbacks import LogNormLogger

BOUNDS = ("flow/delta_lower", "flow/delta_upper")
WIDE = ("model=stable_node", "model.width=12", "model.delta=0.3", "model.every=3")
FLOWS: dict[str, Callable[[], Flow]] = {
    "enumerated": lambda: ResNet(6, 3, Euler()),
    "wide": lambda: ResNet(12, 3, Euler(), init_std=0.4),
    "wide chnode": lambda: CHNode(12, 2, ETD(), activation="leaky_relu", init_std=0.3),
    "shared": lambda: StableNode(12, 4, Euler(), delta=0.2),
    "stable": lambda: StableNode(12, 2, Euler(), delta=0.2, shared=False),
    "node": lambda: Node(11, 3, Euler(), hidden=[]),
}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go into tmp_path; figures are drawn where a test looks at them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robode.api.evaluation.draw_figures", lambda folder: [])


def logged(run: Run, *names: str) -> pd.DataFrame:
    """A row an epoch end (x = steps), a column a name; the first is before the first step."""
    metrics = METRICS.read(run.folder / "metrics.csv")
    rows = metrics[metrics["name"].isin(names)]
    return rows.pivot(index="step", columns="name", values="value")


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each in ("shared", "wide chnode") else ()) for each in FLOWS]
)
def test_both_bounds_enclose_the_maximum_from_what_earlier_weights_left(name: str) -> None:
    torch.manual_seed(3)
    flow = FLOWS[name]()
    known = flow.lognorm_bounds()
    for _ in range(2):
        with torch.no_grad():
            for each in flow.parameters():
                each.add_(0.05 * each.std() * torch.randn_like(each))
        getattr(flow, "project_", lambda: None)()
        known = flow.lognorm_bounds(known)
        fields = flow.exact().fields()
        assert len(known) == len(fields) == flow.depth
        exact = [maximum(f.jacobians()) for f in fields if isinstance(f, OneLayerField | GradientField)]
        for bounds, best in zip(known, exact, strict=True):
            assert bounds.lower <= bounds.upper and bounds.lower <= best.upper and best.lower <= bounds.upper
        top = max(best.upper for best in exact)
        size = max(field.lipschitz() for field in fields)
        assert max(each.lower for each in known) == pytest.approx(top, abs=0.05 * size)
        assert max(each.upper for each in known) == pytest.approx(top, abs=0.05 * size)


class Faster(OneLayerField):
    """Computes something else than the log-norm that it inherits is about."""

    def __call__(self, t: Scalar, y: torch.Tensor) -> torch.Tensor:
        return 100 * super().__call__(t, y)


class FasterNet(ResNet):
    def fields(self, context: torch.Tensor | None = None) -> list[OneLayerField]:
        return [Faster(f.K, f.b, f.activation) for f in super().fields()]


@pytest.mark.parametrize(
    "flow", [lambda: Node(4, 2, Euler()), lambda: GradientFlow(4, 2, Euler()), lambda: FasterNet(4, 2, Euler())]
)
def test_fields_that_do_not_know_both_bounds_have_none(flow: Callable[[], Flow]) -> None:
    assert flow().lognorm_bounds() == []


def test_numbers_that_overflow_have_no_bounds_and_end_nothing() -> None:
    flow = CHNode(12, 2, ETD()).double()
    with torch.no_grad():
        flow.K.mul_(1e200)
    assert flow.lognorm_bounds() == []


def test_every_epoch_has_both_bounds_and_projected_weights_stay_below_delta() -> None:
    run = train("epochs=3", "run=a", *WIDE)
    rows = logged(run, *BOUNDS, "flow/delta")
    bounds = rows[list(BOUNDS)].dropna()
    assert list(bounds.index) == [0, 3, 6, 9]
    assert (bounds["flow/delta_lower"] <= bounds["flow/delta_upper"]).all()
    assert (bounds["flow/delta_upper"] <= rows.loc[bounds.index, "flow/delta"] + 1e-9).all()
    assert (bounds["flow/delta_lower"] > 0).all(), "the weights lie near delta = 0.3"


def test_the_log_norm_is_that_of_the_certificate_of_the_ode() -> None:
    rows = logged(train("epochs=2", "run=a"), *BOUNDS, "flow/step_ode/1", "flow/step_ode/2", "flow/h").dropna()
    assert len(rows) == 3
    steepest = rows[["flow/step_ode/1", "flow/step_ode/2"]].max(axis=1)
    assert (rows["flow/h"] * rows["flow/delta_upper"]).to_list() == pytest.approx(
        [float(torch.tensor(each).log()) for each in steepest], rel=1e-6
    )


@pytest.mark.parametrize("words", [(), pytest.param(WIDE, marks=pytest.mark.slow)])
def test_logging_changes_no_weight_and_no_name(words: tuple[str, ...]) -> None:
    off = "callbacks.log_norms=null"
    seen, unseen = train("epochs=2", "run=a", *words), train("epochs=2", "run=b", *words, off)
    one, two = read_checkpoint(seen.last), read_checkpoint(unseen.last)
    assert all(torch.equal(each, two["state_dict"][name]) for name, each in one["state_dict"].items())
    assert torch.equal(one["rng"]["cpu"], two["rng"]["cpu"])
    assert len(logged(seen, *BOUNDS)) == 3 and logged(unseen, *BOUNDS).empty
    plain = [composed(*words, *more).plain() for more in ((), (off,), ("callbacks.log_norms.every_n_epochs=2",))]
    assert len({config_hash(each) for each in plain}) == 1


@pytest.mark.slow
def test_a_resumed_run_has_one_row_an_epoch_and_those_of_the_run_that_never_stopped() -> None:
    whole = train("epochs=3", "run=whole", *WIDE)
    train("epochs=1", "run=parted", *WIDE)
    parted = train("resume=parted", "epochs=3")
    rows = texts(parted.folder / "metrics.csv")
    assert (rows["name"] == "flow/delta_upper").sum() == 4
    pd.testing.assert_frame_equal(logged(parted, *BOUNDS), logged(whole, *BOUNDS), check_exact=True)


def test_every_few_epochs_and_the_last() -> None:
    run = train("epochs=5", "run=a", "callbacks.log_norms.every_n_epochs=2")
    assert list(logged(run, *BOUNDS).index) == [0, 6, 12, 15]
    with pytest.raises(BadInput, match=r"callbacks\.log_norms\.every_n_epochs: expected a whole number >= 1, got 0"):
        LogNormLogger(0)


@pytest.mark.slow
def test_the_page_has_its_figure_where_there_is_one() -> None:
    for words, drawn in ((WIDE, True), (("model=node", "model.width=2"), False)):
        run = train("epochs=1", f"run={drawn}", *words)
        assert logged(run, *BOUNDS).empty is not drawn
        assert ("log_norms" in {path.stem for path in draw_figures(run.folder)}) is drawn
        assert ("Logarithmic norm" in write_page(run.folder).read_text()) is drawn
