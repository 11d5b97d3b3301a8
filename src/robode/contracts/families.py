"""What every family promises with every integrator that its YAML lists, held against a small network.

Encoders, heads and integrators are checked by the same contracts, inside a family that takes them.
"""

from __future__ import annotations

import copy
import functools
import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypedDict

import torch
from torch import Tensor, nn

from robode.certificates.radius import constants
from robode.config.allowed import check_node, spec_of
from robode.config.config import Choice, Node, Value
from robode.data.info import DatasetInfo
from robode.errors import BadInput
from robode.network import Network, build_network
from robode.ode.flow import Constrained
from robode.ode.read_outs import fields_at
from robode.ode.sensitivity import bsm_norms
from robode.tasks.classification import Classification

KINDS = {
    "images": DatasetInfo((2, 3, 4), (0.4, 0.5), (0.2, 0.3), (0.0, 1.0), Classification(tuple("abcdef"))),
    "vectors": DatasetInfo((2,), (0.0, 0.0), (1.0, 1.0), None, Classification(tuple("abcd"))),
}
DEPTH, SAMPLES, PAIRS = 3, 6, 200
ROUNDING, EXACT = 1e-4, 1e-9  # relative, of sensitivities in float32 and in float64 against constants in float64
SHORT, ALONG = 1e-3, 0.05  # a step that follows its field, and how closely: implicit ones are solved to 1e-5
FLOW, STEPS = {"flow_ode", "flow_discrete"}, ("ode", "discrete")


class Setting(TypedDict, total=False):
    """Keys that every family has."""

    width: int
    depth: int
    step: float | str | None
    horizon: float | None


IMPOSSIBLE: tuple[Setting, ...] = (
    {"depth": 0}, {"depth": -1}, {"width": 0}, {"step": 0.0}, {"step": -0.1}, {"step": math.inf}, {"step": math.nan},
    {"step": "big"}, {"step": None}, {"step": 0.1, "horizon": 1.0}, {"horizon": 0.0}, {"horizon": -1.0},
)  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The architecture of a network of a `Family`."""

    model: Choice
    integrator: Choice
    encoder: Choice
    head: Choice
    depth: int
    step: float | str | None
    horizon: float | None


@dataclass(frozen=True)
class Family:
    """A family with an integrator, an encoder and a head, as their YAML files describe them, for such data."""

    model: Choice
    integrator: Choice
    encoder: Choice
    head: Choice
    info: DatasetInfo

    def network(
        self,
        *,
        depth: int = DEPTH,
        step: float | str | None = "auto",
        horizon: float | None = None,
        seed: int = 0,
        **keys: Value,
    ) -> Network:
        """A new one, whose weights depend on the seed alone; keys: of the model. Raises `BadInput`."""
        made = self.having(keys)
        cfg = Parts(made.model, made.integrator, made.encoder, made.head, depth, step, horizon)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_network(cfg, self.info)

    def usual(self) -> Network:
        """A copy of what `network` makes, which is made once: constraints of a family may take long to project on."""
        return copy.deepcopy(self._usual)

    _usual = functools.cached_property(network)

    def having(self, keys: Node) -> Family:
        """The same with other values of these keys of the model."""
        return replace(self, model=replace(self.model, arguments={**self.model.arguments, **keys}))

    def samples(self, size: int = SAMPLES) -> Tensor:
        """(size, *shape) float32 in data units, always the same."""
        return torch.rand(size, *self.info.shape, generator=torch.Generator().manual_seed(3))


def fitting(family: Family) -> Family:
    """The family with the least changes to the keys of its YAML that make a small network for these data: another
    width first, then one of the other keys at another of its allowed values. Raises `BadInput` where there is none."""
    refusal: BadInput | None = None
    for keys in _candidates(family):
        found = family.having(keys)
        try:
            check_node("model", found.model.plain())
            found.usual()
            return found
        except BadInput as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _candidates(family: Family) -> Iterator[Node]:
    yield from ({"width": width} for width in (4, family.info.task.outputs, math.prod(family.info.shape)))
    yield {}
    allowed, given = family.model.about.get("allowed"), family.model.arguments
    for key, spec in allowed.items() if isinstance(allowed, Mapping) else ():
        for value in _values(spec_of(spec, given)):
            if key != "width" and value != given.get(key):
                yield {"width": 4, key: value}


def _values(spec: str) -> Iterator[Value]:
    """Words, truth values and smallest whole numbers that a text of `allowed` names."""
    for text in map(str.strip, spec.split("|")):
        if text in ("true", "false"):
            yield text == "true"
        elif text.startswith("integer >= "):
            yield int(text.removeprefix("integer >= "))
        elif text.isidentifier() and text != "null":
            yield text


# ---- the contracts --------------------------------------------------------------------------------------------------


def the_yaml_keeps_to_what_it_allows(family: Family) -> list[str]:
    """Every key of the class that a node gives is in its `allowed`, where it has one, and its value fits."""
    found = []
    for group in ("model", "integrator", "encoder", "head"):
        try:
            check_node(group, getattr(family, group).plain())
        except BadInput as error:
            found.append(str(error))
    return found


def outputs_and_gradients_are_finite(family: Family) -> list[str]:
    """One finite output of the right shape for each sample, and a finite gradient for each parameter; in eval mode,
    since an adaptive method cannot follow a field that draws random numbers."""
    network = family.usual().eval()
    outputs, expected = network(family.samples()), (SAMPLES, family.info.task.outputs)
    if tuple(outputs.shape) != expected:
        return [f"outputs have the shape {tuple(outputs.shape)}, expected {expected}"]
    found = [] if bool(outputs.isfinite().all()) else ["outputs are not finite"]
    outputs.square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    wild = [n for n, p in network.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    found += [f"no gradient reaches {', '.join(without)}"] if without else []
    return found + ([f"the gradient of {', '.join(wild)} is not finite"] if wild else [])


@torch.no_grad()
def a_second_call_gives_the_same(family: Family) -> list[str]:
    """Fields, steps and the forward pass in eval mode are functions of their argument: they draw nothing, from no
    generator at all, and remember nothing."""
    network, x = family.usual().eval(), family.samples()
    flow, (y, context) = network.flow, network.encode(x)
    z = flow.enter(y)
    maps: dict[str, Callable[[], Tensor]] = {"the forward pass": functools.partial(network, x)}
    for j, (field, start) in enumerate(fields_at(flow, y, context), 1):
        maps[f"field {j}"] = functools.partial(field, 0.0, start)
    for j, step in enumerate(flow.steps(context), 1):
        maps[f"step {j}"], z = functools.partial(step, z), step(z)
    wrong = [what for what, call in maps.items() if not _close(call(), call(), 0.0)]
    return [f"a second call gives something else: {', '.join(wrong)}"] if wrong else []


@torch.no_grad()
def the_order_of_samples_does_not_matter(family: Family) -> list[str]:
    """In float64, where rounding decides nothing, not even which steps an adaptive method accepts."""
    network, x = family.usual().double().eval(), family.samples().double()
    same = _close(network(x.flip(0)), network(x).flip(0))
    return [] if same else ["samples in another order have other outputs"]


@torch.no_grad()
def states_end_where_the_forward_pass_ends(family: Family) -> list[str]:
    """N + 1 states, from the encoder's to the head's; to rounding, since an engine sums in another order."""
    network, x = family.usual().eval(), family.samples()
    y, context = network.encode(x)
    states = network.flow.states(y, context)
    found = [] if len(states) == DEPTH + 1 else [f"{len(states)} states with depth={DEPTH}, expected {DEPTH + 1}"]
    if not torch.equal(states[0], y):
        found.append("the first state is not what the encoder gives")
    if not torch.allclose(network.head(states[-1].flatten(1)), network(x), rtol=ROUNDING, atol=ROUNDING):
        found.append("the head on the last state is not the forward pass")
    return found


@torch.no_grad()
def saved_weights_give_the_same_outputs(family: Family) -> list[str]:
    """Bit by bit, in a network that began with other weights."""
    network, other, saved = family.usual(), family.network(seed=99), io.BytesIO()
    torch.save(network.state_dict(), saved)
    saved.seek(0)
    other.load_state_dict(torch.load(saved, weights_only=True))
    same = torch.equal(other.eval()(family.samples()), network.eval()(family.samples()))
    return [] if same else ["a network with the same saved weights has other outputs: something is not in them"]


def certificates_are_numbers(family: Family) -> list[str]:
    """The constants by name, none negative or nan; those of the ODE may be nan where layers solve none."""
    flow = family.usual().flow
    table, bounds = flow.certificate_table(), flow.certificate()
    expected = FLOW | {f"step_{which}/{j}" for which in STEPS for j in range(1, DEPTH + 1)}
    found = []
    if bounds.keys() != FLOW or table.keys() != expected:
        found.append(f"certificates are called {', '.join(sorted(table))}, expected {', '.join(sorted(expected))}")
    for name, bound in (table | bounds).items():
        nothing = not flow.solves_an_ode and name.startswith(("flow_ode", "step_ode"))
        if not isinstance(bound, float) or not (bound >= 0 or (nothing and math.isnan(bound))):
            hint = "" if bound == bound else " (a family whose layers solve no ODE says solves_an_ode = False)"
            found.append(f"the certificate {name} is {bound!r}, expected a float >= 0{hint}")
    wrong = [name for name, number in flow.properties().items() if not isinstance(number, float)]
    return found + [f"the property {name} is no float" for name in wrong]


@torch.no_grad()
def no_distance_grows_beyond_its_certificate(family: Family) -> list[str]:
    """Exact sensitivities, and distances of pairs of samples and of states, near and far."""
    network = family.usual().eval()
    flow, (y, context) = network.flow, network.encode(family.samples())
    table, bounds = flow.certificate_table(), flow.certificate()
    found: list[str] = []
    if flow.pixelwise:
        with suppress(BadInput):  # steps that give no Jacobians
            bsm = bsm_norms(flow, y, context)
            found += _above("d y_N / d y_0", float(bsm.norms[0].max()), bounds["flow_discrete"], ROUNDING)
            for j, largest in enumerate(bsm.step_norms.amax(1).tolist(), 1):
                found += _above(f"the Jacobian of step {j}", largest, table[f"step_discrete/{j}"], ROUNDING)
    if context is None:
        stretch = _stretch(flow.exact().eval(), _pairs(y.shape[1:]))
        found += _above("the flow on two states", stretch, bounds["flow_discrete"], EXACT)
    end_to_end = constants(network, family.info.shape).end_to_end
    stretch = _stretch(network.double().eval(), _pairs(family.info.shape))
    return found + _above("the network on two samples", stretch, end_to_end, EXACT)


@torch.no_grad()
def steps_follow_their_fields(family: Family) -> list[str]:
    """A short step of the integrator moves a state along its field."""
    network = family.usual().double().eval()
    flow, (y, context) = network.flow, network.encode(family.samples().double())
    found = []
    for j, (field, z) in enumerate(fields_at(flow, y, context), 1):
        h, slope = SHORT / max(1.0, min(field.lipschitz(), 1 / SHORT)), field(0.0, z)
        off = float(((flow.method.step(field, 0.0, h)(z) - z) / h - slope).norm() / slope.norm())
        if not off <= ALONG:
            found.append(f"a short step through field {j} is off by {100 * off:.3g} % of the field")
    return found


def jacobians_are_those_of_the_steps(family: Family) -> list[str]:
    """Of steps and of fields, against the gradients of what they compute."""
    network = family.usual().double().eval()
    flow = network.flow
    if not flow.pixelwise:
        return []
    with torch.no_grad():
        y, context = network.encode(family.samples(1).double())
        # one state: the steps of an adaptive method depend on all that it is given, and so do its gradients
        z = flow.enter(y) if context is not None else flow.enter(y)[:, :1]
    maps: list[tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = []
    for j, field in enumerate(flow.fields(context) if flow.solves_an_ode else (), 1):
        maps.append((f"field {j}", functools.partial(field, 0.0), functools.partial(field.jacobian, 0.0)))
    maps += [(f"step {j}", step, step.jacobian) for j, step in enumerate(flow.steps(context), 1)]
    wrong = [what for what, function, jacobian in maps if not _is_jacobian(function, jacobian, z)]
    return [f"the Jacobian of {what} is not that of what it computes" for what in wrong]


def measuring_changes_nothing(family: Family) -> list[str]:
    """Neither the weights nor torch's generator, of a network in eval mode."""
    network = family.usual().eval()
    before, generator = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    network.flow.certificate_table()
    network.flow.properties()
    network.flow.warnings()
    with torch.no_grad():
        network.flow.states(*network.encode(family.samples()))
        network(family.samples())
    found = [] if torch.equal(generator, torch.get_rng_state()) else ["measuring draws random numbers of torch's"]
    changed = _changed(network, before)
    return found + ([f"measuring changes {', '.join(changed)}"] if changed else [])


@torch.no_grad()
def a_second_projection_changes_nothing(family: Family) -> list[str]:
    """After the weights have moved, as after a step of training."""
    network = moved(family.usual())
    before = copy.deepcopy(network.state_dict())
    project(network)
    changed = [name for name in _changed(network, before) if not _close(network.state_dict()[name], before[name], 1e-5)]
    return [f"a second project_ changes {', '.join(changed)}"] if changed else []


@torch.no_grad()
def the_guarantee_is_kept(family: Family) -> list[str]:
    """By weights that have moved, at random states."""
    network = moved(family.usual())
    y, context = network.encode(family.samples())
    if context is not None:
        return []
    flow = network.flow.exact()
    generator = torch.Generator().manual_seed(1)
    shape = (PAIRS, flow.width) if flow.pixelwise else (SAMPLES, *y.shape[1:])
    states = 2 * torch.randn(*shape, dtype=torch.float64, generator=generator)
    return [f"guarantee {flow.guarantee.name}: {line}" for line in flow.guarantee.violations(flow, states)]


def impossible_settings_are_refused(family: Family) -> list[str]:
    """A depth, a width, a step or a horizon that makes no sense is `BadInput`, one line."""
    found: dict[str, list[str]] = {}
    for options in IMPOSSIBLE:
        try:
            family.network(**options)
            ends = "not refused"
        except BadInput as error:
            ends = "refused in several lines" if "\n" in str(error) else ""
        except Exception as error:
            ends = f"ending in {type(error).__name__}, expected BadInput"
        if ends:
            found.setdefault(ends, []).append(" ".join(f"{key}={value}" for key, value in options.items()))
    return [f"{ends}: {'; '.join(settings)}" for ends, settings in found.items()]


CONTRACTS = (
    the_yaml_keeps_to_what_it_allows, outputs_and_gradients_are_finite, a_second_call_gives_the_same,
    the_order_of_samples_does_not_matter,
    states_end_where_the_forward_pass_ends, saved_weights_give_the_same_outputs, certificates_are_numbers,
    no_distance_grows_beyond_its_certificate, steps_follow_their_fields, jacobians_are_those_of_the_steps,
    measuring_changes_nothing, a_second_projection_changes_nothing, the_guarantee_is_kept,
    impossible_settings_are_refused,
)  # fmt: skip


# ---- what they share ------------------------------------------------------------------------------------------------


@torch.no_grad()
def moved(network: Network) -> Network:
    """The flow's weights times 1.5, and projected."""
    for p in network.flow.parameters():
        p.mul_(1.5)
    project(network)
    return network


@torch.no_grad()
def project(network: nn.Module) -> None:
    """What training does after each step."""
    for module in network.modules():
        if isinstance(module, Constrained):
            module.project_()


def _is_jacobian(function: Callable[[Tensor], Tensor], jacobian: Callable[[Tensor], Tensor], z: Tensor) -> bool:
    """Whether it agrees with autograd at the columns z (n, M); true where there is none."""
    with torch.no_grad():
        try:
            said = jacobian(z)
        except BadInput:
            return True
    at = z.clone().requires_grad_()
    out = function(at)
    back = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(4))
    (gradient,) = torch.autograd.grad(out, at, back)
    return torch.allclose(torch.einsum("mij,im->jm", said, back), gradient, rtol=ROUNDING, atol=ROUNDING)


def _changed(network: nn.Module, before: Mapping[str, Tensor]) -> list[str]:
    return [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]


def _close(a: Tensor, b: Tensor, tolerance: float = EXACT) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def _pairs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    a, b = (2 * torch.randn(PAIRS, *shape, dtype=torch.float64, generator=generator) for _ in range(2))
    b[::2] = a[::2] + 1e-3 * b[::2]
    return a, b


def _stretch(function: nn.Module, pairs: tuple[Tensor, Tensor]) -> float:
    """The largest ratio of distances of images and points, in the 2-norm."""
    a, b = pairs
    images = (function(a) - function(b)).flatten(1).norm(dim=1)
    return float((images / (a - b).flatten(1).norm(dim=1)).max())


def _above(what: str, measured: float, certified: float, tolerance: float) -> list[str]:
    """Not for a certificate that is nan, which is a violation of another contract."""
    if measured <= certified * (1 + tolerance) or math.isnan(certified):
        return []
    return [f"{what} stretches by {measured:.6g}, certified {certified:.6g}"]
