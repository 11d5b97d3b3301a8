"""A trained network, ready to be called: of a run, or of what `robode export` has written."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor

from robode.api.exported import is_export, network_of_export
from robode.config.validate import CHECKPOINTS
from robode.device import chosen_device
from robode.errors import BadInput
from robode.evaluation.target import trained
from robode.network import Network
from robode.runs.origin import CODES

FAR = 10.0  # widths of the bounds: noise and attacks leave them, by less


def load(run: str | Path, *, checkpoint: str = "best", device: str = "auto", code: str = "same") -> Network:
    """The network of a run or of an export, ready to be called: x (B, *shape) float in data units (images in [0, 1]) ->
    (B, outputs).

    run: its folder, its name, a checkpoint in it, or the folder of an export. checkpoint: best or last; an export has
    one. device: auto (a GPU where there is one), cpu or cuda. code: "any" takes what other code has trained, with a
    warning.

    Raises:
        BadInput: no such run, checkpoint or device, other code trained the run, or a damaged export. When it is called:
            x of another shape, no floating-point tensor (bytes that were not scaled), more digits than the network's,
            NaN or infinity, or images from 0 to 255. Values are not looked at where a compiler or a CUDA graph records
            the call.
    """
    for key, value, choices in (("checkpoint", checkpoint, CHECKPOINTS), ("code", code, CODES)):
        if value not in choices:
            raise BadInput(f"{key}={value}: choose one of: {', '.join(choices)}")
    where = chosen_device(device)
    network, note = _found(named(run), checkpoint, code)
    if note:
        warnings.warn(note, stacklevel=2)
    network = network.to(where).eval()
    network.register_forward_pre_hook(_check_samples)
    return network


def named(run: object) -> str:
    """What a run is called. Raises `BadInput` for anything but a path or a text."""
    if not isinstance(run, str | Path):
        raise BadInput(
            f"run={run}: expected a run's folder, its name or a checkpoint in it, got a {type(run).__name__}"
        )
    return str(run)


def _found(where: str, checkpoint: str, code: str) -> tuple[Network, str]:
    """The network, and one line with a dagger where other code made it and that was allowed."""
    if is_export(Path(where).expanduser()):
        return network_of_export(Path(where).expanduser(), code)
    found = trained(where, checkpoint, code)
    assert isinstance(found.network, Network)
    return found.network, found.note


def _check_samples(network: Network, inputs: tuple[object, ...]) -> None:
    """Raises `BadInput` for x that is no batch of samples."""
    x = inputs[0] if inputs else None
    expected = f"expected (B, {', '.join(map(str, network.info.shape))})"
    if not isinstance(x, Tensor):
        raise BadInput(f"x: {expected}, a tensor in data units, got a {type(x).__name__}")
    if tuple(x.shape[1:]) != network.info.shape or x.dim() == 0:
        raise BadInput(f"x: {expected}, got {tuple(x.shape)}")
    recorded = x.is_cuda and torch.cuda.is_current_stream_capturing()
    if x.is_floating_point() and len(x) and not (torch.compiler.is_compiling() or recorded):
        check_values(x.detach(), network.bounds)


def check_values(x: Tensor, bounds: tuple[float, float] | None) -> None:
    """Raises `BadInput` for NaN and infinity, and for values so far beyond the bounds that they are of other units."""
    try:
        least, most = torch.stack(x.aminmax()).tolist()  # nan where there is one; waits for the device once
    except RuntimeError:  # under a transform of torch.func values cannot be looked at
        return
    if not (math.isfinite(least) and math.isfinite(most)):
        raise BadInput("x: expected finite numbers, got NaN or infinity")
    if bounds is not None and max(most - bounds[1], bounds[0] - least) > FAR * (bounds[1] - bounds[0]):
        hint = "; write x / 255" if least >= 0 and most <= 255 and bounds == (0.0, 1.0) else ""
        raise BadInput(f"x: expected data units, in {list(bounds)}, got values from {least:g} to {most:g}{hint}")
