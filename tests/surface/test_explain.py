"""The transformations: arguments, pytrees, aux, layers, modules of every framework."""

from __future__ import annotations

import functools
import os

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxlrp as lrp

RNG = np.random.default_rng(3)
W, V = jnp.asarray(RNG.normal(size=(4, 5))), jnp.asarray(RNG.normal(size=(5, 3)))
X = jnp.asarray(RNG.normal(size=(2, 4)))
ZERO = lrp.Epsilon(0.0)
EPS = 2.0**-10  # exact in every precision, so that the frameworks agree to rounding


def net(x):
    return jax.nn.relu(x @ W) @ V


def gradient_times_input(fn, x, target):
    return x * jax.grad(lambda x: fn(x)[:, target].sum())(x)


def test_targets_are_weights_on_the_output():
    explain = lrp.explain(net, ZERO)
    one = explain(X, target=2)
    np.testing.assert_allclose(one, gradient_times_input(net, X, 2), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(one, explain(X, target=jnp.array([2, 2])))
    np.testing.assert_array_equal(one, explain(X, target=jnp.zeros((2, 3)).at[:, 2].set(1.0)))
    every = sum(explain(X, target=k) for k in range(3))
    np.testing.assert_allclose(explain(X), every, rtol=1e-9)
    contrast = explain(X, target=jnp.zeros((2, 3)).at[:, 2].set(1.0).at[:, 0].set(-1.0))
    np.testing.assert_allclose(contrast, one - explain(X, target=0), rtol=1e-9, atol=1e-12)


def test_targets_vmap_and_trace():
    explain = lrp.explain(net, ZERO)
    many = jax.vmap(lambda t: explain(X, target=t))(jnp.arange(3))
    for k in range(3):
        np.testing.assert_allclose(many[k], explain(X, target=k), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(explain)(X, target=1), explain(X, target=1), rtol=1e-12)


def test_many_targets_share_one_forward_pass():
    explain = lrp.explain(net, lrp.ZPlus())
    text = str(jax.make_jaxpr(jax.vmap(lambda t: explain(X, target=t)))(jnp.arange(3)))
    # 2 forward, 3 for the splits (z+ of the first layer is signed, of the second not), 3 back.
    shapes = [line for line in text.splitlines() if "dot_general" in line]
    assert sum("[3,2," in s.split("=")[0] for s in shapes) == 3


def test_argnums_and_pytrees():
    def fn(scale, tree, offset):
        return (tree["a"] @ W + tree["b"] @ W) * scale + offset

    tree = {"a": X, "b": 2 * X}
    relevance = lrp.explain(fn, ZERO, argnums=1)(2.0, tree, 1.0)
    assert jax.tree.structure(relevance) == jax.tree.structure(tree)
    np.testing.assert_allclose(relevance["b"], 2 * relevance["a"], rtol=1e-9)
    pair = lrp.explain(fn, ZERO, argnums=(1, 2))(2.0, tree, jnp.ones(5))
    assert isinstance(pair, tuple)
    total = sum(r.sum() for r in jax.tree.leaves(pair))
    np.testing.assert_allclose(total, fn(2.0, tree, 1.0).sum(), rtol=1e-9)
    turned = lrp.explain(fn, ZERO, argnums=(2, 1))(2.0, tree, jnp.ones(5))
    np.testing.assert_array_equal(turned[0], pair[1])
    last = lrp.explain(fn, ZERO, argnums=-2)(2.0, tree, 1.0)
    np.testing.assert_array_equal(last["a"], relevance["a"])


def test_keyword_and_python_arguments_stay_python():
    def fn(x, *, depth, mode):
        assert isinstance(depth, int) and mode == "relu"
        for _ in range(depth):
            x = jax.nn.relu(x)
        return x @ W

    assert lrp.explain(fn, ZERO)(X, depth=3, mode="relu").shape == X.shape


def test_aux_layers_and_value():
    def fn(x):
        with jax.named_scope("hidden"):
            h = x @ W
        return jax.nn.relu(h) @ V, {"h": h}

    relevance, aux = lrp.explain(fn, ZERO, has_aux=True)(X, target=0)
    np.testing.assert_array_equal(aux["h"], X @ W)
    (value, aux), (again, layers) = lrp.value_and_relevance(
        fn, ZERO, has_aux=True, layers=["hidden"]
    )(X, target=0)
    np.testing.assert_array_equal(value, net(X))
    np.testing.assert_allclose(again, relevance, rtol=1e-12)
    (pair, _) = lrp.explain(fn, ZERO, has_aux=True, layers=["hidden"])(X, target=0)
    np.testing.assert_allclose(pair[1]["hidden"], layers["hidden"], rtol=1e-12)
    # What arrives at the hidden layer is what its unit contributes to the logit.
    h = jax.nn.relu(X @ W)
    np.testing.assert_allclose(layers["hidden"], h * V[:, 0], rtol=1e-9, atol=1e-12)


def test_relevance_vjp_takes_relevance():
    value, back = lrp.relevance_vjp(net, ZERO, X)
    (relevance,) = back(value.at[:, 1:].set(0.0))
    np.testing.assert_allclose(relevance, lrp.explain(net, ZERO)(X, target=0), rtol=1e-9)
    # Relevance on an output of 0 goes somewhere, where a weight could not.
    shut, back = lrp.relevance_vjp(jax.nn.relu, lrp.Epsilon(), -jnp.ones(3))
    assert not shut.any()
    np.testing.assert_array_equal(back(jnp.arange(3.0))[0], jnp.arange(3.0))


def test_relevance_vjp_of_several_primals_with_aux():
    def fn(x, y):
        return x @ W + y, x.sum()

    value, back, aux = lrp.relevance_vjp(fn, ZERO, X, jnp.ones(5), has_aux=True)
    rx, ry = back(value)
    np.testing.assert_allclose(rx.sum() + ry.sum(), value.sum(), rtol=1e-9)
    np.testing.assert_allclose(aux, X.sum())


def test_a_plan_needs_shapes_only():
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    weights = jax.ShapeDtypeStruct(W.shape, W.dtype)
    plan = lrp.plan(lambda x, p: x @ p["layer"]["kernel"], lrp.Epsilon())(
        shape, {"layer": {"kernel": weights}}
    )
    (layer,) = plan.layers
    assert (layer.kind, layer.name, layer.shape) == ("dense", "layer", (2, 5))
    assert layer.primitive == "dot_general"
    assert "test_explain.py" in layer.source
    for word in ("dense", "layer", "f64[2,5]", "Epsilon()", "1 dense"):
        assert word in str(plan)


def test_transformations_agree():
    rules = lrp.composites.epsilon_plus_flat()
    explain = functools.partial(lrp.explain(net, rules), target=1)
    eager = explain(X)
    np.testing.assert_allclose(jax.jit(explain)(X), eager, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(explain)(X[:, None])[:, 0], eager, rtol=1e-12)
    rematted = lrp.explain(jax.checkpoint(net), rules)(X, target=1)
    np.testing.assert_allclose(rematted, eager, rtol=1e-12)
    jitted_inside = lrp.explain(jax.jit(net), rules)(X, target=1)
    np.testing.assert_allclose(jitted_inside, eager, rtol=1e-12)


def test_checkpoint_may_cut_a_layer():
    """A rematerialised convolution still folds the norm outside of it."""
    x, kernel = (
        jnp.asarray(RNG.normal(size=(1, 5, 5, 2))),
        jnp.asarray(RNG.normal(size=(3, 3, 2, 3))),
    )
    scale, shift = jnp.asarray(RNG.normal(size=3)), jnp.asarray(RNG.normal(size=3))

    def net(x, wrap):
        conv = wrap(
            lambda x: jax.lax.conv_general_dilated(
                jax.nn.softplus(x),
                kernel,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        )
        return jax.nn.relu(conv(x) * scale + shift).mean((1, 2))

    rules = lrp.composites.epsilon_alpha2_beta1()
    plain = lrp.explain(lambda x: net(x, lambda f: f), rules)(x)
    policy = jax.checkpoint_policies.dots_saveable
    for wrap in (jax.checkpoint, functools.partial(jax.checkpoint, policy=policy)):
        np.testing.assert_allclose(
            lrp.explain(lambda x, wrap=wrap: net(x, wrap), rules)(x), plain, rtol=1e-10
        )
    assert "remat" in str(jax.make_jaxpr(lrp.explain(lambda x: net(x, jax.checkpoint), rules))(x))


def test_relevance_differentiates():
    def loss(w, x):
        fn = lambda x: jax.nn.softplus(x @ w) @ V  # noqa: E731
        return (lrp.explain(fn, lrp.composites.epsilon_plus())(x, target=0) ** 2).sum()

    step = 1e-6
    for argnum, at in enumerate((W, X)):
        gradient = jax.grad(loss, argnum)(W, X)
        direction = jnp.asarray(RNG.normal(size=at.shape))
        ends = [
            loss(*(a + s * direction if i == argnum else a for i, a in enumerate((W, X))))
            for s in (step, -step)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-6)
        tangents = [direction if i == argnum else jnp.zeros_like(a) for i, a in enumerate((W, X))]
        _, forward = jax.jvp(loss, (W, X), tuple(tangents))
        np.testing.assert_allclose(forward, slope, rtol=1e-6)


# -- frameworks ----------------------------------------------------------------------------------


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="stem", param_dtype=jnp.float64)(x)
        x = nn.BatchNorm(
            use_running_average=not train, epsilon=EPS, name="norm", param_dtype=jnp.float64
        )(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        x = nn.avg_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return nn.Dense(3, name="head", param_dtype=jnp.float64)(x)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        kw = {"rngs": rngs, "param_dtype": jnp.float64}
        self.stem = nnx.Conv(2, 4, (3, 3), **kw)
        self.norm = nnx.BatchNorm(4, use_running_average=True, epsilon=EPS, **kw)
        self.head = nnx.Linear(4 * 3 * 3, 3, **kw)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        return self.head(nnx.avg_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1))


class Equinox(eqx.Module):
    stem: eqx.nn.Conv2d
    head: eqx.nn.Linear
    scale: jax.Array
    shift: jax.Array

    def __call__(self, x):
        def one(x):
            x = self.stem(jnp.moveaxis(x, -1, 0)) * self.scale + self.shift
            x = eqx.nn.AvgPool2d(2, 2)(jax.nn.relu(x))
            return self.head(jnp.moveaxis(x, 0, -1).reshape(-1))

        return jax.vmap(one)(x)


IMAGE = jnp.asarray(RNG.normal(size=(2, 6, 6, 2)))
PARAMS = {
    "kernel": RNG.normal(size=(3, 3, 2, 4)),
    "bias": RNG.normal(size=4),
    "mean": RNG.normal(size=4),
    "var": RNG.uniform(0.5, 2, 4),
    "scale": RNG.normal(size=4),
    "shift": RNG.normal(size=4),
    "head": RNG.normal(size=(36, 3)),
    "head_bias": RNG.normal(size=3),
}
P = {k: jnp.asarray(v) for k, v in PARAMS.items()}


def linen():
    variables = {
        "params": {
            "stem": {"kernel": P["kernel"], "bias": P["bias"]},
            "norm": {"scale": P["scale"], "bias": P["shift"]},
            "head": {"kernel": P["head"], "bias": P["head_bias"]},
        },
        "batch_stats": {"norm": {"mean": P["mean"], "var": P["var"]}},
    }
    return lambda x: Linen().apply(variables, x)


def nnx_module():
    module = Nnx(nnx.Rngs(0))
    module.stem.kernel[...], module.stem.bias[...] = P["kernel"], P["bias"]
    module.norm.scale[...], module.norm.bias[...] = P["scale"], P["shift"]
    module.norm.mean, module.norm.var = nnx.BatchStat(P["mean"]), nnx.BatchStat(P["var"])
    module.head.kernel[...], module.head.bias[...] = P["head"], P["head_bias"]
    return module


def equinox_module():
    key = jax.random.key(0)
    slope = P["scale"] / jnp.sqrt(P["var"] + EPS)
    module = Equinox(
        eqx.nn.Conv2d(2, 4, 3, padding=1, key=key),
        eqx.nn.Linear(36, 3, key=key),
        slope[:, None, None],
        (P["shift"] - P["mean"] * slope)[:, None, None],
    )
    where = lambda m: (m.stem.weight, m.stem.bias, m.head.weight, m.head.bias)  # noqa: E731
    values = (
        P["kernel"].transpose(3, 2, 0, 1), P["bias"][:, None, None], P["head"].T, P["head_bias"],
    )  # fmt: skip
    return eqx.tree_at(where, module, values)


def haiku_function():
    def forward(x):
        x = hk.Conv2D(4, 3, name="stem")(x)
        x = hk.BatchNorm(True, True, 0.9, eps=EPS, name="norm")(x, is_training=False)
        x = hk.avg_pool(jax.nn.relu(x), (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return hk.Linear(3, name="head")(x.reshape(x.shape[0], -1))

    transformed = hk.without_apply_rng(hk.transform_with_state(forward))
    shape = (1, 1, 1, 4)
    params = {
        "stem": {"w": P["kernel"], "b": P["bias"]},
        "norm": {"scale": P["scale"].reshape(shape), "offset": P["shift"].reshape(shape)},
        "head": {"w": P["head"], "b": P["head_bias"]},
    }
    state = {
        "norm/~/mean_ema": {"average": P["mean"].reshape(shape)},
        "norm/~/var_ema": {"average": P["var"].reshape(shape)},
    }
    return lambda x: transformed.apply(params, state, x)[0]


def keras_function():
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="Keras is one of five frameworks tried here")
    usual = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        layers = [
            keras.layers.Conv2D(4, 3, padding="same", name="stem"),
            keras.layers.BatchNormalization(epsilon=EPS, name="norm"),
            keras.layers.ReLU(),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="head"),
        ]
        model = keras.Sequential([keras.Input((6, 6, 2)), *layers])
    finally:
        keras.config.set_floatx(usual)
    layers[0].set_weights([PARAMS["kernel"], PARAMS["bias"]])
    layers[1].set_weights([PARAMS[k] for k in ("scale", "shift", "mean", "var")])
    layers[5].set_weights([PARAMS["head"], PARAMS["head_bias"]])
    trainable = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]
    return lambda x: model.stateless_call(trainable, fixed, x, training=False)[0]


def functional(x):
    x = jax.lax.conv_general_dilated(
        x, P["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = (x + P["bias"] - P["mean"]) / jnp.sqrt(P["var"] + EPS) * P["scale"] + P["shift"]
    x = jnp.maximum(x, 0.0)
    x = x.reshape(2, 3, 2, 3, 2, 4).mean((2, 4))
    return x.reshape(2, -1) @ P["head"] + P["head_bias"]


FRAMEWORKS = {
    "linen": linen,
    "nnx": nnx_module,
    "equinox": equinox_module,
    "haiku": haiku_function,
    "keras": keras_function,
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_alpha2_beta1"])
def test_one_network_in_every_framework(framework, composite):
    rules = getattr(lrp.composites, composite)()
    fn = FRAMEWORKS[framework]()
    # Linen, Haiku and NNX spell the norm otherwise, which changes rounding only.
    # Keras computes its BatchNormalization in float32 under any policy.
    rtol = 1e-5 if framework == "keras" else 1e-9
    np.testing.assert_allclose(fn(IMAGE), functional(IMAGE), rtol=rtol)
    expected = jax.jit(lrp.explain(functional, rules))(IMAGE, target=1)
    relevance = jax.jit(lrp.explain(fn, rules))(IMAGE, target=1)
    np.testing.assert_allclose(relevance, expected, rtol=10 * rtol, atol=rtol * abs(expected).max())
    plan = lrp.plan(fn, rules)(IMAGE)
    counts = {kind: plan.count(kind) for kind in ("conv", "dense", "avg_pool", "affine", "norm")}
    assert counts == {"conv": 1, "dense": 1, "avg_pool": 1, "affine": 0, "norm": 0}
    assert plan.select("conv")[0].name.split("/")[-1] == "stem"
    assert plan.select("dense")[0].name.split("/")[-1] == "head"


def test_folded_layers_answer_to_the_names_folded_into_them():
    plan = lrp.plan(linen(), lrp.Epsilon())(IMAGE)
    assert plan.select("**/norm") == plan.select("**/stem") == plan.select("conv")


def test_training_mode_normalises_by_the_batch():
    variables = Linen().init(jax.random.key(0), IMAGE)

    def fn(x):
        rngs = {"dropout": jax.random.key(1)}
        return Linen().apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)

    with pytest.warns(lrp.TrainingModeWarning, match=r"Random numbers.*Norms over the axis"):
        relevance, _ = lrp.explain(fn, lrp.Epsilon(), has_aux=True)(IMAGE, target=0)
    assert jnp.isfinite(relevance).all()
    assert lrp.plan(fn, lrp.Epsilon(), has_aux=True)(IMAGE).count("norm") == 1
