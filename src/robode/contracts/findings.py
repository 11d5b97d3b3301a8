"""What checking one thing has found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from robode.foreign import reason

Case = TypeVar("Case")
Contract = Callable[[Case], list[str]]


@dataclass(frozen=True)
class Finding:
    """what: was checked; contracts: that were held against it; violations: one line each; note: why something could
    not be checked."""

    what: str
    contracts: int
    violations: tuple[str, ...] = ()
    note: str = ""


def held(contracts: Sequence[Contract[Case]], case: Case) -> list[str]:
    """The violations of all contracts. Whatever a contract meets in somebody's code and was not expected is one too.
    The global generator of torch is where it was before."""
    found: list[str] = []
    for contract in contracts:
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                found += contract(case)
        except (Exception, SystemExit) as error:
            found.append(f"{contract.__name__.replace('_', ' ')}: {reason(error)}")
    return found
