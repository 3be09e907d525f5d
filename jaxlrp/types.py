"""Types of the public surface that Python cannot spell out, each with a name."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax

# A type of Python cannot say "nested tuples, lists, dicts and registered classes with arrays as
# leaves", so for the type checker these names stand for anything.
PyTree: TypeAlias = Any
"""A pytree of arrays: nested tuples, lists, dicts and registered classes, as in JAX."""

Relevance: TypeAlias = PyTree
"""Relevance: a pytree with the structure and shapes of the values that it explains.

`Float[Array, "*shape"]` for an array `Float[Array, "*shape"]`, float32 at least; `float0` zeros for
leaves that are integers. Its unit is that of the explained output.
"""

Target: TypeAlias = "int | jax.Array | PyTree | None"
"""Where relevance starts, for an output of shape `*batch classes`.

- `None`: every output, each with its own value.
- one integer, or `Int[Array, "*batch"]`: the class on the last axis; its value is the start.
- `Float[Array, "*batch classes"]`: weights, by which the output is multiplied.
- nested lists or tuples of numbers stand for the array that NumPy makes of them.

If `fn` returns several arrays, the target is a pytree of the output's structure, with one of these
for each array; `None` then means that this output is not seeded. If the output is known to hold one
number for each example, an integer is an error, as it would explain that example alone.
"""
