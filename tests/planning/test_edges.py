"""What each edge carries, density or relevance, by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import jaxlrp as lrp
from tests.common import draw

W, V, U = draw(4, 3), draw(3, 2), draw(4, 4)
X = draw(2, 4, seed=1)
DENSITY, RELEVANCE = "density", "relevance"


def layers_of(fn, rules, **options):
    """(kind, what arrives, what goes on) of every layer but structural ones."""
    plan = lrp.plan(fn, lrp.RuleMap(rules), **options)(X)
    found = [(y.kind, y.arriving, y.carries) for y in plan.layers if y.kind != "structural"]
    return found, plan


def perceptron(x):
    return jax.nn.relu(x @ W) @ V


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"dense": lrp.Epsilon()}, "dd dd dd"),
        ({"dense": lrp.ZPlus(), lrp.first("dense"): lrp.Flat()}, "dr dd dd"),
        # What is sent stays relevance where it is only passed on, until a rule makes a density.
        ({"dense": lrp.Epsilon(), lrp.last("dense"): lrp.WSquare()}, "rd rr dr"),
    ],
    ids=["density", "first sends", "last sends"],
)
def test_a_chain(rules, expected):
    found, _ = layers_of(perceptron, rules)
    kinds = ["dense", "activation", "dense"]
    assert [kind for kind, *_ in found] == kinds
    assert " ".join(a[0] + c[0] for _, a, c in found) == expected


@pytest.mark.parametrize("sender", ["one", "other"])
def test_an_edge_carries_relevance_if_one_of_its_readers_sends_it(sender):
    def fn(x):
        h = x @ U
        with jax.named_scope("one"):
            a = h @ W
        with jax.named_scope("other"):
            b = h @ W
        return a + b

    found, plan = layers_of(fn, {"dense": lrp.Epsilon(), sender: lrp.Flat()})
    sent = [RELEVANCE if name == sender else DENSITY for name in ("one", "other")]
    assert found[0] == ("dense", RELEVANCE, DENSITY)
    assert found[1:3] == [("dense", DENSITY, what) for what in sent]
    hidden = plan.layers[0].group.outputs[0]
    assert plan.edges[hidden] == RELEVANCE


def test_the_seed_of_an_output_is_asked_of_the_rule_that_makes_it():
    _, plan = layers_of(perceptron, {"dense": lrp.Epsilon()})
    assert set(plan.seeds.values()) == {DENSITY}
    _, plan = layers_of(perceptron, lrp.composites.guided_backprop())
    assert set(plan.seeds.values()) == {RELEVANCE}
    # Moves are looked through.
    _, plan = layers_of(lambda x: perceptron(x).T[::-1], lrp.composites.guided_backprop())
    assert set(plan.seeds.values()) == {RELEVANCE}
    # Nothing but moves and winners says that it starts from the weight, whatever the spelling.
    for fn in (lambda x: x.max(-1), lambda x: x.reshape(2, 2, 2).max((1, 2))):
        _, plan = layers_of(fn, lrp.composites.guided_backprop())
        assert set(plan.seeds.values()) == {DENSITY}


def test_the_carry_of_a_scan_carries_relevance_if_any_step_sends_it():
    def fn(x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ U), None), x, None, length=3)[0]

    for rule, expected in ((lrp.Epsilon(), DENSITY), (lrp.Flat(), RELEVANCE)):
        plan = lrp.plan(fn, rule if rule == lrp.Epsilon() else {"dense": rule})(X)
        (source,) = plan.graph.inputs
        assert plan.edges[source] == expected
        (scan,) = [e for e in plan.graph.eqns if e.name == "scan"]
        (body,) = scan.bodies
        carried = [v for v in body.inputs if v in plan.activity.active]
        assert [plan.edges[v] for v in carried] == [expected]


def test_a_carry_that_arrives_as_relevance_is_relevance_before_every_step():
    def fn(x):
        return lax.scan(lambda c, _: (jnp.tanh(c @ U), None), x, None, length=3)[0] @ W

    plan = lrp.plan(fn, {"dense": lrp.Epsilon(), lrp.last("dense"): lrp.Flat()})(X)
    inside, outside = plan.select("dense")
    assert (inside.arriving, inside.carries) == (RELEVANCE, DENSITY)
    assert (outside.arriving, outside.carries) == (DENSITY, RELEVANCE)
    (source,) = plan.graph.inputs
    assert plan.edges[source] == RELEVANCE  # the carry has one sort


@pytest.mark.parametrize(
    ("fn", "rule", "expected"),
    [
        (perceptron, lrp.ZPlus(), True),
        (lambda x: jax.nn.gelu(x @ W) @ V, lrp.ZPlus(), False),  # no ReLU
        (lambda x: jax.nn.relu(x @ W), lrp.ZPlus(), True),
        (lambda x: (lambda z: (jax.nn.relu(z) @ V, z))(x @ W)[0], lrp.ZPlus(), True),
        (lambda x: (lambda z: jax.nn.relu(z) + z)(x @ W), lrp.ZPlus(), False),  # read twice
        (perceptron, lrp.Epsilon(0.0), False),  # the plain derivative runs as it stands
        (lambda x: jax.nn.relu(x @ U) @ U, lrp.Pass(), False),  # relevance arrives
    ],
    ids=["relu", "gelu", "at the end", "dropped", "read twice", "plain", "relevance"],
)
def test_a_relu_that_runs_with_the_layer_before_it(fn, rule, expected):
    plan = lrp.plan(fn, {"dense": rule})(X)
    first = next(y for y in plan.layers if y.kind == "dense")
    assert (first.relu is not None) == expected
