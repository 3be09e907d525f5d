"""A linear layer may be any program of scales, shifts and moves around one product.

The groups are made by hand from a traced function: all equations that depend on the input.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp.graph.groups import Group
from jaxlrp.graph.particulars import Linear
from jaxlrp.graph.primitives import LINEAR_CORES
from jaxlrp.graph.trace import trace
from jaxlrp.planning.layers import Layer
from jaxlrp.run import evaluate
from jaxlrp.run.view import View
from tests import reference
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(11)
K = RNG.normal(size=(6, 5))
WINDOW = RNG.normal(size=(3, 2, 3))
SCALE6, SHIFT6 = RNG.normal(size=6), RNG.normal(size=6)
SCALE5, SHIFT5 = RNG.normal(size=5), RNG.normal(size=5)
SCALE42, SHIFT42 = RNG.normal(size=(4, 2)), RNG.normal(size=(4, 2))
OUTSIDE = np.array([4, 9, 1, 5, 7, 2])
KEEP = np.array([True, False, True, True, False, True])


def window(x, padding="VALID"):
    numbers = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(x[None], WINDOW, (1,), padding, dimension_numbers=numbers)[0]


def different_scales(x):
    """A split, a scale of its own for each part, and the parts together again."""
    a, b = jnp.split(x, [2])
    return jnp.concatenate([a * SCALE6[:2], -(b - 3.0) / SCALE6[2:]]) @ K + SHIFT5


def scales_behind(x):
    y = x @ K
    return jnp.concatenate([y[3:] * SCALE5[:2] + SHIFT5[:2], (1.5 - y[:3]) * SCALE5[2:]])


def fused(x):
    """Parts of one product, each with its own shift, in another order."""
    q, k, v = jnp.split(x @ K, [2, 3])
    return jnp.concatenate([v + SHIFT5[3:], q * 0.5, (k + SHIFT5[2:3]) / SCALE5[1:2]])


def filled(x):
    """Two of the indices lie outside."""
    return jnp.asarray(x).at[OUTSIDE].get(mode="fill", fill_value=-1.0) @ K


# name: (function of one sample, shape of the sample)
REGIONS = {
    "scale and flip": (lambda x: jnp.flip((x - SHIFT6) / SCALE6) @ K + SHIFT5, (6,)),
    "a negative number": (lambda x: jnp.flip(x * -2.0) @ K - SHIFT5, (6,)),
    "flip and scale by position": (
        lambda x: window(jnp.flip(x, 0) * SCALE42 + SHIFT42, "SAME"),
        (4, 2),
    ),
    "pad with zeros": (lambda x: window(jnp.pad(x, ((1, 1), (0, 0)))), (4, 2)),
    "pad with a number": (
        lambda x: window(jnp.pad(x * SCALE42, ((2, 1), (0, 0)), constant_values=0.7)),
        (4, 2),
    ),
    "normalise, pad, crop": (
        lambda x: window(jnp.pad((x - SHIFT42) / SCALE42, ((1, 1), (0, 0))))[1:, :2] * 0.5 + 3,
        (4, 2),
    ),
    "crop inside": (lambda x: lax.pad(x, 0.0, [(-1, 1, 0)]) @ K - SHIFT5, (6,)),
    "concatenate static zeros": (
        lambda x: jnp.concatenate([jnp.zeros(2), x[1:], jnp.zeros(1)]) @ K[:, :3],
        (4,),
    ),
    "concatenate static values": (
        lambda x: jnp.concatenate([SHIFT6[:2], x * SCALE6[:4]]) @ K + SHIFT5,
        (4,),
    ),
    "split and different scales": (different_scales, (6,)),
    "different scales behind": (scales_behind, (6,)),
    "fused projections": (fused, (6,)),
    "one column": (lambda x: (x @ K)[:1] + 3.0, (6,)),
    "view and scale": (lambda x: (x.reshape(6) * SCALE6) @ K.reshape(6, 5) + SHIFT5, (2, 3)),
    "transpose": (lambda x: (x.T.reshape(-1) @ K).reshape(5, 1)[::-1] * SCALE5[:, None], (3, 2)),
    "static mask": (lambda x: jnp.where(KEEP, x * SCALE6, 0.0) @ K + SHIFT5, (6,)),
    "static mask with values": (lambda x: jnp.where(KEEP, x, SHIFT6) @ K, (6,)),
    "gather": (lambda x: x[jnp.array([4, 0, 1, 5, 3, 2])] @ K + SHIFT5, (6,)),
    "gather with filling": (
        lambda x: (
            jnp.asarray(x).at[jnp.array([4, 9, 1, 5, 7, 2])].get(mode="fill", fill_value=-1.0) @ K
        ),
        (6,),
    ),
    "scatter": (lambda x: jnp.ones(6).at[jnp.array([3, 1, 5, 0])].set(x) @ K, (4,)),
    "cast": (lambda x: (x.astype(jnp.float64) * SCALE6) @ K * SCALE5, (6,)),
    "no core": (lambda x: jnp.pad(jnp.flip(x * SCALE6 - SHIFT6), (1, 2)), (6,)),
    "no core, two parts": (
        lambda x: jnp.concatenate([x[:2] * 2.0, -x[2:] / SCALE6[2:] + 1.0]),
        (6,),
    ),
    "named and behind a barrier": (
        lambda x: lax.optimization_barrier(x * SCALE6) @ K,
        (6,),
    ),
}

RULES = {
    "epsilon": (lrp.Epsilon, reference.epsilon_rule),
    "zplus": (lrp.ZPlus, reference.zplus_rule),
    "alpha_beta": (lrp.AlphaBeta, reference.alpha_beta_rule),
    "gamma": (lrp.Gamma, reference.gamma_rule),
    "zbox": (
        functools.partial(lrp.ZBox, -3.0, 2.0),
        functools.partial(reference.zbox_rule, low=-3.0, high=2.0),
    ),
    "wsquare": (lrp.WSquare, reference.wsquare_rule),
    "flat": (lrp.Flat, reference.flat_rule),
}


def layer_of(group, carries, nonnegative=False):
    """A group as a layer at which relevance arrives."""
    (output,) = group.outputs
    like = Layer(group.kind, "layer", output.shape, output.dtype, "", lrp.Epsilon(), "", 1)
    given = {"group": group, "arriving": "relevance", "carries": carries}
    return dataclasses.replace(like, **given, nonnegative=nonnegative)


def region_of(fn, x):
    """Everything in `fn` that depends on x as one group, and the arrays that it reads."""
    graph, consts, _ = trace(lambda x: [fn(x)], [x], [("x",)])
    env = dict(zip((v for v, _ in graph.consts), consts, strict=True))
    (source,), (output,) = graph.inputs, graph.outputs
    links = {source}
    eqns = []
    for eqn in graph.eqns:
        if links.isdisjoint(eqn.inputs):
            evaluate.run([eqn], env)
        else:
            links.update(eqn.outputs)
            eqns.append(eqn)
    core = next((e for e in eqns if e.name in LINEAR_CORES), None)
    at = eqns.index(core) if core is not None else 0
    operand = next(i for i, v in enumerate((core or eqns[0]).inputs) if v in links)
    pre, post = ([], eqns) if core is None else (eqns[:at], eqns[at + 1 :])
    linear = Linear(core, operand, tuple(pre), tuple(post), False)
    group = Group("dense", eqns, [source], [output], core or eqns[0], linear)
    return group, {v: evaluate.read(env, v) for v in group.outside}


def dense_layer(fn, shape):
    """The region as a matrix; what is left of a difference of shifts is 0."""
    layer = reference.layer_of_affine(fn, shape)
    matrix = np.where(abs(layer.matrix) < 1e-13, 0.0, layer.matrix)
    return reference.dense_layer(matrix, layer.bias, matrix != 0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", REGIONS)
def test_a_region(name, rule):
    fn, shape = REGIONS[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    batched = jax.vmap(fn)
    layer = dense_layer(fn, shape)
    ours, theirs = RULES[rule]
    for known, x in ((False, rng.normal(size=(2, *shape))), (True, rng.uniform(size=(2, *shape)))):
        group, outside = region_of(batched, x)
        z = batched(x)
        relevance = rng.normal(size=z.shape)
        for bias in ("absorb", "ignore", "distribute") if not known else ("absorb",):
            chosen = ours(bias=bias)
            carries = chosen.what_it_carries("relevance", None)
            shown = layer_of(group, carries, nonnegative=known)

            def propagated(x, z, relevance, shown=shown, chosen=chosen, outside=outside):
                return chosen.propagate(View(shown, (x,), outside, z, relevance))

            actual = in_numpy(propagated)(x, z, relevance) * (x if carries == "density" else 1.0)
            expected = reference.apply_rule(theirs, layer, x, relevance, bias=bias)
            assert_close(actual, expected, tolerance=1e-10, what=f"{name}, {rule}, {bias}, {known}")


@pytest.mark.parametrize("name", REGIONS)
def test_the_maps_of_a_region(name):
    fn, shape = REGIONS[name]
    x = RNG.normal(size=(1, *shape))
    group, outside = region_of(jax.vmap(fn), x)
    matrix = dense_layer(fn, shape).matrix
    z = np.asarray(jax.vmap(fn)(x))
    up, down = reference.positive(matrix), reference.negative(matrix)
    maps = {
        "signed": (lambda view: view.map(signed=2), 2 * matrix),
        "positive": (lambda view: view.map(positive=1), up),
        "negative": (lambda view: view.map(negative=3), 3 * down),
        "absolute": (lambda view: view.map(absolute=1), abs(matrix)),
        "all": (
            lambda view: view.map(signed=1, positive=2, negative=3, absolute=4),
            matrix + 2 * up + 3 * down + 4 * abs(matrix),
        ),
        "squares": (lambda view: view.squares(), matrix**2),
        "ones": (lambda view: view.ones(), matrix != 0),
    }

    def everything(x, z, s, t, u, v):
        view = View(layer_of(group, "density", nonnegative=False), (x,), outside, z, z)
        made = {what: make(view) for what, (make, _) in maps.items()}
        both_ways = {what: (linear(x), linear.T(s)) for what, linear in made.items()}
        split = view.split()
        splits = split(u, v), split.other(u, v), *split.T(s, t)
        return both_ways, view.bias, view.linear, splits

    s, t = RNG.normal(size=(2, *z.shape))
    u, v = RNG.normal(size=(2, 1, int(np.prod(shape))))
    both_ways, bias, linear, splits = in_numpy(everything)(
        x, z, s, t, u.reshape(x.shape), v.reshape(x.shape)
    )
    flat_s, flat_t = s.reshape(1, -1), t.reshape(1, -1)
    for what, (_, dense) in maps.items():
        forward, back = both_ways[what]
        assert_close(forward, (x.reshape(1, -1) @ dense).reshape(z.shape), 1e-12, what)
        assert_close(back, (flat_s @ dense.T).reshape(x.shape), 1e-12, f"{what}, transposed")
    bias = np.broadcast_to(bias, z.shape)
    assert_close(bias, jax.vmap(fn)(np.zeros_like(x)), tolerance=1e-12, what="bias")
    assert_close(linear, x.reshape(1, -1) @ matrix, tolerance=1e-12) if z.ndim == 2 else None
    ways, other_ways, to_u, to_v = (part.reshape(1, -1) for part in splits)
    assert_close(ways, u @ up + v @ down, tolerance=1e-12)
    assert_close(other_ways, u @ down + v @ up, tolerance=1e-12)
    assert_close(to_u, flat_s @ up.T + flat_t @ down.T, tolerance=1e-12)
    assert_close(to_v, flat_s @ down.T + flat_t @ up.T, tolerance=1e-12)


def test_arrays_as_bounds_refer_to_the_value_before_the_region():
    fn, shape = REGIONS["flip and scale by position"]
    low, high = RNG.normal(size=shape) - 3, RNG.normal(size=shape) + 3
    x = RNG.normal(size=(2, *shape))
    group, outside = region_of(jax.vmap(fn), x)
    z = jax.vmap(fn)(x)
    relevance = RNG.normal(size=z.shape)
    view = View(layer_of(group, "relevance", nonnegative=False), (x,), outside, z, relevance)
    actual = lrp.ZBox(low, high).propagate(view)
    rule = functools.partial(reference.zbox_rule, low=low.reshape(-1), high=high.reshape(-1))
    expected = reference.apply_rule(rule, dense_layer(fn, shape), x, relevance)
    assert_close(actual, expected, tolerance=1e-10)


def test_relative_epsilon_finds_the_features_behind_moves():
    def fn(x):
        return jnp.flip((x @ K).T, 0)[:4] + SHIFT5[:4, None]

    def flat(x):  # the axis of features is no axis any more
        return fn(x).T.reshape(-1) + 0.0 * jnp.tile(SHIFT5[:4], 3)

    x = RNG.normal(size=(3, 6))
    group, outside = region_of(fn, x)
    z = fn(x)
    relevance = RNG.normal(size=z.shape)
    view = View(layer_of(group, "density", nonnegative=False), (x,), outside, z, relevance)
    actual = x * lrp.Epsilon(0.5, relative=True).propagate(view)
    layer = reference.dense_layer(K[:, 1:][:, ::-1], SHIFT5[:4])
    rule = functools.partial(reference.epsilon_rule, epsilon=0.5, relative=True)
    expected = reference.apply_rule(rule, layer, x, np.asarray(relevance).T)
    assert_close(actual, expected, tolerance=1e-10)
    group, outside = region_of(flat, x)
    seed = relevance.T.reshape(-1)
    view = View(layer_of(group, "density", nonnegative=False), (x,), outside, flat(x), seed)
    actual = x * lrp.Epsilon(0.5, relative=True).propagate(view)
    assert_close(actual, expected, tolerance=1e-10)


WINDOWS = {
    "concatenate": lambda p: jnp.concatenate([p[:3, None], p[1:, None]], 1),
    "stack": lambda p: jnp.stack([p[:3], p[1:]], 1),
    "stack, other axis": lambda p: jnp.stack([p[:3], p[1:]]).T,
    "places": lambda p: p[np.arange(3)[:, None] + np.arange(2)],
    "places by a function": lambda p: jnp.take(p, jnp.arange(3)[:, None] + jnp.arange(2), axis=0),
    "dynamic slices": lambda p: jnp.stack([lax.dynamic_slice(p, (i,), (2,)) for i in range(3)]),
    "vmap": lambda p: jax.vmap(lambda i: lax.dynamic_slice(p, (i,), (2,)))(jnp.arange(3)),
}


@pytest.mark.parametrize("rule", [lrp.Flat(), lrp.WSquare(), lrp.ZPlus(), lrp.AlphaBeta(2.0, 1.0)])
@pytest.mark.parametrize("before", ["nothing", "scale", "scale and shift"])
def test_windows_are_one_layer_with_what_stands_before_them(before, rule):
    x, w = np.array([1.0, 2.0, 3.0]), np.array([1.0, -2.0])
    scale, shift = np.array([1.0, 2.0, -1.0]), np.array([0.3, 0.1, 0.2])
    ways = {
        "nothing": lambda x: x,
        "scale": lambda x: x * scale,
        "scale and shift": lambda x: x * scale + shift,
    }

    def relevance(window):
        return in_numpy(lrp.explain(lambda x: window(jnp.pad(ways[before](x), (1, 0))) @ w, rule))(
            x
        )

    expected = in_numpy(lrp.explain(lambda x: jnp.convolve(ways[before](x), w[::-1])[:3], rule))(x)
    for window in WINDOWS.values():
        assert_close(relevance(window), expected, 1e-9)


def test_windows_at_places_that_a_loop_carries_may_overlap():
    w, scale = RNG.normal(size=4), np.array([1.0, 2.0, -1.0, 0.5])

    def scanned(x):
        def step(i, _):  # apart in the first step, not in the second
            y = x * scale
            parts = [lax.dynamic_slice(y, (i,), (2,)), lax.dynamic_slice(y, (0,), (2,))]
            return i - 1, jnp.concatenate(parts) @ w

        return lax.scan(step, 2, None, length=2)[1]

    def unrolled(x):
        y = x * scale
        return jnp.stack([jnp.concatenate([y[i : i + 2], y[:2]]) @ w for i in (2, 1)])

    x = np.array([1.0, 2.0, 3.0, -1.0])
    rules = {"dense": lrp.ZPlus(), "affine": lrp.Epsilon(0.0)}
    assert_close(*(in_numpy(lrp.explain(f, rules))(x) for f in (scanned, unrolled)), 1e-9)
    assert "affine" in [layer.kind for layer in lrp.plan(scanned, {})(x).layers]


@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.Epsilon(0.1), lrp.AlphaBeta(2.0, 1.0)], ids=repr)
def test_a_sum_of_single_elements_is_a_move(rule):
    """A mean over one place stands between a shift and the layer that folds it."""
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(3, 1, 4)), rng.normal(size=(4, 2)), rng.normal(size=4)

    def fn(mean):
        def two_outputs(x, w, b):
            h = jnp.tanh(x)
            return mean(h * b + b) @ w, h

        return lrp.explain(two_outputs, rule)

    expected = fn(lambda h: h[:, 0])(x, w, b)
    for mean in (
        lambda h: h.mean(1),
        lambda h: h.sum(1) / 1,
        lambda h: h.squeeze(1),
        lambda h: jnp.einsum("bnd,n->bd", h, jnp.ones(1)),
    ):
        assert_close(fn(mean)(x, w, b), expected)


@pytest.mark.parametrize("bias", ["absorb", "distribute"])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_sum_of_single_elements_before_a_pad(bias, scaled):
    """The zeros of the pad are nobody's input, and the scale is the layer's."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 1, 4)), rng.normal(size=(6, 2))
    scale = rng.normal(size=4) if scaled else 1.0

    def fn(mean):
        return lambda x: jnp.pad(mean(x * scale), ((0, 0), (0, 2))) @ w

    rule = lrp.ZPlus(bias=bias)
    expected = lrp.explain(lambda x: (x[:, 0] * scale) @ w[:4], rule)(x, target=1)
    for mean in (lambda h: h.mean(1), lambda h: h.sum(1), lambda h: h[:, 0]):
        assert_close(lrp.explain(fn(mean), rule)(x, target=1), expected)
