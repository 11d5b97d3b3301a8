"""Networks for tests, put together by hand."""

from robode.data.info import DataFacts
from robode.encoders import usual_encoder
from robode.heads import Orthonormal
from robode.network import Network, features, states_of
from robode.ode.flow import Flow


def bounded_network(facts: DataFacts, flow: Flow) -> Network:
    """With encoder=bounded and head=orthonormal."""
    encoder = usual_encoder(facts.shape, states_of(flow), bounded=True)
    return Network(facts, flow, encoder, Orthonormal(features(facts, encoder, flow), facts.task.outputs))
