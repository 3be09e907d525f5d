"""Where relevance starts: several outputs, outputs that are read inside, weights and values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from tests.numpy_jaxpr import in_numpy

E0 = lrp.Epsilon(0.0)
RNG = np.random.default_rng(4)
W, V = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))
X = RNG.normal(size=(2, 3))
MANY = RNG.normal(size=(8, 3))
M = RNG.normal(size=(4, 5))  # the middle of `net`, and its top
TOP = np.array([[0.5, -1.0], [-2.0, 0.5], [-1.5, -1.0], [0.5, -2.0], [-3.0, 0.2]])
COLUMN = np.array([[2.0], [3.0]])
ONES = np.ones(2)


# -- an output keeps its own identity --------------------------------------------------------


def weights(*pairs):
    return tuple(jnp.full(v.shape, w) for w, v in pairs)


def test_a_layer_and_its_activation_as_outputs():
    def fn(x):
        z = x @ COLUMN
        return z, jax.nn.sigmoid(z)

    explain = lrp.explain(fn, E0)
    np.testing.assert_allclose(explain(ONES, target=(jnp.ones(1), jnp.zeros(1))), [2, 3])
    sigmoid = 1 / (1 + np.exp(-5.0))
    second = np.array([0.4, 0.6]) * sigmoid
    np.testing.assert_allclose(explain(ONES, target=(jnp.zeros(1), jnp.ones(1))), second)
    np.testing.assert_allclose(explain(ONES), np.array([2, 3]) + second)


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "square": jnp.square,
    "cos": jnp.cos,
    "moved": lambda z: z[:, ::-1],
    "layer": lambda z: z @ W.T @ W,
    "max": lambda z: z.max(1),
    "softmax": jax.nn.softmax,
    "norm": lambda z: z / jnp.sqrt(jnp.mean(z * z, -1, keepdims=True) + 1.0),
}
RULES = {
    "lrp_zero": lrp.composites.lrp_zero(),
    "epsilon": lrp.Epsilon(),
    "zplus": lrp.ZPlus(),
    "gamma": lrp.Gamma(),
    "flat": lrp.Flat(),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_hidden_value_as_output(activation, rules):
    """Weights on one of two outputs: as if the other were not there."""
    act, rules = ACTIVATIONS[activation], RULES[rules]

    def both(x):
        z = x @ W
        return z, act(z)

    def plain(x):
        return x @ W

    first, second = jax.eval_shape(both, X)
    explain = in_numpy(lrp.explain(both, rules))
    found = explain(X, target=weights((1.0, first), (0.0, second)))
    expected = in_numpy(lrp.explain(plain, rules))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    found = explain(X, target=weights((0.0, first), (1.0, second)))
    expected = in_numpy(lrp.explain(lambda x: both(x)[1], rules))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_bias_behind_an_output():
    """The output keeps its own identity: the bias behind it is a layer of its own."""
    shift = np.array([1.0, -2.0, 3.0, 0.5])

    def fn(x):
        z = x @ W
        return z, z + shift

    z = X @ W
    explain = lrp.explain(fn, E0)
    found = explain(X, target=weights((1.0, z), (0.0, z)))
    np.testing.assert_allclose(found, X * W.sum(1), rtol=1e-12)
    found = explain(X, target=weights((0.0, z), (1.0, z)))
    np.testing.assert_allclose(found, X * W.sum(1), rtol=1e-12)


def test_the_input_itself_as_output():
    def fn(x):
        return x, jax.nn.sigmoid(x), jnp.cos(x) @ W

    found = lrp.explain(fn, E0)(X, target=weights((2.0, X), (0.0, X), (0.0, X @ W)))
    np.testing.assert_allclose(found, 2 * X)


def test_the_same_value_twice():
    def fn(x):
        z = x @ W
        return z, z, jax.nn.sigmoid(z)

    z = X @ W
    found = lrp.explain(fn, E0)(X, target=weights((1.0, z), (2.0, z), (0.0, z)))
    np.testing.assert_allclose(found, 3 * lrp.explain(lambda x: x @ W, E0)(X))


def test_the_values_of_a_scan():
    matrix = RNG.normal(size=(3, 3)) / 2

    def scanned(x):
        def step(h, _):
            z = h @ matrix
            return jax.nn.sigmoid(z), (z, h)

        end, (zs, hs) = lax.scan(step, x, None, length=3)
        return zs, hs, end

    def unrolled(x):
        zs, hs = [], []
        for _ in range(3):
            hs.append(x)
            z = x @ matrix
            zs.append(z)
            x = jax.nn.sigmoid(z)
        return jnp.stack(zs), jnp.stack(hs), x

    shapes = jax.eval_shape(scanned, X)
    for seeded in range(3):
        target = weights(*((float(i == seeded), s) for i, s in enumerate(shapes)))
        one = lrp.explain(scanned, lrp.composites.lrp_zero())(X, target=target)
        other = lrp.explain(unrolled, lrp.composites.lrp_zero())(X, target=target)
        np.testing.assert_allclose(one, other, rtol=1e-9)
    zs = lrp.explain(scanned, lrp.composites.lrp_zero())
    only = [jnp.zeros(s.shape) for s in shapes]
    only[0] = only[0].at[0].set(1.0)
    np.testing.assert_allclose(zs(X, target=tuple(only)), X * (matrix @ np.ones(3)), rtol=1e-9)


def test_a_hidden_value_as_aux():
    """Read outside, so it is computed, whatever ran together with the layer before it."""

    def fn(x):
        z = x @ W
        return jax.nn.relu(z) @ V, z

    rules = lrp.Gamma()
    (value, aux), relevance = lrp.value_and_relevance(fn, rules, has_aux=True)(X)
    np.testing.assert_allclose(aux, X @ W)
    np.testing.assert_allclose(value, fn(X)[0])
    expected = lrp.explain(lambda x: fn(x)[0], rules)(X)
    np.testing.assert_allclose(relevance, expected, rtol=1e-12)


# -- aux keeps its derivative -----------------------------------------------------------------

AUX = {
    "a function of the input": lambda x: jnp.sin(x).sum(),
    "through a comparison": lambda x: jnp.where(x > 0, x**2, jnp.cos(x)).sum(),
    "through a layer": lambda x: (jnp.tanh(x @ W) ** 2).sum(),
    "through an integer": lambda x: (x[jnp.arange(2), jnp.argmax(x, 1)] ** 3).sum(),
    "through a scan": lambda x: lax.scan(lambda h, _: (jnp.sin(h), h), x, None, length=3)[1].sum(),
    "through a cond": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x).sum(),
}


@pytest.mark.parametrize("rules", [E0, lrp.Gamma(), lrp.Flat()], ids=str)
@pytest.mark.parametrize("name", AUX)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_gradient_of_aux(name, rules, wrap):
    def fn(x):
        h = jax.nn.relu(x @ W)
        return h @ V, (AUX[name](x), AUX[name](h[:, :3]))

    def loss(x):
        (_, aux), _ = lrp.value_and_relevance(fn, rules, has_aux=True)(x)
        return 2 * aux[0] + aux[1]

    def direct(x):
        aux = fn(x)[1]
        return 2 * aux[0] + aux[1]

    found, expected = wrap(jax.grad(loss))(X), in_numpy(jax.grad(direct))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_the_gradient_of_aux_by_parameters():
    """Also where the input reaches aux through steps alone, whose derivative is 0."""

    def fn(w, x):
        y = jnp.sign(x) * w[0, :3] + jnp.floor(x) * w[1, :3]
        return jax.nn.relu(x @ w), (y**2).sum()

    def loss(w, x):
        return lrp.value_and_relevance(fn, lrp.Gamma(), argnums=1, has_aux=True)(w, x)[0][1]

    found = jax.grad(loss)(W, X)
    np.testing.assert_allclose(found, jax.grad(lambda w, x: fn(w, x)[1])(W, X), rtol=1e-12)


def test_the_gradient_of_the_value():
    def loss(x):
        return (lrp.value_and_relevance(lambda x: jax.nn.relu(x @ W) @ V, lrp.Gamma())(x)[0]).sum()

    expected = jax.grad(lambda x: (jax.nn.relu(x @ W) @ V).sum())(X)
    np.testing.assert_allclose(jax.grad(loss)(X), expected, rtol=1e-12)


def test_the_gradient_of_relevance_sees_what_it_depends_on_beside():
    """A scale that relevance does not cross is constant for relevance, and not for its gradient."""

    def fn(x):
        h = jax.nn.relu(x @ W)
        return h @ V

    def relevance(x):
        return (lrp.explain(fn, E0)(x, target=0) ** 2).sum()

    def direct(x):
        return ((x * jax.grad(lambda x: fn(x)[:, 0].sum())(x)) ** 2).sum()

    np.testing.assert_allclose(jax.grad(relevance)(X), jax.grad(direct)(X), rtol=1e-10)


# -- gradient rules start from the weight -----------------------------------------------------


def net(x):
    return jax.nn.relu(jax.nn.relu(x @ W) @ M) @ TOP


def guided(x, seed):
    """Guided backpropagation by hand."""
    a = x @ W
    b = np.maximum(a, 0) @ M
    r = seed @ TOP.T
    r = np.where(b > 0, np.maximum(r, 0), 0) @ M.T
    return np.where(a > 0, np.maximum(r, 0), 0) @ W.T


def deconv(x, seed):
    r = np.maximum(seed @ TOP.T, 0) @ M.T
    return np.maximum(r, 0) @ W.T


def smooth(x, seed):
    a = x @ W
    b = np.maximum(a, 0) @ M
    r = (seed @ TOP.T) / (1 + np.exp(-10 * b))
    return ((r @ M.T) / (1 + np.exp(-10 * a))) @ W.T


HAND = {
    "guided_backprop": (lrp.composites.guided_backprop(), guided),
    "deconvnet": (lrp.composites.deconvnet(), deconv),
    "beta_smooth": (lrp.composites.beta_smooth(), smooth),
}


@pytest.mark.parametrize("name", HAND)
def test_as_in_the_literature(name):
    rules, by_hand = HAND[name]
    assert (np.asarray(net(MANY)) < 0).any()  # a negative logit turned these inside out
    for target in (0, 1):
        seed = np.tile(np.eye(2)[target], (8, 1))
        assert np.any(by_hand(MANY, seed))
        np.testing.assert_allclose(
            lrp.explain(net, rules)(MANY, target=target), by_hand(MANY, seed)
        )
    np.testing.assert_allclose(lrp.explain(net, rules)(MANY), by_hand(MANY, np.ones((8, 2))))
    weights = RNG.normal(size=(8, 2))
    np.testing.assert_allclose(
        lrp.explain(net, rules)(MANY, target=weights), by_hand(MANY, weights)
    )
    _, back = lrp.relevance_vjp(net, rules, MANY)
    np.testing.assert_allclose(back(jnp.asarray(weights))[0], by_hand(MANY, weights))


def test_gradient_everywhere_is_the_gradient():
    rules = {kind: lrp.Gradient() for kind in ("dense", "activation", "structural")}
    expected = jax.grad(lambda x: net(x)[:, 1].sum())(X)
    np.testing.assert_allclose(lrp.explain(net, rules)(X, target=1), expected)
    one = lrp.explain(lambda x: net(x)[0], rules)(X, target=1)  # what moves an output is no maker
    np.testing.assert_allclose(one, jax.grad(lambda x: net(x)[0, 1])(X))


def test_lrp_at_the_output_starts_from_the_logit():
    x = jnp.asarray(X)
    h = jax.nn.relu(x @ W)
    logit = (h @ V)[:, :1]
    rules = {"dense": lrp.Epsilon(), "activation": lrp.GuidedBackprop()}
    _, back = lrp.relevance_vjp(lambda x: jax.nn.relu(x @ W) @ V, rules, x)
    expected = back(jnp.concatenate([logit, jnp.zeros_like(logit)], 1))[0]
    found = lrp.explain(lambda x: jax.nn.relu(x @ W) @ V, rules)(x, target=0)
    np.testing.assert_allclose(found, expected)
    rules = lrp.composites.excitation_backprop()
    _, back = lrp.relevance_vjp(net, rules, x)
    np.testing.assert_allclose(lrp.explain(net, rules)(x), back(net(x))[0])


def test_each_output_by_itself():
    def fn(x):
        with jax.named_scope("body"):
            h = x @ W
        with jax.named_scope("one"):
            one = h @ V
        with jax.named_scope("two"):
            return one, h @ V[:, :1]

    rules = {"one": lrp.Gradient(), "two": E0, "body": E0}
    one, two = fn(X)
    found = lrp.explain(fn, rules)(X, target=(jnp.ones_like(one), jnp.zeros_like(two)))
    h = X @ W
    np.testing.assert_allclose(found, X * ((np.ones((2, 2)) @ V.T / h) @ W.T), rtol=1e-9)
    found = lrp.explain(fn, rules)(X, target=(jnp.zeros_like(one), jnp.ones_like(two)))
    np.testing.assert_allclose(found, X * (W @ V[:, 0]), rtol=1e-9)


def test_the_output_of_a_loop():
    square = abs(W @ W.T)

    def fn(x):
        return lax.scan(lambda h, _: (jax.nn.relu(h @ square), None), x, None, length=2)[0]

    rules = lrp.composites.guided_backprop()

    def unrolled(x):
        return jax.nn.relu(jax.nn.relu(x @ square) @ square)

    x = abs(X)
    found = lrp.explain(fn, rules)(x, target=0)
    assert np.any(found)
    np.testing.assert_allclose(found, lrp.explain(unrolled, rules)(x, target=0))


def test_what_the_ledger_says_was_seeded():
    kept = lrp.ledger(net, lrp.composites.guided_backprop())(X, target=0)
    assert kept.relevance_out == 2.0
    kept = lrp.ledger(net, lrp.Epsilon())(X, target=0)
    np.testing.assert_allclose(kept.relevance_out, net(X)[:, 0].sum(), rtol=1e-6)


OTHERS = {"tanh": jnp.tanh, "gelu": jax.nn.gelu, "relu6": jax.nn.relu6, "leaky": jax.nn.leaky_relu}
RELUS = {
    "relu": jax.nn.relu,
    "where": lambda x: jnp.where(x > 0, x, 0.0),
    "maximum": lambda x: jnp.maximum(0.0, x),
}


@pytest.mark.parametrize(
    "rule", [lrp.GuidedBackprop(), lrp.Deconvnet(), lrp.BetaSmooth(3.0)], ids=str
)
def test_they_act_on_relus_alone(rule):
    rules = {"dense": lrp.Gradient(), "activation": rule}
    for act in OTHERS.values():
        gradient = jax.grad(lambda x, act=act: (act(x @ W) @ V)[:, 1].sum())(X)
        found = lrp.explain(lambda x, act=act: act(x @ W) @ V, rules)(X, target=1)
        np.testing.assert_allclose(found, gradient, rtol=1e-9)
    found = [
        lrp.explain(lambda x, act=act: act(x @ W) @ V, rules)(X, target=1) for act in RELUS.values()
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    assert not np.allclose(found[0], jax.grad(lambda x: (jax.nn.relu(x @ W) @ V)[:, 1].sum())(X))


def test_the_plan_notes_a_gradient_between_lrp_layers():
    def why(rules):
        return [y.why for y in lrp.plan(net, rules)(X).layers if isinstance(y.rule, lrp.Gradient)]

    between = why({"dense": lrp.Epsilon(), "activation": lrp.Gradient()})
    assert len(between) == 2
    assert all("Taylor()" in text for text in between)
    alone = why(lrp.composites.guided_backprop())
    assert len(alone) == 3
    assert not any("Taylor()" in text for text in alone)
    first = why({lrp.first("dense"): lrp.Gradient(), "activation": lrp.Taylor()})
    assert len(first) == 1
    assert "Taylor()" not in first[0]


# -- rules derived from shipped ones ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class HalfEpsilon(lrp.Epsilon):
    def propagate(self, layer):
        return jax.tree.map(lambda c: c / 2, super().propagate(layer))


@dataclasses.dataclass(frozen=True)
class HalfTaylor(lrp.Taylor):
    def propagate(self, layer):
        return super().propagate(layer) / 2


@dataclasses.dataclass(frozen=True)
class HalfDetach(lrp.Detach):
    def propagate(self, layer):
        return super().propagate(layer) / 2


@dataclasses.dataclass(frozen=True)
class HalfFollow(lrp.Follow):
    def propagate(self, layer):
        return super().propagate(layer) / 2


@dataclasses.dataclass(frozen=True)
class HalfPass(lrp.Pass):
    def propagate(self, layer):
        return layer.relevance / 2


@dataclasses.dataclass(frozen=True)
class HalfWinner(lrp.WinnerTakesAll):
    def propagate(self, layer):
        return super().propagate(layer) / 2


@dataclasses.dataclass(frozen=True)
class Renamed(lrp.Epsilon):
    """Nothing of its own: as its base."""


DERIVED = {
    "dense": (HalfEpsilon(0.0), lrp.Epsilon(0.0), lambda x: x @ W),
    "add": (HalfEpsilon(0.0), lrp.Epsilon(0.0), lambda x: (x @ W)[:, :3] + x),
    "softmax": (HalfTaylor(), lrp.Taylor(), jax.nn.softmax),
    "norm": (HalfDetach(), lrp.Detach(), lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)),
    "structural": (HalfFollow(), lrp.Follow(), lambda x: x[:, ::-1]),
    "activation": (HalfPass(), lrp.Pass(), jax.nn.relu),
    "max_pool": (HalfWinner(), lrp.WinnerTakesAll(), lambda x: x.max(1)),
}


@pytest.mark.parametrize("kind", DERIVED)
@pytest.mark.parametrize("above", ["density", "relevance"])
def test_a_derived_rule_is_asked(kind, above):
    half, whole, fn = DERIVED[kind]
    outer = fn if above == "density" else (lambda x: jax.nn.sigmoid(fn(x)))
    rest = {"activation": lrp.Pass()}
    expected = lrp.explain(outer, {**rest, kind: whole})(X) / 2
    found = lrp.explain(outer, {**rest, kind: half})(X)
    assert np.any(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_renamed_rule_is_its_base():
    np.testing.assert_array_equal(lrp.explain(net, Renamed(0.0))(X), lrp.explain(net, E0)(X))
    assert Renamed(0.0).plain
    assert not HalfEpsilon(0.0).plain


@pytest.mark.parametrize("through", ["cond", "scan", "carry", "nested"])
def test_moves_in_a_body_are_looked_through_as_well(through):
    """What moves an output in a branch or a loop is no maker of it either."""

    def turned(v):
        return v[..., ::-1]

    moves = {
        "cond": lambda v: lax.cond(True, turned, turned, v),
        "scan": lambda v: lax.scan(lambda c, row: (c, turned(row)), 0.0, v)[1],
        "carry": lambda v: lax.scan(lambda c, _: (turned(c), None), v, None, length=3)[0],
        "nested": lambda v: lax.scan(
            lambda c, row: (c, lax.cond(True, turned, turned, row)), 0.0, v
        )[1],
    }
    rules = lrp.composites.guided_backprop()
    expected = lrp.explain(lambda x: turned(jax.nn.relu(x @ W)), rules)(X)
    found = lrp.explain(lambda x: moves[through](jax.nn.relu(x @ W)), rules)(X)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("name", ["gradient", "beta_smooth", "guided_backprop", "deconvnet"])
@pytest.mark.parametrize(
    "number",
    [lambda y: y, lambda y: (2.0 * y) / 2.0, lambda y: -1.0 * (-y), lambda y: y + y + y],
    ids=["none", "halved", "sign", "sum"],
)
def test_an_output_that_holds_the_input_starts_from_the_weight(name, number):
    """No layer makes the input, and the layer that makes the rest decides, whatever follows."""

    def fn(x):
        return number(jnp.concatenate([x, x @ W], -1))

    rules = getattr(lrp.composites, name)()
    np.testing.assert_allclose(
        lrp.explain(fn, rules)(X), jax.grad(lambda x: fn(x).sum())(X), rtol=1e-12
    )


@pytest.mark.parametrize("number", [3.0, -1.0])
def test_a_number_times_the_input(number):
    found = lrp.explain(lambda x: number * x, lrp.composites.gradient())(X)
    np.testing.assert_allclose(found, np.full_like(X, number))


def test_a_number_at_an_output_changes_no_lrp():
    whole = lrp.explain(lambda x: jnp.concatenate([x, x @ W], -1), lrp.composites.epsilon_plus())
    halved = lrp.explain(
        lambda x: 2 * jnp.concatenate([x, x @ W], -1) / 2, lrp.composites.epsilon_plus()
    )
    np.testing.assert_allclose(halved(X), whole(X), rtol=1e-12)
