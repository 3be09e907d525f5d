"""Scales and shifts of parts of a layer's output, and layers that read one scaled value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(3, 6)))
W, B, S = RNG.normal(size=(6, 12)), RNG.normal(size=12), RNG.normal(size=12)
U, V, C = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 4)), RNG.normal(size=8)
MEAN, STD = RNG.uniform(size=6), 0.5 + RNG.uniform(size=6)
RULES = [lrp.ZPlus(), lrp.AlphaBeta(2, 1), lrp.Epsilon(0.1, bias="distribute"), lrp.ZBox(-3.0, 3.0)]


def attend(q, k, v):
    return jax.nn.softmax(q @ k.T) @ v


def thirds(array):
    return jnp.split(array, 3, -1)


def whole(x):
    return attend(*thirds(x @ W + B))


def each(x):
    return attend(*(p + b for p, b in zip(thirds(x @ W), thirds(B))))


def by_heads(x):
    shifted = (p.reshape(3, 2, 2) + b.reshape(2, 2) for p, b in zip(thirds(x @ W), thirds(B)))
    return attend(*(p.reshape(3, 4) for p in shifted))


def called(x):
    add = jax.jit(lambda parts: [p + b for p, b in zip(parts, thirds(B))])
    return attend(*add(thirds(jax.checkpoint(lambda x: x @ W)(x))))


def gated(z):
    return jnp.tanh(z[:, :6]) * jax.nn.sigmoid(z[:, 6:])


def gated_parts(z):
    return jnp.tanh(z[:, :6] + B[:6]) * jax.nn.sigmoid(z[:, 6:] + B[6:])


def scanned(gates):
    return lambda x: jax.lax.scan(lambda h, t: (h, gates(t[None] @ W)[0]), x[0], x)[1]


def scanned_sum(gates):
    def step(h, t):
        h = gates((t @ W + h @ W[::-1])[None])[0]
        return h, h

    return lambda x: jax.lax.scan(step, X[0] - X[1], x)[1]


WIDE = RNG.normal(size=(10, 2))


def grown(h, a):
    return jax.nn.relu(jnp.concatenate([h, a], -1)) @ WIDE


def dense_by_parts(x):
    h = jnp.tanh(x)
    a = h @ U
    parts = [h * S[:6] + C[:6], a * S[6:10] + B[:4], grown(h, a) * S[10:] + B[4:6]]
    return jnp.concatenate(parts, -1)


PAIRS = {
    "a bias for each part": (whole, each),
    "a bias for each head": (whole, by_heads),
    "parts inside calls": (whole, called),
    "a bias for the first part alone": (
        lambda x: attend(*thirds(x @ W + jnp.concatenate([B[:4], jnp.zeros(8)]))),
        lambda x: (lambda q, k, v: attend(q + B[:4], k, v))(*thirds(x @ W)),
    ),
    "a scale and a bias for each part": (
        lambda x: attend(*thirds((x @ W) * S + B)),
        lambda x: attend(*(p * s + b for p, s, b in zip(*map(thirds, (x @ W, S, B))))),
    ),
    "a divisor for each part": (
        lambda x: attend(*thirds((x @ W) / (4 + S))),
        lambda x: attend(*(p / (4 + s) for p, s in zip(*map(thirds, (x @ W, S))))),
    ),
    "a part taken from a bias": (
        lambda x: attend(*thirds(B - x @ W)),
        lambda x: attend(*(b - p for p, b in zip(*map(thirds, (x @ W, B))))),
    ),
    "gates": (lambda x: gated(x @ W + B), lambda x: gated_parts(x @ W)),
    "gates in a scan": (scanned(lambda z: gated(z + B)), scanned(gated_parts)),
    "layers that are joined": (
        lambda x: jax.nn.relu(jnp.concatenate([x @ U + C[:4], x @ V + C[4:]], -1)),
        lambda x: jax.nn.relu(jnp.concatenate([x @ U, x @ V], -1) + C),
    ),
    "a layer and an activation that are joined": (
        lambda x: jnp.concatenate([x @ U + C[:4], jax.nn.relu(x @ V) + C[4:]], -1),
        lambda x: jnp.concatenate([x @ U, jax.nn.relu(x @ V)], -1) + C,
    ),
    "a layer and a constant that are joined": (
        lambda x: jnp.concatenate([x @ U + C[:4], jnp.broadcast_to(S[:4] + C[4:], (3, 4))], -1),
        lambda x: jnp.concatenate([x @ U, jnp.broadcast_to(S[:4], (3, 4))], -1) + C,
    ),
    "a bias scattered over some columns": (
        lambda x: jax.nn.relu(x @ U + jnp.array([0, C[0], 0, C[1] + C[2]])),
        lambda x: jax.nn.relu((x @ U).at[:, jnp.array([1, 3, 3])].add(C[:3])),
    ),
    "a scale scattered over some columns": (
        lambda x: jax.nn.relu(x @ U * jnp.array([1, C[0], 1, C[1]]) + C[:4]),
        lambda x: jax.nn.relu((x @ U).at[:, jnp.array([1, 3])].multiply(C[:2]) + C[:4]),
    ),
    "a bias for each part of a sum of layers": (
        lambda x: attend(*thirds(x @ W + jnp.tanh(x) @ W[::-1] + B)),
        lambda x: attend(
            *(p + b for p, b in zip(thirds(x @ W + jnp.tanh(x) @ W[::-1]), thirds(B)))
        ),
    ),
    "a bias for each part of a difference that is scaled": (
        lambda x: attend(*thirds((x @ W - jnp.tanh(x) @ W[::-1]) * S + B)),
        lambda x: attend(
            *(p * s + b for p, s, b in zip(*map(thirds, (x @ W - jnp.tanh(x) @ W[::-1], S, B))))
        ),
    ),
    "a part is turned twice": (
        lambda x: jnp.tanh((x @ W + B)[:, :4]),
        lambda x: jnp.tanh(-(-(x @ W)[:, :4] - B[:4])),
    ),
    "a part is turned twice and scaled": (
        lambda x: jnp.tanh(((x @ W) * S + B)[:, :4]),
        lambda x: jnp.tanh(-(-B[:4] - (x @ W)[:, :4] * S[:4])),
    ),
    "a bias without a part": (
        lambda x: jnp.tanh((B - x @ W)[:, :4]),
        lambda x: jnp.tanh(B[:4] - (x @ W)[:, :4]),
    ),
    "a part is turned three times": (
        lambda x: jnp.tanh((C.repeat(2)[:12] - (B - (S - x @ W)))[:, :4]),
        lambda x: jnp.tanh(C.repeat(2)[:4] - (B[:4] - (S[:4] - (x @ W)[:, :4]))),
    ),
    "a bias after a sum of layers is turned": (
        lambda x: jnp.tanh((x @ U + jnp.tanh(x) @ V + C[:4])[:, ::-1].T),
        lambda x: jnp.tanh((x @ U + jnp.tanh(x) @ V)[:, ::-1].T + C[3::-1, None]),
    ),
    "a bias after sums of layers are joined": (
        lambda x: jnp.tanh(
            jnp.concatenate([x @ U + jnp.tanh(x) @ V + C[:4], jnp.tanh(x) @ U + x @ V + C[4:]], -1)
        ),
        lambda x: jnp.tanh(
            jnp.concatenate([x @ U + jnp.tanh(x) @ V, jnp.tanh(x) @ U + x @ V], -1) + C
        ),
    ),
    "the gates of a recurrence": (
        scanned_sum(lambda z: gated(z + B)),
        scanned_sum(gated_parts),
    ),
    "a joined value that a layer reads too": (
        lambda x: (lambda h: jnp.concatenate([h + C[:6], h @ U + B[:4]], -1))(jnp.tanh(x)),
        lambda x: (lambda h: jnp.concatenate([h, h @ U], -1) + jnp.r_[C[:6], B[:4]])(jnp.tanh(x)),
    ),
    "the same, by vmap": (
        lambda x: (lambda h: jnp.concatenate([h + C[:6], h @ U + B[:4]], -1))(jnp.tanh(x)),
        lambda x: jax.vmap(
            lambda h: (lambda g: jnp.concatenate([g, g @ U], -1) + jnp.r_[C[:6], B[:4]])(h[None])[0]
        )(jnp.tanh(x)),
    ),
    "the same, turned before": (
        lambda x: (lambda h: jnp.concatenate([h + C[:6], h @ U + B[:4]], -1))(jnp.tanh(x)),
        lambda x: (lambda h: jnp.concatenate([h, h @ U], -1) + jnp.r_[C[:6], B[:4]])(
            jnp.tanh(x.T)[::-1].T[:, ::-1]
        ),
    ),
    "the same, a bias for each piece": (
        lambda x: (lambda h: jnp.concatenate([h + C[:6], h @ U + B[:4]], -1))(jnp.tanh(x)),
        lambda x: (
            lambda z: jnp.concatenate([z[:, :8] + jnp.r_[C[:6], B[:2]], z[:, 8:] + B[2:4]], -1)
        )((lambda h: jnp.concatenate([h, h @ U], -1))(jnp.tanh(x))),
    ),
    "the same, normalised": (
        lambda x: (lambda h: jnp.concatenate([h * S[:6] + C[:6], (h @ U) * S[6:10] + B[:4]], -1))(
            jnp.tanh(x)
        ),
        lambda x: (lambda h: jnp.concatenate([h, h @ U], -1) * S[:10] + jnp.r_[C[:6], B[:4]])(
            jnp.tanh(x)
        ),
    ),
    "the explained input itself joined": (
        lambda x: jnp.concatenate([x * S[:6] + C[:6], (x @ U) * S[6:10] + B[:4]], -1),
        lambda x: jnp.concatenate([x, x @ U], -1) * S[:10] + jnp.r_[C[:6], B[:4]],
    ),
    "the same, with a barrier between": (
        lambda x: jnp.concatenate([x * S[:6] + C[:6], (x @ U) * S[6:10] + B[:4]], -1),
        lambda x: (
            jax.lax.optimization_barrier(jnp.concatenate([x, x @ U], -1)) * S[:10]
            + jnp.r_[C[:6], B[:4]]
        ),
    ),
    "the same, in a branch": (
        lambda x: jnp.concatenate([x * S[:6] + C[:6], (x @ U) * S[6:10] + B[:4]], -1),
        lambda x: jax.lax.cond(
            x.sum() > -1e9,
            lambda x: jnp.concatenate([x, x @ U], -1) * S[:10] + jnp.r_[C[:6], B[:4]],
            lambda x: jnp.concatenate([x, x @ U], -1) * S[:10] + jnp.r_[C[:6], B[:4]],
            x,
        ),
    ),
    "joined in steps": (
        dense_by_parts,
        lambda x: (
            lambda j: jnp.concatenate([j, jax.nn.relu(j) @ WIDE], -1) * S + jnp.r_[C[:6], B[:6]]
        )((lambda h: jnp.concatenate([h, h @ U], -1))(jnp.tanh(x))),
    ),
    "joined at once": (
        dense_by_parts,
        lambda x: (
            lambda h, a: jnp.concatenate([h, a, grown(h, a)], -1) * S + jnp.r_[C[:6], B[:6]]
        )(jnp.tanh(x), jnp.tanh(x) @ U),
    ),
    "examples taken one by one": (
        lambda x: jnp.concatenate([x * S[:6] + C[:6], (x @ U) * S[6:10] + B[:4]], -1),
        lambda x: jnp.stack(
            [jnp.concatenate([v, v @ U], -1) * S[:10] + jnp.r_[C[:6], B[:4]] for v in x]
        ),
    ),
    "one half of a layer is read by another": (
        lambda x: (
            lambda a, b: jnp.concatenate(
                [a * S[:6] + C[:6], b * S[6:] + B[:6], jax.nn.relu(b) @ V + B[6:10]], -1
            )
        )(*jnp.split(x @ W, 2, -1)),
        lambda x: (
            lambda a, b: (
                jnp.concatenate([a, b, jax.nn.relu(b) @ V], -1) * jnp.r_[S, np.ones(4)]
                + jnp.r_[C[:6], B[:10]]
            )
        )(*jnp.split(x @ W, 2, -1)),
    ),
    "a stack shares a view with a layer": (
        lambda x: x + jnp.tanh(x @ W[:, :6]),
        lambda x: jnp.stack([x, jnp.tanh((x[None] * W.T[:6, None]).sum(-1).T)]).sum(0),
    ),
    "a sign on one of two readers past a slice of all": (
        lambda x: (lambda v: jnp.maximum(v, -v))((x @ U) * S[:4]),
        lambda x: (lambda v: jnp.maximum(v, -v))(
            jax.lax.dynamic_slice_in_dim((-(x @ U)) * (-S[:4]), 0, 4, -1)
        ),
    ),
    "a layer and a part of it that another reads": (
        lambda x: (
            lambda z: jnp.concatenate(
                [z * S[:4] + C[:4], z[:, :2] * S[4:6] + C[4:6], jnp.tanh(z[:, :2]) @ V[:2]], -1
            )
        )(x @ U),
        lambda x: (
            lambda z: (
                jnp.concatenate([z, z[:, :2], jnp.tanh(z[:, :2]) @ V[:2]], -1)
                * jnp.r_[S[:6], np.ones(4)]
                + jnp.r_[C[:6], np.zeros(4)]
            )
        )(x @ U),
    ),
    "added at places of a learned array": (
        lambda x: jnp.pad(x @ U, ((1, 0), (0, 0))) + W[:4, :4],
        lambda x: jnp.asarray(W[:4, :4]).at[1:].add(x @ U),
    ),
    "added at places of zeros": (
        lambda x: jnp.pad(x @ U, ((1, 0), (0, 0))) + W[:4, :4],
        lambda x: jnp.zeros((4, 4)).at[1:].add(x @ U) + W[:4, :4],
    ),
    "layers joined before a mean over one": (
        lambda x: jnp.concatenate([(x @ U) + B[:4], (x @ V) + B[4:8]], -1)[:, None].sum(1),
        lambda x: jnp.concatenate([x @ U, x @ V], -1)[:, None].mean(1) + B[:8],
    ),
    "a joined value that is an output too": (
        lambda x: (lambda h: jnp.stack([h @ U + C[:4], h[:, :4] + C[4:]], 1).sum() + h)(
            jnp.tanh(x)
        ),
        lambda x: (lambda h: (jnp.stack([h @ U, h[:, :4]], 1) + C.reshape(2, 4)).sum() + h)(
            jnp.tanh(x)
        ),
    ),
    "one scaled value read twice": (
        lambda x: (
            jax.nn.relu((x - MEAN) @ (U / STD[:, None]))
            + jax.nn.relu((x - MEAN) @ (V[::-1] / STD[:, None]))
        ),
        lambda x: (lambda y: jax.nn.relu(y @ U) + jax.nn.relu(y[:, ::-1] @ V))((x - MEAN) / STD),
    ),
    "one scaled value read by a sum of products": (
        lambda x: (lambda y: (y @ U) * (y[:, :4] + C[:4]))(x * STD),
        lambda x: (lambda y: (y[..., None] * U).sum(-2) * (y[:, :4] + C[:4]))(x * STD),
    ),
    "parts of one scaled value": (
        lambda x: ((x[:, :2] - MEAN[:2]) @ U[:2]) * ((x[:, 2:] - MEAN[2:]) @ U[2:]),
        lambda x: (lambda a, b: (a @ U[:2]) * (b @ U[2:]))(*jnp.split(x - MEAN, [2], -1)),
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_two_spellings(name, rule):
    left, right = PAIRS[name]
    rules = {"dense": rule}
    assert_close(
        in_numpy(lrp.explain(left, rules))(X), in_numpy(lrp.explain(right, rules))(X), 1e-9
    )
    assert_close(left(X), right(X), 1e-12)


@pytest.mark.parametrize("rule", [lrp.Flat(), lrp.Epsilon(0.1, bias="distribute")], ids=str)
@pytest.mark.parametrize("act", [jax.nn.relu, jnp.tanh, jax.nn.gelu], ids=["relu", "tanh", "gelu"])
def test_padding_after_an_activation_is_nobodys_input(act, rule):
    x, kernel = X.reshape(2, 3, 3), RNG.normal(size=(3, 3, 2))

    def conv(x, padding):
        numbers = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(x, kernel, (1,), padding, dimension_numbers=numbers)

    padded = lrp.explain(
        lambda x: conv(jnp.pad(act(x), ((0, 0), (1, 1), (0, 0))), "VALID"), {"conv": rule}
    )
    same = lrp.explain(lambda x: conv(act(x), "SAME"), {"conv": rule})
    assert_close(padded(x), same(x), 1e-9)


def _norm(x):
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize(("divisor", "factor"), [(0.1, 0.0), (0.0, 0.1), (0.1, 0.3)])
def test_a_divisor_is_held_where_it_multiplies_though_a_number_was_added(divisor, factor):
    def function(x):
        return ((x / (_norm(x) + divisor)) @ W) * (_norm(x) + factor)

    def held(x):
        return (x @ W) * jax.lax.stop_gradient((_norm(x) + factor) / (_norm(x) + divisor))

    rules = {"dense": lrp.Epsilon(0.0)}
    assert_close(
        in_numpy(lrp.explain(function, rules))(X), in_numpy(lrp.explain(held, rules))(X), 1e-9
    )


def test_a_value_read_by_a_layer_and_by_something_else_is_a_layer_for_that():
    def function(x):
        y = (x - MEAN) / STD
        return y @ U + y[:, :4]

    rules = {"dense": lrp.ZBox(0.0, 1.0), "affine": lrp.Epsilon(0.0)}
    plan = lrp.plan(function, rules)(X)
    assert [layer.kind for layer in plan.layers] == ["affine", "dense", "structural", "add"]
    # The sum hands each term its own value, and the affine layer's share of it is x / std.
    _, back = lrp.relevance_vjp(lambda x: (x - MEAN) @ (U / STD[:, None]), rules, X)
    (expected,) = back(((X - MEAN) / STD) @ U)
    through = np.pad(X[:, :4] / STD[:4], ((0, 0), (0, 2)))
    assert_close(in_numpy(lrp.explain(function, rules))(X), expected + through, 1e-9)


@pytest.mark.parametrize("rule", [*RULES[:3], lrp.Epsilon(0.05, relative=True)], ids=str)
@pytest.mark.parametrize("before", [lambda x: x, jnp.tanh, lambda x: x @ (U @ V.T)])
def test_parts_that_a_layer_folds_are_one_layer_for_other_readers(before, rule):
    scale, shift = S[:6], B[:6]

    def parts(x):
        pieces = [x[:, :4] * scale[:4] + shift[:4], x[:, 4:] * scale[4:] + shift[4:]]
        return jnp.concatenate(pieces, -1)

    readers = [
        lambda v: jnp.concatenate([v, v @ U], -1),
        lambda v: v * jnp.tanh(v @ U).sum(),
        lambda v: jax.nn.relu(v) + v @ U[:, :1],
    ]
    for read in readers:
        expected = in_numpy(lrp.explain(lambda x, r=read: r(before(x) * scale + shift), rule))(X)
        assert_close(
            in_numpy(lrp.explain(lambda x, r=read: r(parts(before(x))), rule))(X), expected
        )


@pytest.mark.parametrize("rule", [lrp.Gamma(0.25, bias="distribute"), *RULES[:3]], ids=str)
def test_a_bias_beside_a_learned_scale_stays_there_in_a_sum(rule):
    """As where the scaled value is read by something else too: it does not go to `v @ W`."""
    scale, shift, w = S[:6], B[:6], W[:, :6]

    def scaled(x):
        return jax.nn.leaky_relu(x, 0.1) * scale + shift

    def alone(x):
        return scaled(x) + jnp.tanh(x) @ w

    def read_twice(x):
        v = scaled(x)
        return jnp.concatenate([v + jnp.tanh(x) @ w, v], -1)

    def turned(x):
        return jnp.tanh(x) @ w + (shift + scale * jax.nn.leaky_relu(x, 0.1))

    kinds = [y.kind for y in lrp.plan(alone, rule)(X).layers]
    assert sorted(kinds) == ["activation", "activation", "add", "affine", "dense"]
    seed = jnp.tile(jnp.concatenate([jnp.eye(6)[2], jnp.zeros(6)]), (3, 1))
    expected = in_numpy(lrp.explain(read_twice, rule))(X, target=seed)
    for fn in (alone, turned):
        assert_close(in_numpy(lrp.explain(fn, rule))(X, target=2), expected)


def test_elements_that_something_else_reads_too_keep_their_order():
    """The first part is read with and without its bias: neither may move."""

    def function(x):
        z = x @ W
        return jnp.tanh(z[:, :4] + B[:4]) * z[:, 2:6]

    kinds = [layer.kind for layer in lrp.plan(function, {})(X).layers]
    assert kinds.count("affine") == 1


def turned(v):
    return (-v) * (-S[:6])


TURNED = {
    "two signs": (lambda v: v * S[:6], turned),
    "a sign after": (lambda v: v * S[:6], lambda v: -(v * -S[:6])),
    "a shift": (lambda v: v + C[:6], lambda v: -(-v - C[:6])),
    "a shift from a number": (lambda v: C[:6] - v, lambda v: -v + C[:6]),
    "a norm": (lambda v: (v - MEAN) / STD, lambda v: (MEAN - v) / -STD),
    "a doubled value": (lambda v: 2 * v * S[:6], lambda v: (v * -2) * -S[:6]),
}
BEFORE = {
    "an activation": jnp.tanh,
    "a layer": lambda x: x @ W[:, :6],
    "a product": lambda x: (x @ W[:, :6]) * jax.nn.sigmoid(x @ W[:, 6:]),
    "a norm": lambda x: x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True)),
    "a sum": lambda x: x + jnp.tanh(x @ W[:, :6]),
}


@pytest.mark.parametrize("rules", [lrp.composites.lrp_zero(), lrp.composites.epsilon_plus()])
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("name", TURNED)
def test_what_a_layer_and_another_reader_hold_is_whole(name, before, rules):
    """The layer folds the signs and begins at the value before: nothing else may swallow it."""
    left, right = TURNED[name]

    def network(f):
        return lambda x: (lambda v: jnp.concatenate([v, v @ U], -1))(f(BEFORE[before](x)))

    assert_close(
        in_numpy(lrp.explain(network(left), rules))(X),
        in_numpy(lrp.explain(network(right), rules))(X),
        1e-9,
    )


def test_numbers_beside_an_activation_stay_there():
    """The 1 that a forget gate adds belongs to the gate."""

    def function(x):
        return jnp.tanh((x @ W)[:, :6]) * jax.nn.sigmoid((x @ W)[:, 6:] + 1.0)

    assert "affine" not in [layer.kind for layer in lrp.plan(function, {})(X).layers]
    wide = in_numpy(lrp.explain(function, {"dense": lrp.ZPlus()}))(X)
    other = in_numpy(
        lrp.explain(
            lambda x: jnp.tanh(x @ W[:, :6]) * (1 / (1 + jnp.exp(-(x @ W[:, 6:]) - 1.0))),
            {"dense": lrp.ZPlus()},
        )
    )(X)
    assert_close(wide, other, 1e-9)


def test_the_plan_says_where_a_box_is_not_that_of_the_input():
    def why(function):
        plan = lrp.plan(function, {"dense": lrp.ZBox(0.0, 1.0)})(X)
        return [layer.why for layer in plan.layers if layer.kind == "dense"]

    said = "; the bounds are those of the output of {!r}, not of the input"
    assert why(lambda x: jnp.tanh(x) @ U) == ["rule map: 'dense'" + said.format("activation_0")]
    assert why(lambda x: ((x - MEAN) / STD)[:, ::-1] @ U) == ["rule map: 'dense'"]
    assert why(lambda x: x[:, ::-1] @ U) == ["rule map: 'dense'"]
    in_body = why(lambda x: jax.lax.map(lambda row: row @ U, (x - MEAN) / STD))
    assert in_body == ["rule map: 'dense'" + said.format("affine_0")]


@pytest.mark.parametrize("rule", RULES[:3], ids=repr)
def test_a_bias_after_a_view_of_a_sum_however_the_sum_is_written(rule):
    square = RNG.normal(size=(6, 6))

    def fn(total):
        return lambda x: total(x, jnp.tanh(x) @ square + B[:6])[:, ::-1] + B[6:]

    sums = [
        lambda a, b: a + b,
        lambda a, b: sum([a, b]),
        lambda a, b: jnp.stack([a, b]).sum(0),
        lambda a, b: jnp.stack([a, b], 1).sum(1),
        lambda a, b: -(-a - b),
    ]
    expected = in_numpy(lrp.explain(fn(sums[0]), rule))(X)
    for total in sums[1:]:
        assert_close(in_numpy(lrp.explain(fn(total), rule))(X), expected)


@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.Epsilon(0.1), lrp.WSquare()], ids=repr)
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_scale_after_a_view_of_a_product_is_the_products(rule, shift):
    def fn(view, scale):
        def product(x):
            v = jnp.tanh(x) * x.mean(1, keepdims=True)
            return scale(v) if view is None else scale(view(v))

        return lrp.explain(product, rule)

    s, b = S[:6], shift * B[:6]
    expected = fn(None, lambda v: (v * s + b if shift else v * s)[:, ::-1])(X)
    for view in (lambda v: v[:, ::-1], lambda v: jnp.flip(v, 1), lambda v: v.T[::-1].T):
        turned = fn(view, lambda v: v * s[::-1] + b[::-1] if shift else v * s[::-1])
        assert_close(turned(X), expected)


def test_a_stack_that_shares_a_view_is_a_sum():
    _, fn = PAIRS["a stack shares a view with a layer"]
    plan = lrp.plan(fn, lrp.Epsilon(0.1))(X)
    assert (plan.count("add"), plan.count("reduce")) == (1, 0)


def pieces(v):
    first, rest = jnp.split(v, [2], -1)
    return jnp.concatenate([first + C[:2], rest + C[2:6]], -1)


def turned_pieces(v):
    return jnp.concatenate([(p + c).T for p, c in ((v[:, :2], C[:2]), (v[:, 2:], C[2:6]))])


# Sums over elements that were multiplied by weights: x @ STD, whatever is done to parts of it.
WEIGHTED = {
    "a bias": (lambda x: (x * STD + C[:6]).sum(-1), lambda x: pieces(x * STD).sum(-1)),
    "a bias, turned": (
        lambda x: (x * STD + C[:6]).T.mean(0),
        lambda x: turned_pieces(x * STD).mean(0),
    ),
    "a bias, turned, and another axis": (
        lambda x: (x * STD + C[:6]).T.mean(1),
        lambda x: turned_pieces(x * STD).mean(1),
    ),
    "weights": (
        lambda x: x @ STD,
        lambda x: jnp.concatenate([x[:, :2] * STD[:2], x[:, 2:] * STD[2:]], -1).sum(-1),
    ),
    "weights of a part": (
        lambda x: x @ jnp.concatenate([STD[:2], jnp.ones(4)]),
        lambda x: jnp.concatenate([x[:, :2] * STD[:2], x[:, 2:]], -1).sum(-1),
    ),
    "a crop": (lambda x: x[:, 1:] @ STD[1:], lambda x: (x * STD)[:, 1:].sum(-1)),
    "a pad": (lambda x: x @ STD, lambda x: jnp.pad(x * STD, ((0, 0), (1, 2))).sum(-1)),
    "a flip": (lambda x: x @ STD, lambda x: (x * STD)[:, ::-1].sum(-1)),
}


@pytest.mark.parametrize("rule", [lrp.Flat(), *RULES], ids=str)
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_and_a_sum_are_a_layer_whatever_is_done_to_parts(name, rule):
    one, other = (in_numpy(lrp.explain(f, rule))(X) for f in WEIGHTED[name])
    assert_close(other, one)
