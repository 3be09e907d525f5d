"""The ledger: by sample, under transformations, over data sets, and compiled once."""

import dataclasses
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp.errors import InputError
from jaxlrp.run import reuse
from tests.numpy_jaxpr import in_numpy

RNG = np.random.default_rng(5)
W, V = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 3))
KERNEL = RNG.normal(size=(3, 3, 1, 2))
X = RNG.normal(size=(3, 4))


def mlp(x):
    return jax.nn.relu(x @ W + 0.5) @ V


def conv(x):
    numbers = ("NHWC", "HWIO", "NHWC")
    z = lax.conv_general_dilated(x[..., None], KERNEL, (1, 1), "SAME", dimension_numbers=numbers)
    z = lax.reduce_window(jax.nn.relu(z), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return z.reshape(len(x), -1) @ np.ones((8, 3))


def attention(x):
    """Tokens of all examples in one axis, and heads beside examples, as libraries write it."""
    n, t, d = x.shape
    h = (x.reshape(n * t, d) @ W).reshape(n, t, 2, 2).transpose(0, 2, 1, 3).reshape(n * 2, t, 2)
    a = jax.nn.softmax(jnp.einsum("bid,bjd->bij", h, h))
    mixed = jnp.einsum("bij,bjd->bid", a, h).reshape(n, 2, t, 2).transpose(0, 2, 1, 3)
    return (mixed.reshape(n, t, d) + x).mean(1) @ V


def recurrent(x):
    def step(c, a):
        return jnp.tanh(a @ W + c @ W), c

    start = jnp.ones((len(x), 4))
    end, states = lax.scan(step, start, x.swapaxes(0, 1))
    return (end + states[-1]) @ V


def branches(x):
    y = lax.cond(jnp.asarray(True), lambda x: x @ W, lambda x: jnp.zeros_like(x), x)
    return jnp.concatenate([y, jnp.ones((len(x), 1))], 1) @ np.concatenate([V, V[:1]])


NETWORKS = {
    "mlp": (mlp, X),
    "conv": (conv, RNG.normal(size=(3, 4, 4))),
    "attention": (attention, RNG.normal(size=(3, 5, 4))),
    "recurrent": (recurrent, RNG.normal(size=(3, 5, 4))),
    "branches": (branches, X),
}


def numbers(ledger):
    """All numbers of a ledger, those by sample too."""
    return jax.tree.leaves(ledger)


def assert_same(a, b):
    for x, y in zip(numbers(a), numbers(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9 * np.abs(y).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_is_the_sum_of_its_samples(name):
    """Of the sums by the sign of each sample too: so every layer knows where its examples lie."""
    fn, x = NETWORKS[name]
    rules = lrp.composites.epsilon_plus(epsilon=0.1)
    ledger = lrp.ledger(fn, rules) if name == "mlp" else in_numpy(lrp.ledger(fn, rules))
    batch = ledger(x, target=1)
    assert batch.samples == len(x)
    mapped = jax.vmap(lrp.ledger(lambda x: fn(x[None])[0], rules, argnums=0))
    alone = [ledger(x[n : n + 1], target=1) for n in range(len(x))]
    assert_same(batch, sum(alone))
    if name == "mlp":
        each = mapped(x)
        assert each.relevance_out.shape == (3,) == each.layers[0].bias.shape == each.share.shape
        whole = [lrp.ledger(fn, rules)(x[n : n + 1]) for n in range(len(x))]
        np.testing.assert_allclose(each.relevance_in, [e.relevance_in for e in whole], rtol=1e-9)
        np.testing.assert_allclose(
            each.layers[-1].bias, [e.layers[-1].bias for e in whole], rtol=1e-9
        )
        assert each.verdict == each.summed().verdict
        assert "3 samples" in str(each)


@pytest.mark.parametrize(
    ("fn", "shape", "expected"),
    [
        (mlp, (4,), 1),  # no batch
        (mlp, (3, 4), 3),
        (lambda x: (x - x.mean(0)) @ V, (3, 4), 1),  # as BatchNorm in training mode
        (lambda x: x[::-1] @ V, (3, 4), 1),
        (lambda x: x[np.array([1, 0, 2])] @ V, (3, 4), 1),
        (lambda x: jnp.sort(x, axis=0) @ V, (3, 4), 1),
        (lambda x: jnp.sort(x, axis=1) @ V, (3, 4), 3),
        (lambda x: lax.cummax(x, 0) @ V, (3, 4), 1),
        (lambda x: jnp.cumsum(x, 1) @ V, (3, 4), 3),
        (lambda x: jax.nn.softmax(x @ x.T) @ x, (3, 4), 1),  # tokens, not examples
        (lambda x: x.T.reshape(3, 4), (3, 4), 1),
        (lambda x: jnp.concatenate([x[1:], x[:1]]), (3, 4), 1),
        (lambda x: x.sum(1), (3, 4), 3),
        (lambda x: x.sum(), (3, 4), 1),
        (lambda x: lax.cond(x[0, 0] > 0, lambda x: x, lambda x: -x, x), (3, 4), 1),
        (lambda x: lax.scan(lambda c, a: (c + a, c), jnp.zeros(4), x)[1], (3, 4), 1),
    ],
)
def test_which_axis_holds_examples(fn, shape, expected):
    x = RNG.normal(size=shape)
    assert lrp.plan(fn, lrp.Epsilon(0.1))(x).examples.count == expected
    changed = np.array(x)
    changed[0] += 10.0
    if expected > 1:
        np.testing.assert_array_equal(fn(changed)[1:], fn(x)[1:])


def test_samples_of_opposite_sign_do_not_cancel_in_the_verdict():
    # Outputs 3 and -3; a bias of 1 and -1 in them: two thirds arrive in each.
    x, bias = np.array([[2.0], [-2.0]]), np.array([[1.0], [-1.0]])

    def fn(x):
        return x @ np.ones((1, 1)) + bias

    ledger = lrp.ledger(fn, lrp.Epsilon(0.0))(x, target=0)
    assert (ledger.relevance_out, ledger.relevance_in, ledger.samples) == (0.0, 0.0, 2)
    assert ledger.gross_out == 6.0 and ledger.gross_in == 4.0
    assert ledger.share == pytest.approx(2 / 3, rel=1e-12)
    assert ledger.spread == pytest.approx(1 / 3, rel=1e-12)
    assert "66.7% of the seeded relevance arrived; taken by biases +33.3%" in ledger.verdict
    assert "most in dense" in ledger.verdict and "2 samples" in ledger.verdict


def test_one_sample_too_much_and_one_too_little_is_not_conserved():
    # 4 arrives of 3, and 2 of 3.
    def fn(x):
        return x @ np.ones((1, 1)) + np.array([[-1.0], [1.0]])

    ledger = lrp.ledger(fn, lrp.Epsilon(0.0))(np.array([[4.0], [2.0]]), target=0)
    assert ledger.conservation == ledger.share == 1.0
    assert ledger.spread == pytest.approx(1 / 3, rel=1e-12)
    assert "Conserved" not in ledger.verdict and "33.3% off" in ledger.verdict


def test_relevance_that_cancels_is_seen():
    def fn(x):
        return x @ np.array([[1.0], [-1.0]])

    ledger = lrp.ledger(fn, lrp.Epsilon(0.0))(np.array([21.0, 20.0]), target=0)
    assert (ledger.relevance_in, ledger.gross_in) == (1.0, 41.0)
    assert (ledger.layers[0].gross_out, ledger.layers[0].gross_in) == (1.0, 41.0)
    assert "Conserved" in ledger.verdict and "4100%" in ledger.verdict


def column(ledger, name):
    return sum(getattr(e, name) for e in ledger.layers)


def test_what_lands_on_constants_has_a_column():
    def held(x):
        return jnp.stack([x, lax.stop_gradient(x)]).ravel()

    ledger = lrp.ledger(held, lrp.Epsilon(0.0))(np.array([1.0, 2.0]))
    assert (ledger.relevance_out, ledger.relevance_in) == (6.0, 3.0)
    assert (column(ledger, "constants"), column(ledger, "rule_loss")) == (3.0, 0.0)
    assert "constants +50.0%, rules +0.0%" in ledger.verdict
    assert "constants" in str(ledger).split("\n")[0] and "bias" not in str(ledger).split("\n")[0]

    # A branch that gives a constant, and an output that is one.
    def pick(x):
        return (lax.cond(True, jnp.ones_like, lambda x: x, x), jnp.full(2, 7.0))

    ledger = lrp.ledger(lambda x: (pick(x)[0] + x, pick(x)[1]), lrp.Epsilon(0.0))(np.ones(2))
    assert (ledger.relevance_out, ledger.relevance_in) == (18.0, 2.0)
    assert column(ledger, "constants") == 2.0  # and 14 in the output itself
    assert "taken by biases +0.0%, stabilisers +0.0%, constants +88.9%" in ledger.verdict

    # A carry that every iteration replaces.
    def fn(x):
        return lax.scan(lambda c, _: (jnp.ones_like(c), c * 2.0), x, None, length=3)[1]

    ledger = lrp.ledger(fn, lrp.Epsilon(0.0))(np.ones(2))
    assert (ledger.relevance_out, ledger.relevance_in) == (12.0, 4.0)
    assert (column(ledger, "constants"), column(ledger, "rule_loss")) == (8.0, 0.0)


def test_nan_is_said():
    x = X.copy()
    x[1, 0] = np.nan
    ledger = lrp.ledger(mlp, lrp.Epsilon())(x, target=0)
    assert ledger.verdict.startswith("Not a number: relevance in 1 of 3 samples is NaN or infinite")
    assert "nan" in str(ledger)

    def fn(x):
        with jax.named_scope("here"):
            return lax.rsqrt(x - 1.0)

    verdict = lrp.ledger(lambda x: fn(x) @ np.ones((2, 1)), lrp.Epsilon())(np.ones(2)).verdict
    assert "NaN or infinite, first" in verdict


def test_rows_run_from_the_output_to_the_input_and_show_epsilon():
    ledger = lrp.ledger(mlp, {"dense": lrp.ZPlus()})(X[0], target=0)
    assert [e.kind for e in ledger.layers] == ["dense", "activation", "dense"]
    assert ledger.layers[0].relevance_out == ledger.relevance_out
    assert ledger.layers[-1].relevance_in == pytest.approx(ledger.relevance_in, rel=1e-12)
    assert ledger.layers[0].rule == "ZPlus(epsilon=1e-06)" and ledger.layers[1].rule == "Pass()"
    rules = {"dense": lrp.Epsilon(0.1)}
    some = lrp.ledger(mlp, rules, layers=["activation"])(X[0], target=0)
    assert [e.kind for e in some.layers] == ["activation"]
    verdict = lrp.ledger(mlp, rules)(X[0], target=0).verdict
    assert "taken by" in verdict
    assert some.verdict.split(";")[1] == verdict.split(";")[1]  # of all layers, not of one


def test_under_jit_vmap_and_scan():
    keep = lrp.ledger(mlp, lrp.Epsilon(0.1))
    plain = keep(X[0], target=1)
    assert_same(jax.jit(lambda x: keep(x, target=1))(X[0]), plain)
    seen = []
    jax.jit(lambda x: seen.append(str(keep(x))) or x)(X[0])
    assert seen == ["a ledger of 3 layers, without numbers yet: it is traced"]
    first = jax.tree.map(jnp.zeros_like, keep(X[0]))
    total, each = lax.scan(lambda c, x: (c + keep(x), keep(x).share), first, X)
    assert_same(total, sum(keep(x) for x in X))
    np.testing.assert_allclose(each, [keep(x).share for x in X], rtol=1e-9)


def test_ledgers_of_different_plans_are_not_added():
    ledgers = [lrp.ledger(mlp, lrp.Epsilon(e))(X) for e in (0.1, 0.2)]
    expected = r"with Epsilon\(epsilon=0.1\) and dense .* with Epsilon\(epsilon=0.2\)"
    with pytest.raises(InputError, match=expected):
        sum(ledgers)


TRACES = []


@dataclasses.dataclass(frozen=True)
class Counting(lrp.Rule):
    """A rule that counts how often it is traced."""

    factor: float = 1.0

    def propagate(self, layer):
        TRACES.append(layer)
        return layer.map(signed=self.factor).T(layer.density)


# As a rule of the library: programs with one of a user's own are not kept.
Counting.__module__ = lrp.__name__


def traces(fn, *args, rules=None, **options):
    TRACES.clear()
    ledger = lrp.ledger(fn, rules or {"dense": Counting()}, **options)(*args)
    return len(TRACES), ledger.relevance_in


def test_the_same_plan_is_compiled_once_and_never_stale():
    def made(w, places=(0, 1)):
        return lambda x: (x @ w)[..., jnp.array(places)] @ np.ones((2, 2))

    assert traces(made(W), X)[0] == 2
    # Another closure, other weights, another target: the same program, and the numbers of these.
    count, arrived = traces(made(2 * W), X)
    assert count == 0
    expected = lrp.explain(made(2 * W), {"dense": Counting()})(X).sum()
    np.testing.assert_allclose(arrived, expected, rtol=1e-9)
    for other in (
        traces(made(W), X[:2]),  # shapes
        traces(made(W), X.astype(np.float32)),
        traces(made(W, (1, 2)), X),  # places that the plan may know
        traces(lambda x: made(W)(2.0 * x), X),
        traces(made(W), X, rules={"dense": Counting(2.0)}),
    ):
        assert other[0] > 0
    assert traces(made(W), X)[0] == 0


def test_rules_with_arrays_are_compared_by_content():
    def box(low):
        return {"dense": Counting(), lrp.first("dense"): lrp.ZBox(low, np.full(4, 9.0))}

    assert traces(mlp, X, rules=box(np.full(4, -9.0)))[0] == 1
    assert traces(mlp, X, rules=box(np.full(4, -9.0)))[0] == 0
    assert traces(mlp, X, rules=box(np.full(4, -8.0)))[0] == 1

    # A rule with a traced parameter belongs to the trace around it.
    def run(e):
        return lrp.ledger(mlp, {"dense": lrp.Epsilon(e)})(X).relevance_in

    np.testing.assert_allclose(jax.jit(run)(0.3), run(0.3), rtol=1e-9)


def test_nothing_of_the_users_is_kept():
    class Model:
        def __init__(self):
            self.w = jnp.asarray(RNG.normal(size=(4, 2)))

        def __call__(self, x):
            return jax.nn.relu(x @ self.w) @ np.ones((2, 2))

    model, x = Model(), jnp.asarray(X)
    watched = [weakref.ref(a) for a in (model.w, model, x)]
    lrp.ledger(model, lrp.Epsilon(0.017))(x)
    count = len(reuse._plans)
    del model, x, Model
    gc.collect()
    assert [ref() for ref in watched] == [None, None, None]
    assert count == len(reuse._plans) <= reuse._KEPT


def test_the_number_of_programs_is_bounded(monkeypatch):
    monkeypatch.setattr(reuse, "_KEPT", 3)
    for n in range(5):
        lrp.ledger(lambda x, n=n: x * (n + 2.0), lrp.Epsilon())(X)
    assert len(reuse._plans) == 3
