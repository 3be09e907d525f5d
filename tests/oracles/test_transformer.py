"""Four small transformers under attn_lrp and cp_lrp: the reference of the transformer pack."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests import networks
from tests.common import layer_norm
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

MODELS = ["ln_bias", "ln_nobias", "rms_bias", "rms_nobias"]
COMPOSITES = {"attnlrp": lrp.composites.attn_lrp, "cplrp": lrp.composites.cp_lrp}


def dense(p, x):
    y = x @ p["kernel"]
    return y + p["bias"] if "bias" in p else y


def scaled_layer_norm(p, x):
    return layer_norm(x) * p["scale"] + p["bias"]


def rms_norm(p, x):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * p["scale"]


def attention(p, x):
    batch, time, width = x.shape
    q, k, v = (
        dense(p[name], x).reshape(batch, time, 2, -1).transpose(0, 2, 1, 3) for name in "qkv"
    )
    weights = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / 2)
    return dense(p["o"], (weights @ v).transpose(0, 2, 1, 3).reshape(batch, time, width))


def transformer(kind, params, x):
    norm = scaled_layer_norm if kind == "ln" else rms_norm
    for name in ("block0", "block1"):
        p = params[name]
        x = x + attention(p["attn"], norm(p["norm1"], x))
        h, mlp = norm(p["norm2"], x), p["mlp"]
        if kind == "ln":
            h = dense(mlp["fc2"], jax.nn.gelu(dense(mlp["fc1"], h), approximate=False))
        else:
            h = dense(mlp["down"], jax.nn.silu(dense(mlp["gate"], h)) * dense(mlp["up"], h))
        with jax.named_scope(name):
            x = x + h
    return dense(params["head"], norm(params["norm_f"], x)[:, -1])


@functools.cache
def load(model):
    pack = networks.load("transformer")
    prefix = f"{model}/"
    arrays = {k.removeprefix(prefix): v for k, v in pack.items() if k.startswith(prefix)}
    fn = functools.partial(transformer, model[:2], networks.tree(arrays, "params/"))
    return arrays, fn


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("model", MODELS)
def test_input_and_residual_stream(model, composite):
    pack, fn = load(model)
    np.testing.assert_allclose(in_numpy(fn)(pack["input"]), pack["logits"], rtol=1e-12)
    explain = lrp.explain(fn, COMPOSITES[composite](), layers=["block0", "block1"])
    relevance, layers = jax.jit(explain)(jnp.asarray(pack["input"]), target=pack["target"])
    assert_close(relevance, pack[f"{composite}/input"], 1e-8)
    for name in ("block0", "block1"):
        assert_close(layers[name], pack[f"{composite}/layer/{name}"], 1e-8)


@pytest.mark.parametrize("model", ["ln_nobias", "rms_nobias"])
def test_cp_conserves_without_biases_and_attn_names_the_softmax(model):
    pack, fn = load(model)
    x = jnp.asarray(pack["input"])
    cp = in_numpy(lrp.ledger(fn, lrp.composites.cp_lrp()))(x, target=pack["target"])
    np.testing.assert_allclose(cp.conservation, 1, atol=1e-10)
    attn = in_numpy(lrp.ledger(fn, lrp.composites.attn_lrp()))(x, target=pack["target"])
    assert abs(attn.conservation - 1) > 1e-3
    lossy = {e.kind for e in attn.layers if abs(e.loss) > 1e-9 * abs(attn.relevance_out)}
    assert lossy == {"softmax"}


@pytest.mark.parametrize("model", MODELS)
def test_every_layer_is_found(model):
    pack, fn = load(model)
    plan = lrp.plan(fn, lrp.composites.attn_lrp())(pack["input"])
    gated = model.startswith("rms")
    counts = {"norm": 5, "softmax": 2, "matmul": 4, "add": 4, "dense": 15 if gated else 13}
    assert {kind: plan.count(kind) for kind in counts} == counts
    assert plan.count("product") == (2 if gated else 0)
