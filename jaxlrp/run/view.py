"""The view of a layer that a rule has at run time: arrays, and maps that are made on demand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import compat
from jaxlrp.graph.groups import Group
from jaxlrp.graph.particulars import Activation, Norm, Product, Softmax
from jaxlrp.graph.primitives import WINDOW_WINNERS
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.rules.arithmetic import (
    choose,
    divide,
    multiply,
    safe_divide,
    stabilise,
    stabilised_share,
    times,
)
from jaxlrp.rules.base import LINEAR_KINDS
from jaxlrp.rules.layer_view import Carries
from jaxlrp.run import evaluate, masked_softmax, winners
from jaxlrp.run.evaluate import Env
from jaxlrp.run.late_splits import Waiting
from jaxlrp.run.layer_facts import bias_of, constant, has_bias, mean_over_features
from jaxlrp.run.linear_map import BoundLinear
from jaxlrp.run.weights_by_sign import Split


class View:
    """One layer while relevance passes it; see `jaxlrp.rules.LayerView`."""

    def __init__(
        self,
        layer: Layer,
        inputs: tuple[Any, ...],
        outside: Env,
        output: Any,
        arrived: Any,
        relu: bool = False,
        late: Waiting = None,
    ):
        self._group = group = group_of(layer)
        self._inputs = inputs
        self._outside = outside
        self._proven = layer.nonnegative
        self.z = output
        self._arrived = arrived
        self._late: Waiting = late  # for what arrived
        self._relu = relu  # z is max(z, 0), and the density after that ReLU arrived
        self.arriving: Carries = layer.arriving
        self.carries: Carries = layer.carries
        self.sign_split = layer.sign_split
        self._activation = group.particulars_as(Activation)
        self._product = group.particulars_as(Product)
        self._contributions: Contributions | None = None
        self.bias_loss: list[Any] = []
        self.stabiliser_loss: list[Any] = []

    @property
    def is_relu(self) -> bool:
        return self._activation.is_relu

    @property
    def relu_slopes(self) -> tuple[float, float] | None:
        return self._activation.relu_slopes

    @property
    def transport(self) -> str:
        return self._group.transport

    @property
    def powers(self) -> tuple[int, ...]:
        return self._product.powers

    @property
    def gates(self) -> tuple[int, ...]:
        return self._product.gates

    @property
    def gate(self) -> int | None:
        return self._group.gate

    @property
    def reciprocal(self) -> int | None:
        dividing = [i for i, power in enumerate(self.powers) if power < 0]
        return dividing[0] if len(dividing) == 1 else None

    @property
    def factors(self) -> Any:
        main = self._group.main
        if main.name == "reduce_prod":
            shape = self._group.inputs[0].shape
            return math.prod(shape[axis] for axis in main.params["axes"])
        if main.name == "cumprod":  # one more with every element
            axis, shape = main.params["axis"], self.z.shape
            counted = jax.lax.broadcasted_iota(self.z.dtype, shape, axis)
            return shape[axis] - counted if main.params["reverse"] else 1 + counted
        return len(self.powers) or 2

    @property
    def x(self) -> Any:
        return self._inputs[0] if len(self._inputs) == 1 else self._inputs

    @property
    def nonnegative(self) -> bool:
        return self._proven and (self._group.linear is None or self._linear.keeps_signs)

    @functools.cached_property
    def linear(self) -> Any:
        if self._group.kind == "norm":
            return self._linear_inside()
        if not has_bias(self._group):
            return self.z
        return self._linear.map(1.0, 0.0, 0.0, 0.0)(self.x)

    def _linear_inside(self) -> Any:
        """The output of a norm without its shift, with the detached factors at their values."""
        function = self._held()
        return jax.jvp(function, self._inputs, self._inputs)[1]

    @functools.cached_property
    def bias(self) -> Any:
        if self._group.kind == "norm" and self._group.particulars_as(Norm).tail is None:
            return self._shift_inside()
        return bias_of(self._group, self._outside)

    def _shift_inside(self) -> Any:
        """The output for a zero input, with the detached factors at their values."""
        return self._held()(*(jnp.zeros_like(x) for x in self._inputs))

    def _held(self) -> Callable[..., Any]:
        """The layer as a function of its inputs, with the detached factors at their values."""
        group = self._group
        env = {**self._outside, **dict(zip(group.inputs, self._inputs, strict=True))}
        evaluate.run(group.eqns, env, wide=True)
        held = {(e, i): evaluate.read(env, e.inputs[i]) for e, i in group.detached}

        def function(*inputs: Any) -> Any:
            given = {**self._outside, **dict(zip(group.inputs, inputs, strict=True))}
            evaluate.run(group.eqns, given, wide=True, given=held)
            return given[group.outputs[0]]

        return function

    @functools.cached_property
    def arrived(self) -> Any:
        """The quantity that arrived at the output; 0 where a ReLU is shut."""
        arrived = self._arrived
        return choose(self.z > 0, arrived, 0.0, arrived) if self._relu else arrived

    @functools.cached_property
    def relevance(self) -> Any:
        if self.arriving == "relevance":
            return self._arrived
        return jax.tree.map(times, self.z, self._arrived)  # 0 where z is

    @functools.cached_property
    def density(self) -> Any:
        if self.arriving == "density":
            return self.arrived
        return jax.tree.map(safe_divide, self.arrived, self.z)

    def over(
        self, denominator: Any, *, bias: Any = 0.0, share: Any = 1.0, epsilon: Any = 0.0
    ) -> Any:
        no_epsilon = isinstance(epsilon, (int, float)) and epsilon == 0
        whole = isinstance(share, (int, float)) and share == 1
        if self.arriving == "density" and denominator is self.z and no_epsilon:
            # R / z is the density itself, so there is no division, and z = 0 needs no care.
            s = self.density if whole else jax.tree.map(lambda c: share * c, self.density)
        elif self._shares(denominator, epsilon):
            s = multiply(self._arrived, stabilised_share(denominator, epsilon))
            s = s if whole else share * s
        else:
            # With epsilon > 0 the stabilised denominator is never 0.
            positive = isinstance(epsilon, (int, float)) and epsilon > 0
            quotient = divide if positive else safe_divide
            s = jax.tree.map(
                lambda r, z: quotient(r, stabilise(z, epsilon)), self.relevance, denominator
            )
            s = s if whole else jax.tree.map(lambda q: share * q, s)
        if not no_epsilon:
            self.stabiliser_loss.append((s, denominator, epsilon))
        if not (isinstance(bias, float) and bias == 0.0):
            self.bias_loss.append((s, bias))
        return s

    def _shares(self, denominator: Any, epsilon: Any) -> bool:
        """Whether R / stab(z) is the density times a share of z: half the equations."""
        positive = isinstance(epsilon, (int, float)) and epsilon > 0
        whole = positive and self.arriving == "density" and denominator is self.z
        return whole and not isinstance(denominator, tuple) and not jnp.iscomplexobj(denominator)

    def losses(self) -> tuple[list[Any], list[Any]]:
        """Relevance that biases and stabilisers took in the quotients formed so far.

        Where the denominator is 0 nothing is stabilised, and the rule drops the arriving relevance.
        """
        biases = [s * b for s, b in self.bias_loss]
        stabilisers = [
            jnp.where(z == 0, 0.0, s * (stabilise(z, e) - z)) for s, z, e in self.stabiliser_loss
        ]
        return biases, stabilisers

    def rms(self, z: Any) -> Any:
        return jnp.sqrt(mean_over_features(self._group, jnp.square(z)))

    @functools.cached_property
    def _linear(self) -> BoundLinear:
        return BoundLinear(self._group, self._outside, self.x, self._arrived, self._late)

    def map(
        self,
        *,
        signed: float = 0.0,
        positive: float = 0.0,
        negative: float = 0.0,
        absolute: float = 0.0,
    ) -> Any:
        others = [positive, negative, absolute]
        if all(isinstance(c, (int, float)) and c == 0 for c in others):
            return _Scaled(self, signed)
        return self._linear.map(signed, positive, negative, absolute)

    def split(self) -> Split:
        return self._linear.split()

    def contributions(self) -> Contributions:
        if self._contributions is None:
            self._contributions = Contributions(self)
        return self._contributions

    def squares(self) -> Any:
        return self._linear.squares()

    def ones(self) -> Any:
        return self._linear.ones()

    def constant(self, value: Any) -> Any:
        if isinstance(self.x, tuple):
            return tuple(jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape) for x in self.x)
        return compat.typed_like(constant(self._group, self.x, value), self.x)

    def function(self, *inputs: Any) -> Any:
        return evaluated(self._group, inputs, self._outside)

    def vjp(self, cotangent: Any, *, detach: bool = True) -> Any:
        group = self._group

        def function(*inputs: Any) -> Any:
            return evaluated(group, inputs, self._outside, group.detached if detach else ())

        outputs, back = jax.vjp(function, *self._inputs)
        cotangent = jax.tree.map(lambda c, y: c.astype(y.dtype), cotangent, outputs)
        found = back(cotangent)
        softmax = group.particulars_as(Softmax)
        if softmax.logits in group.inputs:
            pairs = zip(self._inputs, found)
            found = tuple(masked_softmax.without_relevance(c, x, softmax) for x, c in pairs)
        return found[0] if len(found) == 1 else found

    def secant(self, density: Any) -> Any:
        x = self.x
        if self.is_relu:
            return choose(self.z > 0, density, 0.0, density)
        if jnp.iscomplexobj(x) or jnp.iscomplexobj(self.z):
            return self._complex_secant(density)
        tiny = jnp.finfo(x.dtype).tiny
        return divide(multiply(density, self.z), choose(jax.lax.abs(x) < tiny, jnp.inf, x, x))

    def _complex_secant(self, density: Any) -> Any:
        """The density c of x with Re(c x) = R: of modulus R / |x|, with the phase of conj(x)."""
        x, relevance = self.x, jnp.real(density * self.z)
        size = jnp.real(x * jnp.conj(x))
        small = size < jnp.finfo(size.dtype).tiny
        share = choose(small, 0.0, relevance / choose(small, 1.0, size, size), size)
        return share * jnp.conj(x)

    def route(self, arrived: Any) -> Any:
        if self._group.main.name in WINDOW_WINNERS:
            return self.vjp(arrived)  # select-and-scatter: the first of equal elements
        back = winners.route(self._group.main, self._inputs, self._outside, self.z, arrived)
        return back[0] if len(back) == 1 else back


def evaluated(group: Group, inputs: Sequence[Any], outside: Env, detached: Any = ()) -> Any:
    """A layer's output for other inputs, a tuple if it has several."""
    env = {**outside, **dict(zip(group.inputs, inputs, strict=True))}
    evaluate.run(group.eqns, env, wide=True, detached=detached)
    outputs = tuple(env[v] for v in group.outputs)
    return outputs[0] if len(outputs) == 1 else outputs


def offset(group: Group, inputs: tuple[Any, ...], outside: Env) -> Any:
    """f(x) - f'(x) x of a layer's first output: the bias of its linear approximation at x."""
    if group.kind in LINEAR_KINDS:
        bias = jnp.asarray(bias_of(group, outside), inputs[0].dtype)
        return jnp.broadcast_to(bias, group.outputs[0].shape)

    def function(*inputs: Any) -> Any:
        found = evaluated(group, inputs, outside)
        return found[0] if len(group.outputs) > 1 else found

    along = tuple(jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x)) for x in inputs)
    value, linear = jax.jvp(function, inputs, along)
    return value - linear


class Contributions:
    """Positive and negative contributions of a layer; see `jaxlrp.rules.Contributions`."""

    def __init__(self, view: View):
        self._x = view._linear.late_input(view.x)
        self._split = view.split()
        self._signed = not view._proven
        if self._signed:
            up = jax.tree.map(lambda x: jnp.maximum(x, 0), self._x)
            down = jax.tree.map(lambda x: jnp.minimum(x, 0), self._x)
            self._parts = self._split.parts(up, down)
        else:
            self._parts = self._split.parts(self._x, None)

    @functools.cached_property
    def positive(self) -> Any:
        return self._split.value(self._parts.positive)

    @functools.cached_property
    def negative(self) -> Any:
        return self._split.value(self._parts.negative)

    def T(self, positive: Any = None, negative: Any = None) -> Any:
        if not self._signed:
            return self._split.T(positive, negative, both=False)
        above, below = self._split.T(positive, negative)
        return jax.tree.map(lambda x, a, b: choose(x < 0, b, a, a), self._x, above, below)


class _Scaled:
    """signed * W: the layer itself, without its bias."""

    def __init__(self, view: View, factor: float):
        self._view = view
        self._factor = factor

    def __call__(self, x: Any) -> Any:
        return self._view._linear.map(self._factor, 0.0, 0.0, 0.0)(x)

    def T(self, s: Any) -> Any:
        core = self._view._linear.only_core
        # The transpose of the core alone if nothing else changes it, so that no forward pass is
        # traced.
        back = self._view.vjp(s) if core is None else self._view._linear.transposed(core, s)
        if isinstance(self._factor, (int, float)) and self._factor == 1:
            return back
        return jax.tree.map(lambda c: self._factor * c, back)
