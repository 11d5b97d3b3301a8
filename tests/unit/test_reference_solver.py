"""A reference solver of the same flow, and files of rows from before its column."""

import pytest
import torch

from robode.attacks.pgd import FGSM, fgsm
from robode.attacks.problem import make_problem
from robode.corruptions.noise import BLOCK, Clean, PerSampleRNG
from robode.corruptions.protocols import DataSpace
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.evaluation.measure import evaluate_suite
from robode.evaluation.suite import Plan
from robode.families.chnode import CHNode
from robode.families.node import Node
from robode.integrators.adaptive import Dopri5
from robode.integrators.etd import ETD
from robode.integrators.euler import Euler
from robode.integrators.imex import IMEX
from robode.integrators.integrator import Substeps
from robode.integrators.reference import with_reference_solver
from robode.integrators.runge_kutta import RK4
from robode.network import Network
from robode.runs import results
from robode.tasks.classification import Classification

VECTORS = DatasetInfo((2,), (0.0, 0.0), (0.5, 2.0), None, Classification(tuple("abc")))


def flow_output(network, x):
    with torch.no_grad():
        return network.flow(network.embed(x))


@pytest.mark.parametrize("integrator", [Euler(), ETD(), IMEX(), RK4()], ids=lambda i: i.name)
def test_a_reference_solver_is_nearer_to_the_ode(integrator):
    torch.manual_seed(0)
    network = Network(VECTORS, CHNode(4, 3, integrator, 0.2)).double()
    x = torch.randn(20, 2, dtype=torch.float64)
    reference = with_reference_solver(network)
    exact = with_reference_solver(network)
    exact.flow.integrator = Substeps(integrator, 512)
    truth = flow_output(exact, x)
    coarse_error, fine_error = ((flow_output(each, x) - truth).norm() for each in (network, reference))
    assert 0 < fine_error < 1.5 * coarse_error / 4**integrator.order
    assert network.flow.integrator is integrator, "the network itself stays as it is"


def test_the_jacobian_of_substeps_is_exact():
    torch.manual_seed(0)
    reference = with_reference_solver(Network(VECTORS, CHNode(4, 1, ETD(), 0.5)).double())
    y = torch.randn(3, 4, dtype=torch.float64)
    (found,) = reference.flow.step_jacobians(y)
    true = torch.stack([torch.autograd.functional.jacobian(lambda z: reference.flow(z[None])[0], each) for each in y])
    assert torch.allclose(found, true, atol=1e-12)
    assert reference.flow.certificate()["flow_discrete"] >= float(torch.linalg.matrix_norm(true, 2).max())


def test_adaptive_substeps_keep_their_number_and_dopri5_tightens():
    adaptive = Network(VECTORS, CHNode(4, 2, Euler("auto"), 0.5))
    assert with_reference_solver(adaptive).flow.method.inner.substeps == adaptive.flow.method.substeps
    dopri = with_reference_solver(Network(VECTORS, Node(4, 2, Dopri5(1e-3, 1e-4), 0.5))).flow.method
    assert (dopri.rtol, dopri.atol) == pytest.approx((1e-5, 1e-6))
    assert with_reference_solver(torch.nn.Linear(2, 2)) is None


def test_attacks_and_the_clean_row_beside_them_are_scored_by_the_reference_solver_too():
    torch.manual_seed(3)
    network = Network(VECTORS, CHNode(4, 2, Euler(), 2.0)).eval()
    x = torch.randn(200, 2)
    labels = network(x).argmax(1)  # where the two solvers differ, the reference solver is wrong
    reference = with_reference_solver(network).eval()

    def rows(suite):
        return evaluate_suite(network, x, labels, Plan(suite, DataSpace(), VECTORS, repeats=1, seed=1))

    clean, attacked = rows({"clean": Clean(), "fgsm_l2": FGSM(0.3, norm="l2")})
    moved = fgsm(make_problem(network, x, labels, eps=0.3, norm="l2"))
    with torch.no_grad():
        assert clean["score_reference"] == int((reference(x).argmax(1) == labels).sum()) / 200 < clean["score"]
        assert attacked["score_reference"] == int((reference(moved).argmax(1) == labels).sum()) / 200
    assert rows({"clean": Clean()})[0]["score_reference"] is None, "without an attack nobody asks"


def test_draws_belong_to_images_and_not_to_batches():
    whole = PerSampleRNG((1, 2), range(0, 3 * BLOCK))
    first, rest = PerSampleRNG((1, 2), range(0, 70)), PerSampleRNG((1, 2), range(70, 3 * BLOCK))
    some = rest.of(torch.tensor([0, 5, 60]))
    for shape in ((3,), (2, 2)):
        expected = whole.normal(*shape)
        assert torch.equal(first.normal(*shape), expected[:70])
        assert torch.equal(some.normal(*shape), expected[[70, 75, 130]])
    rows = some.of(torch.tensor([False, True, False])).uniform()
    assert torch.equal(rows, whole.uniform()[[75]])
    assert not torch.equal(PerSampleRNG((1, 3), range(5)).uniform(4), PerSampleRNG((1, 2), range(5)).uniform(4))


def test_a_file_of_an_earlier_version_is_widened_and_keeps_its_rows(tmp_path):
    path = tmp_path / "results.csv"
    old = [name for name in results.COLUMNS if name not in results.ADDED]
    values = {name: "1" for name in old} | {"task": ""}
    path.write_text(",".join(old) + "\n" + ",".join(values[name] for name in old) + "\n")
    results.RESULTS.prepare(path)
    rows = results.read_rows(path)
    assert list(rows.columns) == list(results.COLUMNS) and len(rows) == 1
    assert rows["score_reference"].isna().all() and rows["score"].iloc[0] == 1
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="other columns"):
        results.RESULTS.prepare(other)
    assert other.read_text() == "a,b\n1,2\n"
    results.RESULTS.prepare(tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()
