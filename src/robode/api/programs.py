"""A network as a program that needs torch alone: recorded by torch.export, compared with the network, kept with a
sample and a script that checks it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robode.data.batches import evaluating
from robode.data.info import DatasetInfo
from robode.foreign import reason

SAMPLES, SEED = 4, 0
TOLERANCE = 1e-4  # of the largest output, at least 1: what float32 may round otherwise

LOADER = '''\
"""The network of this folder, by torch alone: `python load.py` checks it, `from load import load` gives it."""

from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def load():
    """x {shape} float32 in data units -> outputs (B, {outputs})."""
    return torch.export.load(HERE / "program.pt2").module()


if __name__ == "__main__":
    sample = torch.load(HERE / "sample.pt", weights_only=True)
    with torch.no_grad():
        difference = float((load()(sample["x"]) - sample["outputs"]).abs().max())
    print(f"largest difference from the stored outputs: {{difference:.3g}}")
    raise SystemExit(not difference <= {tolerance:g} * max(1.0, float(sample["outputs"].abs().max())))
'''


@dataclass(frozen=True)
class Program:
    """What goes into program.pt2, sample.pt and load.py."""

    program: bytes
    sample: bytes
    loader: str


def made_up(info: DatasetInfo, size: int = SAMPLES) -> Tensor:
    """Samples (size, *shape) float32 within the bounds of the data, or of their mean and spread: of nobody's data."""
    draw = torch.Generator().manual_seed(SEED)
    if info.bounds is not None:
        low, high = info.bounds
        return low + (high - low) * torch.rand(size, *info.shape, generator=draw)
    shape = (-1, *[1] * (len(info.shape) - 1))
    mean, std = (torch.tensor(each).reshape(shape) for each in (info.mean, info.std))
    return mean + std * torch.randn(size, *info.shape, generator=draw)


def program_of(network: nn.Module, info: DatasetInfo) -> Program | str:
    """The program of a network on the CPU, for batches of every size; or one line that says why there is none."""
    x = made_up(info)
    with evaluating(network), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            recorded = _recorded(network, x)
            for size in (1, SAMPLES, 3 * SAMPLES):
                more = made_up(info, size)
                if not _close(recorded.module()(more), network(more)):
                    return f"torch.export records another function: it differs from the network on {size} samples"
            outputs, program, sample = network(x), io.BytesIO(), io.BytesIO()
            for part in recorded.graph_module.modules():  # where code lies on this machine is nobody's business
                for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
                    node.meta.pop("stack_trace", None)
            torch.export.save(recorded, program)
        except Exception as error:  # torch raises many kinds
            return _why_not(error)
        torch.save({"x": x, "outputs": outputs.clone()}, sample)
    shape = f"(B, {', '.join(map(str, info.shape))})"
    loader = LOADER.format(shape=shape, outputs=outputs.shape[1], tolerance=TOLERANCE)
    return Program(program.getvalue(), sample.getvalue(), loader)


def _recorded(network: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    """By running it, and where that settles on the size of the batch (Python's len), by reading its bytecode too."""
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    try:
        return torch.export.export(network, (x,), dynamic_shapes=shapes)
    except torch._dynamo.exc.UserError as error:
        if "Constraints violated" not in str(error):
            raise
        return torch.export.export(network, (x,), dynamic_shapes=shapes, strict=True)


def _close(found: Tensor, expected: Tensor) -> bool:
    most = TOLERANCE * max(1.0, float(expected.abs().max()))
    return bool(torch.allclose(found, expected, rtol=0, atol=most, equal_nan=True))


def _why_not(error: Exception) -> str:
    if "data-dependent" in str(error):
        return "torch.export cannot record it, because how many iterations it makes depends on the values of x"
    return f"torch.export cannot record it ({reason(error)})"
