"""A denoiser in the place of a proximal operator: blurred pictures solved by x <- clip(N(x - tau K^T (K x - y))), and N
alone, again and again.

Theory: docs/theory.md, section 30. Source: Murari's lecture, "The Plug-and-Play (PnP) Method"; Sherry, Celledoni,
Ehrhardt, Murari, Owren, Schonlieb, Designing stable neural networks using convex analysis and ODEs, Physica D, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robode.data.batches import device_of, evaluating, in_units
from robode.data.info import DatasetInfo
from robode.data.module import DataModule, spread
from robode.data.pictures import Pictures
from robode.deblurring import Blur, motion_kernel, tv_deblurred
from robode.errors import BadInput
from robode.iterations import Iteration, Map, relaxed
from robode.network import Network
from robode.quantities.denoisers import denoiser, is_denoiser, largest_growth, plug_and_play, strengthened
from robode.quantities.quantity import Number, Quantity, row, write_arrays
from robode.tasks.denoising import Denoising, psnr

FILE = "plug_and_play.npz"
SEED = 0
"""The noise of blurred pictures is part of the problem: it does not move with the user's seed."""
ROUNDED = 1e-4  # where a step has this root mean square, what float32 rounds is a thousandth of it
REPEATED = 16  # test samples to which the denoiser is applied again and again
SHOWN = (1, 10)  # after so many applications one of them is kept, and after the last

Arrays = dict[str, NDArray[np.generic]]
Knobs = tuple[float, float]
"""s and a."""


@dataclass(frozen=True)
class Problem:
    """y = K x + noise e of clean pictures x, both (B, C, H, W) float32."""

    blur: Blur
    x: Tensor
    y: Tensor

    def psnr(self, answer: Tensor) -> float:
        """The mean over the pictures, of the answer clipped to [0, 1]."""
        return float(psnr(answer.clamp(0, 1), self.x).mean())


@dataclass(frozen=True)
class Watched:
    """x: the last iterate. psnr: (K + 1,), the mean over pictures of each iterate; seen: some iterates of the first
    picture; steps: (K, B)."""

    x: Tensor
    psnr: Tensor
    seen: list[Tensor]
    steps: Tensor


class PlugAndPlay(Quantity):
    """Clean squares of `size` pixels of the test pictures, blurred by a motion along `length` pixels of the diagonal,
    round the torus, with noise of these standard deviations; x_0 = y clipped, `steps` steps of length tau.

    Of N_s(x) = N(s x)/s and of (1 - a) x + a N_s(x) in the place of N, s out of `strengths` and a out of `relaxations`,
    and of the weights of total variation, the best ones on `search` squares of the validation split (without one: of
    the training split) are taken, for each noise.
    repeats: N alone, applied so often to test samples. certified: only a denoiser of which the convergence is proven.

    noisy: PSNR of the test samples, in dB like all that follow. For each noise e: blurred_e, inverse_e (K^-1 y), tv_e
    and pnp_e, means over the pictures, and strength_e (s), relaxation_e (a). theta, rate: certified constants of T with
    s = a = 1, which bound those of the others (inf: none). growth: the
    largest quotient of a step and the one before it, where float32 does not round. repeated, repeated_best: PSNR after
    the last application of N, and after the best one; repeated_growth; repeated_step: root mean square of the last
    step. plug_and_play.npz, for the figures: `_arrays`, `_repeated`.

    Raises:
        BadInput: numbers that make no sense; in `suits`, a denoiser of which nothing is proven.
    """

    name = "plug_and_play"
    gives = (
        "noisy", "blurred", "inverse", "tv", "pnp", "strength", "relaxation", "theta", "rate", "growth", "repeated",
        "repeated_best", "repeated_growth", "repeated_step",
    )  # fmt: skip
    of_noise = ("blurred", "inverse", "tv", "pnp", "strength", "relaxation")

    def __init__(
        self, size: int = 88, pictures: int = 4, length: int = 15, noise: Sequence[float] = (0.01, 0.05),
        tau: float = 1.0, steps: int = 120, strengths: Sequence[float] = (1.0, 2.0, 4.0),
        relaxations: Sequence[float] = (1.0, 0.3), weights: Sequence[float] = (0.001, 0.003, 0.01, 0.03),
        search: int = 2, repeats: int = 100, certified: bool = True,
    ):  # fmt: skip
        for key, numbers in (("noise", noise), ("strengths", strengths), ("weights", weights), ("tau", [tau])):
            if not numbers or not all(0 < each < math.inf for each in numbers):
                raise BadInput(f"suite.plug_and_play.{key}: expected numbers > 0, got {numbers}")
        if not relaxations or not all(0 < each <= 1 for each in relaxations):
            raise BadInput(f"suite.plug_and_play.relaxations: expected numbers in (0, 1], got {relaxations}")
        counts = {"size": size, "pictures": pictures, "steps": steps, "search": search, "repeats": repeats}
        for key, count in counts.items():
            if count < 1:
                raise BadInput(f"suite.plug_and_play.{key}: expected a whole number >= 1, got {count}")
        kernel = motion_kernel(length)
        if length > size:
            raise BadInput(
                f"suite.plug_and_play.length={length}: the kernel is larger than the image, expected at most "
                f"suite.plug_and_play.size={size}"
            )
        self.blur = Blur.of(kernel, (size, size))
        if tau * self.blur.L >= 2:
            raise BadInput(f"suite.plug_and_play.tau: expected a step below 2/L = {2 / self.blur.L:.3g}, got {tau}")
        self.size, self.pictures, self.noise, self.tau, self.steps = size, pictures, tuple(noise), tau, steps
        self.knobs = [(s, a) for s in strengths for a in relaxations]
        self.weights, self.search = tuple(weights), search
        self.repeats, self.certified = repeats, certified

    def misfit(self, info: DatasetInfo) -> str | None:
        return None if isinstance(info.task, Denoising) else "is for pictures with noise (data=photographs or bsds500)"

    def suits(self, network: nn.Module) -> bool:
        """Raises `BadInput` for a denoiser of which nothing is proven, where `certified` asks for a proof."""
        if not isinstance(network, Network) or not is_denoiser(network):
            return False
        if self.certified and not network.flow.averagedness() < 1:
            raise BadInput(
                "suite.plug_and_play: expected a denoiser that is proven averaged, since nothing else makes iterations "
                "converge; choose model=denoiser with model.theta below 1, or suite.plug_and_play.certified=false"
            )
        return True

    def in_numbers(self) -> set[str]:
        names = {f"{name}_{noise:g}" for name in self.of_noise for noise in self.noise}
        return names | (set(self.gives) - set(self.of_noise))

    def known(self, folder: Path, weights: str) -> bool:
        return (folder / FILE).is_file() and super().known(folder, weights)

    @torch.no_grad()
    def measure(self, network: Network, data: DataModule, folder: Path) -> list[Number]:
        if not isinstance(data.source, Pictures):
            raise BadInput(f"suite.plug_and_play: expected data of pictures (photographs, bsds500), got {data.name}")
        x, target = data.split("test", device_of(network))
        found, arrays, growth = dict[str, float](), Arrays(), 0.0
        with evaluating(network):
            N = denoiser(network)
            for place, noise in enumerate(self.noise):
                problem = self._problem(data, "test", place, x.device)
                knobs, answers, watched = self._answers(N, data, problem, place)
                found[f"strength_{noise:g}"], found[f"relaxation_{noise:g}"] = knobs
                found |= {f"{name}_{noise:g}": problem.psnr(answer) for name, answer in answers.items()}
                growth = max(growth, largest_growth(watched.steps, ROUNDED * math.sqrt(problem.x[0].numel())))
                arrays |= self._arrays(self._iteration(N, problem, knobs), place, problem, answers, watched)
            T = self._iteration(N, problem, (1.0, 1.0)).T
            more, kept = self._repeated(N, data, x.device)
        write_arrays(folder / FILE, arrays | kept)
        found |= more | {"noisy": float(psnr(x.flatten(1), target).mean()), "growth": growth}
        proven = [row("theta", T.averaged, "certified_upper"), row("rate", T.lipschitz, "certified_upper")]
        return [*(row(name, value) for name, value in found.items()), *proven]

    def _problem(self, data: DataModule, split: str, place: int, device: torch.device) -> Problem:
        """Squares of a split with the noise of this place; those of another split have other noise."""
        assert isinstance(data.source, Pictures)
        count = self.pictures if split == "test" else self.search
        x = in_units(data.source.squares(split, self.size, count))
        generator = np.random.default_rng([SEED, split == "test", place])
        e = torch.from_numpy(generator.standard_normal(tuple(x.shape), dtype=np.float32))
        blur = Blur(self.blur.spectrum.to(device), self.blur.size)
        return Problem(blur, x.to(device), blur(x.to(device)) + self.noise[place] * e.to(device))

    def _iteration(self, N: Map, problem: Problem, knobs: Knobs) -> Iteration:
        s, a = knobs
        return plug_and_play(relaxed(strengthened(N, s), a), problem.blur, problem.y, self.tau)

    def _answers(
        self, N: Map, data: DataModule, problem: Problem, place: int
    ) -> tuple[Knobs, dict[str, Tensor], Watched]:
        """What PnP is best with, the answers by name, and PnP's iterates."""
        sought = self._problem(data, "validation" if data.has_validation else "train", place, problem.x.device)

        def by_iteration(knobs: Knobs) -> float:
            found = self._iteration(N, sought, knobs).run(sought.y.clamp(0, 1), self.steps // 2 or 1)
            return sought.psnr(found.x)

        def by_tv(weight: float) -> float:
            return sought.psnr(tv_deblurred(sought.blur, sought.y, weight))

        knobs = max(self.knobs, key=by_iteration)
        weight = max(self.weights, key=by_tv)
        watched = run(self._iteration(N, problem, knobs), problem.y.clamp(0, 1), self.steps, problem.x)
        answers = {
            "blurred": problem.y,
            "inverse": problem.blur.inverse(problem.y),
            "tv": tv_deblurred(problem.blur, problem.y, weight),
            "pnp": watched.x,
        }
        return knobs, answers, watched

    def _arrays(
        self, iteration: Iteration, place: int, problem: Problem, answers: dict[str, Tensor], watched: Watched
    ) -> Arrays:
        """For noise number `place`: clean and each answer, (B, C, H, W) bytes; psnr (K + 1,); steps (K, B); and what
        the theorem allows them at most, bound (K, B). ||x_0 - x*|| is at most the diameter of the box."""
        k, diameter = torch.arange(len(watched.steps)), math.sqrt(problem.x[0].numel())
        bound = torch.stack([iteration.bound(k, each, diameter) for each in watched.steps[0].tolist()], 1)
        shown = {"clean": problem.x, **answers}
        found = {"psnr": watched.psnr, "steps": watched.steps, "bound": bound}
        named = {f"{name}_{place}": each.cpu().numpy() for name, each in found.items()}
        return named | {f"{name}_{place}": _bytes(each) for name, each in shown.items()}

    def _repeated(self, N: Map, data: DataModule, device: torch.device) -> tuple[dict[str, float], Arrays]:
        """Numbers of x <- N(x) on test samples; repeated_psnr (R + 1,), repeated_steps (R, B), and repeated_seen, the
        first of them after each of the applications `repeated_at`."""
        x, target = (each.to(device) for each in spread(data.split("test"), REPEATED))
        watched = run(Iteration(N), x, self.repeats, target.view_as(x))
        size = math.sqrt(x[0].numel())
        numbers = {
            "repeated": float(watched.psnr[-1]),
            "repeated_best": float(watched.psnr.max()),
            "repeated_growth": largest_growth(watched.steps, ROUNDED * size),
            "repeated_step": float(watched.steps[-1].square().mean().sqrt()) / size,
        }
        at = np.array([0, *(each for each in SHOWN if each < self.repeats), self.repeats])
        arrays = {"repeated_psnr": watched.psnr, "repeated_steps": watched.steps}
        seen = _bytes(torch.stack([watched.seen[each] for each in at]))
        kept: Arrays = {"repeated_at": at, "repeated_seen": seen}
        return numbers, kept | {name: each.cpu().numpy() for name, each in arrays.items()}


def run(iteration: Iteration, start: Tensor, steps: int, clean: Tensor) -> Watched:
    """start, clean: (B, C, H, W)."""
    scores, seen = list[Tensor](), list[Tensor]()

    def watch(_: int, x: Tensor) -> None:
        scores.append(psnr(x.clamp(0, 1), clean).mean())
        seen.append(x[0])

    found = iteration.run(start, steps, watch)
    return Watched(found.x, torch.stack(scores), seen, found.steps)


def _bytes(x: Tensor) -> NDArray[np.generic]:
    pixels: NDArray[np.generic] = (x.nan_to_num(0.0).clamp(0, 1) * 255).round().byte().cpu().numpy()
    return pixels
