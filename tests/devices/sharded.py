"""Explains one network under `jit` on eight devices in three ways, and prints what came out.

python -m tests.devices.sharded mlp
"""

from __future__ import annotations

import json
import os
import re
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlrp as lrp
from tests.compare import relative_l2
from tests.devices.networks import BATCH, CLASSES, NETWORKS
from tests.numpy_jaxpr import in_numpy

jax.config.update("jax_enable_x64", True)

MESHES = {"data": (8, 1), "tensor": (1, 8), "both": (2, 4)}
RULES = {
    "lrp_zero": lrp.composites.lrp_zero(),
    "attn_lrp": lrp.composites.attn_lrp(),
    "epsilon_plus_flat": lrp.composites.epsilon_plus_flat(),
    "epsilon_alpha2_beta1": lrp.composites.epsilon_alpha2_beta1(),
}
NETWORK_RULES = {
    "mlp": list(RULES),
    "cnn": ["lrp_zero", "epsilon_plus_flat", "epsilon_alpha2_beta1"],
    "transformer": ["attn_lrp", "epsilon_plus_flat"],
}
PREPARED = [("cnn", "epsilon_alpha2_beta1")]
OPERATIONS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def collectives(compiled) -> dict[str, int]:
    """How often each collective stands in the compiled program."""
    text = compiled.as_text()
    return {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in OPERATIONS}


def gradient(fn):
    def chosen(params, x, target):
        return jnp.take_along_axis(fn(params, x), target[:, None], -1).sum()

    return jax.grad(chosen, argnums=1)


def relevance(fn, rules):
    explain = lrp.explain(fn, rules, argnums=1)
    return lambda params, x, target: explain(params, x, target=target)


def prepared(fn, rules, args, alone) -> dict:
    """The same of prepared parameters, which lie on the devices as XLA puts them."""
    held = jax.jit(lrp.prepare(fn, rules, argnums=1))(*args[:2])
    args = held, *args[1:]
    compiled = jax.jit(relevance(fn, rules), out_shardings=args[1].sharding).lower(*args).compile()
    return {
        "distance": relative_l2(compiled(*args), alone),
        "collectives": collectives(compiled),
        "held": len(held.values),
    }


def report(name: str) -> dict[str, dict]:
    fn, params, places, x = NETWORKS[name]()
    target = np.arange(BATCH) % CLASSES
    wanted = {rule: RULES[rule] for rule in NETWORK_RULES[name]}
    alone = {r: in_numpy(relevance(fn, rules))(params, x, target) for r, rules in wanted.items()}
    found = {}
    for sharding, shape in MESHES.items():
        mesh = jax.make_mesh(shape, ("data", "model"), (AxisType.Auto,) * 2)

        def put(tree, specs, mesh=mesh):
            return jax.device_put(tree, jax.tree.map(lambda s: NamedSharding(mesh, s), specs))

        rows = NamedSharding(mesh, P("data"))
        args = put(params, places), put(x, P("data")), put(target, P("data"))
        compiled = jax.jit(gradient(fn), out_shardings=rows).lower(*args).compile()
        base = collectives(compiled)
        for rule, rules in wanted.items():
            compiled = jax.jit(relevance(fn, rules), out_shardings=rows).lower(*args).compile()
            out = compiled(*args)
            found[f"{sharding}/{rule}"] = {
                "distance": relative_l2(out, alone[rule]),
                "devices": len(out.sharding.device_set),
                "collectives": collectives(compiled),
                "gradient": base,
            }
            if (name, rule) in PREPARED:
                found[f"{sharding}/{rule}"]["prepared"] = prepared(fn, rules, args, alone[rule])
    return found


if __name__ == "__main__":
    print(json.dumps(report(sys.argv[1])))
