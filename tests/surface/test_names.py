"""Names of layers: one for each, `#` for its uses; masks of `condition=` by these names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import jaxlrp as lrp
from tests.compare import assert_close

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(5, 2, 4))  # time, batch, units
P = {
    "ih": DRAW.normal(size=(4, 6)),
    "hh": DRAW.normal(size=(6, 6)),
    "out": DRAW.normal(size=(6, 3)),
}


def cell(p, h, x):
    with jax.named_scope("cell"):
        with jax.named_scope("ih"):
            a = x @ p["ih"]
        with jax.named_scope("hh"):
            b = h @ p["hh"]
        return jnp.tanh(a + b)


def unrolled(p, x):
    h = jnp.zeros((2, 6))
    for t in range(len(x)):
        h = cell(p, h, x[t])
    return h @ p["out"]


def scanned(p, x):
    return lax.scan(lambda h, t: (cell(p, h, t), None), jnp.zeros((2, 6)), x)[0] @ p["out"]


def names(fn, *args, argnums=1):
    return [
        y.name for y in lrp.plan(fn, {}, argnums=argnums)(*args).layers if y.kind != "structural"
    ]


def test_layers_of_one_scope_are_called_by_what_they_are():
    assert names(scanned, P, X) == ["cell/ih", "cell/hh", "cell/add", "cell/tanh", "out"]
    assert [n for n in names(unrolled, P, X) if "#" not in n] == [
        "cell/ih",
        "cell/tanh",
        "cell/hh",
        "cell/add",
        "out",
    ]


@pytest.mark.parametrize("name", ["**/ih", "cell/hh", "**/tanh", "cell/add"])
def test_a_name_means_all_uses(name):
    """A rule for a cell's layer reaches every step, scanned or not."""
    rule = lrp.Gradient() if "tanh" in name else lrp.Gamma(0.5, epsilon=0.0)
    rules = lrp.composites.lrp_zero() | {name: rule}
    one, other = (lrp.explain(f, rules, argnums=1)(P, X, target=1) for f in (unrolled, scanned))
    plain = lrp.explain(scanned, lrp.composites.lrp_zero(), argnums=1)(P, X, target=1)
    assert_close(one, other, 1e-9)
    assert np.abs(one - plain).max() > 1e-3


def test_layers_has_an_entry_for_each_use():
    def inside(fn, layers):
        return lrp.explain(fn, {}, argnums=1, layers=layers)(P, X, target=1)[1]

    uses = inside(unrolled, ["cell/ih"])
    assert list(uses) == ["cell/ih", *(f"cell/ih#{n}" for n in range(1, 5))]
    (stack,) = inside(scanned, ["cell/ih"]).values()
    assert_close(jnp.stack([*uses.values()]), stack, 1e-9)
    assert list(inside(unrolled, ["cell/ih#0"])) == ["cell/ih"]
    assert list(inside(unrolled, ["**/ih#3"])) == ["cell/ih#3"]
    with pytest.raises(lrp.SelectorError, match="cell/ih#5"):
        inside(unrolled, ["cell/ih#5"])


def test_a_mask_is_for_each_use_and_masks_multiply():
    half, kept = DRAW.uniform(size=6), DRAW.uniform(size=(2, 6))

    def masked(fn, condition):
        return lrp.explain(fn, lrp.Epsilon(0.0), argnums=1)(P, X, target=1, condition=condition)

    each = masked(unrolled, {"**/ih": half})
    assert_close(each, masked(scanned, {"**/ih": half}), 1e-9)
    one_by_one = {"cell/ih#0": half} | {f"cell/ih#{n}": half for n in range(1, 5)}
    assert_close(each, masked(unrolled, one_by_one), 1e-12)
    both = masked(scanned, {"**/ih": half, lrp.last("cell/ih"): kept})
    assert_close(both, masked(scanned, {"**/ih": half * kept}), 1e-12)
    by_step = DRAW.uniform(size=(5, 1, 6))
    both = masked(scanned, {"**/ih": half, lrp.kind("dense"): 1.0, "cell/ih#0": by_step})
    assert_close(both, masked(scanned, {"**/ih": half * by_step}), 1e-12)


@pytest.mark.parametrize("outer", [3, 4])
def test_a_mask_of_the_inner_of_two_loops(outer):
    """Leading axes are those of the inner loop, also where both loops are as long."""
    x = DRAW.normal(size=(outer, 4, 2))
    w = DRAW.normal(size=(2, 2))

    def layer(t):
        with jax.named_scope("layer"):
            return t @ w

    def nested(x):
        return lax.map(lambda rows: lax.map(layer, rows), x).sum()

    mask = DRAW.uniform(size=(4, 2))
    rules = lrp.Epsilon(0.0)
    found = lrp.explain(nested, rules)(x, condition={"layer": mask})
    expected = lrp.explain(lambda x: (mask * (x @ w)).sum(), rules)(x)
    assert_close(found, expected, 1e-9)
    whole = DRAW.uniform(size=(outer, 4, 2))
    found = lrp.explain(nested, rules)(x, condition={"layer": whole})
    assert_close(found, lrp.explain(lambda x: (whole * (x @ w)).sum(), rules)(x), 1e-9)
    with pytest.raises(lrp.InputError, match=r"'layer' has shape \(5, 2\)"):
        lrp.explain(nested, rules)(x, condition={"layer": np.ones((5, 2))})


class Block(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = (nnx.Linear(4, 4, rngs=rngs) for _ in range(2))

    def __call__(self, x):
        return x + self.b(jnp.tanh(self.a(x)))


class Stack(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([Block(rngs) for _ in range(3)])
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = nnx.relu(block(x))
        return self.out(x)


def test_layers_without_parameters_are_in_the_block_around_them():
    """NNX writes no scopes: the block is what the layers before and after have in common."""
    plan = lrp.plan(Stack(nnx.Rngs(0)), {})(jnp.ones((2, 4)))
    found = [layer.name for layer in plan.layers]
    assert found[:3] == ["blocks/0/a", "blocks/0/tanh", "blocks/0/b"]
    assert found[3:5] == ["blocks/add", "blocks/relu"]
    inside = [layer.name for layer in plan.select(lrp.inside("blocks/1"))]
    assert inside == ["blocks/1/a", "blocks/1/tanh", "blocks/1/b"]


def test_no_two_layers_share_a_name():
    def named(x):
        with jax.named_scope("a"):
            x = jnp.tanh(x @ P["hh"])
        with jax.named_scope("a/tanh"):
            x = x @ P["hh"]
        with jax.named_scope("a#1"):
            x = x @ P["hh"]
        with jax.named_scope("a"):
            return jnp.tanh(x @ P["hh"])

    found = names(named, X[0] @ P["ih"], argnums=0)
    assert len(set(found)) == len(found) == 6


def test_wrt_offers_what_depends_on_data():
    """With parameters as the first argument the names are those of the plan of the data."""

    def normed(p, x):
        with jax.named_scope("net"):
            with jax.named_scope("first"):
                h = x @ p["ih"]
            h = jax.nn.relu(h * lax.rsqrt(p["var"] + 1e-3))
            with jax.named_scope("second"):
                h = h @ p["hh"]
            return jax.nn.relu(h) @ p["out"]

    p, x = P | {"var": DRAW.uniform(size=6)}, DRAW.normal(size=(3, 4))
    assert names(normed, p, x) == ["net/first", "net/relu", "net/second", "net/relu#1", "net"]
    found = lrp.explain(normed, lrp.Epsilon(0.0), wrt="**/second")(p, x, target=0)
    explain = lrp.explain(normed, lrp.Epsilon(0.0), 1, wrt="**/second")
    rest, by_argnums = explain(p, x, target=0)
    assert not rest.any()  # all of x passes the value inside
    assert list(found) == list(by_argnums) == ["net/second"]
    assert_close(found["net/second"], by_argnums["net/second"], 0.0)
    with pytest.raises(lrp.SelectorError, match="matches no layer"):
        lrp.explain(normed, lrp.Epsilon(0.0), wrt="**/rsqrt")(p, x, target=0)


def test_a_folded_scope_does_not_answer_for_what_reads_it():
    """The last number of scope b is the activation's, which is called by its own scope alone."""
    w = DRAW.normal(size=(4, 4))

    def fn(x):
        with jax.named_scope("b"):
            h = x @ w + 1
        with jax.named_scope("c"):
            return jax.nn.gelu(h) @ w

    x = DRAW.normal(size=(2, 4))
    plan = lrp.plan(fn, {})(x)
    assert [y.name for y in plan.select("b")] == ["b"]
    assert [y.name for y in plan.select(lrp.inside("b"))] == ["b"]
    R = lrp.explain(fn, lrp.Epsilon(0.0), wrt="b")(x)
    assert list(R) == ["b"]
    assert np.abs(R["b"]).sum() > 0


def test_a_scope_without_a_layer_of_its_own_names_the_linear_layer_that_took_it_in():
    w, scale = DRAW.normal(size=(4, 4)), np.arange(1.0, 5.0)

    def normed(x):
        with jax.named_scope("a"):
            h = x @ w
        with jax.named_scope("b"):
            h = h * scale + 1
        with jax.named_scope("c"):
            return jnp.tanh(h)

    def read_twice(x):
        with jax.named_scope("b"):
            h = x * scale
        with jax.named_scope("c"):
            u = jnp.tanh(h)
        with jax.named_scope("d"):
            return u + h @ w

    x = DRAW.normal(size=(2, 4))
    for fn, expected in ((normed, ["a"]), (read_twice, ["b"])):
        assert [y.name for y in lrp.plan(fn, {})(x).select("b")] == expected
