"""`wrt=`: values inside a function explained in place of an argument, embeddings above all."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxlrp as lrp
from tests.common import draw
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

IDS = jnp.array([[3, 1, 4, 1], [5, 9, 2, 0]])
TYPES = jnp.array([[0, 0, 1, 1], [0, 1, 1, 1]])
ATTN = lrp.composites.attn_lrp()


PARAMS = {
    "word": draw(11, 8),
    "position": draw(6, 8, seed=1),
    "type": draw(2, 8, seed=2),
    "q": draw(8, 8, seed=3),
    "k": draw(8, 8, seed=4),
    "v": draw(8, 8, seed=5),
    "head": draw(8, 3, seed=6),
    "shift": draw(8, seed=7),
}


def rms(x):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def body(p, x):
    """From vectors to logits: a norm, one head of attention, a mean, a head."""
    h = rms(x)
    weights = jax.nn.softmax(h @ p["q"] @ (h @ p["k"]).swapaxes(-1, -2) / 3.0)
    return (x + weights @ (h @ p["v"])).mean(-2) @ p["head"]


def parts(p, ids, types):
    word = p["word"][ids]
    position = jnp.broadcast_to(p["position"][: ids.shape[-1]], word.shape)
    return {"word": word, "position": position, "type": p["type"][types]}


def bert(p, ids, types):
    e = parts(p, ids, types)
    return body(p, e["word"] + p["position"][: ids.shape[-1]] + e["type"])


def expected(rules, p=PARAMS, ids=IDS, types=TYPES, target=1):
    """Relevance of the parts where they are arguments."""

    def fn(e):
        return body(p, e["word"] + e["position"] + e["type"])

    return in_numpy(lrp.explain(fn, rules))(parts(p, ids, types), target=target)


@pytest.mark.parametrize("name", ["attn_lrp", "cp_lrp", "epsilon_plus"])
def test_embeddings_get_what_they_would_get_as_arguments(name):
    rules = getattr(lrp.composites, name)()
    found = in_numpy(lrp.explain(bert, rules, wrt="embed"))(PARAMS, IDS, TYPES, target=1)
    want = expected(rules)
    assert sorted(found) == ["position", "type", "word"]
    for part, relevance in want.items():
        assert found[part].shape == (2, 4, 8)
        assert_close(found[part], relevance, 1e-12)


def test_the_budget_closes():
    fn = lrp.value_and_relevance(bert, lrp.composites.cp_lrp(), wrt="embed")
    value, found = fn(PARAMS, IDS, TYPES, target=2)
    assert_close(sum(r.sum() for r in found.values()), value[:, 2].sum(), 1e-10)
    ledger = lrp.ledger(bert, lrp.composites.cp_lrp(), wrt="embed")(PARAMS, IDS, TYPES, target=2)
    rows = {row.name: row for row in ledger.layers if row.kind == "embed"}
    for name, relevance in found.items():
        assert_close(rows[name].relevance_in, relevance.sum(), 1e-10)


def sinusoids(length):
    angle = jnp.arange(length)[:, None] / 10.0 ** jnp.arange(4)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def one_hot(table, ids):
    return jax.nn.one_hot(ids, table.shape[0], dtype=table.dtype) @ table


def by_comparison(table, ids):
    hot = (ids[..., None] == jnp.arange(table.shape[0])).astype(table.dtype)
    return jnp.einsum("btv,vd->btd", hot, table)


# One way to write it -> the function of (p, ids, types), and the embeddings it has.
SPELLINGS = {
    "take": (lambda p, i, t: jnp.take(p["word"], i, axis=0), {"word"}),
    "clipped take": (lambda p, i, t: jnp.take(p["word"], i, axis=0, mode="clip"), {"word"}),
    "one_hot": (lambda p, i, t: one_hot(p["word"], i), {"word"}),
    "comparison": (lambda p, i, t: by_comparison(p["word"], i), {"word"}),
    "vmapped": (lambda p, i, t: jax.vmap(lambda j: p["word"][j])(i), {"word"}),
    "scaled": (lambda p, i, t: p["word"][i] * jnp.sqrt(8.0), {"word"}),
    "masked": (lambda p, i, t: p["word"][i] * (i > 0)[..., None], {"word"}),
    "whole table of positions": (
        lambda p, i, t: p["word"][i] + p["position"][:4],
        {"word", "position"},
    ),
    "positions looked up": (
        lambda p, i, t: p["word"][i] + p["position"][jnp.arange(i.shape[-1])],
        {"word", "position"},
    ),
    "dynamic slice": (
        lambda p, i, t: p["word"][i] + jax.lax.dynamic_slice_in_dim(p["position"], 1, 4),
        {"word", "position"},
    ),
    "sinusoids": (lambda p, i, t: p["word"][i] + sinusoids(i.shape[-1]), {"word", "add_0"}),
    "static parts summed first": (
        lambda p, i, t: p["word"][i] + (p["position"][None, :4] + p["type"][t]),
        {"word", "position", "type"},
    ),
    "static parts summed first, no batch": (
        lambda p, i, t: p["word"][i] + (p["position"][:4] + p["type"][jnp.zeros(4, int)]),
        {"word", "position", "type"},
    ),
    "prompt before the tokens": (
        lambda p, i, t: jnp.concatenate(
            [jnp.broadcast_to(p["shift"], (2, 1, 8)), p["word"][i]], axis=1
        ),
        {"word", "shift"},
    ),
    "a shift is no position": (lambda p, i, t: p["word"][i] + p["shift"], {"word"}),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name):
    embed, want = SPELLINGS[name]

    def fn(p, ids, types):
        return body(p, embed(p, ids, types))

    rules = lrp.composites.cp_lrp(bias="ignore")
    plan = lrp.plan(fn, rules, wrt="embed")(PARAMS, IDS, TYPES)
    names = {layer.name for layer in plan.layers if layer.kind == "embed"}
    if name == "sinusoids":  # no parameter and no scope names it
        assert len(names) == 2
        assert "word" in names
    else:
        assert names == want
    value, found = in_numpy(lrp.value_and_relevance(fn, rules, wrt="embed"))(
        PARAMS, IDS, TYPES, target=0
    )
    assert set(found) == names
    assert_close(sum(r.sum() for r in found.values()), value[:, 0].sum(), 1e-9)


def test_a_rotation_is_no_embedding():
    """Looked-up sines and cosines multiply what the tokens say: RoPE with position ids given."""
    angles = jnp.arange(6)[:, None] / 10.0 ** jnp.arange(8)
    table = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1)

    def fn(p, ids, places):
        x = p["word"][ids]
        rotation = table[places]
        sin, cos = rotation[..., 0], rotation[..., 1]
        q = x @ p["q"]
        turned = jnp.concatenate([-q[..., 4:], q[..., :4]], -1)
        return body(p, x + q * cos + turned * sin)

    places = jnp.broadcast_to(jnp.arange(4), (2, 4))
    plan = lrp.plan(fn, ATTN, wrt="embed")(PARAMS, IDS, places)
    assert [layer.name for layer in plan.layers if layer.kind == "embed"] == ["word"]
    assert plan.count("product") == 0


def test_a_bias_of_attention_is_no_embedding():
    """T5's table of relative distances is added to scores, not to tokens."""
    distance = jnp.abs(jnp.arange(4)[:, None] - jnp.arange(4))

    def fn(p, ids):
        x = p["word"][ids]
        scores = x @ p["q"] @ x.swapaxes(-1, -2) + p["shift"][distance]
        return (jax.nn.softmax(scores) @ x).mean(1) @ p["head"]

    assert list(in_numpy(lrp.explain(fn, ATTN, wrt="embed"))(PARAMS, IDS)) == ["word"]


def test_two_embeddings_that_are_multiplied_are_both_explained():
    def fn(p, users, items):
        return jnp.sum(p["word"][users] * p["type"][items], -1)

    fn_rules = lrp.value_and_relevance(fn, ATTN, wrt="embed")
    value, found = fn_rules(PARAMS, IDS, TYPES)
    assert sorted(found) == ["type", "word"]
    assert_close(found["type"], found["word"], 1e-12)
    assert_close(sum(r.sum() for r in found.values()), value.sum(), 1e-12)


def test_a_sequence_of_length_1():
    found = in_numpy(lrp.explain(bert, ATTN, wrt="embed"))(
        PARAMS, IDS[:, :1], TYPES[:, :1], target=1
    )
    want = expected(ATTN, ids=IDS[:, :1], types=TYPES[:, :1])
    for part, relevance in want.items():
        assert_close(found[part], relevance, 1e-12)


def test_indices_from_a_closure():
    found = in_numpy(lrp.explain(lambda p: bert(p, IDS, TYPES), ATTN, wrt="embed"))(
        PARAMS, target=1
    )
    for part, relevance in expected(ATTN).items():
        assert_close(found[part], relevance, 1e-12)


def test_one_table_read_twice_has_two_entries():
    def fn(p, ids, others):
        return body(p, p["word"][ids]) + body(p, p["word"][others])

    found = in_numpy(lrp.explain(fn, ATTN, wrt="embed"))(PARAMS, IDS, TYPES)
    assert sorted(found) == ["word", "word#1"]


class Linen(nn.Module):
    @nn.compact
    def __call__(self, ids, types):
        x = nn.Embed(11, 8, name="word")(ids) + nn.Embed(1, 8, name="type")(0 * types)
        table = self.param("position", nn.initializers.normal(1.0), (1, 6, 8))
        x = nn.LayerNorm()(x + table[:, : ids.shape[1]])
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(x, x)
        return nn.Dense(3, name="head")(x.mean(1))


class Nnx(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.word = nnx.Embed(11, 8, rngs=rngs)
        self.position = nnx.Param(jax.random.normal(rngs.params(), (6, 8)))
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, ids):
        x = self.word(ids) + self.position[: ids.shape[-1]]
        return self.head(jax.nn.gelu(x).mean(1))


def test_flax_linen():
    module = Linen()
    params = module.init(jax.random.key(0), IDS, TYPES)
    found = in_numpy(lrp.explain(module.apply, ATTN, wrt="embed"))(params, IDS, TYPES, target=0)
    assert sorted(found) == ["Linen/type", "Linen/word", "params/position"]
    assert {r.shape for r in found.values()} == {(2, 4, 8)}


def test_flax_nnx_as_the_function_itself():
    found = in_numpy(lrp.explain(Nnx(), ATTN, wrt="embed"))(IDS, target=0)
    assert sorted(found) == ["position", "word"]


def test_haiku():
    def forward(ids):
        x = hk.Embed(11, 8, name="word")(ids)
        x += hk.get_parameter("position", (4, 8), init=hk.initializers.RandomNormal())
        return hk.Linear(3)(jax.nn.gelu(x).mean(1))

    net = hk.without_apply_rng(hk.transform(forward))
    params = net.init(jax.random.key(0), IDS)
    found = in_numpy(lrp.explain(net.apply, ATTN, wrt="embed"))(params, IDS, target=0)
    assert len(found) == 2


def test_keras():
    keras = pytest.importorskip("keras")
    if keras.config.backend() != "jax":
        pytest.skip("keras reads KERAS_BACKEND once, and it was not jax")
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(11, 8, name="word")(inputs)
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, x)
    found = in_numpy(lrp.explain(lambda ids: model(ids), ATTN, wrt="embed"))(IDS, target=0)
    assert len(found) == 1


# -- other values, and what else there is to a transformation -----------------------------------


def test_any_layer_can_be_explained():
    x = draw(5, 4)
    w1, w2 = draw(4, 6), draw(6, 3)

    def fn(x):
        with jax.named_scope("one"):
            h = jax.nn.relu(x @ w1)
        with jax.named_scope("two"):
            return h @ w2

    found = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0), wrt="activation"))(x, target=1)
    (name,) = found
    h = jax.nn.relu(x @ w1)
    assert_close(found[name], h * w2[:, 1], 1e-12)
    layers = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0), layers=["activation"]))(x, target=1)[1]
    assert_close(found[name], layers[name], 1e-12)


def test_relevance_stops_where_it_is_explained():
    """Of two values in a row the earlier one gets nothing that passes the later one."""

    def fn(x):
        with jax.named_scope("a"):
            a = x @ jnp.eye(3) * PARAMS["q"][0, 0]
        with jax.named_scope("b"):
            return a @ PARAMS["q"][:3, :3]

    found = in_numpy(lrp.explain(fn, lrp.Epsilon(0.0), wrt=lambda y: y.name in "ab"))(draw(2, 3))
    assert_close(found["b"], fn(draw(2, 3)), 1e-12)
    assert not found["a"].any()


def test_one_embedding_by_its_name():
    found = in_numpy(lrp.explain(bert, ATTN, wrt="wor?"))(PARAMS, IDS, TYPES, target=1)
    assert_close(found["word"], expected(ATTN)["word"], 1e-12)
    assert list(found) == ["word"]


def test_layers_and_condition_reach_an_explained_value():
    fn = lrp.explain(bert, ATTN, wrt="embed", layers=["embed", "softmax"])
    found, layers = fn(PARAMS, IDS, TYPES, target=1)
    assert_close(layers["word"], found["word"], 1e-12)
    mask = jnp.zeros((4, 1)).at[2].set(1.0)
    masked, _ = fn(PARAMS, IDS, TYPES, target=1, condition={"word": mask})
    assert_close(masked["word"], found["word"] * mask, 1e-12)
    assert_close(masked["type"], found["type"], 1e-12)


def test_jit_vmap_rows_and_remat_are_the_same():
    want = in_numpy(lrp.explain(bert, ATTN, wrt="embed"))(PARAMS, IDS, TYPES, target=1)
    fn = lrp.explain(bert, ATTN, wrt="embed")
    again = jax.jit(lambda p, i, t: fn(p, i, t, target=1))(PARAMS, IDS, TYPES)
    rows = jax.vmap(lambda i, t: fn(PARAMS, i, t, target=1))(IDS, TYPES)
    remat = in_numpy(lrp.explain(jax.checkpoint(bert), ATTN, wrt="embed"))(
        PARAMS, IDS, TYPES, target=1
    )
    for other in (again, rows, remat):
        for name, relevance in want.items():
            assert_close(other[name], relevance, 1e-12)


def test_differentiable_with_respect_to_the_table():
    fn = lrp.explain(bert, ATTN, wrt="embed")

    def loss(p):
        return jnp.sum(fn(p, IDS, TYPES, target=1)["word"] ** 2)

    gradient = jax.grad(loss)(PARAMS)["word"]
    step = 1e-6 * draw(11, 8, seed=9)
    up, down = (loss({**PARAMS, "word": PARAMS["word"] + s * step}) for s in (1, -1))
    assert_close(jnp.sum(gradient * step), (up - down) / 2, 1e-6)  # central differences


def test_low_precision_relevance_is_float32():
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), PARAMS)
    found = lrp.explain(bert, ATTN, wrt="embed")(low, IDS, TYPES, target=1)
    assert {r.dtype for r in found.values()} == {jnp.dtype(jnp.float32)}
    want = expected(ATTN)
    for name, relevance in want.items():
        a, b = found[name].ravel(), relevance.ravel()
        assert a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b) > 0.99


def test_shapes_alone_are_enough_for_a_plan():
    shapes = jax.eval_shape(lambda: (PARAMS, IDS, TYPES))
    assert lrp.plan(bert, ATTN, wrt="embed")(*shapes).count("embed") == 3


def test_errors():
    with pytest.raises(lrp.InputError, match="no embedding was found"):
        lrp.explain(lambda i: i.astype(float), ATTN, wrt="embed")(IDS)
    with pytest.raises(lrp.SelectorError, match="matches no layer"):
        lrp.explain(lambda x: x @ PARAMS["q"], ATTN, wrt="embed")(draw(2, 8))
    with pytest.raises(lrp.SelectorError, match="Did you mean 'word'"):
        lrp.explain(bert, ATTN, wrt="words")(PARAMS, IDS, TYPES)
    with pytest.raises(lrp.InputError, match='wrt="embed"'):
        lrp.explain(bert, ATTN, argnums=1)(PARAMS, IDS, TYPES)


# -- arguments and values inside, both ---------------------------------------------------------

DRAW = np.random.default_rng(3)
W_IN, W_OUT = DRAW.normal(size=(4, 4)), DRAW.normal(size=(4, 3))
TABLE, PICTURE = DRAW.normal(size=(6, 4)), DRAW.normal(size=(2, 4))


def two_ways(x, ids, encoded=None, embedded=None):
    """An image and indices of its metadata: x takes part by an encoder and beside it."""
    if encoded is None:
        with jax.named_scope("encoder"):
            encoded = jnp.tanh(x @ W_IN)
    embedded = jnp.asarray(TABLE)[ids] if embedded is None else embedded
    return (encoded * jax.nn.sigmoid(x @ W_IN) + jnp.tanh(embedded @ W_IN) + x) @ W_OUT


@pytest.mark.parametrize("rules", [lrp.composites.lrp_zero(), lrp.composites.epsilon_plus()])
def test_arguments_and_values_inside_count_each_path_once(rules):
    ids = jnp.array([1, 4])
    x = jnp.asarray(PICTURE)
    R, inner = in_numpy(lrp.explain(two_ways, rules, argnums=0, wrt=["encoder/tanh", "embed"]))(
        x, ids, target=1
    )
    encoded, embedded = jnp.tanh(x @ W_IN), jnp.asarray(TABLE)[ids]
    of_all = in_numpy(lrp.explain(two_ways, rules, argnums=(0, 2, 3)))(
        x, ids, encoded, embedded, target=1
    )
    np.testing.assert_allclose(R, of_all[0], rtol=1e-9, atol=1e-12)
    assert sorted(map(str.lower, inner)) == ["embed_0", "encoder/tanh"]
    np.testing.assert_allclose(inner["encoder/tanh"], of_all[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(inner["embed_0"], of_all[2], rtol=1e-9, atol=1e-12)
    whole = in_numpy(lrp.explain(two_ways, rules))(x, ids, target=1)
    assert np.abs(R - whole).max() > 1e-3  # the way through the encoder ends there


def test_both_have_the_structure_of_each():
    ids, x = jnp.array([1, 4]), jnp.asarray(PICTURE)

    def fn(given, ids):
        return two_ways(given["x"], ids) * given["scale"], {"aux": ids}

    given = {"x": x, "scale": jnp.ones(3), "n": jnp.array([1, 2])}
    explain = lrp.value_and_relevance(
        fn, lrp.Epsilon(), argnums=(0,), wrt="embed", has_aux=True, layers="dense"
    )
    (value, aux), (((R,), inner), layers) = explain(given, ids)
    assert jax.tree.structure(R) == jax.tree.structure(given)
    assert [inner[name].shape for name in inner] == [(2, 4)]
    assert R["n"].dtype == jax.dtypes.float0
    assert value.shape == (2, 3)
    assert set(layers) > {"dense_0"}
    assert list(aux) == ["aux"]
    with pytest.raises(lrp.InputError, match="argument 1 is to be explained"):
        lrp.explain(two_ways, lrp.Epsilon(), argnums=1, wrt="embed")(x, ids)


@pytest.mark.parametrize(
    "selector", ["conv", lrp.kind("conv"), ["dense", "conv"], lrp.first("conv")]
)
def test_selectors_that_match_nothing_are_an_error_everywhere(selector):
    def fn(x):
        return jnp.tanh(x @ W_IN) @ W_OUT

    x = jnp.asarray(PICTURE)
    calls = [
        lambda: in_numpy(lrp.explain(fn, lrp.Epsilon(), layers=selector))(x),
        lambda: lrp.ledger(fn, lrp.Epsilon(), layers=selector)(x),
        lambda: lrp.plan(fn, lrp.Epsilon(), layers=selector)(x),
        lambda: lrp.plan(fn, lrp.Epsilon())(x).select(selector),
        lambda: in_numpy(lrp.explain(fn, lrp.Epsilon(), wrt=selector))(x),
    ]
    if not isinstance(selector, list):
        calls.append(lambda: in_numpy(lrp.explain(fn, lrp.Epsilon()))(x, condition={selector: 0.0}))
    for call in calls:
        with pytest.raises(lrp.SelectorError, match="matches no layer"):
            call()


@pytest.mark.parametrize("argnums", [(0, 0), (0, -2)])
def test_one_argument_twice(argnums):
    explain = lrp.explain(lambda x, y: x * y, lrp.Epsilon(), argnums=argnums)
    with pytest.raises(lrp.InputError, match=r"names one argument twice.*argnums=\(0,\)"):
        explain(np.ones(2), np.ones(2))
