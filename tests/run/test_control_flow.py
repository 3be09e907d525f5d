"""scan, cond, while and map: the same relevance as the loop written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import jaxlrp as lrp
from tests import numpy_jaxpr
from tests.common import draw
from tests.compare import assert_close

W, U, V = draw(4, 6), 0.4 * draw(6, 6), draw(6, 3)
X = draw(2, 5, 4, seed=1)
H = draw(2, 6, seed=2)

# Every sort of edge: densities, relevance in the body, relevance outside, the third quantity.
RULES = {
    "lrp_zero": lrp.composites.lrp_zero(),
    "epsilon": lrp.Epsilon(0.1),
    "zplus": lrp.RuleMap({"dense": lrp.ZPlus()}),
    "alpha_beta": lrp.RuleMap({"dense": lrp.AlphaBeta(2, 1)}),
    "gamma": lrp.RuleMap({"dense": lrp.Gamma(0.3)}),
    "flat": lrp.RuleMap({"dense": lrp.Flat()}),
    "distribute": lrp.Epsilon(bias="distribute"),
    "guided_backprop": lrp.composites.guided_backprop(),
}


def cell(c, x, f=jnp.tanh):
    c = f(x @ W + c @ U)
    return c, c


def scanned(args, reverse=False, unroll=1, f=jnp.tanh, around=lambda step: step):
    h, x = args
    step = around(functools.partial(cell, f=f))
    c, ys = lax.scan(step, h, x.swapaxes(0, 1), reverse=reverse, unroll=unroll)
    return c @ V + ys.mean(0) @ V + ys[2] @ V


def written_out(args, reverse=False, f=jnp.tanh):
    h, x = args
    ys = [None] * 5
    for t in range(5)[:: -1 if reverse else 1]:
        h, ys[t] = cell(h, x[:, t], f)
    return h @ V + jnp.stack(ys).mean(0) @ V + ys[2] @ V


def check(rules, one, other, args, tolerance=1e-10, run=lambda fn, args: fn(args)):
    found, want = (
        run(lambda args, fn=fn: lrp.explain(fn, rules)(args, target=1), args) for fn in (one, other)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert_close(a, b, tolerance)


SCANS = {
    "plain": {},
    "reverse": {"reverse": True},
    "unrolled by 2": {"unroll": 2},
    "rematerialised": {"around": jax.checkpoint},
    "jitted body": {"around": jax.jit},
    "relu": {"f": jax.nn.relu},
    "sigmoid": {"f": jax.nn.sigmoid},
}


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("rules", RULES)
def test_scan_is_the_loop_written_out(rules, name):
    settings = SCANS[name]
    same = {k: v for k, v in settings.items() if k in ("reverse", "f")}
    # Eagerly under one map; under the others too, half the time would go into compiling.
    run = {} if rules == "epsilon" else {"run": numpy_jaxpr.run}
    check(
        RULES[rules],
        functools.partial(scanned, **settings),
        functools.partial(written_out, **same),
        (H, X),
        **run,
    )


def test_a_carry_that_reaches_the_output_through_another():
    """An iteration later, and in the last iteration not at all."""

    def step(c, a):
        early, late = c
        return (early + late @ U, jnp.tanh(a @ W + late)), None

    def fn(x, scan):
        start = (draw(2, 6, seed=9), jnp.zeros((2, 6)))
        c = start
        if scan:
            return lax.scan(step, start, x.swapaxes(0, 1))[0][0] @ V
        for t in range(5):
            c, _ = step(c, x[:, t])
        return c[0] @ V

    check(lrp.Epsilon(0.0), *(functools.partial(fn, scan=s) for s in (True, False)), X)


@pytest.mark.parametrize("rules", RULES)
def test_nested_scans(rules):
    matrices = jnp.stack([draw(4, 4, seed=3), draw(4, 4, seed=4)])

    def nested(x):
        @jax.checkpoint
        def outer(c, w):
            def inner(d, a):
                d = jnp.tanh(d @ w + a)
                return d, d

            d, ys = lax.scan(inner, c, x.swapaxes(0, 1))
            return d, ys.mean(0)

        c, ys = lax.scan(outer, x[:, 0], matrices)
        return c + ys.sum(0)

    def loops(x):
        c, sums = x[:, 0], []
        for w in matrices:
            ys = []
            for t in range(5):
                c = jnp.tanh(c @ w + x[:, t])
                ys.append(c)
            sums.append(jnp.stack(ys).mean(0))
        return c + jnp.stack(sums).sum(0)

    check(RULES[rules], nested, loops, X)


@pytest.mark.parametrize("rules", ["zplus", "alpha_beta", "lrp_zero"])
def test_fori_loop_with_a_static_trip_count(rules):
    w = draw(4, 4, seed=9)

    def loop(x):
        return lax.fori_loop(0, 3, lambda i, c: jax.nn.relu(c @ w), x)

    def three(x):
        for _ in range(3):
            x = jax.nn.relu(x @ w)
        return x

    # In the loop x >= 0 is not proven, so that p comes from (x W + |x||W|) / 2: where p is 0, its
    # rounding of 1e-16 is divided by epsilon = 1e-6.
    check(RULES[rules], loop, three, X, 1e-9 if rules == "alpha_beta" else 1e-10)


def test_map_is_vmap():
    def each(a):
        return jax.nn.relu(a @ W) @ V

    check(lrp.Epsilon(), lambda x: lax.map(each, x), jax.vmap(each), X)


def test_associative_scan():
    def fn(x):
        return lax.associative_scan(jnp.add, x @ W, axis=1)[:, -1] @ V

    check(lrp.composites.lrp_zero(), fn, lambda x: (x @ W).sum(1) @ V, X)


REDUCTIONS = {
    "sum": (lax.add, 0.0, lambda y: y.sum(1)),
    "max": (lax.max, -jnp.inf, lambda y: y.max(1)),
    "min": (lax.min, jnp.inf, lambda y: y.min(1)),
    "product": (lax.mul, 1.0, lambda y: y[:, 0] * y[:, 1] * y[:, 2]),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduce_with_a_known_monoid(name):
    operation, start, plain = REDUCTIONS[name]

    def fn(x):
        return lax.reduce(x @ V[:4], start, operation, (2,))

    found, want = (
        lrp.explain(f, lrp.composites.lrp_zero())(X)
        for f in (fn, lambda x: jax.vmap(plain)(x @ V[:4]))
    )
    assert_close(found.sum(), fn(X).sum(), 1e-10)
    if name != "product":
        assert_close(found, want, 1e-10)
        return
    # Each of three factors gets a third; written as two products the first two get a quarter.
    y = X @ V[:4]
    thirds = jnp.broadcast_to(fn(X)[..., None] / 3, y.shape)
    assert_close(found, X * ((thirds / y) @ V[:4].T), 1e-10)


def test_vectorize_donation_and_derivatives_by_the_user():
    @jax.custom_vjp
    def relu(x):
        return jax.nn.relu(x)

    relu.defvjp(lambda x: (relu(x), None), lambda _, c: (0.0 * c,))  # is not asked
    inner = jax.jit(lambda x: relu(x @ W), donate_argnums=0)
    fn = jnp.vectorize(lambda x: inner(x + 0.0) @ V, signature="(t,n)->(t,m)")
    check(lrp.Epsilon(0.1), fn, lambda x: jax.nn.relu(x @ W) @ V, X)


def branches(w):
    return [lambda x: jax.nn.relu(x @ w), lambda x: jnp.tanh(x @ w + 1.0), lambda x: 2.0 * x @ w]


@pytest.mark.parametrize("rules", RULES)
def test_the_branch_taken_is_the_branch_explained(rules):
    w = draw(4, 6)
    for index, branch in enumerate(branches(w)):
        check(
            RULES[rules],
            lambda x, i=index: lax.switch(i + 0 * x.size, branches(w), x).mean(1) @ V,
            lambda x, branch=branch: branch(x).mean(1) @ V,
            X,
        )


def test_a_condition_on_the_input_is_per_example_under_vmap():
    w = draw(4, 6)

    def fn(x):
        pred = x.sum() > 0
        return lax.cond(pred, branches(w)[0], branches(w)[1], x).mean(0) @ V

    rules = lrp.composites.epsilon_plus()
    found = jax.vmap(lambda x: lrp.explain(fn, rules)(x, target=0))(X)
    inside = jax.vmap(lambda x: lrp.explain(lambda y: jax.vmap(fn)(y), rules)(x[None], target=0))
    for i, x in enumerate(X):
        branch = branches(w)[0 if x.sum() > 0 else 1]
        want = lrp.explain(lambda x, b=branch: b(x).mean(0) @ V, rules)(x, target=0)
        assert_close(found[i], want, 1e-12)
        assert_close(inside(X)[i, 0], want, 1e-12)
    assert {bool(x.sum() > 0) for x in X} == {True, False}


def test_a_dynamic_while_on_the_path_is_an_error_that_says_what_to_write():
    def fn(x):
        return lax.while_loop(lambda c: c.sum() < 10.0, lambda c: 2.0 * c, x)

    with pytest.raises(lrp.UnsupportedPrimitiveError, match=r"lax\.scan"):
        lrp.plan(fn, lrp.Epsilon())(X)


def test_a_dynamic_while_off_the_path_is_no_error():
    def fn(x):
        n = lax.while_loop(lambda n: n < x.shape[0] + 3, lambda n: n + 1, 0)
        m = lax.while_loop(lambda m: m < jnp.sum(x > 0), lambda m: m + 1, jnp.int32(0))
        s = lax.while_loop(lambda s: s > 1.0, lambda s: s / 2.0, jnp.abs(x).sum())
        return (x @ W).mean(1) @ V * n + 0.0 * m + 0.0 * lax.stop_gradient(s)

    found = lrp.explain(fn, lrp.Epsilon(0.0))(X, target=0)
    want = lrp.explain(lambda x: (x @ W).mean(1) @ V * 5, lrp.Epsilon(0.0))(X, target=0)
    assert_close(found, want)


def test_layers_and_masks_inside_have_the_scan_axis_first():
    def fn(args):
        h, x = args

        def step(c, a):
            with jax.named_scope("state"):
                c = jnp.tanh(a @ W + c @ U)
            return c, None

        return lax.scan(step, h, x.swapaxes(0, 1))[0] @ V

    explain = lrp.explain(fn, lrp.Epsilon(0.0), layers=["activation"])
    (_, dx), layers = explain((H, X), target=0)
    ((name, states),) = layers.items()
    assert states.shape == (5, 2, 6)
    # Without biases all that is in a state came from the inputs up to it, or from the start.
    for t in range(5):
        later = dx[:, t + 1 :].sum((1, 2))
        total = (fn((H, X)) * jnp.array([1.0, 0.0, 0.0])).sum(1)
        np.testing.assert_allclose(states[t].sum(1) + later, total, rtol=1e-9)
    mask = jnp.zeros((5, 1, 1)).at[4].set(1.0)
    masked, _ = explain((H, X), target=0, condition={name: mask})
    assert_close(masked[1][:, 4], dx[:, 4], 1e-12)
    assert not masked[1][:, :4].any()
    assert not masked[0].any()
    halved, _ = explain((H, X), target=0, condition={name: jnp.full((1, 6), 0.5)})
    assert_close(halved[1][:, 4], dx[:, 4] / 2, 1e-12)
    assert_close(halved[1][:, 3], dx[:, 3] / 4, 1e-12)


def test_wrt_does_not_reach_into_a_loop():
    with pytest.raises(lrp.InputError, match="layers="):
        lrp.explain(scanned, lrp.Epsilon(), wrt="activation")((H, X))


def test_the_ledger_lists_what_reaches_a_static_start():
    start = jnp.ones((2, 6))

    def fn(x):
        def step(c, a):
            return a @ W + c, None

        return lax.scan(step, start, x.swapaxes(0, 1))[0] @ V

    ledger = lrp.ledger(fn, lrp.Epsilon(0.0))(X, target=0)
    lost = [e for e in ledger.layers if e.kind == "structural" and abs(e.constants) > 1e-12]
    (row,) = lost
    np.testing.assert_allclose(row.constants, (start @ V)[:, 0].sum(), rtol=1e-10)
    assert row.rule_loss == 0
    np.testing.assert_allclose(
        ledger.relevance_in + row.constants, ledger.relevance_out, rtol=1e-10
    )


def test_rules_reach_layers_inside_by_name():
    class Step(nn.Module):
        @nn.compact
        def __call__(self, c, x):
            c = jnp.tanh(nn.Dense(6, name="new")(x) + nn.Dense(6, name="old")(c))
            return c, c

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            step = nn.scan(
                Step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1
            )
            c, _ = step(name="rnn")(jnp.zeros((2, 6), x.dtype), x)
            return nn.Dense(3, name="head")(c)

    x = X.astype(jnp.float32)
    params = Net().init(jax.random.key(0), x)
    rules = lrp.composites.lrp_zero() | {"**/old": lrp.Stop()}
    found = lrp.explain(Net().apply, rules, argnums=1)(params, x, target=0)
    assert not found[:, :4].any()
    assert found[:, 4].any()


def test_a_stack_of_scanned_blocks_reports_each_block():
    def block(x, p):
        with jax.named_scope("block"):
            w = jax.nn.softmax(x @ p["q"] @ x.swapaxes(-1, -2))
            x = x + jax.nn.gelu(w @ x @ p["v"])
        return x, None

    params = {"q": draw(3, 4, 4, seed=6), "v": draw(3, 4, 4, seed=7)}

    def scan(x):
        return lax.scan(jax.checkpoint(block), x, params)[0].mean(1)

    def loop(x):
        for i in range(3):
            x, _ = block(x, jax.tree.map(lambda a, i=i: a[i], params))
        return x.mean(1)

    rules = lrp.composites.attn_lrp()
    found, layers = lrp.explain(scan, rules, layers=["add"])(X, target=0)
    want, apart = lrp.explain(loop, rules, layers=["add"])(X, target=0)
    assert_close(found, want, 1e-10)
    assert_close(next(iter(layers.values())), jnp.stack(list(apart.values())), 1e-10)


def test_bounds_of_a_carry_hold_in_every_iteration():
    """0 <= c <= 1 must not be believed because the start is 0."""

    def fn(x, signed):
        def step(c, a):
            c = (a @ W if signed else jax.nn.relu(a @ W)) + c
            return c, c @ U

        return lax.scan(step, jnp.zeros((2, 6)), x.swapaxes(0, 1))[1].sum(0)

    for signed in (True, False):
        plan = lrp.plan(functools.partial(fn, signed=signed), lrp.ZPlus())(X)
        reader = [y for y in plan.layers if y.kind == "dense"][-1]
        assert reader.nonnegative is not signed


def test_low_precision_carries_relevance_in_float32():
    def low(a):
        return a.astype(jnp.bfloat16)

    def fn(x):
        def step(c, a):
            return jnp.tanh(a @ low(W) + c @ low(U)), c[:, :1]

        c, ys = lax.scan(step, low(jnp.zeros((2, 6))), x.swapaxes(0, 1))
        return c @ low(V) + ys.sum(0)

    found = lrp.explain(fn, lrp.composites.epsilon_plus())(low(X), target=0)
    assert found.dtype == jnp.float32
    wide = lrp.explain(lambda x: fn(low(x)).astype(jnp.float32), lrp.composites.epsilon_plus())
    assert jnp.isfinite(found).all()
    assert wide(X.astype(jnp.float32), target=0).shape == found.shape


def test_jit_vmap_and_second_derivatives():
    rules = lrp.composites.lrp_zero()
    fn = lrp.explain(scanned, rules)
    want = fn((H, X), target=0)[1]
    assert_close(jax.jit(lambda a: fn(a, target=0))((H, X))[1], want, 1e-12)
    rows = jax.vmap(lambda h, x: fn((h[None], x[None]), target=0)[1][0])(H, X)
    assert_close(rows, want, 1e-12)

    def loss(x):
        return jnp.sum(fn((H, x), target=0)[1] ** 2)

    step = 1e-6 * draw(2, 5, 4, seed=8)
    change = (loss(X + step) - loss(X - step)) / 2
    assert_close(jnp.sum(jax.grad(loss)(X) * step), change, 1e-6)  # central differences
    tangent = jax.jvp(loss, (X,), (step,))[1]
    assert_close(tangent, change, 1e-6)


@pytest.mark.parametrize("where", ["body", "after", "start"])
def test_edges_change_their_sort_at_the_border(where):
    """Flat sends relevance, Epsilon a density: on one side of the border each."""

    def step(c, a):
        with jax.named_scope("body"):
            c = jnp.tanh(a @ W + c @ U)
        return c, c

    def after(c, ys, start):
        with jax.named_scope("start"):
            read = start @ V
        with jax.named_scope("after"):
            return c @ V + ys.mean(0) @ V + read

    def scan(args):
        h, x = args
        return after(*lax.scan(step, h, x.swapaxes(0, 1)), h)

    def loop(args):
        h, x = args
        c, ys = h, []
        for t in range(5):
            c, _ = step(c, x[:, t])
            ys.append(c)
        return after(c, jnp.stack(ys), h)

    flat = {lrp.all_of("dense", lrp.inside(where)): lrp.Flat()}
    check(lrp.composites.lrp_zero() | flat, scan, loop, (H, X))
