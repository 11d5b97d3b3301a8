"""What results.csv already knows about the rows of one network on the same samples: verdicts take it for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robode.attacks.balls import INSIDE, NORMS
from robode.masking.file import Key, key_of
from robode.masking.rows import SAME_EPS, Attacked
from robode.runs import results
from robode.runs.code import network_of
from robode.runs.results import read_scores, scores_path

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Recorded:
    """The rows of results.csv about one network on the same samples: of attacks, by their key, with their bits; and
    who is certified, (n,) bool by radius."""

    weights: str
    split: str
    code: str
    rows: Mapping[Key, Row]
    attacked: Mapping[Key, Attacked]
    certified: Sequence[tuple[float, Tensor]]

    @classmethod
    def of(cls, folder: Path, like: Row) -> Recorded:
        """Those in a folder that agree with a row in weights, split and n, and in the code that ran the network."""
        frame = results.read_rows(folder / "results.csv")
        same = [frame[name] == like[name] for name in ("weights", "split", "n")]
        same.append(frame["code"].map(network_of) == network_of(like["code"]))
        agreeing: Any = frame[np.logical_and.reduce(same)].to_dict("records")
        found: list[Row] = list(agreeing)
        found = [row for row in found if scores_path(folder, row).is_file()]  # a copied results.csv has none
        rows = {key_of(row): row for row in found if is_attacked(row)}
        sure = [row for row in found if row["perturbation"] == "certified"]
        return cls(
            like["weights"],
            like["split"],
            network_of(like["code"]),
            rows,
            {
                key: Attacked(row["perturbation"], row["norm"], row["severity"], _bits(folder, row))
                for key, row in rows.items()
            },
            [(row["severity"], _bits(folder, row)) for row in sure],
        )

    def within(self, norm: str, eps: float) -> list[Attacked]:
        return [each for each in self.attacked.values() if each.norm == norm and each.eps <= eps * SAME_EPS]

    def proven(self, row: Attacked) -> Tensor | None:
        """Who is certified within the row's eps: a ball in the 2-norm holds those of `INSIDE` of the same radius."""
        sure = [bits for radius, bits in self.certified if radius * SAME_EPS >= row.eps]
        return torch.stack(sure).any(dim=0) if sure and row.norm in INSIDE else None

    def standing(self, norm: str, eps: float) -> Tensor:
        """Whom a panel has to attack, (n,) bool: neither certified nor felled by every gradient attack of this eps.

        A sample that some of them leave standing may be one that the others missed by luck; felled by all it is
        nobody's survivor, and where a weaker attack is added later, these rows speak against it.
        """
        here = [each for each in self.within(norm, eps) if each.eps * SAME_EPS >= eps]
        gradient = [each.right for each in here if each.white_box] or [torch.ones_like(here[0].right)]
        proven = self.proven(here[0])
        standing = torch.stack(gradient).any(dim=0)
        return standing if proven is None else standing & ~proven


def is_attacked(row: Row) -> bool:
    """Whether an attack gave it."""
    return row["severity_unit"] == "eps" and row["norm"] in NORMS


def judgeable(folder: Path, row: Row) -> bool:
    """Whether a row gets a verdict: an attack gave it, and who was right is known."""
    return is_attacked(row) and scores_path(folder, row).is_file()


def _bits(folder: Path, row: Row) -> Tensor:
    return torch.from_numpy(read_scores(folder, row).astype(bool))
