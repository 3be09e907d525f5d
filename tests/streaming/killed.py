"""A program that explains rows into a store; test_kills.py ends it at any moment."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp as lrp

ROWS, BATCH = 4000, 5


def main(store):
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    explain = jax.jit(lrp.explain(lambda x: jax.nn.relu(x @ w), lrp.Epsilon(0.1)))
    x = rng.normal(size=(ROWS, 4)).astype(np.float32)
    lrp.stream(explain, x, batch_size=BATCH, store=store, progress=False)


if __name__ == "__main__":
    main(sys.argv[1])
