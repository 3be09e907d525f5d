"""The linear part of a layer as a map whose weights can be replaced by functions of them.

The weight of an input in an output is the product of the factors on the one path between them:
scales before the core, an entry of the kernel, scales after the core. The layer's own equations run
with these factors replaced and with static terms left out, so zeros that a pad or a concatenation
adds do not count as inputs. If every scale varies along the kernel's own axes, the scales fold into
the kernel, and any combination of W, W+, W- and |W| costs one product. Otherwise W+ and W- are kept
separate on the path (`Split`): each value is a pair, and a negative factor swaps it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.errors import RuleError
from jaxlrp.graph.groups import Group
from jaxlrp.graph.ir import Eqn, Value
from jaxlrp.graph.linear import input_features, output_features
from jaxlrp.graph.primitives import (
    ADDITIONS,
    FIXED_LINEAR,
    LINEAR_CORES,
    MOVES,
    carrying,
)
from jaxlrp.run import depthwise, evaluate, late_splits
from jaxlrp.run.evaluate import Env
from jaxlrp.run.kernels import scale_conv_kernel, scale_dot_kernel, thin, weight_position
from jaxlrp.run.layer_facts import number_of
from jaxlrp.run.linear_protocols import T, Way
from jaxlrp.run.weights import Ones, Weighted, combination, is_zero
from jaxlrp.run.weights_by_sign import Split, as_output, listed, output_dtype, zeros_of

_UNMAPPED = frozenset({"fft", "complex", "real", "imag", "conj", "triangular_solve"})
# The numbers do not change; not every version of JAX has a transpose of a barrier and a name.
_IDENTITIES = frozenset({"optimization_barrier", "name", "reduce_precision"})


class _Map:
    """A linear function of the layer's active inputs, with its transpose."""

    def __init__(self, function: Callable[[Any], Any], program: BoundLinear):
        self._function = function
        self._program = program

    def __call__(self, x: Any) -> Any:
        return self._function(self._program.late_input(x))

    def T(self, s: Any) -> Any:
        s = as_output(self._program.group, s)
        return compat.linear_transpose(self._function, self._program.like, s)


class BoundLinear:
    """A linear group bound to the arrays that it reads, as a `BoundCall` is a plan with arrays."""

    def __init__(
        self, group: Group, outside: Env, x: Any, arrived: Any, late: late_splits.Waiting = None
    ):
        self.group = group
        self._arrived = arrived
        self._late = late
        self.outside = outside
        self.like = x
        self.linear = group.linear
        self.links = {v for e in group.eqns for v in e.outputs} | set(group.inputs)
        linear = self.linear
        self.folds = linear is not None and linear.core is not None and linear.folds
        self.one_kernel = self._has_one_kernel()

    def map(self, signed: float, positive: float, negative: float, absolute: float) -> _Map:
        if self.one_kernel:
            weights = combination(signed, positive, negative, absolute)
            own = is_zero(positive) and is_zero(negative) and is_zero(absolute)
            return self._mapped(Weighted(self, weights, late=not own))
        if is_zero(positive) and is_zero(negative):
            terms = [
                (signed, Weighted(self, lambda w: w, late=False)),
                (absolute, Weighted(self, jnp.abs)),
            ]
            terms = [(c, way) for c, way in terms if not is_zero(c)]

            def summed(x: Any) -> Any:
                return sum((c * self.run(listed(x), way) for c, way in terms), 0.0)

            return _Map(summed, self)
        # W = W+ + W- and |W| = W+ - W-
        plus, minus = signed + positive + absolute, signed + negative - absolute
        split = self.split()

        def function(x: Any) -> Any:
            up, down = split.parts(x, None)
            cells = [(c, cell) for c, cell in ((plus, up), (minus, down)) if cell is not None]
            return sum((c * cell() for c, cell in cells if not is_zero(c)), zeros_of(self.group))

        return _Map(function, self)

    @functools.cached_property
    def only_core(self) -> Eqn | None:
        """The core, if the layer besides only adds a static term to its output."""
        core = None if self.linear is None else self.linear.core
        if core is None or core.name not in LINEAR_CORES or isinstance(self.like, tuple):
            return None
        if not all(jnp.issubdtype(v.dtype, jnp.inexact) for v in (*core.inputs, core.out)):
            return None  # a product of integers that carry values
        value = core.out
        for eqn in self.group.eqns:
            if eqn is core:
                if [v in self.links for v in eqn.inputs].count(True) != 1:
                    return None
            elif eqn.name in ADDITIONS - {"sub"} and value in eqn.inputs:
                if len(self.outside_of(eqn)) != 1 or eqn.out.shape != value.shape:
                    return None
                value = eqn.out
            else:
                return None
        return core if value is self.group.outputs[0] else None

    def transposed(self, core: Eqn, s: Any) -> Any:
        """The transpose of the core, applied to `s`."""

        def function(x: Any) -> Any:
            operands = [
                x if v in self.links else evaluate.read(self.outside, v) for v in core.inputs
            ]
            return evaluate.apply(core, operands, wide=True)[0]

        return compat.linear_transpose(function, self.like, s.astype(output_dtype(self.group)))

    def squares(self) -> _Map:
        return self._mapped(Weighted(self, jnp.square, signs=False))

    def ones(self) -> _Map:
        return self._mapped(Ones(self))

    def split(self) -> Split:
        return Split(self)

    def _mapped(self, way: Weighted) -> _Map:
        return _Map(lambda x: self.run(listed(x), way), self)

    def _has_one_kernel(self) -> bool:
        """Whether W+ costs one product: every factor except the kernel is folded or positive."""
        linear = self.linear
        if linear is None or linear.core is None or linear.core.name not in LINEAR_CORES:
            return False
        return self.folds or all(self._is_positive(e) for e in self.group.eqns if e != linear.core)

    @property
    def keeps_signs(self) -> bool:
        """Whether W+ of this layer needs one product rather than one for each sign of a scale."""
        return all(self.is_folded(e) or self.sign(e) is not None for e in self.group.eqns)

    def _is_positive(self, eqn: Eqn) -> bool:
        return self.sign(eqn) == 1

    def sign(self, eqn: Eqn) -> int | None:
        """The sign of the factor of an equation; None if it may vary."""
        if eqn.name == "neg":
            return -1
        if eqn.name == "sub":
            return 1 if eqn.inputs[0] in self.links else -1
        if eqn.name in ("mul", "div"):
            static = self.outside_of(eqn)
            return _sign_of(static[0]) if static else None
        return 1

    def is_folded(self, eqn: Eqn) -> bool:
        return self.folds and eqn.name in ("mul", "div", "neg", "sub")

    # -- scales folded into the kernel ------------------------------------------------------

    def kernel(self, core: Eqn, operand: int) -> Any:
        """The kernel of a contraction or convolution, in its own layout, with scales folded in."""
        weights = core.inputs[weight_position(core, operand)]
        kernel = evaluate.as_number(evaluate.read(self.outside, weights))
        linear = self.linear
        if not self.folds or linear is None:
            return kernel
        after = self._slope(linear.post, output_features(core, operand))
        before = self._slope(linear.pre, input_features(core, operand))
        if core.name == "conv_general_dilated":
            scaled = scale_conv_kernel(core, kernel, before, after)
        else:
            scaled = scale_dot_kernel(core, operand, kernel, before, after)
        return scaled.astype(kernel.dtype)

    def late(self, kernel: Any) -> Any:
        if self._late != "kernel" or not late_splits.is_large(kernel):
            return kernel
        return late_splits.after(self._arrived, kernel)

    def late_input(self, x: Any) -> Any:
        """An input of a further product, there when relevance has arrived."""
        if self._late != "input" or not self._has_large_kernel():
            return x
        return jax.tree.map(lambda part: late_splits.after(self._arrived, part), x)

    def _has_large_kernel(self) -> bool:
        core = None if self.linear is None else self.linear.core
        operands = () if core is None else (v for v in core.inputs if v not in self.links)
        return any(late_splits.is_large(v.aval) for v in operands)

    def _slope(self, chain: Sequence[Eqn], features: frozenset[int]) -> Any:
        """Product of the scales of a chain, of size 1 along all axes except those of features."""
        slope: Any = None
        sign = 1
        for eqn in chain:
            if eqn.name == "neg" or (eqn.name == "sub" and self.sign(eqn) == -1):
                sign = -sign
            if eqn.name not in ("mul", "div"):
                continue
            value = self.outside_of(eqn)[0]
            scale = evaluate.as_number(evaluate.read(self.outside, value))
            if scale.ndim > 0:
                scale = thin(scale, features)
            if eqn.name == "div":
                slope = 1 / scale if slope is None else slope / scale
            else:
                slope = scale if slope is None else slope * scale
        if slope is None:
            return None if sign == 1 else -1.0
        return slope if sign == 1 else -slope

    def outside_of(self, eqn: Eqn) -> list[Value]:
        """Operands of an equation that are not links of the layer."""
        return [v for v in eqn.inputs if v not in self.links]

    # -- the layer's own equations ----------------------------------------------------------

    def run(self, xs: Sequence[T], way: Way[T]) -> T:
        """Run the layer's equations on values of the sort that `way` handles."""
        env: dict[Value, T] = dict(zip(self.group.inputs, xs, strict=True))
        for eqn in self.group.eqns:
            env.update(zip(eqn.outputs, self._step(eqn, env, way), strict=True))
        return env[self.group.outputs[0]]

    def _step(self, eqn: Eqn, env: dict[Value, T], way: Way[T]) -> Sequence[T]:
        active = [v for v in eqn.inputs if v in env]
        name = eqn.name
        if self.is_folded(eqn):
            return [env[active[0]]]
        if name in ADDITIONS:
            terms = [
                way.negated(env[v]) if name == "sub" and i == 1 else env[v]
                for i, v in enumerate(eqn.inputs)
                if v in env
            ]
            if len(terms) == 2:
                return [way.added(*terms)]
            return [way.applied(lambda x: _widened_to(x, active[0], eqn.out), terms[0])]
        if name == "neg":
            return [way.negated(env[active[0]])]
        if name == "reordered" or (name in _IDENTITIES and len(eqn.inputs) == 1):
            return [env[active[0]]]
        if len(active) == 1 and (name == "mul" or (name == "div" and eqn.inputs[0] in env)):
            x = way.applied(lambda x: _widened_to(x, active[0], eqn.out), env[active[0]])
            return [way.scaled(x, self._factor(eqn), self.sign(eqn))]
        if name in LINEAR_CORES and len(active) == 1:
            return [way.through(eqn, eqn.inputs.index(active[0]), env[active[0]])]
        if name in MOVES or name == "select_n" or (name in FIXED_LINEAR and name not in _UNMAPPED):
            return way.moved(eqn, env)
        raise RuleError(
            f"The rule splits weights by their sign, but the layer of `{name}` ({eqn.source}) has "
            "no weights that can be split; give this layer Epsilon, Gradient, Pass or Stop."
        )

    def _factor(self, eqn: Eqn) -> Callable[[], Any]:
        """The factor of a scale, read on demand."""
        (value,) = self.outside_of(eqn)

        def read() -> Any:
            factor = evaluate.as_number(evaluate.read(self.outside, value))
            return 1 / factor if eqn.name == "div" else factor

        return functools.cache(read)

    def product(self, core: Eqn, operand: int, x: Any, kernel: Any) -> Any:
        """The core applied to its active operand, with another kernel."""
        places = {operand: x, weight_position(core, operand): kernel}
        operands = [
            places[i] if i in places else evaluate.read(self.outside, v)
            for i, v in enumerate(core.inputs)
        ]
        params = evaluate.widened_params(core.params, x.dtype)
        return depthwise.bind(core.prim, params, operands)[0]

    def move(self, eqn: Eqn, values: dict[Value, Any]) -> list[Any]:
        """An equation that moves or adds up elements, with zeros for static operands."""
        operands = []
        for i, v in enumerate(eqn.inputs):
            if v in values:
                operands.append(values[v])
                continue
            static = evaluate.read(self.outside, v)
            is_term = i in carrying(eqn) and v.dtype != bool
            operands.append(jnp.zeros_like(static) if is_term else static)
        return evaluate.apply(_filled_with_zeros(eqn), operands, wide=True)


def _filled_with_zeros(eqn: Eqn) -> Eqn:
    """A gather that fills elements out of bounds with zeros, as their value is a static term."""
    if eqn.name != "gather" or eqn.params["fill_value"] == 0:
        return eqn
    params = compat.Params(eqn.name, {**eqn.params, "fill_value": 0})
    return Eqn(eqn.prim, params, eqn.inputs, eqn.outputs, eqn.scope, eqn.source_info, eqn.call)


def _widened_to(x: Any, value: Value, out: Value) -> Any:
    """A term of a sum in the sum's shape; a thin array (see `constant`) stays thin."""
    whole = x.shape == value.shape and value.shape != out.shape
    return jnp.broadcast_to(x, out.shape) if whole else x


def _sign_of(value: Value) -> int | None:
    """The sign of a number that is written in the program; None for anything else."""
    number = number_of(value)
    if number is None or not (number > 0 or number < 0):
        return None
    return 1 if number > 0 else -1
