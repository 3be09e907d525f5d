"""What JAX's primitives mean, as far as recognition needs to know: classes of equations."""

from __future__ import annotations

from jaxlrp.graph.ir import Eqn

# Each output element is one input element, a constant, or nothing: relevance only moves.
MOVES = frozenset(
    """reshape transpose squeeze expand_dims broadcast_in_dim broadcast slice dynamic_slice gather
    rev pad concatenate split unstack stack tile copy copy_p dynamic_update_slice scatter device_put
    sharding_constraint optimization_barrier name reduce_precision convert_element_type
    mesh_cast reshard layout_constraint pvary pcast vary_unreduced_cast""".split()
)
# Views that change the shape of a value but neither select nor repeat its elements.
VIEWS = frozenset("reshape transpose squeeze expand_dims copy copy_p convert_element_type".split())
# One value passes through, nothing else happens.
COPIES = frozenset(
    """copy copy_p convert_element_type reduce_precision name optimization_barrier
    sharding_constraint device_put mesh_cast reshard layout_constraint pvary pcast""".split()
)
# Linear maps with fixed coefficients; relevance follows their transpose.
FIXED_LINEAR = frozenset(
    """cumsum fft real imag complex conj reduce_window_sum reduce_sum scatter-add
    scatter_add psum psum_invariant all_gather all_gather_invariant all_gather_reduced ppermute
    all_to_all reduce_scatter unreduced_psum unreduced_reduce_scatter select_and_scatter_add
    select_and_gather_add""".split()
)
# Sums over devices; what a device has before is a part of a sum.
DEVICE_SUMS = frozenset("psum psum_invariant reduce_scatter".split())
# What changes where a value lies, or for which devices it is known to be the same.
DEVICE_MOVES = frozenset("pvary pcast".split())
UNARY = frozenset(
    """abs acos acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma
    erf erf_inv erfc exp exp2 expm1 floor integer_pow is_finite lgamma log log1p logistic neg not
    round rsqrt sign sin sinh sqrt square tan tanh""".split()
)
BINARY = frozenset(
    """add add_any sub mul div rem max min pow atan2 nextafter
    eq ne gt ge lt le and or xor""".split()
)
ELEMENTWISE = UNARY | BINARY | frozenset({"select_n", "clamp"}) | COPIES
COMPARISONS = frozenset("eq ne gt ge lt le".split())
AFFINE = frozenset("add add_any sub mul div neg".split())
ADDITIONS = frozenset("add add_any sub".split())
# The largest (or smallest) of several elements: relevance goes to the winner.
REDUCE_WINNERS = frozenset("reduce_max reduce_min".split())
WINDOW_WINNERS = frozenset("reduce_window_max reduce_window_min".split())
RUNNING_WINNERS = frozenset("cummax cummin".split())
SCATTER_WINNERS = frozenset({"scatter-max", "scatter-min", "scatter_max", "scatter_min"})
SORTS = frozenset("sort top_k approx_top_k".split())
REDUCTIONS = frozenset("reduce_sum reduce_max reduce_min reduce_window_sum".split())
# What is drawn at random is as good as a parameter.
RANDOM = frozenset(
    """random_bits random_seed random_wrap random_unwrap random_split random_fold_in random_gamma
    threefry2x32 rng_bit_generator rng_uniform""".split()
)
LINEAR_CORES = frozenset("dot_general conv_general_dilated".split())


def is_view(eqn: Eqn) -> bool:
    """Whether an equation changes the shape of a value, but neither selects nor repeats."""
    if eqn.name == "broadcast_in_dim":
        return eqn.out.size == eqn.inputs[0].size
    return eqn.name in VIEWS or eqn.name in COPIES
