"""All code that depends on the version of JAX; no other file does."""

from __future__ import annotations

import sys
import sysconfig
import weakref
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.core
import numpy as np
from jax.experimental import checkify
from jax.extend import core as jex_core
from jax.extend import source_info_util
from jax.extend.core import primitives as jex_primitives

from jaxlrp.errors import JaxVersionError

# Versions under which the tests were run; see `make test-matrix`.
TESTED = ("0.10.0", "0.10.2", "0.12.0.1")

Literal = jex_core.Literal
DropVar = jex_core.DropVar
Jaxpr = jex_core.Jaxpr
ClosedJaxpr = jex_core.ClosedJaxpr
Primitive = jex_core.Primitive
jaxprs_in_params = jex_core.jaxprs_in_params
jaxpr_as_fun = jex_core.jaxpr_as_fun
TRANSPOSE = jex_primitives.transpose_p
CONVOLUTION = jex_primitives.conv_general_dilated_p

_REMAT = ("remat2", "checkpoint")
_PLAIN_CALLS = ("jit", "pjit", "closed_call", "core_call")  # without a meaning of their own
# Parameters in which call-like primitives keep their jaxpr.
_CALLS = {
    **dict.fromkeys(("jit", "pjit", *_REMAT), "jaxpr"),
    **dict.fromkeys(("closed_call", "core_call", "eval_jaxpr"), "call_jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
# Kernels that hide their computation.
_ATTENTION_KERNELS = (
    "dot_product_attention_fwd_wrapper",
    "dot_product_attention_fwd",
    "dot_product_attention_fp8_fwd_wrapper",
)
_KERNELS = ("pallas_call", "pure_callback", "io_callback", "ffi_call", "tpu_custom_call")


class Params(dict[str, Any]):
    """Parameters of an equation. One that this version of JAX does not have is a clear error."""

    __slots__ = ("content", "primitive")

    def __init__(self, primitive: str, params: dict[str, Any]):
        super().__init__(params)
        self.primitive = primitive
        self.content: Hashable = None  # kept here by graph/contents.py

    def __missing__(self, name: str) -> Any:
        raise _unknown_jax(
            f"its {self.primitive!r} equations have no parameter {name!r} (they have "
            f"{', '.join(sorted(self))})"
        )


def _unknown_jax(found: str) -> JaxVersionError:
    return JaxVersionError(
        f"jaxlrp does not know JAX {jax.__version__}: {found}. It was tested with JAX "
        f"{', '.join(TESTED)}; install one of these, or look for a newer jaxlrp."
    )


class Body(NamedTuple):
    """A jaxpr with the arrays that it closes over. JAX 0.12 has one class for both."""

    jaxpr: Any
    consts: Sequence[Any]


def _body(jaxpr: Any) -> Body:
    if isinstance(jaxpr, ClosedJaxpr):
        return Body(jaxpr.jaxpr, jaxpr.consts)
    return Body(jaxpr, ())


def called_jaxpr(eqn: Any) -> Body | None:
    """The jaxpr and constants that a call-like equation runs, or None."""
    if eqn.primitive.name == "call_hi_primitive":
        return _expanded(eqn.params["_prim"])
    key = _CALLS.get(eqn.primitive.name)
    if key is None or key not in eqn.params:
        return None
    return _body(eqn.params[key])


_EXPANDED: weakref.WeakKeyDictionary[Any, Body] = weakref.WeakKeyDictionary()


def _expanded(primitive: Any) -> Body | None:
    """The function that a "hijax" primitive of JAX 0.12 stands for, if it maps arrays to arrays.

    It is the same jaxpr each time, since calls of one jaxpr are recognised by its identity.
    """
    if not all(type(aval).__name__ == "ShapedArray" for aval in primitive.in_avals_flat):
        return None
    if primitive not in _EXPANDED:

        def flat(*args: Any) -> list[Any]:
            results = primitive.expand(*primitive.in_tree.unflatten(args))
            return primitive.out_tree.flatten_up_to(results)

        _EXPANDED[primitive] = _body(jax.make_jaxpr(flat)(*primitive.in_avals_flat))
    return _EXPANDED[primitive]


def bodies(eqn: Any) -> tuple[Body, ...]:
    """The jaxprs that an equation of control flow runs: the body of a scan, a cond's branches."""
    params = Params(eqn.primitive.name, eqn.params)
    if eqn.primitive.name in ("scan", "shard_map"):
        return (_body(params["jaxpr"]),)
    if eqn.primitive.name == "cond":
        return tuple(map(_body, params["branches"]))
    return ()


_WRITES = ("WriteEffect", "AccumEffect")
# Effects that are not actions: names of axes, and reads and writes of references.
_IDLE = ("NamedAxisEffect", "ReadEffect", "InternalMutableArrayEffect", *_WRITES)


def acts(effects: Iterable[Any]) -> bool:
    """Whether some effects are actions outside the program: prints, callbacks, checks."""
    return any(type(effect).__name__ not in _IDLE for effect in effects)


def writes(effects: Iterable[Any]) -> bool:
    """Whether some effects are writes to references (`jax.Ref`)."""
    return any(type(effect).__name__ in _WRITES for effect in effects)


class Nested(NamedTuple):
    """The jaxpr that an equation runs; `kind` is "call", "remat" or "scan"."""

    kind: str
    body: Body


def nested(eqn: Any) -> Nested | None:
    """The jaxpr that a plain call, a rematerialised call or a scan runs; None for all others."""
    name = eqn.primitive.name
    if name == "scan":
        return Nested("scan", bodies(eqn)[0])
    if name in _REMAT or (name in _PLAIN_CALLS and called_jaxpr(eqn) is not None):
        return Nested("remat" if name in _REMAT else "call", _body(eqn.params[_CALLS[name]]))
    return None


def recomputed(primitive: Any, params: Any, function: Any, args: Sequence[Any]) -> list[Any]:
    """Apply a function as a rematerialised call with the parameters of another such call."""
    made = jax.make_jaxpr(function)(*args)
    closed = isinstance(params["jaxpr"], ClosedJaxpr)
    return bind(primitive, {**params, "jaxpr": made if closed else made.jaxpr}, args)


class ScanParts(NamedTuple):
    """How many operands of a scan are constants, and how many start its carry."""

    consts: int
    carry: int


def scan_parts(
    operands: Sequence[int],
    results: Sequence[int],
    body_inputs: Sequence[int],
    body_outputs: Sequence[int],
) -> ScanParts:
    """The parts of a scan, from the number of axes of operands and results inside and outside.

    Sliced and stacked arrays have one axis more outside. This holds under every version of JAX,
    while the parameters that count constants and carries have changed.
    """
    whole = [outside == inside for outside, inside in zip(operands, body_inputs, strict=True)]
    carried = [outside == inside for outside, inside in zip(results, body_outputs, strict=True)]
    carry = sum(carried)
    parts = ScanParts(sum(whole) - carry, carry)
    ordered = all(whole[: sum(whole)]) and all(carried[:carry]) and parts.consts >= 0
    if not ordered:
        raise _unknown_jax("the operands of a 'scan' are not constants, carries and sequences")
    return parts


def scan_settings(params: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments with which `jax.lax.scan` makes an equation like this one."""
    return {name: params[name] for name in ("length", "reverse", "unroll")}


def shard_map(function: Any, params: dict[str, Any]) -> Any:
    """`function` under the mesh and the specifications of a `shard_map` equation."""
    axes = "manual_axes" if "manual_axes" in params else "newly_manual_axes"  # 0.10.0, later
    return jax.shard_map(
        function,
        mesh=params["mesh"],
        in_specs=tuple(params["in_specs"]),
        out_specs=tuple(params["out_specs"]),
        axis_names=set(params[axes]),
        check_vma=params["check_vma"],
    )


def varying_axes(x: Any) -> frozenset[str]:
    """The axes of a manual mesh along which an array's copies differ."""
    return frozenset(getattr(getattr(jax.typeof(x), "manual_axis_type", None), "varying", ()))


def typed_like(x: Any, *others: Any) -> Any:
    """`x` laid out over devices as other arrays are, so that it may be their cotangent.

    Inside `shard_map`, an array that is the same on all devices is marked as varying where the
    others vary, and one that varies is summed where they do not. On a mesh of explicit axes it
    takes the sharding of the first.
    """
    varying = frozenset().union(*map(varying_axes, others))
    missing, extra = varying - varying_axes(x), varying_axes(x) - varying
    if missing:
        x = jax.lax.pcast(x, tuple(sorted(missing)), to="varying")
    if extra:
        x = jax.lax.psum(x, tuple(sorted(extra)))
    return sharded_like(x, others[0])


def sharded_like(x: Any, other: Any) -> Any:
    """`x` with the sharding of another array of its shape, on a mesh of explicit axes."""
    wanted = jax.typeof(other).sharding
    if not _is_explicit(wanted) or x.shape != other.shape or wanted == jax.typeof(x).sharding:
        return x
    return jax.sharding.reshard(x, wanted)


def linear_transpose(function: Any, like: Any, s: Any) -> Any:
    """The transpose of a linear function of arrays like `like`, applied to `s`; both pytrees."""
    arrays = jax.tree.leaves((like, s))
    if not any(varying_axes(a) or _is_explicit(jax.typeof(a).sharding) for a in arrays):
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like)
        try:
            return jax.linear_transpose(function, shapes)(s)[0]
        except NotImplementedError:
            pass  # a scatter whose indices may repeat has a derivative, but no transpose
    # The types that say how arrays are laid out over devices come from an example.
    zeros = jax.tree.map(lambda a: typed_like(jax.numpy.zeros(a.shape, a.dtype), a), like)
    out, back = jax.vjp(function, zeros)
    return back(jax.tree.map(typed_like, s, out))[0]


def _is_explicit(sharding: Any) -> bool:
    mesh = getattr(sharding, "mesh", None)
    return (
        mesh is not None
        and bool(mesh.axis_names)
        and not mesh.are_all_axes_manual
        and any("Explicit" in str(kind) for kind in mesh.axis_types)
    )


def opaque_remedy(name: str) -> str | None:
    """The remedy for a primitive whose computation is hidden; None for other primitives."""
    if name in _ATTENTION_KERNELS:
        return 'Call jax.nn.dot_product_attention(..., implementation="xla") for explanations.'
    if name == "while":
        return (
            "A loop can be run backwards only if its number of iterations is known: write "
            "lax.scan, or lax.fori_loop with bounds that are Python numbers, and hold finished "
            'values with jnp.where; some solvers offer such a loop (such as kind="bounded"). '
            "A solution z = f(z, x) can be explained by its last step: return "
            "f(jax.lax.stop_gradient(z), x)."
        )
    if name in _KERNELS:
        return (
            "Switch to the implementation in plain JAX for explanations (for attention, "
            'jax.nn.dot_product_attention(..., implementation="xla")), or give the layer a rule of '
            f'its own: `rules | {{"{name}": my_rule}}`.'
        )
    return None


def remat_settings(eqn: Any) -> dict[str, Any] | None:
    """Keyword arguments for `jax.checkpoint` if the equation is a rematerialised call."""
    if eqn.primitive.name not in _REMAT:
        return None
    params = Params(eqn.primitive.name, eqn.params)
    return {"policy": params["policy"], "prevent_cse": params["prevent_cse"]}


def scope_names(eqn: Any) -> tuple[str, ...]:
    """Named scopes around an equation, without the marks of transformations and of einsum."""
    stack = getattr(eqn.source_info.name_stack, "stack", ())
    names = (entry.name for entry in stack if type(entry).__name__ == "Scope")
    return tuple(name for name in names if "->" not in name)


_INSTALLED = {sysconfig.get_paths()[k] for k in ("purelib", "platlib", "stdlib")}
_NOT_THE_USERS = (*_INSTALLED, __file__.removesuffix("compat.py"), "<frozen")


def source_line(caller: Any, source_info: Any) -> str:
    """`file:line (function)`: the innermost frame outside installed packages, if there is one.

    `caller` is the source of the outermost call around the equation: for an equation inside a
    library's jitted helper, the line that called the helper is the most helpful one.
    """
    for info in (source_info, caller):
        traceback = getattr(info, "traceback", None)
        for frame in getattr(traceback, "frames", ()):
            name = frame.file_name
            if not name.startswith(_NOT_THE_USERS):
                return f"{name.rsplit('/', 1)[-1]}:{frame.line_num} ({frame.function_name})"
    texts = (source_info_util.summarize(i) for i in (source_info, caller) if i is not None)
    return next((t.rsplit("/", 1)[-1] for t in texts if t), "unknown")


def depth_of_user() -> int:
    """How many calls up the first frame outside installed packages is; 1 is the caller."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame, depth = frame.f_back, depth + 1
    return depth


def bind(primitive: Any, params: dict[str, Any], values: Sequence[Any]) -> list[Any]:
    """Apply a primitive; always a list of outputs."""
    out = primitive.bind(*values, **primitive.get_bind_params(params))
    return list(out) if primitive.multiple_results else [out]


def without_derivative(x: Any) -> Any:
    """`x` as a constant for derivatives, also for integers, whose cotangents scans do not slice."""
    cut = getattr(jex_primitives, "stop_gradient_p", None)
    return jax.lax.stop_gradient(x) if cut is None else cut.bind(x)


_UPDATES = {
    "scatter-add": jax.lax.add,
    "scatter-mul": jax.lax.mul,
    "scatter-max": jax.lax.max,
    "scatter-min": jax.lax.min,
}


def retyped(primitive: Any, params: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Parameters of an equation for operands of another type than it was traced with."""
    if params.get("update_jaxpr") is None or primitive.name not in _UPDATES:
        return params
    scalar = jax.ShapeDtypeStruct((), dtype)
    made = jax.make_jaxpr(_UPDATES[primitive.name])(scalar, scalar)
    closed = isinstance(params["update_jaxpr"], ClosedJaxpr)
    return {**params, "update_jaxpr": made if closed else made.jaxpr}


def is_primitive(obj: Any) -> TypeGuard[Primitive]:
    """Whether an object is a JAX primitive (`lax.dot_general_p`)."""
    return isinstance(obj, Primitive)


def primitive_names() -> frozenset[str]:
    """Names of the primitives that this JAX knows."""
    found = (getattr(jex_primitives, name) for name in dir(jex_primitives) if name.endswith("_p"))
    return frozenset(p.name for p in found if is_primitive(p))


def is_concrete(x: Any) -> bool:
    """Whether an array has a value now: it is not a tracer."""
    return not isinstance(x, jax.core.Tracer)


def is_staging() -> bool:
    """Whether operations on constants are being traced, as under `jit`."""
    return not is_concrete(jax.device_put(np.zeros(())))  # the one operation without a program


def settings() -> Hashable:
    """The state that decides how a function is traced: flags and the mesh."""
    flags = tuple((name, getattr(jax.config, name, None)) for name in jax.config.values)
    return flags, jax.sharding.get_abstract_mesh()


def check_under_checkify(holds: Any, message: str) -> None:
    """Report an error where `jax.experimental.checkify` looks for user checks; else do nothing."""
    checkify.debug_check(holds, message)


def path_names(path: Sequence[Any]) -> tuple[str, ...]:
    """A pytree key path as plain words: `.layers[0].weight` -> ('layers', '0', 'weight')."""
    names = ("key", "name", "idx")
    found = (next((getattr(k, n) for n in names if hasattr(k, n)), k) for k in path)
    return tuple(map(str, found))
