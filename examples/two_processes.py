"""One explanation by two processes, each of which feeds its half of the batch.

On one machine here; on two, start the program with `--process` on each and the address of the
first. JAX does the distribution: the batch is one array whose halves lie in different processes,
and the jitted explanation runs in both. Each process checks the relevance of its half against an
explanation that it computes alone.

    python examples/two_processes.py
    python examples/two_processes.py --process 0 --coordinator first-machine:1234    # and 1
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlrp as lrp

PROCESSES, ROWS, PIXELS, HIDDEN, CLASSES = 2, 16, 64, 32, 10


def network(params, x):
    hidden = jax.nn.relu(x @ params["in"] + params["bias"])
    return hidden @ params["out"]


def parameters() -> dict[str, np.ndarray]:
    """The same in every process."""
    rng = np.random.default_rng(0)
    shapes = {"in": (PIXELS, HIDDEN), "bias": (HIDDEN,), "out": (HIDDEN, CLASSES)}
    return {name: rng.normal(size=s).astype(np.float32) / 8 for name, s in shapes.items()}


def half_of_the_batch(process: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the data that this process reads: no other process sees it."""
    rng = np.random.default_rng([1, process])
    images = rng.uniform(size=(ROWS // PROCESSES, PIXELS)).astype(np.float32)
    return images, rng.integers(CLASSES, size=ROWS // PROCESSES)


def work(process: int, coordinator: str) -> None:
    jax.distributed.initialize(coordinator, PROCESSES, process)
    params, (images, classes) = parameters(), half_of_the_batch(process)
    both = lrp.value_and_relevance(network, lrp.composites.epsilon_plus_flat(), argnums=1)

    mesh = jax.make_mesh((jax.device_count(),), ("batch",), (AxisType.Auto,))
    rows = NamedSharding(mesh, P("batch"))
    x, target = (jax.make_array_from_process_local_data(rows, a) for a in (images, classes))

    @jax.jit
    def explain(params, x, target):
        logits, relevance = both(params, x, target=target)
        chosen = jnp.take_along_axis(logits, target[:, None], -1)
        return relevance, relevance.sum() / chosen.sum()

    relevance, conserved = explain(params, x, target)
    mine = np.concatenate([s.data for s in relevance.addressable_shards])
    _, alone = both(params, images, target=classes)
    difference = float(np.abs(mine - alone).max() / np.abs(alone).max())
    print(
        f"process {process} of {jax.process_count()}: {len(mine)} of {len(relevance)} rows here; "
        f"they differ from those explained alone by {difference:.0e}; "
        f"{float(conserved):.1%} of all {len(x)} logits reaches the inputs",
        flush=True,
    )
    assert difference < 1e-5


def free_address() -> str:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return f"localhost:{s.getsockname()[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--process", type=int, choices=range(PROCESSES), help="default: start all")
    parser.add_argument("--coordinator", help="address and port of process 0")
    args = parser.parse_args()
    if args.process is not None:
        if args.coordinator is None:
            parser.error("--process wants --coordinator")
        work(args.process, args.coordinator)
        return
    address = args.coordinator or free_address()
    command = [sys.executable, __file__, "--coordinator", address, "--process"]
    environment = {"JAX_PLATFORMS": "cpu", **os.environ}  # both would want the same accelerator
    started = [subprocess.Popen([*command, str(i)], env=environment) for i in range(PROCESSES)]
    raise SystemExit(max(process.wait() for process in started))


if __name__ == "__main__":
    main()
