"""Companion methods under `jit` on four devices, a batch of pictures over them.

python -m tests.devices.methods
"""

from __future__ import annotations

import json
import os
import re

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
)

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlrp import methods
from tests.compare import relative_l2
from tests.methods_table import DRAW, OF_PICTURES, attending

BATCH = 8
COLLECTIVES = r"(?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
CHOSEN = {
    "gradient": {},
    "grad_cam": {},
    "deep_lift": {},
    "integrated_gradients": {"batch": 1},
    "occlusion": {"batch": 1},
    "kernel_shap": {"batch": 1},
    "expected_gradients": {},  # two at a time
}


def explained() -> dict:
    """Functions of pictures and classes."""

    def called(method, x, target, **key):
        return method(x, target=target, **key)

    found = {}
    for name, options in CHOSEN.items():
        key = {"key": jax.random.key(0)} if name in DRAW else {}
        found[name] = functools.partial(called, OF_PICTURES[name](attending, **options), **key)
    smooth = methods.smooth_grad(methods.gradient(attending), samples=3, examples=1, batch=1)
    found["smooth_grad"] = functools.partial(called, smooth, key=jax.random.key(0))
    return found


def moved(compiled) -> dict[str, int]:
    """What each collective makes, in elements; the largest if there are several."""
    made = {}
    for shape, name in re.findall(rf"= \w+\[([\d,]*)\]\S* ({COLLECTIVES})", compiled.as_text()):
        size = functools.reduce(lambda a, b: a * int(b), filter(None, shape.split(",")), 1)
        made[name] = max(size, made.get(name, 0))
    return made


def report() -> dict[str, dict]:
    x = jax.random.normal(jax.random.key(1), (BATCH, 4, 4, 2))
    target = jnp.arange(BATCH) % 2
    functions = explained()
    alone = jax.jit(lambda x, t: {name: f(x, t) for name, f in functions.items()})(x, target)
    mesh = jax.make_mesh((4,), ("data",), (AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    x, target = jax.device_put((x, target), rows)
    found = {}
    for name, function in functions.items():
        compiled = jax.jit(function, out_shardings=rows).lower(x, target).compile()
        R = compiled(x, target)
        found[name] = {
            "distance": relative_l2(R, alone[name]),
            "devices": len(R.sharding.device_set),
            "moved": moved(compiled),
        }
    return found


if __name__ == "__main__":
    print(json.dumps(report()))
