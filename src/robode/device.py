"""Where `evaluate` and `certify` run: the words auto, cpu and cuda."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from robode.errors import BadInput

if TYPE_CHECKING:
    import torch

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[str, ...] = get_args(Device)


def check_device(word: str) -> None:
    """Refuse another word, without torch; whether there is a GPU is asked when it is needed."""
    if word not in DEVICES:
        raise BadInput(f"device={word}: choose one of: {', '.join(DEVICES)}")


def chosen_device(word: str) -> torch.device:
    """The device of a word; auto is a GPU where there is one.

    Raises:
        BadInput: another word, or cuda where torch sees no GPU.
    """
    import torch

    check_device(word)
    there = torch.cuda.is_available()
    if word == "cuda" and not there:
        raise BadInput("device=cuda: torch sees no GPU; use device=cpu, or auto for a GPU where there is one")
    return torch.device("cuda:0" if there and word != "cpu" else "cpu")  # as trainers call it
