"""At robode's defaults the Hamiltonian part acts; at the published kappa and h with etd it does not (specs 3.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robode.data.info import DatasetInfo
from robode.families.chnode import CHNode
from robode.integrators.one_step import ETD, IMEX, GainIntegrator
from robode.linalg.skew import canonical
from robode.network import Network
from robode.tasks.classification import Classification

IMAGES = DatasetInfo((1, 6, 6), (0.1307,), (0.3081,), (0.0, 1.0), Classification(tuple("0123456789")))


def logits(sign: int, folder: Path, integrator: GainIntegrator, **options: object) -> torch.Tensor:
    path = folder / f"J{sign}.npy"
    np.save(path, (sign * canonical(8)).numpy())
    torch.manual_seed(0)
    flow = CHNode(8, 4, integrator, J="file", J_file=str(path), **options)  # type: ignore[arg-type]
    network = Network(IMAGES, flow)
    with torch.no_grad():
        out: torch.Tensor = network(torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(1)))
    return out


@pytest.mark.parametrize("integrator", [ETD(), IMEX()])
@pytest.mark.parametrize("rule", ["theorem1", "differentiable"])
def test_the_sign_of_J_changes_the_logits_at_the_defaults(tmp_path: Path, integrator: ETD, rule: str) -> None:
    plus, minus = (logits(s, tmp_path, integrator, init_std=0.5, gamma=rule) for s in (1, -1))
    assert float((plus - minus).abs().max()) > 0.1 * float(plus.std())


def test_it_changes_nothing_at_the_published_settings(tmp_path: Path) -> None:
    published = {"kappa": 4e-4, "init_std": 1.0, "step": 0.5, "gamma": "script_mnist"}
    plus, minus = (logits(s, tmp_path, ETD(), **published) for s in (1, -1))
    assert torch.equal(plus, minus)


def test_h_c_gamma_says_which_regime_it_is() -> None:
    torch.manual_seed(0)
    default = CHNode(8, 4, ETD(), init_std=0.5).properties()
    published = CHNode(8, 4, ETD(), kappa=4e-4, init_std=1.0, step=0.5, gamma="script_mnist").properties()
    assert 0.3 <= default["hcgamma_max"] <= 1 + 1e-9
    assert published["hcgamma_max"] > 100 and published["J_over_gamma"] < 0.02 < default["J_over_gamma"]
