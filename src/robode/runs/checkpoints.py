"""Weights in checkpoints, read without running code."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from robode.errors import BadInput

PREFIX = "network."
Saved: TypeAlias = dict[str, Any]
"""What Lightning keeps: plain data and tensors by name, of which `state_dict` is the network's."""
EARLIER = {"lift.": "encoder.", "readout.": "head."}


def read_checkpoint(path: Path) -> Saved:
    """The content, on the CPU. Raises `BadInput` if it is damaged or holds anything but plain data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and the disk each raise their own
        raise BadInput(f"{path}: damaged, or not a checkpoint of robode ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise BadInput(f"{path}: expected a checkpoint of robode, got other data")
    content["state_dict"] = {_named(key): value for key, value in content["state_dict"].items()}
    return content


def network_state(path: Path) -> dict[str, Tensor]:
    """The state dict of the network in a checkpoint. Raises `BadInput` like `read_checkpoint`."""
    saved = read_checkpoint(path)["state_dict"]
    return {key.removeprefix(PREFIX): value for key, value in saved.items() if key.startswith(PREFIX)}


def load_weights(path: Path, network: nn.Module) -> None:
    """Weights and buffers of the checkpoint into `network`.

    Raises:
        BadInput: the file is damaged, or holds a network of another shape.
    """
    try:
        network.load_state_dict(network_state(path))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = lines[1] if len(lines) > 1 else lines[0]
        raise BadInput(f"{path}: holds another network than config.yaml describes ({reason})") from error


def _named(key: str) -> str:
    """What a tensor is called now; runs of earlier versions had a lift and a readout."""
    for before, now in EARLIER.items():
        if key.startswith(PREFIX + before):
            return PREFIX + now + key.removeprefix(PREFIX + before)
    return key
