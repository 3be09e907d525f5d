"""What is known of a group by its sort is copied and compared without a list of its members."""

import dataclasses
from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp.graph.groups import Group
from jaxlrp.graph.particulars import (
    Activation,
    Linear,
    Move,
    Norm,
    Particulars,
    Product,
    Softmax,
    mapped,
)
from jaxlrp.graph.trace import trace
from jaxlrp.planning.layers import Layer
from jaxlrp.rules import Uniform
from jaxlrp.run import inlined_calls
from jaxlrp.run.probes import Probes

GRAPH, _, _ = trace(lambda x: [jnp.exp(x) * 2.0 + 1.0], [np.ones(3)], [("x",)])
A, B, C = GRAPH.eqns
SAMPLES = (
    Linear(A, 1, (B,), (C, A), True, frozenset({0, 2}), "scale"),
    Linear(None, 0, (), (C,), False),
    Norm((A, B), frozenset({C})),
    Softmax(A.out),
    Product((1, -2), (1,), "divides, bounds"),
    Activation(False, True, (0.0, 2.0)),
    Move("move"),
)


def test_there_is_a_sample_of_each_sort():
    assert {type(s) for s in SAMPLES} == set(get_args(Particulars))


@pytest.mark.parametrize("parts", SAMPLES, ids=lambda p: type(p).__name__)
def test_equations_and_values_are_replaced_and_nothing_else(parts):
    places = {A: "a", B: "b", C: "c", A.out: "x"}
    found = mapped(parts, places.__getitem__)
    assert type(found) is type(parts)
    for field in dataclasses.fields(parts):
        before, after = getattr(parts, field.name), getattr(found, field.name)
        if isinstance(before, (tuple, frozenset)):
            assert type(after) is type(before)
            assert sorted(map(str, after)) == sorted(str(places.get(v, v)) for v in before)
        else:
            assert after == places.get(before, before), field.name
    back = {name: x for x, name in places.items()}
    assert mapped(parts, lambda x: back[places[x]]) == parts


def test_a_group_of_another_sort_answers_with_defaults():
    group = Group("activation", [A], [GRAPH.inputs[0]], [A.out], A, Activation(False))
    assert group.particulars_as(Activation) == Activation(False)
    assert group.particulars_as(Product) == Product()
    assert group.linear is None and group.gate is None and group.transport == "linear"
    assert not group.borrowed


def test_calls_whose_particulars_differ_do_not_share_a_function():
    """Copies of one group, of which a later step has learned different things."""
    first = Group("product", [B], [A.out], [B.out], B, Product((1, 1), (0,), "bounds"))
    rule = Uniform()

    def key(particulars):
        group = dataclasses.replace(first, particulars=particulars, like=first)
        layer = Layer("product", "p", (3,), np.dtype(float), "mul", rule, "", 1, group=group)
        return inlined_calls._of_layer(layer, Probes())

    assert key(Product((1, 1), (0,), "bounds")) == key(first.particulars)
    assert key(Product((1, 1), (1,), "bounds")) != key(first.particulars)
    assert key(Softmax(A.out)) != key(Softmax(B.out)) != key(Softmax())
