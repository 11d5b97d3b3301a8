"""Networks for tests, put together by hand."""

from robode.data.info import DatasetInfo
from robode.encoders import usual_encoder
from robode.heads import Orthonormal
from robode.network import Network, features, states_of
from robode.ode.flow import Flow


def bounded_network(info: DatasetInfo, flow: Flow) -> Network:
    """With encoder=bounded and head=orthonormal."""
    encoder = usual_encoder(info.shape, states_of(flow), bounded=True)
    return Network(info, flow, encoder, Orthonormal(features(info, encoder, flow), info.task.outputs))
