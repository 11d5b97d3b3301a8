"""What is measured of denoisers, how it is drawn, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import composed
from test_lecture_and_poster import collected

from robode.data.module import DataModule
from robode.errors import BadInput
from robode.network import Network, build_network
from robode.papers.figures.plug_and_play import Deblurred
from robode.quantities.denoisers import denoiser, is_denoiser
from robode.quantities.plug_and_play import FILE, PlugAndPlay
from robode.training.assembly import build_data

WORDS = ("experiment=lecture/plug_and_play", "trainer.threads=1", "data.source.crops=8", "model.width=6", "depth=2")
SMALL: dict[str, Any] = {
    "size": 34, "pictures": 2, "steps": 12, "search": 1, "repeats": 11, "strengths": (2.0, 4.0),
    "relaxations": (1.0, 0.5), "weights": (0.003,),
}  # fmt: skip


def built(*words: str) -> tuple[Network, DataModule]:
    config = composed(*WORDS, *words)
    data = build_data(config)
    data.prepare()
    torch.manual_seed(0)
    return build_network(config, data.info), data


def numbers(folder: Path, network: Network, data: DataModule, **more: Any) -> dict[str, float]:
    return {
        str(row["quantity"]): float(row["value"]) for row in PlugAndPlay(**SMALL | more).measure(network, data, folder)
    }


def test_numbers_and_arrays_of_a_certified_denoiser(tmp_path: Path) -> None:
    network, data = built()
    quantity = PlugAndPlay(**SMALL)
    assert quantity.suits(network) and quantity.refusal(data.info) is None
    found = numbers(tmp_path, network, data)
    assert set(found) == quantity.in_numbers()
    assert found["noisy"] == pytest.approx(-20 * math.log10(0.15), abs=0.1)
    assert found["theta"] < 1 and found["rate"] <= 1 and 0 < found["growth"] <= 1.001
    assert found["repeated_growth"] <= 1.001 and found["repeated"] <= found["repeated_best"]
    assert found["strength_0.01"] in (2, 4) and found["relaxation_0.05"] in (1, 0.5)
    assert found["inverse_0.05"] < min(found[f"{name}_0.05"] for name in ("blurred", "tv", "pnp"))
    with np.load(tmp_path / FILE) as arrays:
        assert arrays["psnr_0"].shape == (13,) and arrays["steps_1"].shape == arrays["bound_1"].shape == (12, 2)
        assert bool((arrays["steps_1"] <= arrays["bound_1"] * 1.001).all())
        assert arrays["pnp_1"].shape == arrays["clean_0"].shape == (2, 3, 34, 34)
        assert arrays["pnp_1"].dtype == np.uint8 and np.array_equal(arrays["clean_0"], arrays["clean_1"])
        assert arrays["repeated_at"].tolist() == [0, 1, 10, 11] and arrays["repeated_seen"].shape == (4, 3, 32, 32)
        mse = np.square((arrays["clean_0"] - arrays["blurred_0"].astype(float)) / 255).mean(axis=(1, 2, 3))
        assert found["blurred_0.01"] == pytest.approx(float((-10 * np.log10(mse)).mean()), abs=0.05)
    pictures = Deblurred(picture=0).draw(collected(tmp_path))
    assert [each.stem for each in pictures] == ["deblurred", "iterates", "repeated"]
    assert Deblurred(seed=2).draw(collected(tmp_path)) == []


def test_the_noise_does_not_move_with_the_network_nor_with_the_seed(tmp_path: Path) -> None:
    first = numbers(tmp_path, *built())
    torch.manual_seed(5)
    second = numbers(tmp_path, *built("seed=3", "model.theta=0.5"))
    for name in ("noisy", "blurred_0.01", "inverse_0.05", "tv_0.01"):
        assert first[name] == second[name]


def test_a_denoiser_works_on_pictures_of_any_size_as_the_network_does_on_those_of_its_data() -> None:
    network, data = built()
    x = data.split("test").x[:3]
    N = denoiser(network.eval())
    torch.testing.assert_close(N(x).flatten(1), network(x))
    assert N(torch.rand(1, 3, 50, 20)).shape == (1, 3, 50, 20)
    fixed, _ = built("model.sizes=one")
    with pytest.raises(BadInput, match=r"expected images \(32, 32\), got \(50, 20\)"):
        denoiser(fixed)(torch.rand(1, 3, 50, 20))


def test_dncnn_takes_noise_away_and_is_measured_without_a_proof_alone(tmp_path: Path) -> None:
    network, data = built("model=dncnn", "model.width=channels", "depth=3", "model.hidden=4")
    with pytest.raises(BadInput, match="expected a denoiser that is proven averaged.*plug_and_play.certified=false"):
        PlugAndPlay(**SMALL).suits(network)
    assert PlugAndPlay(**SMALL, certified=False).suits(network) and is_denoiser(network)
    found = numbers(tmp_path, network, data, certified=False, noise=(0.02,), pictures=1)
    assert found["theta"] == found["rate"] == math.inf and "pnp_0.02" in found
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        last = network.flow.layers[-1]  # type: ignore[union-attr, index]
        last.weight.zero_()  # type: ignore[union-attr, operator]
        last.bias.zero_()  # type: ignore[union-attr, operator]
    torch.testing.assert_close(network.eval()(x), x.flatten(1))  # x minus what it takes for noise


def test_longer_weights_are_refused_where_the_proof_needs_them_short() -> None:
    network, _ = built()
    with torch.no_grad():
        network.flow.K[0].mul_(20)  # type: ignore[union-attr, index, operator]
    with pytest.raises(BadInput, match="proven averaged"):
        PlugAndPlay(**SMALL).suits(network)


def test_other_networks_and_other_data_are_refused() -> None:
    quantity = PlugAndPlay(**SMALL)
    other, data = built("head=orthonormal", "data.size=8")
    assert not quantity.suits(other)
    with pytest.raises(BadInput, match="expected encoder=zero_channels and head=projection"):
        denoiser(other)
    digits = build_data(composed("trainer.threads=1")).info
    assert "data=photographs" in str(quantity.refusal(digits))


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({"length": 35}, "length=35: the kernel is larger than the image, expected at most .*size=34"),
        ({"length": 4}, "an odd whole number"),
        ({"tau": 2.0}, "tau: expected a step below 2/L = 2, got 2"),
        ({"noise": (0.1, 0.0)}, "noise: expected numbers > 0"),
        ({"strengths": ()}, "strengths: expected numbers > 0"),
        ({"relaxations": (1.5,)}, "relaxations: expected numbers in"),
        ({"search": 0}, "search: expected a whole number >= 1"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput, match=expected) as error:
        PlugAndPlay(**SMALL | keys)
    assert "\n" not in str(error.value)


def test_pictures_that_are_smaller_than_the_problem_are_refused(tmp_path: Path) -> None:
    network, data = built()
    with pytest.raises(BadInput, match="china has 427 x 128 pixels for"):
        numbers(tmp_path, network, data, size=200)
