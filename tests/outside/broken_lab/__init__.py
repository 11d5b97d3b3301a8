"""What `robode check` must not accept: each class breaks one promise."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from shapes_lab.damped import Damped, DampedField
from shapes_lab.perturbations import Coin, Dim
from shapes_lab.squares import Squares

from robode.corruptions.perturbation import Curve
from robode.data.augment import Augmentation
from robode.data.info import Samples
from robode.encoders import Dense
from robode.errors import BadInput
from robode.heads import Linear
from robode.integrators.integrator import Integrator
from robode.ode.field import OneLayerField
from robode.ode.flow import Flow
from robode.ode.guarantees import NONEXPANSIVE
from robode.ode.step import Step

# ---- families -------------------------------------------------------------------------------------------------------


class Nothing(Flow):
    """Neither fields nor steps."""


class Boastful(Damped):
    """Its guarantee is false: it says nonexpansive, and is not."""

    guarantee = NONEXPANSIVE


@dataclass(frozen=True)
class TooSure(DampedField):
    def euler_lipschitz(self, h):
        return 0.5


class Overconfident(Damped):
    """A certificate that is too small."""

    def fields(self, context=None):
        return [TooSure(f.layer, f.rate) for f in super().fields()]


@dataclass(frozen=True)
class Inherited(OneLayerField):
    """Another field, with the Euler step, which is a layer, and the Jacobian of the one that it inherits from."""

    def __call__(self, t, y):
        return super().__call__(t, y) - y


class Careless(Damped):
    def fields(self, context=None):
        return [Inherited(f.layer.K, f.layer.b, f.layer.activation) for f in super().fields()]


class Forgetful(Damped):
    """A weight that is not saved."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = torch.randn(1)

    def biases(self):
        return self.b + self.extra


class Dropout(Damped):
    """Draws random numbers of torch's while it is measured."""

    def weights(self):
        return 2 * self.K * torch.rand(()).round()


@dataclass(frozen=True)
class RandomField(DampedField):
    def __call__(self, t, y):
        return super().__call__(t, y) + random.gauss(0, 1e-3)


class Random(Damped):
    """Its fields draw, from a generator that torch knows nothing of."""

    def fields(self, context=None):
        return [RandomField(field.layer, field.rate) for field in super().fields()]


class RaisingField(DampedField):
    def __call__(self, t, y):
        raise RuntimeError("boom")


class Failing(Damped):
    """Runs nowhere: one cause, which all contracts meet."""

    def fields(self, context=None):
        return [RaisingField(field.layer, field.rate) for field in super().fields()]


class Accepting(Damped):
    """Takes any depth for 1."""

    def __init__(self, width, depth, *args, **kwargs):
        super().__init__(width, max(depth, 1), *args, **kwargs)


class Creeping(Damped):
    """Its projection never comes to rest."""

    def project_(self):
        with torch.no_grad():
            self.K.mul_(0.9)


class Wild(Damped):
    def forward(self, y, context=None):
        return super().forward(y) + y.sum(0, keepdim=True) * torch.arange(len(y)).view(-1, *[1] * (y.ndim - 1))


class Fieldless(Damped):
    def fields(self, context=None):
        return []


class Raising(Damped):
    def fields(self, context=None):
        raise RuntimeError("boom\nat length")


class Loose(Damped):
    """Fields that are only functions."""

    def fields(self, context=None):
        return [lambda t, y: -y] * self.depth


@dataclass(frozen=True)
class Wider(Step):
    inner: Step

    def __call__(self, y):
        return self.inner(y).repeat(2, 1)


class Growing(Damped):
    """Steps that change the shape of a state."""

    def steps(self, context=None):
        return [Wider(step) for step in super().steps(context)]


class Exploding(Damped):
    """Raises what is no error of arguments while it is made."""

    def __init__(self, *args, **kwargs):
        raise ZeroDivisionError("no rate")


class Endless(Damped):
    def weights(self):
        return self.K * torch.inf


# ---- encoder, head, integrator --------------------------------------------------------------------------------------


class SureEncoder(Dense):
    """A certificate that is too small."""

    def lipschitz(self, std):
        return 1e-6


class Narrow(Dense):
    """Fewer numbers than the flow takes."""

    def forward(self, x):
        return super().forward(x)[:, :-1]


class Bare(Dense):
    """The state alone, where a state and a context are asked for."""

    def encode(self, x):
        return self(x)


class Deaf(Dense):
    def forward(self, x):
        raise KeyError("x")


class OneTooMany(Linear):
    def __init__(self, features, outputs):
        super().__init__(features, outputs + 1)


class NoHead:
    def __init__(self, features, outputs):
        pass


class SureHead(Linear):
    def lipschitz(self):
        return -1.0


@dataclass(frozen=True)
class Leap(Step):
    inner: Step

    def __call__(self, y):
        return 3 * self.inner(y)

    def jacobian(self, y):
        return 3 * self.inner.jacobian(y)

    def lipschitz(self):
        return self.inner.lipschitz()


class Leaping(Integrator):
    """Steps that are three times as long as certified."""

    name, order = "leaping", 1

    def step(self, field, t, h):
        return Leap(field.euler(t, h))


class Unable(Integrator):
    name, order = "unable", 1

    def step(self, field, t, h):
        raise BadInput("integrator=unable: takes no field")


# ---- data -----------------------------------------------------------------------------------------------------------


class FiveLabels(Squares):
    def labels(self, x):
        return 2 * super().labels(x)


class SameTwice(Squares):
    def load(self):
        train, _ = super().load()
        return train, Samples(*(part[:20] for part in train))


class Moving(Squares):
    def load(self):
        train, test = super().load()
        return Samples(train[0] + 1e-3 * torch.rand(1), train[1]), test


class Misread(Squares):
    @property
    def info(self):
        return replace(super().info, mean=(0.5, 0.5), std=(0.25, 0.25))


class Shapeless(Squares):
    @property
    def info(self):
        return replace(super().info, bounds=(0.0, 1.0))


class OneBased(Squares):
    def labels(self, x):
        return 1 + super().labels(x)


class Fileless(Squares):
    def load(self):
        return torch.load("squares.pt")


# ---- perturbations --------------------------------------------------------------------------------------------------


class Mutating(Dim):
    def perturb(self, batch, severity):
        return batch.x.mul_(1 - severity)


class Global(Dim):
    """Random numbers of torch's generator."""

    def perturb(self, batch, severity):
        return super().perturb(batch, severity) * torch.rand(1)


class Crowd(Dim):
    """Depends on who else is in the batch."""

    def perturb(self, batch, severity):
        return batch.x.mean(0, keepdim=True).expand_as(batch.x).contiguous()


class Remembering(Dim):
    last = None

    def perturb(self, batch, severity):
        self.last = super().perturb(batch, severity)
        return self.last


class Bright(Dim):
    """Leaves the bounds."""

    def perturb(self, batch, severity):
        return batch.x + 2 * severity


class Double(Dim):
    def perturb(self, batch, severity):
        return super().perturb(batch, severity).double()


class Outside(Coin):
    """Leaves the ball."""

    def find(self, problem):
        return super().find(replace(problem, eps=3 * problem.eps, bounds=None))


class Backwards(Coin):
    """A curve that gets better."""

    def scores(self, network, task, batch, levels):
        found = super().scores(network, task, batch, levels)
        return Curve(found.scores.flip(0), found.reference, found.seconds)


# ---- augmentations --------------------------------------------------------------------------------------------------


class Unseeded(Augmentation):
    """Draws where no checkpoint looks."""

    def __call__(self, x):
        return x.flip(0) if random.random() < 0.5 else x.roll(random.randrange(1, len(x)), 0)


class Brighter(Augmentation):
    """Twice as bright, and a row less."""

    def __init__(self, cut: int = 0):
        self.cut = cut

    def __call__(self, x):
        return (2 * x.float())[:, :, self.cut :]
