"""Certified Lipschitz constants of anyone's nn.Module that is a chain of known layers: the product of their 2-norms.

A chain is a Sequential, nested as one likes. Of known layers, and of classes derived from them that leave alone what
these compute with, the constant is worked out; weights that are computed from others are certified at the values that
they have in eval mode. Any other module can vouch for itself (a residual block, say):

    def certified_lipschitz(self, shape: tuple[int, ...]) -> float     an upper bound for samples of that shape

Everything is in float64, for the weights in exact arithmetic, in eval mode. The product: Szegedy et al., Intriguing
properties of neural networks, 2014, 4.3; the factors: docs/theory.md, section 14.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from robode.errors import BadInput
from robode.foreign import blamed, patched, rewritten
from robode.linalg.activations import STEEPEST
from robode.linalg.convolution import conv_norm, dilated
from robode.linalg.norms import ROUNDING, spectral_norms
from robode.network import Normalise
from robode.ode.flow import certified

Shape = tuple[int, ...]
Layer = TypeVar("Layer", bound=nn.Module)
HOOK = "certified_lipschitz"


@runtime_checkable
class Vouches(Protocol):
    """A module that knows its own constant."""

    def certified_lipschitz(self, shape: Shape) -> object:
        """An upper bound of its Lipschitz constant for samples of that shape, a number; inf where it knows none."""


@dataclass(frozen=True)
class Factor:
    """One layer's constant; norm of the layer named `name` on samples of shape `shape`."""

    name: str
    layer: nn.Module
    shape: Shape
    constant: float


@torch.no_grad()
def factors(module: nn.Module, shape: Shape) -> list[Factor]:
    """The layers of a chain in order with their certified constants. shape: of one sample, without the batch.

    Raises:
        BadInput: a layer without a known constant, by its name, or one that does not take such samples.
    """
    module = exact_copy(module)
    device = next((p.device for p in module.parameters()), None)
    found, x = [], torch.zeros(1, *shape, dtype=torch.float64, device=device)
    for name, layer in _chain(module, type(module).__name__):
        _check_steady(name, layer)
        inside = tuple(x.shape[1:])
        constant = _constant(name, layer, inside)
        with blamed(f"layer {name}: does not take samples of shape {inside}"):
            x = layer(x)
        if not isinstance(x, Tensor):
            raise BadInput(f"layer {name}: expected a layer that gives one tensor, got {type(x).__name__}")
        if x.shape[:1] != (1,):
            raise BadInput(f"layer {name}: expected a layer that keeps samples apart, got shape {tuple(x.shape)}")
        found.append(Factor(name, layer, inside, constant))
    return found


def lipschitz(module: nn.Module, shape: Shape) -> float:
    """Certified Lipschitz constant of the module in the 2-norm; see `factors`."""
    return math.prod(factor.constant for factor in factors(module, shape))


def last_matrix(chain: list[Factor]) -> tuple[float, Tensor] | None:
    """(constant of what comes before it, W) where the chain ends with a linear layer W; None where it does not.

    Layers after it that change nothing (dropout) are looked through.
    """
    for place in range(len(chain) - 1, -1, -1):
        layer = chain[place].layer
        if isinstance(layer, Vouches):
            return None
        if isinstance(layer, nn.Linear) and len(chain[place].shape) == 1:
            return math.prod(factor.constant for factor in chain[:place]), layer.weight.detach()
        if not isinstance(layer, nn.Identity | nn.Dropout):
            return None
    return None


def exact_copy(module: Layer) -> Layer:
    """A copy with the same numbers in float64, in eval mode: what certificates are about.

    Raises:
        BadInput: a module that cannot be copied, or that does not leave training mode.
    """
    with blamed(f"{type(module).__name__}: cannot be copied"):
        found = copy.deepcopy(module).double().eval()
    if training := [name for name, each in found.named_modules() if each.training]:
        raise BadInput(f"layer {training[0]}: expected a module that eval() takes out of training mode")
    return found


def _chain(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if "hooks" in patched(module):
        raise BadInput(f"layer {name}: expected a layer without hooks, because what they do to it is not known")
    if isinstance(module, Vouches):
        yield name, module
        return
    kind = _known(name, module)
    if kind is not nn.Sequential:
        yield name, module
        return
    for key, child in module._modules.items():  # one that comes twice counts twice
        if child is not None:
            yield from _chain(child, f"{name}.{key}")


def _known(name: str, layer: nn.Module) -> type[nn.Module]:
    """The known class whose computation a layer is. Raises `BadInput` where there is none."""
    kind = type_before_parametrizations(layer)
    base = next((each for each in kind.__mro__ if each in FORWARDS), None)
    if base is None:
        raise BadInput(
            f"layer {name}: no certified constant is known for {kind.__name__}; expected a chain of "
            f"{', '.join(each.__name__ for each in [*LAYERS, *STEEPEST])}, or a module with the method {HOOK}(shape)"
        )
    changed = rewritten(kind, base) + patched(layer) + ["forward"] * (base.forward is not FORWARDS[base])
    if changed:
        raise BadInput(
            f"layer {name}: no certified constant is known, because {', '.join(dict.fromkeys(changed))} of "
            f"{base.__name__} was written anew; expected {base.__name__} as it is, or a module with the method "
            f"{HOOK}(shape)"
        )
    return base


def _check_steady(name: str, layer: nn.Module) -> None:
    """Raises `BadInput` where parametrised weights change from one call to the next."""
    for weight in cast(nn.ModuleDict, layer.parametrizations) if is_parametrized(layer) else ():
        with blamed(f"layer {name}: its parametrised {weight} cannot be worked out"):
            first, second = getattr(layer, weight), getattr(layer, weight)
        if not torch.allclose(first, second, rtol=0, atol=0, equal_nan=True):
            raise BadInput(f"layer {name}: its parametrised {weight} changes from one call to the next")


def _constant(name: str, layer: nn.Module, shape: Shape) -> float:
    if isinstance(layer, Vouches):
        return _vouched(f"layer {name} ({type(layer).__name__})", layer, shape)
    kind = _known(name, layer)
    if any(not bool(value.isfinite().all()) for value in layer.state_dict().values()):
        return math.inf
    try:
        return certified(lambda: STEEPEST[kind](layer) if kind in STEEPEST else LAYERS[kind](layer, shape))
    except BadInput as error:
        raise BadInput(f"layer {name}: {error}") from error


def _vouched(who: str, layer: Vouches, shape: Shape) -> float:
    """What the layer's own method says, if that is a number of at least 0 (inf: nothing is known)."""
    with blamed(f"{who}: its {HOOK} failed"):
        value = layer.certified_lipschitz(shape)
    number: object = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(number, bool) and isinstance(number, Real) and float(number) >= 0:
        return float(number)
    got = f"a tensor of shape {tuple(number.shape)}" if isinstance(number, Tensor) else repr(number)[:80]
    raise BadInput(f"{who}: expected {HOOK} to give a number of at least 0, got {' '.join(got.split())}")


def _linear(layer: nn.Linear, shape: Shape) -> float:
    return float(spectral_norms(layer.weight)) * ROUNDING


def _conv(layer: nn.Conv2d, shape: Shape) -> float:
    """The largest norm of its groups, each of which has channels of its own."""
    kernel = dilated(layer.weight, _pair(layer.dilation))
    if isinstance(layer.padding, str):
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2) if layer.padding == "same" else (0, 0)
    else:
        padding = _pair(layer.padding)
    circular, size, copies = layer.padding_mode == "circular", shape[-2:], 1.0
    if layer.padding_mode in ("reflect", "replicate"):
        size, copies = _mirrored(layer.padding_mode, size, padding)
        padding = (0, 0)
    return copies * max(
        float(conv_norm(group, *size, padding=padding, circular=circular, stride=_pair(layer.stride)))
        for group in kernel.chunk(layer.groups)
    )


def _mirrored(mode: str, size: tuple[int, ...], padding: tuple[int, int]) -> tuple[tuple[int, int], float]:
    """The size of the padded image, and the norm of the padding P, which only copies pixels: P^T P is diagonal and
    counts how often each is there. With "same" and an even kernel the image is taken one pixel larger than it is."""
    places = torch.arange(math.prod(size), dtype=torch.float64).view(1, 1, *size)
    try:
        padded = nn.functional.pad(places, (padding[1], padding[1], padding[0], padding[0]), mode=mode)
    except RuntimeError as error:
        raise BadInput(f"expected padding smaller than the image {size[0]} x {size[1]}, got {padding}") from error
    height, width = padded.shape[2:]
    return (height, width), math.sqrt(int(padded.flatten().long().bincount().max())) * ROUNDING


def _batch_norm(layer: nn.BatchNorm2d, shape: Shape) -> float:
    """max |gamma| / sqrt(running variance + eps), in eval mode."""
    if layer.running_var is None:
        raise BadInput("expected running statistics: without them a sample's answer depends on its batch")
    scale = (layer.running_var + layer.eps).rsqrt()
    return float((scale if layer.weight is None else layer.weight * scale).abs().max()) * ROUNDING


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _windows(layer: nn.MaxPool2d | nn.AvgPool2d) -> int:
    """In how many windows a pixel can be."""
    return math.prod(-(-k // s) for k, s in zip(_pair(layer.kernel_size), _pair(layer.stride), strict=True))


def _max_pool(layer: nn.MaxPool2d, shape: Shape) -> float:
    """1 where no pixel is in two windows, sqrt(n) where it can be in n: |max a - max b|^2 <= sum (a - b)^2 in each."""
    if _pair(layer.dilation) != (1, 1):
        raise BadInput("expected dilation 1")
    return math.sqrt(_windows(layer))


def _avg_pool(layer: nn.AvgPool2d, shape: Shape) -> float:
    """sqrt(n / k), windows of k pixels, a pixel in n of them: by Schur's test, rows sum to 1 and columns to n / k.

    Windows at an edge that divide by fewer pixels than k have norm 1 at most.
    """
    k = math.prod(_pair(layer.kernel_size))
    if layer.divisor_override:
        return math.sqrt(_windows(layer) * k) / abs(layer.divisor_override)
    even = not layer.ceil_mode and (layer.count_include_pad or _pair(layer.padding) == (0, 0))
    return math.sqrt(_windows(layer) / k) if even else math.sqrt(_windows(layer))


def _adaptive_pool(layer: nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d, shape: Shape) -> tuple[int, int]:
    """The window of a pool whose windows do not overlap."""
    given = layer.output_size if isinstance(layer.output_size, tuple) else (layer.output_size,) * 2
    sizes = [n if out is None else out for n, out in zip(shape[-2:], given, strict=True)]
    if any(n % out for n, out in zip(shape[-2:], sizes, strict=True)):
        raise BadInput(f"expected an output size that divides {shape[-2]} x {shape[-1]}, got {layer.output_size}")
    return shape[-2] // sizes[0], shape[-1] // sizes[1]


def _adaptive_avg_pool(layer: nn.AdaptiveAvgPool2d, shape: Shape) -> float:
    return 1 / math.sqrt(math.prod(_adaptive_pool(layer, shape)))


def _adaptive_max_pool(layer: nn.AdaptiveMaxPool2d, shape: Shape) -> float:
    _adaptive_pool(layer, shape)
    return 1.0


def _one(layer: nn.Module, shape: Shape) -> float:
    return 1.0


LAYERS: dict[type[nn.Module], Callable[[Any, Shape], float]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    nn.AdaptiveMaxPool2d: _adaptive_max_pool,
    Normalise: lambda layer, shape: 1 / float(layer.std.abs().min()) * ROUNDING,
    nn.Flatten: _one,
    nn.Identity: _one,
    nn.Dropout: _one,
    nn.Dropout2d: _one,
    nn.ZeroPad2d: _one,
    nn.PixelShuffle: _one,
    nn.PixelUnshuffle: _one,
}

KNOWN: list[type[nn.Module]] = [nn.Sequential, *LAYERS, *STEEPEST]
FORWARDS = {kind: kind.forward for kind in KNOWN}
"""What the known classes computed when robode was imported."""
