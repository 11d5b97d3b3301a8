"""The loss of a sample as a potential V of the state, and how fast V changes along a field.

V_y(eta) = max(0, CE(psi(eta), y) - gamma), psi the head, and its rate dV/dt = grad V_y(eta) . f(t, eta; x).
Source: Jimenez Rodriguez, Ames, Yue, "LyaNet", 2022, Eq. (10) and (11), and section 3.1 for the truncation gamma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robode.data.motion import number
from robode.errors import BadInput
from robode.families.data_node import rate_of
from robode.heads import Identity, matrix_of
from robode.network import Network
from robode.ode.controlled import ControlledField

DOMAINS = ("hypersphere", "hypercube")


def potential(logits: Tensor, labels: Tensor, truncate: float = 0.0) -> Tensor:
    """V of each row: logits (M, classes), labels (M,) -> (M,)."""
    V = functional.cross_entropy(logits, labels, reduction="none")
    return (V - truncate).clamp_min(0) if truncate else V


@dataclass(frozen=True)
class Shared:
    """States that all samples of a batch share, drawn anew at every step from torch's global generator.

    domain: hypersphere, eta = r g/|g| with r uniform on [0, s sqrt n] and g normal, denser towards 0; or hypercube,
    uniform on [-s, s]^n. Appendix B of the paper; n is the dimension of the state. samples: how many. scale: s.
    kappa: the rate that is asked for, in units of 1/t; "auto" = log(s sqrt n). truncate: gamma of the potential.
    key: where it stands in the configuration.

    Raises:
        BadInput: a value that makes no sense.
    """

    samples: int
    domain: str
    scale: float
    kappa: float | str
    truncate: float
    key: str

    def __post_init__(self) -> None:
        if type(self.samples) is not int or self.samples < 1:
            raise BadInput(f"{self.key}.samples: expected a whole number >= 1, got {self.samples}")
        if self.domain not in DOMAINS:
            raise BadInput(f"{self.key}.domain: expected one of {', '.join(DOMAINS)}, got {self.domain}")
        number(f"{self.key}.scale", self.scale, above=True)
        number(f"{self.key}.truncate", self.truncate, above=False)
        if self.kappa != "auto":
            number(f"{self.key}.kappa", self.kappa, above=True)

    def check(self, network: Network) -> None:
        """Raises `BadInput` for fields that know no sample, and for kappa=auto where that is no rate."""
        if not network.flow.controlled:
            name = type(network.flow).__name__
            raise BadInput(
                f"{self.key}: expected a model whose fields are bound to the sample (data_node, lyanet), got {name}: "
                "states shared by two classes make the condition contradictory"
            )
        self.rate(network)

    def rate(self, network: Network) -> float:
        """kappa as a number."""
        return rate_of(self.kappa, network.flow.width, self.scale, f"{self.key}.kappa")

    def draw(self, n: int, like: Tensor) -> Tensor:
        """(n, samples), with the device and type of `like`."""
        if self.domain == "hypercube":
            return self.scale * (2 * torch.rand(n, self.samples, device=like.device, dtype=like.dtype) - 1)
        g = torch.randn(n, self.samples, device=like.device, dtype=like.dtype)
        r = self.scale * math.sqrt(n) * torch.rand(self.samples, device=like.device, dtype=like.dtype)
        return g * (r / torch.linalg.vector_norm(g, dim=0))


def along_fields(network: Network, x: Tensor, labels: Tensor, eta: Tensor, truncate: float = 0.0) -> Potential:
    """V and dV/dt of each sample at each of the states, at a time drawn uniformly from the horizon.

    x: (B, *shape) in data units; labels: (B,) int64; eta: (n, S), states. The flow must be `controlled`.
    """
    _, context = network.encode(x)
    fields = network.flow.fields(context)
    share = torch.rand((), device=x.device)
    t = share * network.flow.depth * network.flow.h  # one for the batch, as the published training draws it
    place = 0 if len(set(map(id, fields))) == 1 else int(share * len(fields))
    if isinstance(field := fields[place], ControlledField):
        f = field.on_all(t, eta)
    else:  # the states once for each sample
        assert context is not None
        S, B = eta.shape[1], len(x)
        field = network.flow.fields(context.repeat_interleave(S, 0))[place]
        f = field(t, eta.repeat(1, B)).view(len(eta), B, S).movedim(1, 0)
    return rates(network.head, eta, f, labels, truncate)


@dataclass(frozen=True)
class Potential:
    """V and its rate dV/dt, each (B, S)."""

    value: Tensor
    rate: Tensor


def rates(head: nn.Module, eta: Tensor, f: Tensor, labels: Tensor, truncate: float = 0.0) -> Potential:
    """V_y and grad V_y . f at states eta (n, S) that samples with labels (B,) share; f: (B, n, S).

    In closed form where the head is linear: grad V . f = (softmax(psi) - onehot(y)) . W f. By a forward-mode
    derivative elsewhere.
    """
    if matrix_of(head) is None:
        return _by_derivative(head, eta, f, labels, truncate)
    logits: Tensor = head(eta.T)  # (S, classes)
    along = f if isinstance(head, Identity) else head.weight @ f  # type: ignore[operator]
    own = labels[:, None, None].expand(-1, 1, eta.shape[1])
    V = logits.logsumexp(1) - logits.T[labels]
    rate = (logits.softmax(1).T * along).sum(1) - along.gather(1, own)[:, 0]
    return Potential(*_truncated(V, rate, truncate))


def _by_derivative(head: nn.Module, eta: Tensor, f: Tensor, labels: Tensor, truncate: float) -> Potential:
    B, n, S = f.shape
    y = labels.repeat_interleave(S)
    states, directions = eta.T.repeat(B, 1), f.mT.reshape(B * S, n)
    V, rate, *_ = torch.func.jvp(lambda z: potential(head(z), y), (states,), (directions,))
    return Potential(*_truncated(V.view(B, S), rate.view(B, S), truncate))


def _truncated(V: Tensor, rate: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """max(0, V - gamma) and its rate, 0 where it is 0."""
    return ((V - gamma).clamp_min(0), rate * (V > gamma)) if gamma else (V, rate)
