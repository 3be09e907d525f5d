"""The linear part of a layer as a map whose weights can be replaced by functions of them.

The weight of an input in an output is the product of the factors on the one way between them:
scales before the core, an entry of the kernel, scales behind the core. The layer's own equations
run with these factors replaced and with static terms left out, so zeros that a pad or a
concatenation brings are nobody's input. Where every scale varies along the kernel's own axes, the
scales fold into the kernel and any combination of W, W+, W- and |W| costs one product. Otherwise
W+ and W- are told apart on the way (`Split`): each value is a pair, and a negative factor swaps it.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.errors import RuleError
from jaxlrp.graph.axes import unit_reshape
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Literal, Value
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
from jaxlrp.run.evaluate import Env, is_low
from jaxlrp.run.kernels import (
    contraction_count,
    scale_conv_kernel,
    scale_dot_kernel,
    thin,
    window_count,
)

Weights = Callable[[Any], Any]
_UNMAPPED = frozenset({"fft", "complex", "real", "imag", "conj", "triangular_solve"})
# Nothing happens to the numbers; a barrier and a name have no transpose under every JAX.
_IDENTITIES = frozenset({"optimization_barrier", "name", "reduce_precision"})
_SCALES = frozenset({"mul", "div", "neg"})
_KERNELS = frozenset({"dot_general", "conv_general_dilated"})  # cores whose axes are known
_IN_PLACE = COPIES | ADDITIONS | _SCALES | DEVICE_SUMS | DEVICE_MOVES


class _Map:
    """A linear function of the layer's active inputs, with its transpose."""

    def __init__(self, function: Callable[[Any], Any], layer: LinearLayer):
        self._function = function
        self._layer = layer

    def __call__(self, x: Any) -> Any:
        return self._function(x)

    def T(self, s: Any) -> Any:
        s = _in_dtype_of(self._layer.group, s)
        return compat.linear_transpose(self._function, self._layer.like, s)


def _in_dtype_of(group: Group, y: Any) -> Any:
    """An array as the layer's output is: its scales may be of another precision."""
    dtype = group.outputs[0].dtype
    return y.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) and not is_low(dtype) else y


def combination(signed: float, positive: float, negative: float, absolute: float) -> Weights:
    """The weights signed*W + positive*W+ + negative*W- + absolute*|W|, elementwise."""

    def weights(w: Any) -> Any:
        parts = [
            (signed, lambda: w),
            (positive, lambda: jnp.maximum(w, 0)),
            (negative, lambda: jnp.minimum(w, 0)),
            (absolute, lambda: jnp.abs(w)),
        ]
        terms = [part() if _is_one(c) else c * part() for c, part in parts if not _is_zero(c)]
        return sum(terms[1:], terms[0]) if terms else jnp.zeros_like(w)

    return weights


def _is_zero(c: Any) -> bool:
    return isinstance(c, (int, float)) and c == 0


def _is_one(c: Any) -> bool:
    return isinstance(c, (int, float)) and c == 1


class LinearLayer:
    """A linear group with the arrays that it reads, ready to be mapped."""

    def __init__(self, group: Group, statics: Env, x: Any):
        self.group = group
        self.statics = statics
        self.like = x
        self.affine = group.affine
        self.links = {v for e in group.eqns for v in e.outputs} | set(group.inputs)
        self.folds = self.affine is not None and self.affine.core is not None and self.affine.folds

    def map(self, signed: float, positive: float, negative: float, absolute: float) -> _Map:
        if self.one_kernel:
            return self._mapped(_Weighted(self, combination(signed, positive, negative, absolute)))
        if _is_zero(positive) and _is_zero(negative):
            terms = [
                (signed, _Weighted(self, lambda w: w)),
                (absolute, _Weighted(self, jnp.abs)),
            ]
            terms = [(c, how) for c, how in terms if not _is_zero(c)]

            def summed(x: Any) -> Any:
                return sum((c * self.run(_listed(x), how) for c, how in terms), 0.0)

            return _Map(summed, self)
        # W = W+ + W- and |W| = W+ - W-
        plus, minus = signed + positive + absolute, signed + negative - absolute
        split = self.split()

        def function(x: Any) -> Any:
            up, down = split.parts(x, None)
            cells = [(c, cell) for c, cell in ((plus, up), (minus, down)) if cell is not None]
            return sum((c * cell() for c, cell in cells if not _is_zero(c)), _zeros(self.group))

        return _Map(function, self)

    def squares(self) -> _Map:
        return self._mapped(_Weighted(self, jnp.square, signs=False))

    def ones(self) -> _Map:
        return self._mapped(_Ones(self))

    def split(self) -> Split:
        return Split(self)

    def _mapped(self, how: _Weighted) -> _Map:
        return _Map(lambda x: self.run(_listed(x), how), self)

    @functools.cached_property
    def one_kernel(self) -> bool:
        """Whether W+ costs one product: every factor but the kernel's is folded or positive."""
        affine = self.affine
        if affine is None or affine.core is None or affine.core.name not in LINEAR_CORES:
            return False
        return self.folds or all(self._is_positive(e) for e in self.group.eqns if e != affine.core)

    @property
    def keeps_signs(self) -> bool:
        """Whether W+ of this layer needs one product, and not one for each sign of a scale."""
        return all(self.is_folded(e) or self.sign(e) is not None for e in self.group.eqns)

    def _is_positive(self, eqn: Eqn) -> bool:
        return self.sign(eqn) == 1

    def sign(self, eqn: Eqn) -> int | None:
        """The sign of the factor of an equation; None where it may vary."""
        if eqn.name == "neg":
            return -1
        if eqn.name == "sub":
            return 1 if eqn.inputs[0] in self.links else -1
        if eqn.name in ("mul", "div"):
            static = self.statics_of(eqn)
            return sign_of(static[0]) if static else None
        return 1

    def is_folded(self, eqn: Eqn) -> bool:
        return self.folds and eqn.name in ("mul", "div", "neg", "sub")

    # -- scales folded into the kernel ------------------------------------------------------

    def kernel(self, core: Eqn, operand: int) -> Any:
        """The kernel of a contraction or convolution, in its own layout; scales folded in."""
        weights = core.inputs[_weight_position(core, operand)]
        kernel = evaluate.as_number(evaluate.read(self.statics, weights))
        affine = self.affine
        if not self.folds or affine is None:
            return kernel
        after = self._slope(affine.post, output_features(core, operand))
        before = self._slope(affine.pre, input_features(core, operand))
        if core.name == "conv_general_dilated":
            return scale_conv_kernel(core, kernel, before, after)
        return scale_dot_kernel(core, operand, kernel, before, after)

    def product(self, core: Eqn, operand: int, x: Any, kernel: Any) -> Any:
        """The core applied to its active operand, with another kernel."""
        places = {operand: x, _weight_position(core, operand): kernel}
        operands = [
            places[i] if i in places else evaluate.read(self.statics, v)
            for i, v in enumerate(core.inputs)
        ]
        params = evaluate.widened_params(core.params, x.dtype)
        return compat.bind(core.prim, params, operands)[0]

    def _slope(self, chain: list[Eqn], features: frozenset[int]) -> Any:
        """Product of the scales of a chain, of size 1 along all but the feature axes."""
        slope: Any = None
        sign = 1
        for eqn in chain:
            if eqn.name == "neg" or (eqn.name == "sub" and self.sign(eqn) == -1):
                sign = -sign
            if eqn.name not in ("mul", "div"):
                continue
            value = self.statics_of(eqn)[0]
            scale = evaluate.as_number(evaluate.read(self.statics, value))
            if scale.ndim > 0:
                scale = thin(scale, features)
            if eqn.name == "div":
                slope = 1 / scale if slope is None else slope / scale
            else:
                slope = scale if slope is None else slope * scale
        if slope is None:
            return None if sign == 1 else -1.0
        return slope if sign == 1 else -slope

    def statics_of(self, eqn: Eqn) -> list[Value]:
        """Operands of an equation that are no link of the layer."""
        return [v for v in eqn.inputs if v not in self.links]

    # -- the layer's own equations ----------------------------------------------------------

    def run(self, xs: Sequence[Any], how: Any) -> Any:
        """Run the layer's equations on values of the kind that `how` knows."""
        env: dict[Value, Any] = dict(zip(self.group.inputs, xs, strict=True))
        for eqn in self.group.eqns:
            env.update(zip(eqn.outputs, self._step(eqn, env, how), strict=True))
        # Where the layer casts on its way, scales that are folded in have another precision.
        return how.applied(self._as_output, env[self.group.outputs[0]])

    def _as_output(self, y: Any) -> Any:
        return _in_dtype_of(self.group, y)

    def _step(self, eqn: Eqn, env: dict[Value, Any], how: Any) -> Sequence[Any]:
        active = [v for v in eqn.inputs if v in env]
        name = eqn.name
        if self.is_folded(eqn):
            return [env[active[0]]]
        if name in ADDITIONS:
            terms = [
                how.negated(env[v]) if name == "sub" and i == 1 else env[v]
                for i, v in enumerate(eqn.inputs)
                if v in env
            ]
            if len(terms) == 2:
                return [how.added(*terms)]
            return [how.applied(lambda x: _widened_to(x, active[0], eqn.out), terms[0])]
        if name == "neg":
            return [how.negated(env[active[0]])]
        if name in _IDENTITIES and len(eqn.inputs) == 1:
            return [env[active[0]]]
        if len(active) == 1 and (name == "mul" or (name == "div" and eqn.inputs[0] in env)):
            x = how.applied(lambda x: _widened_to(x, active[0], eqn.out), env[active[0]])
            return [how.scaled(x, self._factor(eqn), self.sign(eqn))]
        if name in LINEAR_CORES and len(active) == 1:
            return [how.through(eqn, eqn.inputs.index(active[0]), env[active[0]])]
        if name in ("scatter-mul", "scatter_mul"):
            return [how.scaled(env[active[0]], self._scattered(eqn), None)]
        if name in MOVES or name == "select_n" or (name in FIXED_LINEAR and name not in _UNMAPPED):
            return how.moved(eqn, env)
        raise RuleError(
            f"The rule needs the weights of `{name}` ({eqn.source}), which have none that can be "
            "split by sign; give this layer Epsilon, Gradient, Pass or Stop."
        )

    def _factor(self, eqn: Eqn) -> Callable[[], Any]:
        """The factor of a scale, read when it is asked for."""
        (value,) = self.statics_of(eqn)

        def read() -> Any:
            factor = evaluate.as_number(evaluate.read(self.statics, value))
            return 1 / factor if eqn.name == "div" else factor

        return functools.cache(read)

    def _scattered(self, eqn: Eqn) -> Callable[[], Any]:
        """The factors of a scatter that multiplies, 1 where it leaves elements alone."""
        _, indices, scale = eqn.inputs

        def read() -> Any:
            factors = evaluate.as_number(evaluate.read(self.statics, scale))
            ones = jnp.ones(eqn.out.shape, factors.dtype)
            return evaluate.apply(eqn, [ones, evaluate.read(self.statics, indices), factors])[0]

        return functools.cache(read)

    def move(self, eqn: Eqn, values: dict[Value, Any]) -> list[Any]:
        """An equation that moves or adds up elements, with zeros for what is static."""
        operands = []
        for i, v in enumerate(eqn.inputs):
            if v in values:
                operands.append(values[v])
                continue
            static = evaluate.read(self.statics, v)
            is_term = i in carrying(eqn) and v.dtype != bool
            operands.append(jnp.zeros_like(static) if is_term else static)
        return evaluate.apply(_filled_with_zeros(eqn), operands, wide=True)


def _filled_with_zeros(eqn: Eqn) -> Eqn:
    """A gather that fills what lies outside with zeros: that is a static term."""
    if eqn.name != "gather" or eqn.params["fill_value"] == 0:
        return eqn
    params = compat.Params(eqn.name, {**eqn.params, "fill_value": 0})
    return Eqn(eqn.prim, params, eqn.inputs, eqn.outputs, eqn.scope, eqn.source_info, eqn.region)


def _widened_to(x: Any, value: Value, out: Value) -> Any:
    """A term of a sum in the sum's shape; a thin array (see `constant`) stays thin."""
    whole = x.shape == value.shape and value.shape != out.shape
    return jnp.broadcast_to(x, out.shape) if whole else x


def _listed(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def _zeros(group: Group) -> Any:
    out = group.outputs[0]
    return jnp.zeros(out.shape, evaluate.widen(jnp.zeros((), out.dtype)).dtype)


def sign_of(value: Value) -> int | None:
    """The sign of a number that is written in the program; None for anything else."""
    while not isinstance(value, Literal):
        eqn = value.producer
        if eqn is None or eqn.name not in COPIES | {"broadcast_in_dim", "reshape", "squeeze"}:
            return None
        value = eqn.inputs[0]
    return None if value.val == 0 or value.val != value.val else (1 if value.val > 0 else -1)


class _Weighted:
    """Runs with every factor replaced by a function of it; without `signs` none is negative."""

    def __init__(self, layer: LinearLayer, weights: Weights, signs: bool = True):
        self.layer = layer
        self.weights = weights
        self.signs = signs and weights is not jnp.abs

    def negated(self, x: Any) -> Any:
        return -x if self.signs else x

    def added(self, x: Any, y: Any) -> Any:
        return x + y

    def applied(self, function: Callable[[Any], Any], x: Any) -> Any:
        return function(x)

    def scaled(self, x: Any, factor: Callable[[], Any], sign: int | None) -> Any:
        # A combination of W, W+ and W- is asked of the kernel, where no scale is negative.
        if self.layer.one_kernel and self.signs:
            return x * factor()
        return x * self.weights(factor())

    def through(self, core: Eqn, operand: int, x: Any) -> Any:
        return self.layer.product(core, operand, x, self.weights(self.layer.kernel(core, operand)))

    def moved(self, eqn: Eqn, env: dict[Value, Any]) -> list[Any]:
        return self.layer.move(eqn, env)


class _Ones(_Weighted):
    """Every factor 1: counts, and spreads evenly."""

    def __init__(self, layer: LinearLayer):
        super().__init__(layer, jnp.ones_like, signs=False)

    def scaled(self, x: Any, factor: Callable[[], Any], sign: int | None) -> Any:
        return x

    def through(self, core: Eqn, operand: int, x: Any) -> Any:
        """A window sum over one channel, or a sum over contracted axes."""
        if core.name == "conv_general_dilated":
            if operand == 0 and core.params["batch_group_count"] == 1:
                return window_count(core, x)
            return self._with_ones(core, operand, x)
        if core.name != "dot_general":
            return self._with_ones(core, operand, x)
        return contraction_count(core, operand, x)

    def _with_ones(self, core: Eqn, operand: int, x: Any) -> Any:
        kernel = core.inputs[_weight_position(core, operand)]
        return self.layer.product(core, operand, x, jnp.ones(kernel.shape, x.dtype))


def _weight_position(core: Eqn, operand: int) -> int:
    """Where a core has its kernel: what else it reads says where elements go."""
    return next(i for i in carrying(core) if i != operand)


# -- W+ and W- apart -------------------------------------------------------------------------

# An array that is computed when it is asked for, once; None is zero.
Cell = Callable[[], Any] | None


class Parts(NamedTuple):
    """What positive contributions sum up to, and what negative ones do."""

    positive: Cell
    negative: Cell


class Split:
    """The linear part with W+ and W- apart: of u and v the sums W+u + W-v and W-u + W+v.

    With u = x+ and v = x- these are the positive and the negative contributions. Each is a sum of
    products; nothing is subtracted. A product that nothing asks for is not computed.
    """

    def __init__(self, layer: LinearLayer):
        self._layer = layer

    def parts(self, u: Any, v: Any) -> Parts:
        """Both sums, computed when asked for. `v` may be None: there is none."""
        layer = self._layer
        us = _listed(u)
        vs = _listed(v) if v is not None else (None,) * len(us)
        starts = [Parts(_given(a), _given(b)) for a, b in zip(us, vs, strict=True)]
        return layer.run(starts, _Signs(layer))

    def __call__(self, u: Any, v: Any = None) -> Any:
        """W+u + W-v."""
        return self.value(self.parts(u, v).positive)

    def other(self, u: Any, v: Any = None) -> Any:
        """W-u + W+v."""
        return self.value(self.parts(u, v).negative)

    def value(self, cell: Cell) -> Any:
        """One of the sums, as an array."""
        return _zeros(self._layer.group) if cell is None else cell()

    def T(self, s: Any, other: Any = None, *, both: bool = True) -> Any:
        """The transposed maps: what `s` at W+u + W-v and `other` at W-u + W+v send to u and v.

        Either may be None. Without `both` to u alone.
        """
        like = self._layer.like
        shapes = [like, like] if both else [like]

        def sums(pair: list[Any]) -> Parts:
            return self.parts(pair[0], pair[1] if both else None)

        asked = [c is not None and t is not None for c, t in zip(sums(shapes), (s, other))]

        def function(pair: list[Any]) -> list[Any]:
            return [c() for c, ask in zip(sums(pair), asked) if ask and c is not None]

        given = (None if t is None else _in_dtype_of(self._layer.group, t) for t in (s, other))
        cotangents = [t for t, ask in zip(given, asked) if ask]
        if not cotangents:
            back = jax.tree.map(jnp.zeros_like, shapes)
        else:
            back = compat.linear_transpose(function, shapes, cotangents)
        return tuple(back) if both else back[0]


def _given(x: Any) -> Cell:
    return None if x is None else lambda: x


def _cell(make: Callable[[], Any]) -> Cell:
    return functools.cache(make)


def _sum(*terms: Cell) -> Cell:
    found = [t for t in terms if t is not None]
    if len(found) < 2:
        return found[0] if found else None
    return _cell(lambda: functools.reduce(operator.add, (t() for t in found)))


def _then(function: Callable[[Any], Any], x: Cell) -> Cell:
    return None if x is None else _cell(lambda: function(x()))


class _Signs:
    """Runs on pairs: a positive factor keeps the two apart, a negative one swaps them."""

    def __init__(self, layer: LinearLayer):
        self.layer = layer

    def negated(self, x: Parts) -> Parts:
        return Parts(_then(operator.neg, x.negative), _then(operator.neg, x.positive))

    def added(self, x: Parts, y: Parts) -> Parts:
        return Parts(_sum(x.positive, y.positive), _sum(x.negative, y.negative))

    def applied(self, function: Callable[[Any], Any], x: Parts) -> Parts:
        return Parts(_then(function, x.positive), _then(function, x.negative))

    def scaled(self, x: Parts, factor: Callable[[], Any], sign: int | None) -> Parts:
        if sign is not None:
            by = self.applied(lambda y: y * factor(), x)
            return by if sign > 0 else Parts(by.negative, by.positive)

        def up(y: Any) -> Any:
            return y * jnp.maximum(factor(), 0)

        def down(y: Any) -> Any:
            return y * jnp.minimum(factor(), 0)

        return self._crossed(x, up, down)

    @staticmethod
    def _crossed(x: Parts, up: Callable[[Any], Any], down: Callable[[Any], Any]) -> Parts:
        return Parts(
            _sum(_then(up, x.positive), _then(down, x.negative)),
            _sum(_then(down, x.positive), _then(up, x.negative)),
        )

    def through(self, core: Eqn, operand: int, x: Parts) -> Parts:
        kernel = functools.cache(lambda: self.layer.kernel(core, operand))
        positive = functools.cache(lambda: jnp.maximum(kernel(), 0))
        negative = functools.cache(lambda: jnp.minimum(kernel(), 0))
        return self._crossed(
            x,
            lambda y: self.layer.product(core, operand, y, positive()),
            lambda y: self.layer.product(core, operand, y, negative()),
        )

    def moved(self, eqn: Eqn, env: dict[Value, Parts]) -> list[Parts]:
        found = [
            self._half(eqn, {v: env[v][side] for v in eqn.inputs if v in env}) for side in (0, 1)
        ]
        return [Parts(*pair) for pair in zip(*found, strict=True)]

    def _half(self, eqn: Eqn, cells: dict[Value, Cell]) -> list[Cell]:
        given = {v: cell for v, cell in cells.items() if cell is not None}
        if not given:
            return [None] * len(eqn.outputs)

        def moved() -> list[Any]:
            values = {v: cell() for v, cell in given.items()}
            dtype = next(iter(values.values())).dtype
            zeros = {v: jnp.zeros(v.shape, dtype) for v in cells if v not in given}
            return self.layer.move(eqn, {**values, **zeros})

        outputs = functools.cache(moved)

        def output(index: int) -> Cell:
            return lambda: outputs()[index]

        return [output(i) for i in range(len(eqn.outputs))]


# -- what else is asked of a layer ------------------------------------------------------------


def feature_axes(group: Group) -> tuple[int, ...]:
    """Axes of the output over which one example's features lie: all but batch and free axes."""
    rank = group.outputs[0].ndim
    affine = group.affine
    core = affine.core if affine is not None else None
    last = (rank - 1,) if rank else ()
    if affine is None or core is None or core.name not in _KERNELS:
        return last
    if core.name == "conv_general_dilated":
        batch = core.params["dimension_numbers"].out_spec[0]
        axes = frozenset(i for i in range(core.out.ndim) if i != batch)
    else:
        batch_axes = range(len(core.params["dimension_numbers"][1][0]))
        axes = output_features(core, affine.operand) - set(batch_axes)
    for eqn in affine.post:
        carried = _carried_axes(eqn, axes)
        if carried is None:
            return last
        axes = carried
    return tuple(sorted(axes))


def _carried_axes(eqn: Eqn, axes: frozenset[int]) -> frozenset[int] | None:
    """Where an equation leaves axes of its input; None if they are mixed with others."""
    source = next((v for v in eqn.inputs if v.ndim), None)
    if source is None:
        return None
    if eqn.name == "transpose":
        return frozenset(i for i, p in enumerate(eqn.params["permutation"]) if p in axes)
    if eqn.name == "broadcast_in_dim":
        return frozenset(eqn.params["broadcast_dimensions"][i] for i in axes)
    if eqn.name in ("reshape", "squeeze", "expand_dims"):
        places = unit_reshape(source.shape, eqn.out.shape)
        return None if places is None else frozenset(places[i] for i in axes if i in places)
    return axes if eqn.out.ndim == source.ndim else None


def constant(group: Group, x: Any, value: Any) -> Any:
    """`value` as an input of the layer, of size 1 along the axes that the core maps one by one."""
    shape = list(x.shape)
    affine = group.affine
    core = affine.core if affine is not None else None
    # What splits an axis over devices, or moves elements, needs the whole shape.
    others = {e.name for e in group.eqns if e is not core}
    in_place = others <= _IN_PLACE - {"reduce_scatter"}
    if affine is not None and core is not None and affine.folds and in_place:
        given = (1,) * (x.ndim - jnp.ndim(value)) + jnp.shape(value)
        for axis in _free_axes(core, affine.operand):
            shape[axis] = given[axis]
    return jnp.broadcast_to(jnp.asarray(value, x.dtype), shape)


def _free_axes(core: Eqn, operand: int) -> tuple[int, ...]:
    """Axes of the active operand along which the core does the same to every element."""
    if core.name == "conv_general_dilated":
        single = operand == 0 and core.params["batch_group_count"] == 1
        return (core.params["dimension_numbers"].lhs_spec[0],) if single else ()
    if core.name not in _KERNELS:
        return ()
    kept = input_features(core, operand)
    return tuple(i for i in range(core.inputs[operand].ndim) if i not in kept)


def has_bias(group: Group) -> bool:
    """Whether a layer may add something: a shift, or a constant that it moves in."""
    links = {v for e in group.eqns for v in e.outputs} | set(group.inputs)
    return any(_brings(eqn, [v for v in eqn.inputs if v not in links]) for eqn in group.eqns)


def _brings(eqn: Eqn, static: list[Value]) -> bool:
    """Whether an equation adds a constant to what it maps, or puts one beside it."""
    if eqn.name in ADDITIONS:
        return bool(static)
    if eqn.name == "gather" and eqn.params["fill_value"] not in (None, 0):
        return True
    if eqn.name not in (MOVES | {"select_n"}) - COPIES:
        return False
    return any(jnp.issubdtype(v.dtype, jnp.floating) and not _is_written_zero(v) for v in static)


def _is_written_zero(value: Value) -> bool:
    while not isinstance(value, Literal):
        eqn = value.producer
        if eqn is None or eqn.name not in COPIES | {"broadcast_in_dim", "reshape", "squeeze"}:
            return False
        value = eqn.inputs[0]
    return bool(value.val == 0)


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
        elif value is not None or _brings(eqn, static):
            operands = [
                _fill(env[v], v, eqn) if v in env else _static_or_zero(v, links, statics)
                for v in eqn.inputs
            ]
            env.update(zip(eqn.outputs, evaluate.apply(eqn, operands, wide=True), strict=True))
    return env.get(group.outputs[0], 0.0)


def _static_or_zero(value: Value, links: set[Value], statics: Env) -> Any:
    if value in links:
        return jnp.zeros(value.shape, evaluate.as_number(jnp.zeros((), value.dtype)).dtype)
    return evaluate.read(statics, value)


def _fill(array: Any, value: Value, eqn: Eqn) -> Any:
    """Give a thin array its full shape, but for the batch axes that the core lets be 1."""
    if eqn.name in ADDITIONS | _SCALES or eqn.name in COPIES:
        return array
    shape = list(value.shape)
    batch: tuple[int, ...] = ()
    if eqn.name in LINEAR_CORES:
        batch = _free_axes(eqn, 0 if eqn.inputs[0] is value else 1)
    array = array.reshape((1,) * (value.ndim - array.ndim) + array.shape)
    for axis in batch:
        shape[axis] = array.shape[axis]
    return jnp.broadcast_to(array, shape)
