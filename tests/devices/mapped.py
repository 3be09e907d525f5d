"""`shard_map` around an explanation and inside the explained function, and explicit meshes.

Prints for every case the distance from the same explanation on one device, the total relevance
and the output explained, or the error.
"""

from __future__ import annotations

import json
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlrp as lrp
from tests.compare import relative_l2
from tests.devices.networks import draw
from tests.numpy_jaxpr import in_numpy

jax.config.update("jax_enable_x64", True)

X, W, V = draw(8, 16, seed=1, scale=1.0), draw(16, 32), draw(32, 8)
TARGET = np.arange(8)
SHARED = P()
RULES = {
    "lrp_zero": lrp.composites.lrp_zero(),
    "zplus": lrp.RuleMap({"dense": lrp.ZPlus()}),
    "epsilon_plus_flat": lrp.composites.epsilon_plus_flat(),
    "epsilon_alpha2_beta1": lrp.composites.epsilon_alpha2_beta1(),
}
MESH = jax.make_mesh((8,), ("d",), (AxisType.Auto,))


def perceptron(x, w=W, v=V):
    return jax.nn.relu(x @ w) @ v


# --- shard_map around


def around(rules, target, check):
    """Each device explains its rows; the weights are closed over."""
    explain = lrp.explain(perceptron, rules)
    if target is None:
        mapped = jax.shard_map(
            explain, mesh=MESH, in_specs=P("d"), out_specs=P("d"), check_vma=check
        )
        return jax.jit(mapped)(X), in_numpy(explain)(X)
    mapped = jax.shard_map(
        lambda x, target: explain(x, target=target),
        mesh=MESH,
        in_specs=(P("d"), P("d")),
        out_specs=P("d"),
        check_vma=check,
    )
    return jax.jit(mapped)(X, TARGET), in_numpy(explain)(X, target=TARGET)


def around_with_psum(rules):
    """Each device holds some hidden units and sees the whole output by psum."""

    def each(x, target, w, v):
        def fn(x):
            return lax.psum(perceptron(x, w, v), "d")

        # Relevance of a shared input, as its gradient, is a sum over the devices' paths already.
        return lrp.explain(fn, rules)(x, target=target)

    split = (SHARED, SHARED, P(None, "d"), P("d"))
    mapped = jax.shard_map(each, mesh=MESH, in_specs=split, out_specs=SHARED)
    expected = in_numpy(lrp.explain(perceptron, rules))(X, target=TARGET)
    return jax.jit(mapped)(X, TARGET, W, V), expected


# --- shard_map inside: the same function written for one device and for eight


def psum(x, w, v):
    return lax.psum(perceptron(x, w, v), "d")


def all_gather(x, w, v):
    return lax.all_gather(jax.nn.relu(x @ w), "d", axis=1, tiled=True) @ v


def ppermute(x, w, v):
    h = jax.nn.relu(x @ w)
    return (h + lax.ppermute(h, "d", [(i, (i + 1) % 8) for i in range(8)])) @ v


def neighbours(x, w, v):
    h = jax.nn.relu(x @ w)
    return (h + jnp.roll(h, 1, axis=0)) @ v


def psum_scatter(x, w, v):
    return lax.psum_scatter(perceptron(x, w, v), "d", scatter_dimension=0, tiled=True)


def all_to_all(x, w, v):
    h = lax.all_to_all(jax.nn.relu(x @ w), "d", 1, 0, tiled=True)
    return lax.all_to_all(h, "d", 0, 1, tiled=True) @ v


WIDE_SCALE, WIDE_SHIFT = draw(2, 64, seed=13, scale=1.0)


def joined(x, w, v):
    """A scale and a shift of two layers that were joined: they go to each of them."""
    both = jnp.concatenate([x @ w, x @ w[:, ::-1]], -1)
    h = jax.nn.relu(both * WIDE_SCALE + WIDE_SHIFT)
    return h[:, :32] @ v + h[:, 32:] @ v


def parts_of_one(x, w, v):
    """A bias for each half of one layer: they are added to the whole."""
    a, b = jnp.split(x @ w, 2, -1)
    return ((a + WIDE_SHIFT[:16]) * (b + WIDE_SHIFT[16:32])) @ v[:16]


COLUMNS = P(None, "d")
BEFORE, SCALE = draw(1, 16, scale=1.0)[0], draw(1, 8, scale=1.0)[0]
SHIFT = draw(1, 8, seed=5, scale=0.1)[0]
HEAD, KERNEL = draw(8, 8, seed=6), draw(8, 16, 3, 3, seed=7, scale=0.1)  # out, in, height, width
PARTS = {"a": draw(32, 8, seed=8), "b": draw(32, 8, seed=9)}


def sum_in_the_middle(x, w, v, total):
    """Scales and shifts around a sum over devices, and layers behind it."""
    h = total((jax.nn.relu(x @ w)) @ (v * SCALE)) + SHIFT
    return jax.nn.relu(h * SCALE - 0.1) @ HEAD


def sum_of_convolutions(x, kernel, total):
    """Channels split over devices; a BatchNorm, as it is at inference, behind the sum."""
    x = x.reshape(8, -1, 2, 4)
    y = lax.conv(x, kernel, (1, 1), "SAME")
    y = total(y) * SCALE[:, None, None] + SHIFT[:, None, None]
    return jax.nn.relu(y).mean((2, 3)) @ HEAD


def two_sums_at_once(x, w, parts, total):
    """One `psum` of two arrays."""
    h = jax.nn.relu(x @ w)
    a, b = total((h @ parts["a"], h @ parts["b"]))
    return jax.nn.relu(a + SHIFT) + jax.nn.relu(b)


def scale_before(x, w, v, total):
    """The shared input is scaled, then split among devices by the weights that they have."""
    return total(jax.nn.relu((x * BEFORE + 0.1) @ w) @ v)


def over_devices(y):
    return lax.psum(y, "d")


def same(y):
    return y


BLOCKS = {"up": draw(2, 16, 32, seed=11), "down": draw(2, 32, 16, seed=12)}


def repeated_blocks(x, blocks, total):
    """A block of which each device computes a part, called twice; the sum is behind the call."""

    @jax.jit
    def part(x, up, down):
        h = jnp.tanh(x * 0.5) * 2.0
        return jax.nn.relu(h @ up + 0.2 * up[0]) @ down

    for up, down in zip(blocks["up"], blocks["down"], strict=True):
        x = x + total(part(x, up, down))
    return x @ V[:16]


IMAGE = draw(8, 128, seed=10, scale=1.0).reshape(8, 16, 8)  # each device has two channels
SPLIT_SUMS = {
    # name: (function, input, its spec, weights, their specs)
    "middle": (sum_in_the_middle, X, SHARED, (W, V), (COLUMNS, P("d"))),
    "two": (two_sums_at_once, X, SHARED, (W, PARTS), (COLUMNS, P("d"))),
    "repeated": (
        repeated_blocks,
        X,
        SHARED,
        (BLOCKS,),
        ({"up": P(None, None, "d"), "down": P(None, "d")},),
    ),
    "before": (scale_before, X, SHARED, (W, V), (COLUMNS, P("d"))),
    "channels": (sum_of_convolutions, IMAGE, COLUMNS, (KERNEL,), (COLUMNS,)),
}
SPLIT_RULES = RULES | {
    "gamma_box": lrp.composites.epsilon_gamma_box(-4.0, 4.0),
    "flat": lrp.RuleMap({"dense": lrp.Flat(), "conv": lrp.WSquare()}),
    "ignored": lrp.RuleMap({"dense": lrp.Epsilon(1e-3, bias="ignore")}),
}


# Rules that ask for a constant input, here of the layer whose output is scattered.
FIRST_RULES = {
    "box": lrp.RuleMap({"dense": lrp.ZBox(-4.0, 4.0)}),
    "squares": lrp.RuleMap({"dense": lrp.WSquare()}),
}


def split(name, check):
    """A function whose sums are split over devices, the same on one device, and its input."""
    part, x, place, weights, specs = SPLIT_SUMS[name]

    def on_devices(x):
        mapped = jax.shard_map(
            lambda x, *w: part(x, *w, over_devices),
            mesh=MESH,
            in_specs=(place, *specs),
            out_specs=SHARED,
            check_vma=check,
        )
        return mapped(x, *weights)

    return on_devices, lambda x: part(x, *weights, same), x


def split_sum(name, rules, check):
    many, one, x = split(name, check)
    found = jax.jit(lambda x: lrp.explain(many, rules)(x, target=TARGET))(x)
    return found, in_numpy(lrp.explain(one, rules))(x, target=TARGET)


def ledgers(check):
    """Every number of the ledger, with the sum split over devices and on one."""

    def numbers(fn):
        kept = lrp.ledger(fn, lrp.composites.epsilon_plus())(x, target=TARGET)
        return np.array(
            [
                (e.relevance_out, e.relevance_in, e.bias, e.stabiliser)
                for e in kept.layers
                if e.kind in ("dense", "activation")
            ]
        )

    many, one, x = split("middle", check)
    return numbers(many), numbers(one)


INSIDE = {
    # name: (each device's part, in_specs, out_specs, the same on one device)
    "psum": (psum, (SHARED, COLUMNS, P("d")), SHARED, perceptron),
    "all_gather": (all_gather, (SHARED, COLUMNS, COLUMNS), COLUMNS, perceptron),
    "ppermute": (ppermute, (P("d"), SHARED, SHARED), P("d"), neighbours),
    "psum_scatter": (psum_scatter, (SHARED, COLUMNS, P("d")), P("d"), perceptron),
    "all_to_all": (all_to_all, (P("d"), SHARED, SHARED), P("d"), perceptron),
    "joined": (joined, (P("d"), SHARED, SHARED), P("d"), joined),
    "parts": (parts_of_one, (P("d"), SHARED, SHARED), P("d"), parts_of_one),
}


def inside(name, rules, check):
    part, in_specs, out_specs, whole = INSIDE[name]

    def fn(x):
        mapped = jax.shard_map(
            part, mesh=MESH, in_specs=in_specs, out_specs=out_specs, check_vma=check
        )
        return mapped(x, W, V)

    found = jax.jit(lambda x: lrp.explain(fn, rules)(x, target=TARGET))(X)
    expected = in_numpy(lrp.explain(lambda x: whole(x, W, V), rules))(X, target=TARGET)
    return found, expected, whole(X, W, V)[np.arange(8), TARGET]


# --- meshes whose axes are explicit: shardings are part of the types


def explicit(rules, tensor, target):
    mesh = jax.make_mesh((2, 4), ("data", "model"), (AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        columns, rows = (P(None, "model"), P("model")) if tensor else (SHARED, SHARED)
        x, w, v = (
            jax.device_put(a, NamedSharding(mesh, spec))
            for a, spec in ((X, P("data")), (W, columns), (V, rows))
        )

        def fn(x):
            hidden = jax.nn.relu(x @ w)
            return jnp.einsum("bh,ho->bo", hidden, v, out_sharding=P("data"))

        found = jax.jit(lambda x: lrp.explain(fn, rules)(x, target=target))(x)
        assert found.sharding.spec[0] == "data"
        found = np.asarray(found)
    return found, in_numpy(lrp.explain(perceptron, rules))(X, target=target)


def cases():
    for rule, rules in RULES.items():
        for check in (True, False):
            kind = "checked" if check else "unchecked"
            yield f"around/{rule}/{kind}", lambda r=rules, c=check: around(r, TARGET, c)
            yield f"around/{rule}/{kind}/all", lambda r=rules, c=check: around(r, None, c)
        yield f"around/{rule}/psum", lambda r=rules: around_with_psum(r)
        yield f"explicit/{rule}/data", lambda r=rules: explicit(r, False, TARGET)
        yield f"explicit/{rule}/both", lambda r=rules: explicit(r, True, TARGET)
        yield f"explicit/{rule}/all", lambda r=rules: explicit(r, True, None)
    for name in INSIDE:
        for rule, rules in RULES.items():
            yield f"inside/{name}/{rule}", lambda n=name, r=rules: inside(n, r, True)
        yield f"inside/{name}/unchecked", lambda n=name: inside(n, RULES["zplus"], False)
    yield "two places", two_places
    yield "ledger/checked", lambda: ledgers(True)
    yield "ledger/unchecked", lambda: ledgers(False)
    for rule, rules in SPLIT_RULES.items():
        for check in (True, False) if rule == "gamma_box" else (True,):
            kind = "checked" if check else "unchecked"
            for name in SPLIT_SUMS:
                yield (
                    f"split/{name}/{rule}/{kind}",
                    lambda n=name, r=rules, c=check: split_sum(n, r, c),
                )
    for rule, rules in FIRST_RULES.items():
        yield f"inside/psum_scatter/{rule}", lambda r=rules: inside("psum_scatter", r, True)


def two_places():
    """Eager, with one part of the function on a device and the other on another one."""
    places = jax.devices()[:2]
    weights = [jax.device_put(W, place) for place in places]
    given = [jax.device_put(X, place) for place in places]

    def fn(xs):
        return [jnp.tanh(x @ w) for x, w in zip(xs, weights, strict=True)]

    found = lrp.explain(fn, RULES["zplus"])(given)
    alone = lrp.explain(lambda x: jnp.tanh(x @ W), RULES["zplus"])(X)
    assert [r.devices() for r in found] == [{place} for place in places]
    return np.stack([np.asarray(r) for r in found]), np.stack([alone, alone])


def outcome(case) -> dict:
    try:
        found, expected, *output = case()
    except Exception as error:  # one case must not hide the others: its own test shows it
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "distance": relative_l2(found, expected),
        "total": float(np.sum(found)),
        "output": float(np.sum(output)),
    }


if __name__ == "__main__":
    print(json.dumps({name: outcome(case) for name, case in cases()}))
