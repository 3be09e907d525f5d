"""Runs a jaxpr without compiling it: most equations in NumPy, the rest one by one in JAX.

A program of a test is run once or twice, and compiling it would take several times as long as
tracing it. What NumPy does not do in a few lines is bound as it stands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "square": np.square,
    "logistic": lambda a: 1 / (1 + np.exp(-a)),
    "sin": np.sin,
    "cos": np.cos,
    "real": np.real,
    "imag": np.imag,
    "conj": np.conj,
    "is_finite": np.isfinite,
    "stop_gradient": lambda a: a,
    "copy": lambda a: a,
    "copy_p": lambda a: a,
}
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "complex": lambda a, b: a + 1j * b,
}
_REDUCE: dict[str, Callable[..., Any]] = {
    "reduce_sum": np.sum,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_and": np.all,
    "reduce_or": np.any,
}
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The outputs of a jaxpr."""
    env: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        if hasattr(atom, "val"):
            return np.asarray(atom.val, atom.aval.dtype)
        return env[atom]

    env.update(zip(jaxpr.constvars, consts))
    env.update(zip(jaxpr.invars, args))
    for eqn in jaxpr.eqns:
        outs = _run(eqn, [read(a) for a in eqn.invars])
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(a) for a in jaxpr.outvars]


def run(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`fn(*args, **kwargs)`, traced and then evaluated; the outputs as NumPy arrays."""
    return in_numpy(fn)(*args, **kwargs)


def in_numpy(fn: Callable[..., Any]) -> Callable[..., Any]:
    """In place of `jax.jit`: traced once for arguments of a type, and run without compiling.

    With COMPILED in the environment it is `jax.jit`, to see that both give the same numbers.
    """
    if "COMPILED" in os.environ:
        compiled = jax.jit(fn)
        return lambda *args, **kwargs: jax.tree.map(np.asarray, compiled(*args, **kwargs))
    traced: dict[Any, Any] = {}

    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        key = tree, tuple(map(jax.typeof, leaves))
        if key not in traced:
            traced[key] = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        closed, shape = traced[key]
        with np.errstate(all="ignore"):
            outs = evaluate(closed.jaxpr, closed.consts, leaves)
        outs = [np.asarray(o) for o in outs]
        return jax.tree.unflatten(jax.tree.structure(shape), outs)

    return call


def _closed(jaxpr: Any, args: Sequence[Any]) -> list[Any]:
    if hasattr(jaxpr, "jaxpr"):
        return evaluate(jaxpr.jaxpr, jaxpr.consts, args)
    return evaluate(jaxpr, (), args)


def _run(eqn: Any, args: list[Any]) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        jaxpr = getattr(params["jaxpr"], "jaxpr", params["jaxpr"])
        return scan(
            params,
            lambda step: _closed(params["jaxpr"], step),
            [v.aval for v in jaxpr.invars],
            [(v.aval, out.aval) for v, out in zip(jaxpr.outvars, eqn.outvars, strict=True)],
            args,
        )
    if name == "cond":
        return _closed(params["branches"][int(args[0])], args[1:])
    if name != "while":
        for key in _CALLS:
            if key in params:
                return _closed(params[key], args)
    return equation(eqn.primitive, params, args, [v.aval for v in eqn.outvars])


def equation(
    primitive: Any, params: dict[str, Any], args: list[Any], avals: list[Any]
) -> list[Any]:
    """The outputs of one equation that calls nothing."""
    name = primitive.name
    if name == "check" and params["debug"]:
        return []  # as under jit, unless checkify looks
    if not avals:
        return list(primitive.bind(*args, **params))
    aval = avals[0]
    if name == "optimization_barrier":
        return args
    if name == "split":
        cuts = np.cumsum(params["sizes"])[:-1]
        return list(np.split(np.asarray(args[0]), cuts, params["axis"]))
    out = _numpy(name, params, args, aval)
    if out is not None:
        return [np.asarray(out, aval.dtype)]
    outs = primitive.bind(*args, **params)
    return list(outs) if primitive.multiple_results else [outs]


def _numpy(name: str, params: dict[str, Any], args: list[Any], aval: Any) -> Any:
    args = [np.asarray(a) if isinstance(a, np.generic) else a for a in args]
    if not all(isinstance(a, np.ndarray) for a in args):
        args = [np.asarray(a) for a in args]
    if name in _UNARY:
        return _UNARY[name](args[0])
    if name in _BINARY:
        return _BINARY[name](*args)
    if name in _REDUCE and "axes" in params:
        return _REDUCE[name](args[0], axis=tuple(params["axes"]))
    if name == "div" and np.issubdtype(aval.dtype, np.inexact):
        return np.divide(*args)
    if name == "integer_pow":
        return args[0] ** float(params["y"]) if params["y"] < 0 else args[0] ** params["y"]
    if name == "broadcast_in_dim":
        shape = [1] * len(params["shape"])
        for dim, n in zip(params["broadcast_dimensions"], args[0].shape):
            shape[dim] = n
        return np.broadcast_to(args[0].reshape(shape), params["shape"])
    if name in ("reshape", "squeeze", "expand_dims"):
        order = params.get("dimensions") if name == "reshape" else None
        return (args[0] if order is None else args[0].transpose(order)).reshape(aval.shape)
    if name == "transpose":
        return args[0].transpose(params["permutation"])
    if name == "rev":
        return np.flip(args[0], params["dimensions"])
    if name == "slice":
        strides = params["strides"] or [1] * args[0].ndim
        cut = zip(params["start_indices"], params["limit_indices"], strides)
        return args[0][tuple(slice(*c) for c in cut)]
    if name == "concatenate":
        return np.concatenate(args, params["dimension"])
    if name == "pad":
        return _pad(args[0], args[1], params["padding_config"])
    if name == "convert_element_type" and _converts_alike(args[0].dtype, aval.dtype):
        return args[0].astype(aval.dtype)
    if name == "iota":
        along = [-1 if i == params["dimension"] else 1 for i in range(len(aval.shape))]
        return np.broadcast_to(
            np.arange(aval.shape[params["dimension"]]).reshape(along), aval.shape
        )
    if name == "clamp":
        return np.minimum(np.maximum(args[1], args[0]), args[2])
    if name == "select_n" and len(args) == 3 and args[0].dtype == bool:
        return np.where(args[0], args[2], args[1])
    if not np.issubdtype(aval.dtype, np.number):  # bfloat16, which NumPy does not multiply
        return None
    if name == "dot_general":
        return _dot(params["dimension_numbers"], *(a.astype(aval.dtype) for a in args))
    if name == "conv_general_dilated" and params["batch_group_count"] == 1:
        return _conv(params, *(a.astype(aval.dtype) for a in args))
    return None


def _converts_alike(old: Any, new: Any) -> bool:
    """Whether NumPy and XLA agree: of numbers that an integer cannot hold they make others."""
    if np.issubdtype(old, np.complexfloating):
        return False
    to_any = np.issubdtype(new, np.floating) or np.issubdtype(new, np.bool_)
    whole = np.issubdtype(old, np.integer) or np.issubdtype(old, np.bool_)
    return to_any or (whole and np.issubdtype(new, np.integer))


def _dot(dimensions: Any, a: Any, b: Any) -> Any:
    (over_a, over_b), (batch_a, batch_b) = dimensions
    left, right = list(range(a.ndim)), list(range(a.ndim, a.ndim + b.ndim))
    for i, j in zip((*over_a, *batch_a), (*over_b, *batch_b)):
        right[j] = left[i]
    out = [left[i] for i in batch_a]
    out += [n for i, n in enumerate(left) if i not in (*over_a, *batch_a)]
    out += [n for j, n in enumerate(right) if j not in (*over_b, *batch_b)]
    return np.einsum(a, left, b, right, out)


def _pad(a: Any, value: Any, config: Sequence[tuple[int, int, int]]) -> Any:
    """Padded before, after and between elements; what is negative at an end cuts it off."""
    for axis, (low, high, between) in enumerate(config):
        size = a.shape[axis]
        rows = np.moveaxis(a, axis, 0)
        inner = max(size + between * (size - 1), 0)
        wide = np.full((max(low, 0) + inner + max(high, 0), *rows.shape[1:]), value, a.dtype)
        wide[max(low, 0) : max(low, 0) + inner : between + 1] = rows
        a = np.moveaxis(wide[max(-low, 0) : len(wide) - max(-high, 0)], 0, axis)
    return a


def _conv(params: dict[str, Any], x: Any, kernel: Any) -> Any:
    """A convolution as a product of windows and kernel; None where no window fits."""
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    around = [
        (low, high, d - 1) for (low, high), d in zip(params["padding"], params["lhs_dilation"])
    ]
    within = [(0, 0, d - 1) for d in params["rhs_dilation"]]
    x = _pad(x.transpose(numbers.lhs_spec), 0, [(0, 0, 0)] * 2 + around)
    kernel = _pad(kernel.transpose(numbers.rhs_spec), 0, [(0, 0, 0)] * 2 + within)
    space = x.ndim - 2
    if any(k > n for k, n in zip(kernel.shape[2:], x.shape[2:])):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(
        x, kernel.shape[2:], tuple(range(2, x.ndim))
    )[(..., *(slice(None, None, n) for n in params["window_strides"]), *[slice(None)] * space)]
    windows = windows.reshape(len(x), groups, -1, *windows.shape[2:])
    kernel = kernel.reshape(groups, -1, *kernel.shape[1:])
    batch, group, out, feature = range(4)
    places, taps = range(4, 4 + space), range(4 + space, 4 + 2 * space)
    found = np.einsum(
        windows, [batch, group, feature, *places, *taps],
        kernel, [group, out, feature, *taps],
        [batch, group, out, *places],
        optimize=True,
    )  # fmt: skip
    found = found.reshape(len(x), -1, *found.shape[3:])
    return found.transpose(np.argsort(numbers.out_spec))


def scan(
    params: dict[str, Any],
    body: Callable[[list[Any]], list[Any]],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    args: Sequence[Any],
) -> list[Any]:
    """The outputs of a scan; `inputs` and `outputs` are the abstract values that its body sees.

    An operand that has as many axes inside as outside is a constant or a carry, and each carry
    comes back first: so the counts need no parameter, whose name depends on the version of JAX.
    """
    whole = sum(np.ndim(arg) == len(aval.shape) for arg, aval in zip(args, inputs, strict=True))
    kept = sum(len(inner.shape) == len(outer.shape) for inner, outer in outputs)
    held, carry, xs = args[: whole - kept], list(args[whole - kept : whole]), args[whole:]
    rows: list[list[Any]] = [[] for _ in range(params["length"])]
    order = range(len(rows))
    for step in reversed(order) if params["reverse"] else order:
        outs = body([*held, *carry, *(np.asarray(x)[step] for x in xs)])
        carry, rows[step] = outs[:kept], outs[kept:]
    return [*carry, *(np.stack([np.asarray(v) for v in column]) for column in zip(*rows))]
