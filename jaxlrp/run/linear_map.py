"""The linear part of a layer as a map whose weights can be replaced by functions of them.

Where every scale around the core varies along the kernel's own axes, scales fold into the kernel,
and any combination of W, W+, W- and |W| costs one product (`_KernelMap`). Otherwise the layer's
own equations run with absolute or squared static factors (`_ProgramMap`): exact for scales that
depend on position too, because each input reaches each output along one way; W+ = (W + |W|)/2
then costs two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.errors import RuleError
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import input_features, output_features
from jaxlrp.graph.primitives import (
    ADDITIONS,
    COPIES,
    DEVICE_MOVES,
    DEVICE_SUMS,
    FIXED_LINEAR,
    LINEAR_CORES,
    MOVES,
    carrying,
)
from jaxlrp.run import evaluate
from jaxlrp.run.evaluate import Env
from jaxlrp.run.kernels import (
    contraction_count,
    scale_conv_kernel,
    scale_dot_kernel,
    thin,
    window_count,
)

Weights = Callable[[Any], Any]
_UNMAPPED = frozenset({"fft", "complex", "real", "imag", "conj", "triangular_solve"})


class _Map:
    """A linear function of the layer's active inputs, with its transpose."""

    def __init__(self, function: Callable[[Any], Any], like: Any):
        self._function = function
        self._like = like

    def __call__(self, x: Any) -> Any:
        return self._function(x)

    def T(self, s: Any) -> Any:
        return compat.linear_transpose(self._function, self._like, s)


def combination(signed: float, positive: float, negative: float, absolute: float) -> Weights:
    """The weights signed*W + positive*W+ + negative*W- + absolute*|W|, elementwise."""

    def weights(w: Any) -> Any:
        parts = [
            (signed, lambda: w),
            (positive, lambda: jnp.maximum(w, 0)),
            (negative, lambda: jnp.minimum(w, 0)),
            (absolute, lambda: jnp.abs(w)),
        ]
        terms = [c * part() for c, part in parts if not _is_zero(c)]
        return sum(terms[1:], terms[0]) if terms else jnp.zeros_like(w)

    return weights


def _is_zero(c: Any) -> bool:
    return isinstance(c, (int, float)) and c == 0


class LinearLayer:
    """A linear group with the arrays that it reads, ready to be mapped."""

    def __init__(self, group: Group, statics: Env, x: Any):
        self.group = group
        self.statics = statics
        self.like = x

    def map(self, signed: float, positive: float, negative: float, absolute: float) -> _Map:
        if self._has_kernel:
            return self._with_kernel(combination(signed, positive, negative, absolute))
        # W+ = (W + |W|)/2, W- = (W - |W|)/2: two runs of the layer's own equations.
        plain = signed + (positive + negative) / 2
        magnitude = absolute + (positive - negative) / 2

        def function(x: Any) -> Any:
            total = 0.0
            if not _is_zero(plain):
                total = total + plain * self._program(x, lambda w: w, signs=True)
            if not _is_zero(magnitude):
                total = total + magnitude * self._program(x, jnp.abs)
            return total

        return _Map(function, self.like)

    def squares(self) -> _Map:
        if self._has_kernel:
            return self._with_kernel(jnp.square)
        return _Map(lambda x: self._program(x, jnp.square), self.like)

    def ones(self) -> _Map:
        if self._has_kernel:
            return _Map(self._with_ones, self.like)
        return _Map(lambda x: self._program(x, jnp.ones_like), self.like)

    # -- scales folded into the kernel ------------------------------------------------------

    @property
    def _has_kernel(self) -> bool:
        affine = self.group.affine
        return affine is not None and affine.folds

    def kernel(self) -> Any:
        """The effective kernel, in the core's own layout; a scale alone if there is no core."""
        affine = self.group.affine
        assert affine is not None
        if affine.core is None:
            return self._slope(affine.post, None)
        core, operand = affine.core, affine.operand
        kernel = evaluate.as_number(evaluate.read(self.statics, core.inputs[1 - operand]))
        after = self._slope(affine.post, output_features(core, operand))
        before = self._slope(affine.pre, input_features(core, operand))
        if core.name == "conv_general_dilated":
            return scale_conv_kernel(core, kernel, before, after)
        return scale_dot_kernel(core, operand, kernel, before, after)

    def _slope(self, chain: list[Eqn], features: frozenset[int] | None) -> Any:
        """Product of the scales of a chain, of size 1 along all but the feature axes."""
        slope: Any = None
        sign = 1
        for eqn in chain:
            if eqn.name == "neg":
                sign = -sign
            if eqn.name == "sub" and eqn.inputs[0] in self.statics_of(eqn):
                sign = -sign
            if eqn.name not in ("mul", "div"):
                continue
            value = self.statics_of(eqn)[0]
            scale = evaluate.as_number(evaluate.read(self.statics, value))
            if features is not None and scale.ndim > 0:
                scale = thin(scale, features)
            if eqn.name == "div":
                slope = 1 / scale if slope is None else slope / scale
            else:
                slope = scale if slope is None else slope * scale
        if slope is None:
            return None if sign == 1 else -1.0
        return slope if sign == 1 else -slope

    def statics_of(self, eqn: Eqn) -> list[Value]:
        """Operands of a chain's equation that are no link of the chain."""
        links = {v for e in self.group.eqns for v in e.outputs} | set(self.group.inputs)
        return [v for v in eqn.inputs if v not in links]

    def _with_kernel(self, weights: Weights) -> _Map:
        affine = self.group.affine
        assert affine is not None
        core, kernel = affine.core, self.kernel()
        if core is None:
            scale = weights(jnp.asarray(1.0 if kernel is None else kernel))
            return _Map(lambda x: (x * scale).astype(x.dtype), self.like)
        changed, first = weights(kernel), affine.operand == 0

        def function(x: Any) -> Any:
            x = _over_devices(affine.pre, x)
            params = evaluate.widened_params(core.params, x.dtype)
            operands = (x, changed) if first else (changed, x)
            return _over_devices(affine.post, compat.bind(core.prim, params, operands)[0])

        return _Map(function, self.like)

    def _with_ones(self, x: Any) -> Any:
        """Counts and spreads: a window sum over one channel, or a sum over contracted axes."""
        affine = self.group.affine
        assert affine is not None
        core = affine.core
        if core is None:
            return x * jnp.ones((), x.dtype)
        x = _over_devices(affine.pre, x)
        if core.name == "conv_general_dilated":
            count = window_count(core, x)
        else:
            count = contraction_count(core, affine.operand, x)
        return _over_devices(affine.post, count)

    # -- the layer's own equations ----------------------------------------------------------

    def _program(self, x: Any, weights: Weights, signs: bool = False) -> Any:
        """Run the group with static factors replaced and static terms left out."""
        xs = x if isinstance(x, tuple) else (x,)
        env: Env = dict(zip(self.group.inputs, xs, strict=True))
        for eqn in self.group.eqns:
            outs = _linear_step(eqn, env, self.statics, weights, signs)
            env.update(zip(eqn.outputs, outs, strict=True))
        return env[self.group.outputs[0]]


def _over_devices(chain: list[Eqn], x: Any) -> Any:
    """What a chain does over devices: sums, and marks of where a value is the same."""
    for eqn in chain:
        if eqn.name in DEVICE_SUMS | DEVICE_MOVES:
            (x,) = compat.bind(eqn.prim, eqn.params, (x,))
    return x


def feature_axes(group: Group) -> tuple[int, ...]:
    """Axes of the output over which one example's features lie: all but batch and free axes."""
    rank = group.outputs[0].ndim
    affine = group.affine
    core = affine.core if affine is not None else None
    known = core is not None and core.name in ("dot_general", "conv_general_dilated")
    if affine is None or core is None or core.out.ndim != rank or not known:
        return (rank - 1,) if rank else ()
    if core.name == "conv_general_dilated":
        batch = core.params["dimension_numbers"].out_spec[0]
        return tuple(i for i in range(rank) if i != batch)
    batch_axes = range(len(core.params["dimension_numbers"][1][0]))
    return tuple(sorted(output_features(core, affine.operand) - set(batch_axes)))


def constant(group: Group, x: Any, value: Any) -> Any:
    """`value` as an input of the layer, of size 1 along the axes that the core maps one by one."""
    shape = list(x.shape)
    affine = group.affine
    core = affine.core if affine is not None else None
    whole = any(eqn.name == "reduce_scatter" for eqn in group.eqns)  # it splits an axis
    if affine is not None and core is not None and affine.folds and not affine.pre and not whole:
        given = (1,) * (x.ndim - jnp.ndim(value)) + jnp.shape(value)
        for axis in _free_axes(core, affine.operand):
            shape[axis] = given[axis]
    return jnp.broadcast_to(jnp.asarray(value, x.dtype), shape)


def _free_axes(core: Eqn, operand: int) -> tuple[int, ...]:
    """Axes of the active operand along which the core does the same to every element."""
    if core.name == "conv_general_dilated":
        single = operand == 0 and core.params["batch_group_count"] == 1
        return (core.params["dimension_numbers"].lhs_spec[0],) if single else ()
    kept = input_features(core, operand)
    if not kept:  # nothing is known of its axes
        return ()
    return tuple(i for i in range(core.inputs[operand].ndim) if i not in kept)


def bias_of(group: Group, statics: Env) -> Any:
    """The layer's output for a zero input, of size 1 where it does not vary; 0.0 if it has none.

    Zeros are symbolic: no product is computed unless a shift comes before the core.
    """
    env: Env = {}  # values that are not zero
    links = {v for e in group.eqns for v in e.outputs} | set(group.inputs)
    norm_tail = group.affine.post if group.kind == "norm" and group.affine is not None else None
    for eqn in group.eqns if norm_tail is None else norm_tail:
        active = [v for v in eqn.inputs if v in links]
        static = [v for v in eqn.inputs if v not in links]
        value = next((env[v] for v in active if v in env), None)
        if eqn.name in ADDITIONS and len(active) == 1:
            term = evaluate.as_number(evaluate.read(statics, static[0]))
            if eqn.name == "sub":
                first = eqn.inputs[0] is active[0]
                zero = 0.0 if value is None else value
                env[eqn.out] = zero - term if first else term - zero
            else:
                env[eqn.out] = term if value is None else value + term
        elif value is None and eqn.name in MOVES and _adds_constant(eqn, static):
            operands = [
                jnp.zeros(v.shape, evaluate.as_number(jnp.zeros((), v.dtype)).dtype)
                if v in links
                else evaluate.read(statics, v)
                for v in eqn.inputs
            ]
            env[eqn.out] = evaluate.apply(eqn, operands, wide=True)[0]
        elif value is not None:
            operands = [
                _fill(env[v], v, eqn) if v in env else _static_or_zero(v, links, statics)
                for v in eqn.inputs
            ]
            env[eqn.out] = evaluate.apply(eqn, operands, wide=True)[0]
    return env.get(group.outputs[0], 0.0)


def _adds_constant(eqn: Eqn, static: list[Value]) -> bool:
    floats = [v for v in static if jnp.issubdtype(v.dtype, jnp.floating)]
    return eqn.name not in COPIES and bool(floats)


def _static_or_zero(value: Value, links: set[Value], statics: Env) -> Any:
    if value in links:
        return jnp.zeros(value.shape, evaluate.as_number(jnp.zeros((), value.dtype)).dtype)
    return evaluate.read(statics, value)


def _fill(array: Any, value: Value, eqn: Eqn) -> Any:
    """Give a thin array its full shape, but for the batch axes that the core lets be 1."""
    if eqn.name in ("add", "sub", "mul", "div", "neg") or eqn.name in COPIES:
        return array
    shape = list(value.shape)
    batch: tuple[int, ...] = ()
    if eqn.name in LINEAR_CORES:
        batch = _free_axes(eqn, 0 if eqn.inputs[0] is value else 1)
    array = array.reshape((1,) * (value.ndim - array.ndim) + array.shape)
    for axis in batch:
        shape[axis] = array.shape[axis]
    return jnp.broadcast_to(array, shape)


def _is_weight(eqn: Eqn, position: int) -> bool:
    """Whether an operand of a core is multiplied with the others, and does not say where."""
    mixed = any(jnp.issubdtype(v.dtype, jnp.inexact) for v in eqn.inputs)
    return position in carrying(eqn) and not (
        mixed and jnp.issubdtype(eqn.inputs[position].dtype, jnp.integer)
    )


def _linear_step(eqn: Eqn, env: Env, statics: Env, weights: Weights, signs: bool) -> list[Any]:
    active = [v for v in eqn.inputs if v in env]
    static = [v for v in eqn.inputs if v not in env]

    def factor(v: Value) -> Any:
        return weights(evaluate.as_number(evaluate.read(statics, v)))

    name = eqn.name
    if name in ADDITIONS:
        if len(active) == 1:
            x = jnp.broadcast_to(env[active[0]], eqn.out.shape)
            return [-x if signs and name == "sub" and eqn.inputs[1] is active[0] else x]
        a, b = (env[v] for v in eqn.inputs)
        return [a - b if signs and name == "sub" else a + b]
    if name == "neg":
        return [-env[active[0]] if signs else env[active[0]]]
    if name == "mul" and len(active) == 1:
        return [env[active[0]] * factor(static[0])]
    if name == "div" and eqn.inputs[0] in env and len(active) == 1:
        return [env[active[0]] * weights(1 / evaluate.as_number(evaluate.read(statics, static[0])))]
    if name in LINEAR_CORES:
        operands = [
            env[v] if v in env else factor(v) if _is_weight(eqn, i) else evaluate.read(statics, v)
            for i, v in enumerate(eqn.inputs)
        ]
        return evaluate.apply(eqn, operands, wide=True)
    if name in ("scatter-mul", "scatter_mul"):
        operand, indices, scale = eqn.inputs
        values = [env[operand], evaluate.read(statics, indices), factor(scale)]
        return evaluate.apply(eqn, values, wide=True)
    if name in MOVES or name == "select_n" or (name in FIXED_LINEAR and name not in _UNMAPPED):
        operands = [
            env[v]
            if v in env
            else jnp.zeros_like(evaluate.read(statics, v))
            if jnp.issubdtype(v.dtype, jnp.floating)
            else evaluate.read(statics, v)
            for v in eqn.inputs
        ]
        return evaluate.apply(eqn, operands, wide=True)
    raise RuleError(
        f"The rule needs the weights of `{name}` ({eqn.source}), which have none that can be "
        "split by sign; give this layer Epsilon, Gradient, Pass or Stop."
    )
