"""The largest exact Jacobian norm of a run's flow over test samples, beside its certificates.

python scripts/measured_norm.py RUN [--samples 500] [--data-root DIR]
"""

import argparse
from pathlib import Path

import torch

from robode.data.batches import in_units
from robode.network import build_network
from robode.ode.sensitivity import bsm_norms
from robode.runs.run import checkpoint_path, find
from robode.training.assembly import build_data
from robode.training.checkpoints import load_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--data-root", type=Path, default=None)
    given = parser.parse_args()
    run, _ = find(given.run)
    config = run.config()
    if given.data_root is not None:
        config.data.root = config.data.source.root = str(given.data_root)
    data = build_data(config)
    data.prepare()
    network = build_network(config, data.info)
    load_weights(checkpoint_path(run, "best"), network)
    x = in_units(data.split("test").x[: given.samples])
    with torch.no_grad():
        parts = [bsm_norms(network.flow, network.embed(part)).norms[0] for part in torch.chunk(x, -(-len(x) // 20))]
    norms, bounds = torch.cat(parts), network.flow.certificate()
    print(f"{run.id}: ||d Phi|| over {len(norms)} test samples: median {norms.median():.4g}, largest {norms.max():.4g}")
    print(f"certified: flow_discrete {bounds['flow_discrete']:.4g}, flow_ode {bounds['flow_ode']:.4g}")


if __name__ == "__main__":
    main()
