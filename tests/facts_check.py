"""Every fact that is claimed about a graph, checked on numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import compat
from jaxlrp.graph import control_flow
from jaxlrp.graph.axes import Statics
from jaxlrp.graph.intervals import Intervals
from jaxlrp.graph.ir import Literal
from jaxlrp.graph.trace import trace


def claims(fn, *args):
    """The graph of a function with its bounds and axes."""
    shapes = [jax.ShapeDtypeStruct(jnp.shape(a), jnp.asarray(a).dtype) for a in args]
    graph, consts, _ = trace(fn, shapes, [()] * len(args))
    return graph, consts, Intervals(graph), Statics(graph)


def check(fn, *samples):
    """Run a function on each sample of arguments, and compare all values with what is claimed.

    Returns how many values had a bound that says something.
    """
    graph, consts, bounds, statics = claims(fn, *samples[0])
    said, tainted = set(), set()

    def visit(value, array, made_of=()):
        """NaN is left out of account, and what is made of it: a comparison makes numbers of it."""
        array = np.asarray(array)
        if not tainted.isdisjoint(made_of) or (array != array).any():
            tainted.add(value)
            return
        _compare(value, array, bounds, statics)
        if np.isfinite(bounds[value]).any():
            said.add(value)

    for args in samples:
        tainted.clear()
        env = {v: jnp.asarray(a) for v, a in zip(graph.inputs, args, strict=True)}
        env.update({v: jnp.asarray(a) for (v, _), a in zip(graph.consts, consts, strict=True)})
        for value, array in list(env.items()):
            visit(value, array)
        _run(graph, env, visit)
    return len(said)


def _run(graph, env, visit):
    def read(value):
        return env[value] if value in env else jnp.asarray(value.val, value.dtype)

    def give(value, array, made_of):
        env[value] = array
        if hasattr(value.aval, "dtype") and not jnp.issubdtype(value.dtype, jax.dtypes.extended):
            visit(value, array, made_of)

    for eqn in graph.eqns:
        for value in eqn.inputs:
            if isinstance(value, Literal):
                visit(value, read(value))
        values = [read(v) for v in eqn.inputs]
        if eqn.name == "cond":
            body = eqn.bodies[int(values[0])]
            outputs = _body(body, values[1:], env, visit, eqn.inputs)
        elif eqn.name == "scan":
            outputs = _scan(eqn, values, env, visit)
        else:
            outputs = compat.bind(eqn.prim, eqn.params, values)
        for value, array in zip(eqn.outputs, outputs, strict=True):
            give(value, array, eqn.inputs)
    return [read(v) for v in graph.outputs]


def _body(body, values, env, visit, made_of):
    inner = dict(env)
    for value, array in zip(body.inputs, values, strict=True):
        inner[value] = array
        visit(value, array, made_of)
    return _run(body, inner, visit)


def _scan(eqn, values, env, visit):
    (body,) = eqn.bodies
    n_consts, n_carry = control_flow.scan_parts(eqn, body)
    length = control_flow.scan_length(eqn)
    consts, carry = values[:n_consts], values[n_consts : n_consts + n_carry]
    sequences, stacked = values[n_consts + n_carry :], []
    order = range(length)[::-1] if eqn.params["reverse"] else range(length)
    for i in order:
        outputs = _body(body, [*consts, *carry, *(s[i] for s in sequences)], env, visit, eqn.inputs)
        carry = outputs[:n_carry]
        stacked.append(outputs[n_carry:])
    stacked = stacked[::-1] if eqn.params["reverse"] else stacked
    ys = [
        jnp.stack([s[n] for s in stacked]) if stacked else jnp.zeros(v.shape, v.dtype)
        for n, v in enumerate(eqn.outputs[n_carry:])
    ]
    return [*carry, *ys]


def _compare(value, array, bounds, statics):
    what = f"{value.producer.name if value.producer else 'input'} at {value.shape}{value.dtype}"
    varying = statics.varying_axes(value)
    for axis in range(array.ndim):
        if axis not in varying and array.size:
            same = np.take(array, [0], axis)
            equal = (array == same) | ((array != array) & (same != same))
            assert equal.all(), f"{what}: varies along {axis}, claimed {sorted(varying)}"
    if np.issubdtype(array.dtype, np.complexfloating) or not array.size:
        return
    numbers = array.astype(np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if not numbers.size:
        return
    low, high = bounds[value]
    assert low <= numbers.min(), f"{what}: {numbers.min()!r} below {low!r}"
    assert numbers.max() <= high, f"{what}: {numbers.max()!r} above {high!r}"
    constant = bounds.constant(value)
    if constant is not None:
        exact = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
        eps = 0.0 if exact or np.isinf(constant) else float(jnp.finfo(array.dtype).eps)
        close = np.isclose(numbers, constant, rtol=64 * eps, atol=64 * eps)
        assert close.all(), f"{what}: {numbers} is not {constant!r}"
