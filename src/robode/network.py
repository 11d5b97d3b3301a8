"""output = head( Phi( encode( normalise(x) ) ) ), with x in data units."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from robode.config.config import Choice
from robode.data.batches import evaluating
from robode.data.info import DatasetInfo
from robode.encoders import Encoder, States, usual_encoder
from robode.errors import BadInput
from robode.foreign import refused
from robode.heads import Linear
from robode.integrators.integrator import Integrator
from robode.ode import chain
from robode.ode.flow import Flow
from robode.ode.read_outs import read_out_states
from robode.tasks.flow_map import FlowMap


class Normalise(nn.Module):
    """(x - mean)/std per channel: the network's first layer, so that perturbations and radii live in data units."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], dimensions: int):
        super().__init__()
        shape = (-1, *[1] * (dimensions - 1))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """(x - mean)/std. x: (B, *shape) in data units."""
        return (x - self.mean) / self.std


class Network(nn.Module):
    """x (B, *shape) in data units -> outputs (B, outputs).

    info: of the data. flow; encoder and head: None for the usual ones (`usual_encoder`, `Linear`).
    bounds: the data's range in data units ((0, 1) for images, None for vectors); the network itself clips nothing.

    Raises:
        BadInput: an encoder whose output the flow cannot take.
    """

    def __init__(self, info: DatasetInfo, flow: Flow, encoder: Encoder | None = None, head: nn.Module | None = None):
        super().__init__()
        self.info, self.bounds = info, info.bounds
        encoder = encoder or usual_encoder(info.shape, states_of(flow))
        std = info.std if encoder.scales else (1.0,) * len(info.std)
        self.normalise = Normalise(info.mean, std, len(info.shape))
        self.encoder, self.flow = encoder, flow
        self.head = head or Linear(features(info, encoder, flow), info.task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, *shape) float, in data units. Raises `BadInput` for whole numbers (bytes of images are not scaled)
        and for float64 where the network is float32."""
        if not x.is_floating_point():
            raise BadInput(f"x: expected data units as floating-point numbers (images: x / 255), got {x.dtype}")
        if x.dtype == torch.float64 != self.normalise.mean.dtype:
            raise BadInput("x: expected torch.float32, like the network, got torch.float64; write x.float()")
        y, context = self.encoder.encode(self.normalise(x))
        return self.head(self.flow(y, context).flatten(1))

    def read_outs(self, x: Tensor) -> list[Tensor]:
        """What the head makes of the states along the flow (`read_out_states`), outputs (B, outputs) each; the last is
        `forward`'s. Raises `BadInput` for states that it cannot read."""
        y, context = self.encode(x)
        return [self.head(state.flatten(1)) for state in read_out_states(self.flow, y, context)]

    def embed(self, x: Tensor) -> Tensor:
        """The flow's initial state: (B, *shape) -> (B, width) or (B, width, H, W)."""
        return self.encode(x)[0]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The flow's initial state, and the context that its fields are bound to."""
        return self.encoder.encode(self.normalise(x))


def engine_of(network: nn.Module, device: torch.device | None = None) -> str:
    """What takes a batch through the flow of a network (`Flow.engine`); "reference", which is torch, for any other."""
    return network.flow.engine(device) if isinstance(network, Network) else chain.REFERENCE


def states_of(flow: Flow) -> States:
    """What states a flow starts from."""
    return States(flow.width, flow.flattens, flow.context)


@torch.no_grad()
def features(info: DatasetInfo, encoder: Encoder, flow: Flow) -> int:
    """How many numbers the flow hands to the head; it learns the shape of its first state here. Raises `BadInput` for
    an encoder that makes other states than the flow takes."""
    name = type(encoder).__name__
    with evaluating(encoder), refused(f"encoder: {name} fails on samples of shape {info.shape}"):
        first, _ = encoder.encode(torch.zeros(1, *info.shape))
        start = first.shape
    if len(start) not in (2, 4) or start[:2] != (1, flow.width) or (flow.flattens and len(start) != 2):
        raise BadInput(
            f"encoder: {name} gives states of shape {tuple(start[1:])}, expected {flow.width} numbers"
            f"{'' if flow.flattens else ' (for each pixel)'}; choose another encoder or model.width"
        )
    with refused(f"model: {type(flow).__name__}.build() fails on states of shape {tuple(start[1:])}"):
        return math.prod(flow.build(tuple(start[1:])))


@torch.no_grad()
def try_once(network: Network, x: Tensor | None = None) -> None:
    """A forward pass in eval mode that leaves the network, and torch's generator, as they were.

    x: (B, *shape) samples in data units, whose outputs must be finite; None: two of zeros, where only shapes count.

    Raises:
        BadInput: an encoder, a family or a head that fails, or gives something else than the next one takes.
    """
    given, outputs = x is not None, network.info.task.outputs
    x = torch.zeros(2, *network.info.shape) if x is None else x
    encoder, head = type(network.encoder).__name__, type(network.head).__name__
    with torch.random.fork_rng(devices=[]), evaluating(network):
        with refused(f"encoder: {encoder} fails on samples of shape {network.info.shape}"):
            y, context = network.encode(x)
        network.flow.check(y, context)
        with refused(f"head: {head} fails on the flow's last state"):
            found = network(x)
    if not isinstance(found, Tensor) or tuple(found.shape) != (len(x), outputs):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise BadInput(f"head: {head} gives {got} for {len(x)} samples, expected {(len(x), outputs)} for these data")
    if given and not bool(found.isfinite().all()):
        raise BadInput(
            "model: the outputs are not finite with the initial weights; choose a smaller step (or horizon), "
            "model.init_std, or other keys of the model"
        )


class Architecture(Protocol):
    """What a network is put together from, apart from the data; a `TrainConfig` has it."""

    @property
    def model(self) -> Choice:
        """The family, with its keys."""
        ...

    @property
    def integrator(self) -> Choice:
        """The method that makes steps of its fields."""
        ...

    @property
    def encoder(self) -> Choice:
        """From a normalised sample to the first state."""
        ...

    @property
    def head(self) -> Choice:
        """From the last state to the outputs."""
        ...

    @property
    def depth(self) -> int:
        """N, the number of steps."""
        ...

    @property
    def step(self) -> float | str | None:
        """h, "auto" for the family's own; None where the horizon is given."""
        ...

    @property
    def horizon(self) -> float | None:
        """T = N h; None where the step is given."""
        ...


def build_network(config: Architecture, info: DatasetInfo) -> Network:
    """The network of a configuration.

    model.width=auto is the number of entries of one sample, outputs that of the task's outputs, channels that of an
    image's channels. Initial weights come
    from torch's global generator: first those of the flow, then of the encoder, then of the head.

    Raises:
        BadInput: values that make no sense.
    """
    integrator = config.integrator.build()
    _expect("integrator", integrator, Integrator)
    named = {"auto": math.prod(info.shape), "outputs": info.task.outputs, "channels": info.shape[0]}
    given = config.model.arguments.get("width")
    width = {"width": named[given]} if isinstance(given, str) and given in named else {}
    more = {"depth": config.depth, "step": config.step, "horizon": config.horizon, **width}
    flow: Flow = config.model.build(integrator=integrator, **more)
    _expect("model", flow, Flow)
    if isinstance(info.task, FlowMap):
        flow.span(info.task.dt, info.task.timed)
    encoder = _encoder(config.encoder, info, flow)
    if not config.head.target:
        return Network(info, flow, encoder)
    made = config.head.build(features=features(info, encoder, flow), outputs=info.task.outputs)
    _expect("head", made, nn.Module)
    return Network(info, flow, encoder, made)


def _encoder(choice: Choice, info: DatasetInfo, flow: Flow) -> Encoder:
    """The encoder that was chosen; one without a class is the usual one, bounded or not."""
    states = states_of(flow)
    if not choice.target:
        return usual_encoder(info.shape, states, bool(choice.arguments.get("bounded")))
    made: Encoder = choice.build(shape=info.shape, states=states)
    _expect("encoder", made, Encoder)
    return made


def _expect(group: str, made: object, kind: type) -> None:
    """Raises `BadInput` for a part that is none of its group."""
    if not isinstance(made, kind):
        raise BadInput(f"{group}: expected a class derived from {kind.__name__}, got {type(made).__name__}")


def weights_digest(network: nn.Module) -> str:
    """`state_digest` of its state dict: the same on every device."""
    return state_digest(network.state_dict())


def state_digest(state: Mapping[str, Tensor]) -> str:
    """12 hexadecimal digits of the SHA-256 of a state dict (names, types, values)."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
