"""One layer on arrays: unchanged, or as a function whose backward pass is its rule."""

from __future__ import annotations

import textwrap
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.errors import RuleError
from jaxlrp.graph.groups import Group
from jaxlrp.graph.particulars import Softmax
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.run import accounts, evaluate, masked_softmax
from jaxlrp.run.evaluate import Counted, Env
from jaxlrp.run.late_splits import Waiting, waiting
from jaxlrp.run.state import RunState
from jaxlrp.run.view import View


def is_plain(layer: Layer) -> bool:
    """Whether the rule of a layer is its derivative."""
    if not layer.rule.plain:
        return False
    if layer.arriving == "density":
        return True
    return layer.rule.follows and group_of(layer).transport == "move"


def plain(group: Group, inputs: tuple[Any, ...], outside: Env) -> tuple[Any, ...]:
    """Evaluate a layer whose rule is its derivative."""
    softmax = group.particulars_as(Softmax)
    given = inputs
    if softmax.logits in group.inputs:
        inputs = tuple(masked_softmax.without_arrivals(x, softmax) for x in inputs)
    local = {**outside, **dict(zip(group.inputs, inputs, strict=True))}
    evaluate.run(group.eqns, local, detached=group.detached)
    if softmax.logits in group.inputs:
        local |= dict(zip(group.inputs, given, strict=True))
    return masked_softmax.without_weights(group, given, local)


def ruled(
    state: RunState,
    layer: Layer,
    inputs: tuple[Any, ...],
    outside: Env,
    account: Any,
    relu: Layer | None = None,
    shared: bool = False,
) -> tuple[Any, ...]:
    """Evaluate a layer as a function whose backward pass is its rule.

    With `relu` the output is that of the ReLU after the layer, and the density there arrives. Where
    the ReLU is shut nothing arrives, and elsewhere its output is z, so the rule reads it as z. With
    `shared`, without an account, JAX traces the backward pass once for all layers that it runs.
    """
    group = group_of(layer)
    # JAX keeps the objects that these functions close over, so none may hold arrays, as probes do.
    keys, late, precision, plan = list(outside), waiting(), state.precision, state.plan

    def forward(inputs: tuple[Any, ...], arrays: list[Any]) -> tuple[Any, ...]:
        env = dict(zip(keys, arrays, strict=True))
        for value, array in zip(group.inputs, inputs, strict=True):
            env[value] = precision.narrow(array, value)
        evaluate.run(group.eqns, env)
        if relu is not None:
            evaluate.run(group_of(relu).eqns, env)
            return (env[relu.output],)
        outputs = masked_softmax.without_weights(group, tuple(env[v] for v in group.inputs), env)
        pairs = zip(outputs, group.outputs, strict=True)
        return tuple(precision.widen(y, v) for y, v in pairs)

    def shown(x: Any, arrays: list[Any], z: Any, came: Any) -> tuple[View, tuple[Any, ...]]:
        env = dict(zip(keys, arrays, strict=True))
        return _backward(layer, x, env, z, came, relu is not None, late)

    backward = jax.jit(lambda *given: shown(*given)[1], inline=True) if shared else None

    @jax.custom_vjp
    def call(inputs: Any, arrays: list[Any], account: Any) -> Any:
        return forward(inputs, arrays)

    def call_forward(inputs: Any, arrays: list[Any], account: Any) -> Any:
        outputs = forward(inputs, arrays)
        return outputs, (inputs, arrays, outputs, account)

    def call_backward(kept: Any, arrived: Any) -> Any:
        inputs, arrays, outputs, account = kept
        x, z, came = (tuple(map(evaluate.number_of, v)) for v in (inputs, outputs, arrived))
        if backward is not None:
            back = backward(x, arrays, z, came)
        else:
            view, back = shown(x, arrays, z, came)
            if account is not None:
                account = accounts.of_layer(plan, layer, view, x, back, account)
        pairs = zip(inputs, back, strict=True)
        back = tuple(Counted(c, None) if isinstance(x, Counted) else c for x, c in pairs)
        return back, None, account

    call.defvjp(call_forward, call_backward)
    outputs = call(inputs, list(outside.values()), account)
    return tuple(
        y._replace(exact=compat.without_derivative(y.exact)) if isinstance(y, Counted) else y
        for y in outputs
    )


def _named(layer: Layer) -> str:
    return f"the {layer.kind} layer {layer.name!r} ({layer.source})"


def _shapes(inputs: tuple[Any, ...]) -> str:
    shapes = [f"{x.dtype}{list(x.shape)}" for x in inputs]
    return f"an array {shapes[0]}" if len(shapes) == 1 else f"a tuple of {', '.join(shapes)}"


def _unfit(back: tuple[Any, ...], inputs: tuple[Any, ...]) -> str | None:
    """The fault in a rule's result, which has an entry for each input, of its shape."""
    if len(back) != len(inputs):
        return f"{len(back)} entries" if len(back) != 1 else "one entry"
    for i, (given, x) in enumerate(zip(back, inputs, strict=True)):
        place = f" in place {i}" if len(back) > 1 else ""
        is_number = isinstance(given, (int, float, complex)) and not isinstance(given, bool)
        if not is_number and not (hasattr(given, "shape") and hasattr(given, "dtype")):
            return f"{textwrap.shorten(repr(given), 60)} of type {type(given).__name__}{place}"
        dtype = jnp.result_type(given)
        is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
        real = not jnp.issubdtype(x.dtype, jnp.complexfloating)
        if not jnp.issubdtype(dtype, jnp.number) or (is_complex and real):
            return f"an array of dtype {dtype}{place}"
        if jnp.shape(given) not in ((), jnp.shape(x)):
            return f"an array of shape {jnp.shape(given)}{place}"
    return None


def _backward(
    layer: Layer,
    inputs: tuple[Any, ...],
    outside: Env,
    outputs: tuple[Any, ...],
    arrived: tuple[Any, ...],
    relu: bool,
    late: Waiting,
) -> tuple[View, tuple[Any, ...]]:
    output, came = (outputs[0], arrived[0]) if len(outputs) == 1 else (outputs, arrived)
    view = View(layer, inputs, outside, output, came, relu, late if len(outputs) == 1 else None)
    try:
        back = layer.rule.propagate(view)
    except Exception as error:  # an error of a rule is raised again, with the layer's name
        error.add_note(f"jaxlrp: while {layer.rule} was applied to {_named(layer)}.")
        raise
    back = back if isinstance(back, tuple) else (back,)
    wrong = _unfit(back, inputs)
    if wrong is not None:
        raise RuleError(
            f"{layer.rule} returned {wrong} for {_named(layer)}; expected {_shapes(inputs)}, the "
            f"{layer.carries} at its active input{'s' if len(inputs) > 1 else ''}."
        )
    back = tuple(
        compat.typed_like(jnp.broadcast_to(c, x.shape).astype(x.dtype), x)
        for c, x in zip(back, inputs, strict=True)
    )
    return view, back
