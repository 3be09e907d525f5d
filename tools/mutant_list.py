"""The breaks that `tools/mutants.py` makes: for each one place, and the tests that must see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    file: str  # under jaxlrp/
    old: str
    new: str
    tests: str  # a file or a test: what comes after tests/
    harmless: str = ""  # why no number changes

    @property
    def name(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())[:60]}"


BOUNDS = "graph/test_facts.py::test_bounds_of_one_equation"
AXES = "graph/test_facts.py::test_axes_along_which_a_value_varies"
LOOPS = "graph/test_facts.py::test_facts_hold_in_every_iteration"
CLAIMS = "graph/test_facts_are_sound.py::test_claims_about_functions"
LAYERS = "rules/test_layer_reference.py"
DIVISOR = "graph/test_recognition.py::test_a_divisor_is_the_gate"
SPELLINGS = (
    "graph/test_recognition.py::"
    "test_any_spelling_of_an_activation_is_one_layer_that_relevance_passes"
)
KERNEL = "rules/test_linear_rules.py::test_scales_along_an_axis_that_the_kernel_lacks"
NO_NORM = "graph/test_look_alikes.py::test_what_is_no_norm"
SHARES = "graph/test_shares.py"
NO_LOG_SOFTMAX = "graph/test_shares.py::test_what_is_no_log_softmax"
SHIFTS = "graph/test_shares.py::test_a_shift_that_varies_within_a_row_is_none_of_the_softmax"
BARRIER = "graph/test_shares.py::test_a_barrier_of_several_values_is_one_of_each"
NO_SOFTMAX = "graph/test_look_alikes.py::test_what_is_no_softmax"
WEIGHTED = "graph/test_parts.py::test_weights_and_a_sum_are_a_layer_whatever_is_done_to_parts"
MAPS = "graph/test_linear_regions.py::test_the_maps_of_a_region"

TARGETS = "surface/test_targets.py"
NOTES = "planning/test_notes.py"
ACTIONS = "run/test_actions.py"
ALIKE = "run/test_alike.py"
SERIES = "run/test_series.py"
OPEN_PATHS = "planning/test_open_paths.py"
WRONG_RULES = "rules/test_wrong_rules.py"
STATIC_LEAVES = "surface/test_static_leaves.py"
AS_IN_JAX = "surface/test_as_in_jax.py"
PREPARED = "surface/test_prepare.py"

MUTANTS: tuple[Mutant, ...] = (
    # Bounds.
    Mutant("graph/ranges.py", "return -a[1], -a[0]", "return -a[0], -a[1]", BOUNDS),
    Mutant("graph/ranges.py", "(0.0 if a[0] <= 0.0 <= a[1] else low)", "low", CLAIMS),
    Mutant("graph/ranges.py", "for x in a for y in b]", "for x, y in zip(a, b)]", CLAIMS),
    Mutant(
        "graph/linear_region.py",
        "if not in_function and by != -1.0:",
        "if not in_function:",
        "graph/test_written.py::test_numbers_that_cancel_are_not_there",
    ),
    Mutant(
        "run/series.py",
        "eqn.outputs, avals), step.used",
        "eqn.outputs, avals), ()",
        "run/test_series.py::test_a_series_gives_what_its_steps_give",
    ),
    *(
        Mutant(
            "run/depthwise.py", old, new, "run/test_depthwise.py::test_value_and_both_transposes"
        )
        for old, new in (
            ("start[axis] = i * apart", "start[axis] = i"),
            ('- 1) * params["rhs_dilation"][n] + 1', "- 1) + 1"),
            ("shape[axis], steps[axis] = size, stride", "shape[axis], steps[axis] = size, 1"),
            ("and 0 not in _spaces(params, x, kernel)", ""),
            ("edges[axis] = (low, high, apart - 1)", "edges[axis] = (low, high, 0)"),
            (
                "jnp.repeat(x, outputs // groups, axis=features)",
                "jnp.concatenate([x] * (outputs // groups), features)",
            ),
            (
                "order = dict(zip(numbers.out_spec, numbers.lhs_spec",
                "order = dict(zip(numbers.out_spec, numbers.out_spec",
            ),
        )
    ),
    *(
        Mutant(file, old, new, f"run/test_depthwise.py::test_{test}")
        for file, old, new, test in (
            (
                "run/depthwise.py",
                "if _as_written.get() or not compat.is_staging():",
                "if not compat.is_staging():",
                "values_outside_jit_are_the_functions_own",
            ),
            (
                "run/replay.py",
                "depthwise.as_written(not is_compiled)",
                "depthwise.as_written(False)",
                "values_outside_jit_are_the_functions_own",
            ),
            (
                "run/replay.py",
                "late_splits.wait(late), depthwise.as_written():",
                "late_splits.wait(late):",
                "values_outside_jit_are_the_functions_own",
            ),
            (
                "run/depthwise.py",
                "if any(map(compat.varying_axes, (x, kernel))):",
                "if False:",
                "an_array_that_differs_by_device",
            ),
            (
                "run/ready.py",
                "depthwise.bind(step.primitive",
                "compat.bind(step.primitive",
                "prepared_kernels_are_shifted",
            ),
            (
                "run/depthwise.py",
                "lambda kernel: compat.CONVOLUTION.bind(x, kernel, **params), kernel, arrived",
                "lambda kernel: _shifted(x, kernel, **params), kernel, arrived",
                "memory",
            ),
        )
    ),
    Mutant(
        "run/depthwise.py",
        "return _by_equations(back, arrived, kernel)",
        "return back(arrived, kernel)",
        "run/test_depthwise.py::test_value_and_both_transposes",
    ),
    Mutant(
        "graph/desugar.py",
        '    "depthwise_convolution": compat.CONVOLUTION.bind,',
        '    "none": compat.CONVOLUTION.bind,',
        "run/test_depthwise.py::test_an_explanation_that_is_explained",
    ),
    Mutant(
        "run/replay.py",
        "late_splits.waiting() if is_compiled else None",
        "late_splits.waiting()",
        "run/test_late_splits.py::test_nothing_waits_outside_jit",
    ),
    Mutant(
        "run/replay.py",
        '"input" if is_compiled else None',
        '"input"',
        "run/test_late_splits.py::test_nothing_waits_outside_jit",
    ),
    Mutant(
        "run/late_splits.py",
        "if not arrived.size:",
        "if True:",
        "run/test_late_splits.py::test_memory",
    ),
    Mutant(
        "run/linear_map.py",
        'if self._late != "input" or',
        "if True:",
        "run/test_late_splits.py::test_products_with_prepared_splits",
    ),
    Mutant(
        "run/view.py",
        "view._linear.late_input(view.x)",
        "view.x",
        "run/test_late_splits.py::test_products_with_prepared_splits",
    ),
    Mutant(
        "run/late_splits.py",
        "return (_one(numbers[0]) if size else jnp.ones(())), False",
        "return jax.vmap(_one)(numbers), True",
        "run/test_late_splits.py::test_a_kernel_for_all_targets",
    ),
    Mutant(
        "run/control_flow.py",
        "with late_splits.wait(None):",
        "if True:",
        "run/test_late_splits.py::test_loops_split_once",
    ),
    Mutant(
        "graph/statistic.py",
        "or (reduced and _weighs(bench, eqn)):",
        "or False:",
        "graph/test_flat_lists.py::test_a_layer_that_is_written_as_a_sum_is_no_statistic",
    ),
    Mutant(
        "graph/signs.py",
        "self._is_scaled(maker) and self._readers[maker.out] == 1",
        "self._is_scaled(maker)",
        "graph/test_written.py::test_numbers_that_cancel_are_not_there",
    ),
    Mutant(
        "planning/edges.py",
        "if layer is None and v in self.plan.explained:",
        "if False:",
        "run/test_seeds.py::test_an_output_that_holds_the_input_starts_from_the_weight",
    ),
    Mutant(
        "graph/ranges.py",
        "return EVERYTHING\n\n\ndef monotone",
        "return POSITIVE\n\n\ndef monotone",
        CLAIMS,
    ),
    Mutant("graph/ranges.py", "if power % 2 == 0:", "if power:", CLAIMS),
    Mutant("graph/ranges.py", "return float(a[0] > b[1])", "return float(a[0] >= b[1])", BOUNDS),
    Mutant("graph/ranges.py", "if low > 0 or high < 0 else (0.0", "if low >= 0 else (0.0", BOUNDS),
    Mutant(
        "graph/ranges.py",
        "return bounds if fits and exact else",
        "return bounds if True else",
        BOUNDS,
    ),
    Mutant(
        "graph/ranges.py",
        "    if ulps:\n",
        "    if False:\n",
        "graph/test_facts.py::test_a_sum_of_float32_numbers_is_not_bounded_as_in_float64",
    ),
    Mutant(
        "graph/spreads.py", "return (0.0 if term[0] >= 0", "return (0.0 if term[1] >= 0", CLAIMS
    ),
    Mutant("graph/spreads.py", "term, product(term, (n, n))])", "term])", BOUNDS),
    Mutant(
        "graph/spreads.py",
        "return bounds if fill != fill else",
        "return bounds if True else",
        BOUNDS,
    ),
    Mutant("graph/spreads.py", "if not real.any(1).all():", "if False:", BOUNDS),
    Mutant(
        "graph/spreads.py",
        "return hull([operand, plus(of_sign(operand), of_sign(update))])",
        "return operand",
        BOUNDS,
    ),
    Mutant(
        "graph/refine.py",
        '(name in ("gt", "ge")) == taken',
        '(name in ("gt", "ge")) != taken',
        CLAIMS,
    ),
    Mutant(
        "graph/refine.py", "return all(a[1][i] == b[1][i] for i in wide)", "return True", CLAIMS
    ),
    Mutant(
        "graph/refine.py",
        "return holds_exactly(eqn.inputs[0].dtype, eqn.out.dtype)",
        "return True",
        BOUNDS,
    ),
    Mutant(
        "graph/dataflow.py",
        "known[before], changed = flow.widen(old, new, turn), True",
        "known[before], changed = flow.widen(old, new, turn), False",
        LOOPS,
    ),
    Mutant(
        "graph/intervals.py",
        "number = a.number if a.number == b.number else None",
        "number = a.number",
        LOOPS,
    ),
    # Axes, parameters, and what stands beside what.
    Mutant("graph/axes.py", "return a | b", "return a", LOOPS),
    Mutant("graph/axes.py", "frozenset(i - inside.sliced for i in fact)", "fact", LOOPS),
    Mutant("graph/axes.py", "found = set(layout.own)", "found = set()", AXES),
    Mutant(
        "graph/axes.py",
        "v.producer.name in RANDOM",
        "False",
        "graph/test_recognition.py::test_linear_layers",
    ),
    Mutant(
        "graph/layout.py",
        "first = {i: (int(d),) for i, d in enumerate(dims)}",
        "first = {i: (i,) for i, d in enumerate(dims)}",
        AXES,
    ),
    Mutant(
        "graph/layout.py", "{i: tuple(after) for before", "{i: tuple(after[:1]) for before", AXES
    ),
    Mutant(
        "graph/layout.py",
        "operands.append(places | {a: (start + i,)",
        "operands.append(places | {a: (i,)",
        AXES,
    ),
    Mutant("graph/layout.py", 'if eqn.params["feature_group_count"] != 1:', "if False:", AXES),
    Mutant(
        "graph/alignment.py", "all(y is None or x == y for x, y", "all(True for x, y", NO_SOFTMAX
    ),
    Mutant("graph/alignment.py", "if eqn.name in _PARTS:", "if False:", NO_NORM),
    # What depends on the input, what is active, through bodies and around loops.
    Mutant(
        "graph/dataflow.py",
        "yield self._carried[value]",
        "yield from ()",
        "graph/test_facts.py::test_carried_weights_have_the_rule_of_the_unrolled_network",
    ),
    Mutant(
        "graph/dataflow.py",
        'return eqn.name == "scan" and control_flow.scan_length(eqn) == 0',
        "return False",
        LOOPS,
    ),
    Mutant(
        "graph/dataflow.py",
        "if not found & allowed:",
        "if True:",
        "run/test_control_flow.py::test_a_carry_that_reaches_the_output_through_another",
    ),
    Mutant("graph/dataflow.py", "fact = flow.chosen(fact, look(eqn.inputs[0]))", "pass", CLAIMS),
    Mutant(
        "graph/activity.py",
        "comes = place in carries if meaning.pairs else bool(carries)",
        "comes = bool(carries)",
        "graph/test_structural.py::test_what_is_sorted_along_is_static",
    ),
    Mutant(
        "graph/activity.py",
        "and place not in meaning.choices",
        "",
        "graph/test_integers.py::test_a_place_is_no_value",
    ),
    Mutant(
        "graph/activity.py",
        'eqn.name == "stop_gradient" or _is_times_zero(eqn)',
        "_is_times_zero(eqn)",
        "graph/test_attacked.py::test_a_stopped_case_stays_stopped",
    ),
    # The plainer graph.
    Mutant(
        "graph/canonical.py",
        "return eqn.prim, settings, inputs",
        "return eqn.prim, inputs",
        "graph/test_places.py",
    ),
    Mutant(
        "graph/canonical.py",
        "if eqn.name == commutes else (eqn.inputs,)",
        "",
        "graph/test_attacked.py::test_signs_that_cancel",
    ),
    Mutant("graph/canonical.py", "alike = all(_uncopied(c)", "alike = any(_uncopied(c)", SPELLINGS),
    Mutant(
        "graph/canonical.py",
        'eqn.name == "stop_gradient" and not varies',
        'eqn.name == "stop_gradient"',
        "graph/test_attacked.py::test_a_stopped_case_stays_stopped",
    ),
    Mutant(
        "graph/canonical.py",
        "return long[: len(short)] == short and",
        "return",
        "planning/test_selectors.py::test_what_two_modules_compute_alike_stays_apart",
    ),
    # Linear layers: scales, shifts and moves around a core.
    Mutant(
        "graph/affine.py",
        "if any(v in bench.activity.depends for v in others)",
        "if any(False for v in others)",
        SPELLINGS,
    ),
    Mutant(
        "graph/affine.py",
        '(eqn.name == "div" and active[0] == 1)',
        "False",
        "graph/test_recognition.py::test_a_learned_numerator_is_part_of_its_activation",
    ),
    Mutant(
        "graph/affine.py",
        "== {0.0, -math.inf}",
        "== {1.0, -math.inf}",
        "graph/test_look_alikes.py::test_a_mask_that_is_added_is_no_bias_of_the_layer_before",
    ),
    Mutant(
        "graph/affine.py",
        'return eqn.name == "neg" or any(not bench',
        'return eqn.name == "neg" or not any(not bench',
        SPELLINGS,
    ),
    Mutant(
        "graph/affine.py",
        "    if makes_integers(eqn):\n        return False\n    depends",
        "    depends",
        "graph/test_integers.py::test_a_cast_between_scales_ends_a_layer",
    ),
    Mutant(
        "graph/affine.py",
        'eqn.name in ("pad", "scatter", "dynamic_update_slice")',
        'eqn.name in ("scatter", "dynamic_update_slice")',
        "rules/test_linear_rules.py::test_padding_before_a_convolution[flat]",
    ),
    Mutant(
        "graph/affine.py",
        "return all(v not in depends or v in bench.activity.active",
        "return all(True or v in bench.activity.active",
        "graph/test_recognition.py::test_elements_in_an_order_of_their_own_end_a_layer",
    ),
    Mutant(
        "graph/linear.py",
        "if len(active) == 1 and not is_stack_sum",
        "if active and not is_stack_sum",
        "graph/test_recognition.py::test_linear_layers",
    ),
    Mutant(
        "graph/linear.py",
        "elif not any(bench.statics.parameters(v)",
        "elif not any(True",
        "graph/test_recognition.py::test_a_resize_has_no_weights_of_its_own",
    ),
    Mutant(
        "graph/linear.py",
        "return not shift or (",
        "return True or (",
        "graph/test_recognition.py::test_a_hard_sigmoids_shift_is_no_bias",
    ),
    Mutant(
        "graph/linear.py",
        "if inside and bench.ends.isdisjoint(eqn.outputs):",
        "if bench.outputs.isdisjoint(eqn.outputs):",
        "graph/test_parts.py::test_a_value_read_by_a_layer_and_by_something_else_is_a_layer_for_that",
    ),
    Mutant(
        "graph/linear_region.py",
        "if any(v not in frontier for v in bench",
        "if any(False for v in bench",
        "graph/test_recognition.py::test_a_linear_layer_has_one_input_and_one_output",
    ),
    Mutant(
        "graph/linear_region.py",
        "if len(frontier) == 1 and len(eqn.outputs) == 1",
        "if len(eqn.outputs) == 1",
        "graph/test_parts.py::test_elements_that_something_else_reads_too_keep_their_order",
    ),
    Mutant("graph/linear.py", "if operand == 1:", "if False:", KERNEL),
    Mutant(
        "graph/linear_region.py",
        "return bool(chain) and _tail(bench, chain) < len(chain)",
        "return bool(chain)",
        SPELLINGS,
    ),
    Mutant(
        "graph/linear_region.py",
        "return (sign < 0.0 and by < 0.0) or",
        "return",
        "graph/test_written.py",
    ),
    Mutant(
        "graph/linear_region.py",
        "return (sign < 0.0 and by < 0.0) or",
        "return by < 0.0 or",
        "graph/test_written.py",
    ),
    Mutant(
        "graph/linear_region.py",
        "for i in reversed(earlier)",
        "for i in earlier",
        "graph/test_written.py",
    ),
    Mutant(
        "graph/linear_region.py",
        "if last > undone:",
        "if False:",
        "graph/test_written.py",
    ),
    Mutant(
        "graph/linear_region.py",
        "return math.isclose(self.numbers[place] * by, 1.0)",
        "return False",
        "graph/test_written.py",
    ),
    Mutant(
        "graph/linear_region.py",
        "if not in_function and by != -1.0:",
        "if by != -1.0:",
        "graph/test_written.py",
    ),
    Mutant(
        "graph/linear_region.py",
        "        value = eqn.out\n    return False",
        "        break\n    return False",
        "graph/test_written.py",
    ),
    Mutant(
        "graph/linear_region.py",
        "        elif last == undone:\n            self.places.pop()",
        "",
        "graph/test_written.py",
    ),
    Mutant("graph/homogeneous.py", "for far in _FAR:", "for far in ():", "graph/test_written.py"),
    Mutant(
        "graph/written_numbers.py",
        "if eqn.name in _FALLING or under or",
        "if under or",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/written_numbers.py",
        "return crossed and (turned or falls)",
        "return crossed and (turned ^ falls)",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/linear_region.py",
        "cancels = _cancels(within, by) or (written.falls and by < 0.0)",
        "cancels = _cancels(within, by)",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/linear_region.py",
        "other = next((f for f in left if _undo(f, number)), None)",
        "other = None",
        "graph/test_written.py::test_numbers_that_cancel_are_not_there",
    ),
    Mutant(
        "graph/linear_region.py",
        "elif not math.isclose(abs(number), 1.0):",
        "else:",
        "graph/test_written.py::test_numbers_behind_a_layer_that_cancel_each_other",
    ),
    Mutant(
        "graph/linear_region.py",
        "for v in frontier if v is not start or within_layer",
        "for v in frontier",
        "graph/test_parts.py::test_parts_that_a_layer_folds_are_one_layer_for_other_readers",
    ),
    Mutant(
        "graph/reorder_terms.py",
        "if cores or len(starts) > 1 or not scales:",
        "if True:",
        "graph/test_parts.py::test_a_bias_beside_a_learned_scale_stays_there_in_a_sum",
    ),
    Mutant(
        "graph/signs.py",
        "if b not in self._varying or not is_turned(b, self._varying):",
        "if True:",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/signs.py",
        "if not self._cancels(total.out):",
        "if True:",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/signs.py",
        "return turned or _is_capped(value)",
        "return turned",
        "graph/test_signs.py::test_a_relu_by_a_minimum_keeps_its_sign_in_products",
    ),
    Mutant(
        "graph/signs.py",
        'scales = eqn.name == "mul" or',
        "scales = False and",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/affine_signs.py",
        "if _is_number(eqn.inputs[0]):",
        "if False:",
        "graph/test_signs.py::test_a_gate_keeps_its_bounds",
    ),
    Mutant(
        "graph/affine_signs.py",
        "if is_negated(static) and not is_turned(inner, varying):",
        "if False:",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/affine_signs.py",
        'name = "add" if eqn.name == "sub" else "sub"',
        'name = "add"',
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/affine_signs.py",
        "return None if is_turned(inner, varying) else ([], inner)",
        "return [], inner",
        "graph/test_written.py::test_numbers_that_cancel_are_not_there",
    ),
    Mutant(
        "graph/affine_signs.py",
        "if readers.get(value, 0) > 1:",
        "if False:",
        "graph/test_signs.py::test_a_shifted_value_with_two_readers_is_one_layer",
    ),
    Mutant(
        "graph/signs.py",
        "if found is None or not found[0]:",
        "if True:",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/signs.py",
        "if not self._cancels(joined.out) or not self._has_parts(joined):",
        "if True:",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/signs.py",
        "return any(self._cancels(v, most - 1) for v in eqn.inputs)",
        "return all(self._cancels(v, most - 1) for v in eqn.inputs)",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/written_numbers.py",
        "(shift or bends or reciprocal)",
        "(shift or bends)",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/affine.py",
        "if eqn.bodies or not (moves or sums_nothing(eqn)):",
        "if eqn.bodies or not moves:",
        "graph/test_linear_regions.py::test_a_sum_of_single_elements_is_a_move",
    ),
    Mutant(
        "planning/selectors.py",
        "return type(selector), tuple(known)",
        "return type(selector)",
        "run/test_reuse.py::test_selectors_are_told_apart_by_what_they_hold",
    ),
    Mutant(
        "planning/selectors.py",
        "if isinstance(selector, LayerSelector):\n        fields",
        "if isinstance(selector, Kind):\n        fields",
        "run/test_reuse.py::test_every_composite_has_plans_that_are_kept",
    ),
    Mutant(
        "graph/reorder_terms.py",
        "return eqn is not root and not _cancels(bench, eqn)",
        "return eqn is not root",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/branches.py",
        "source = next((v for v in made_from if any(v in scaled",
        "source = next((v for v in made_from if any(v in scaled[-1:]",
        "graph/test_branches.py::test_an_activation_that_adds_is_whole",
    ),
    Mutant(
        "graph/contraction.py",
        "return not (is_written_scale(bench, eqn) and completes_activation(bench, eqn.out))",
        "return True",
        "graph/test_contraction.py",
    ),
    Mutant(
        "graph/written_numbers.py",
        "return crossed and (turned or falls)",
        "return False",
        "graph/test_written.py",
    ),
    Mutant(
        "graph/written_numbers.py",
        'return a / b if eqn.name == "div" else a * b',
        "return a * b",
        "graph/test_written.py::test_a_divisor_beside_the_weights_and_a_factor_below_zero",
    ),
    Mutant(
        "graph/written_numbers.py",
        "if number > 0.0 and bench.intervals[static[0]][1] < 0.0:",
        "if False:",
        "graph/test_written.py::test_a_divisor_beside_the_weights_and_a_factor_below_zero",
    ),
    Mutant(
        "graph/written_numbers.py",
        "if a == 0.0 or b == 0.0:",
        "if False:",
        "graph/test_written.py::test_weights_that_are_divided_by_a_written_zero",
    ),
    Mutant(
        "graph/pools.py",
        "before, after = [], part",
        "before, after = [], after",
        "graph/test_written.py::test_a_further_scale_is_not_the_means",
    ),
    Mutant(
        "graph/uniform_kernels.py",
        "if number is None or bench.statics.parameters(kernel):",
        "if number is None:",
        "graph/test_written.py",
        harmless="a learned array is no number",
    ),
    Mutant(
        "graph/uniform_kernels.py",
        "if core.out.shape[out[1]] != groups or",
        "if False or",
        "graph/test_written.py",
        "the pooled value has another shape, and is not taken then",
    ),
    Mutant(
        "graph/places.py", "if own.size and own.min() <= 0:", "if False:", "graph/test_places.py"
    ),
    Mutant(
        "graph/places.py",
        "_ZERO if is_written_zero(value) else _STATIC",
        "_ZERO",
        "graph/test_places.py",
    ),
    Mutant(
        "graph/places.py",
        "return self.known(value.outer)  # a constant of a body",
        "return None",
        "graph/test_places.py::test_masks_that_a_body_is_given_are_read",
    ),
    Mutant(
        "graph/canonical.py",
        "if outside in self.varying or inside in fed_back:",
        "if outside in self.varying:",
        "graph/test_places.py::test_masks_that_change_from_step_to_step_are_not_read",
    ),
    Mutant(
        "graph/canonical.py",
        "if outside in self.varying or inside in fed_back:",
        "if True:",
        "graph/test_places.py::test_masks_that_a_body_is_given_are_read",
    ),
    Mutant(
        "graph/signs.py",
        "return None if is_turned(inner, self._varying) else inner",
        "return inner",
        "graph/test_written.py::test_numbers_that_cancel_are_not_there",
    ),
    Mutant("graph/moving.py", "and not np.any((a != 0) & (b != 0))", "", "graph/test_places.py"),
    Mutant(
        "graph/moving.py",
        "np.where(x == 0, cases[0], cases[-1])",
        "cases[-1]",
        "graph/test_places.py",
    ),
    Mutant(
        "graph/homogeneous.py",
        "if len(set(found) - {None}) > 1:",
        "if False:",
        "graph/test_recognition.py::test_hard_relus_are_proven",
    ),
    Mutant(
        "graph/linear.py",
        "not summed.isdisjoint(total",
        "bool(total",
        "graph/test_recognition.py::test_a_scale_and_a_sum_that_are_no_dense_layer",
    ),
    Mutant("graph/linear.py", "not bench.statics.varying_axes(scale) <= features", "False", KERNEL),
    Mutant(
        "graph/linear_region.py",
        "return (source, eqns) if unique else",
        "return (source, eqns) if True else",
        "graph/test_attacked.py::test_moves_that_cannot_be_numbered",
    ),
    Mutant(
        "graph/ranges.py",
        "return all(look(v)[0] >= 0.0 for v in maker.inputs)",
        "return True",
        "graph/test_recognition.py::test_a_part_of_a_sum_of_positive_numbers_is_a_gate",
    ),
    Mutant(
        "graph/norm.py",
        "if _ends_linear_layer(bench, scaled):",
        "if False:",
        "graph/test_integers.py::test_a_dynamic_scale_and_a_bias_are_one_layer",
    ),
    Mutant(
        "graph/recognise.py",
        "    norm.find_held,\n",
        "",
        "graph/test_integers.py::test_a_divisor_is_held_though_no_linear_layer_takes_it",
    ),
    Mutant(
        "graph/groups.py",
        "self.activity.depends | carried",
        "self.activity.depends",
        "graph/test_linear_regions.py::test_windows_at_places_that_a_loop_carries_may_overlap",
    ),
    Mutant(
        "graph/signs.py",
        "if sum(v in leave for v in eqn.inputs) == 2:",
        "if sum(v in leave for v in eqn.inputs) >= 1:",
        "graph/test_flat_lists.py::test_signs_within_a_product_come_after_it",
    ),
    Mutant(
        "graph/signs.py",
        "turned = is_turned(value, self._varying) or is_turned_sum(value, self._varying)",
        "turned = is_turned(value, self._varying)",
        "graph/test_flat_lists.py::test_signs_within_a_factor_cancel_those_around_it",
    ),
    Mutant(
        "graph/activation.py",
        'if last.name == "neg" and _is_term(bench, last.out) and',
        "if False and",
        "graph/test_flat_lists.py::test_signs_within_a_factor_cancel_those_around_it",
    ),
    Mutant(
        "graph/unique_paths.py",
        "if sums_nothing(eqn):",
        "if False:",
        "graph/test_linear_regions.py::test_a_sum_of_single_elements_before_a_pad",
    ),
    Mutant(
        "graph/unique_paths.py",
        "& (rows[:, 1:] != 0)",
        "",
        "rules/test_linear_rules.py::test_padding_before_a_convolution[flat]",
    ),
    Mutant(
        "graph/unique_paths.py",
        'if eqn.name in ("gather", "tile"',
        'if eqn.name in ("tile"',
        "graph/test_attacked.py::test_moves_that_cannot_be_numbered",
    ),
    Mutant(
        "graph/unique_paths.py",
        'contracted = tuple(core.params["axes"])',
        "contracted = (0,)",
        "graph/test_recognition.py::test_a_scale_and_a_sum_that_are_no_dense_layer",
    ),
    Mutant(
        "graph/linear_region.py",
        "if v is not start or within_layer",
        "if v is not start",
        "run/test_seeds.py::test_a_bias_behind_an_output",
    ),
    # Plans that are kept.
    Mutant(
        "run/reuse.py",
        "if has_rule_of_users(bound):",
        "if False:",
        "run/test_reuse.py::test_a_ledger_sees_what_a_rule_of_the_users_own_reads",
    ),
    Mutant(
        "graph/written_numbers.py",
        'if crossed and eqn.name == "neg" and is_turned(moving[0], varying):',
        "if False:",
        "graph/test_signs.py::test_signs_that_cancel",
    ),
    Mutant(
        "graph/contents.py",
        "return primitives.changes(), paths, positions, tuple(of.found)",
        "return primitives.changes(), paths, tuple(of.found)",
        "run/test_reuse.py::test_positions_that_the_plan_knows_are_seen",
    ),
    # Norms.
    Mutant(
        "graph/statistic.py",
        "return eqn.name in REDUCTIONS",
        'return eqn.name in REDUCTIONS - {"reduce_min"}',
        "graph/test_extremes.py",
    ),
    Mutant(
        "graph/statistic.py",
        "if not all(_is_reduction(bench, e) for e in products):",
        "if False:",
        "graph/test_recognition.py::test_the_size_of_a_layers_output_is_no_norm_of_its_input",
    ),
    Mutant(
        "graph/statistic.py",
        "if _thinnest(bench, value).size >= scaled.size:",
        "if False:",
        NO_NORM,
    ),
    Mutant(
        "graph/statistic.py",
        'eqn.name in MOVES | ELEMENTWISE | {"reordered"}:',
        'eqn.name in {"reordered"}:',
        "graph/test_recognition.py::test_norms_detach_the_factor_that_divides",
    ),
    Mutant(
        "graph/statistic.py",
        "if learned and bench.statics.varying_axes(factor):",
        "if False:",
        NO_NORM,
    ),
    Mutant(
        "graph/statistic.py",
        "elif eqn.name not in MOVES | COPIES | ADDITIONS | KEEPS_FORM | _BESIDE:",
        "elif False:",
        "graph/test_attacked.py::test_a_gate_of_a_statistic_is_no_norm",
    ),
    Mutant(
        "graph/statistic.py",
        "return None if source in _before_reductions(bench, value) else eqns",
        "return eqns",
        NO_NORM,
    ),
    Mutant(
        "graph/statistic.py",
        "stack.append(eqn.inputs[0])",
        "stack.extend(eqn.inputs)",
        "graph/test_written.py::test_a_product_with_one_number_everywhere_is_a_sum",
    ),
    Mutant(
        "graph/statistic.py",
        "eqn is None or eqn.order <= first or not",
        "eqn is None or not",
        "graph/test_recognition.py::test_norms_detach_the_factor_that_divides",
        harmless="the walk ends at an input instead, with the same answer",
    ),
    Mutant(
        "graph/statistic.py",
        "first = min(-1 if",
        "first = max(-1 if",
        "graph/test_look_alikes.py::"
        "test_a_statistic_that_is_computed_before_a_gate_is_part_of_the_norm",
    ),
    Mutant(
        "graph/statistic.py",
        "reduced = reduced or eqn.name in REDUCTIONS",
        "reduced = False",
        "graph/test_flat_lists.py::test_the_shift_of_a_softmax_is_no_term",
    ),
    Mutant("graph/norm.py", "aligned(scaled, source, factor, source) is False", "False", NO_NORM),
    Mutant(
        "graph/norm.py",
        "if scaled in made[group] and factor not in made[group]:",
        "if True:",
        "graph/test_look_alikes.py::test_the_size_of_a_norm_beside_it_is_a_factor",
    ),
    Mutant(
        "graph/norm.py",
        "return bench.intervals[eqn.inputs[1]][1] < 0 or",
        "return True or",
        NO_NORM,
    ),
    # Softmax.
    Mutant(
        "graph/softmax.py",
        "of_segment = found is not False, found is True",
        "of_segment = True, found is True",
        NO_SOFTMAX,
    ),
    Mutant(
        "graph/softmax.py",
        "own = unwrapped(read[0].inputs[1]) is unwrapped(scatter.inputs[1])",
        "own = True",
        "graph/test_look_alikes.py::test_a_softmax_over_segments",
    ),
    Mutant(
        "graph/softmax.py",
        "if largest and _origin(bench, eqn.inputs[-1]) is origin:",
        "if largest:",
        "graph/test_look_alikes.py::test_a_shift_by_the_maximum_of_another_layer_is_a_sum",
    ),
    Mutant(
        "graph/softmax.py",
        "if beside and not bench.intervals.nonnegative(value):",
        "if False:",
        NO_SOFTMAX,
    ),
    Mutant(
        "run/masked_softmax.py",
        "jnp.max(logits, rows,",
        "jnp.max(logits, 0,",
        "architectures/test_attention_bad_input.py::test_a_shut_row_that_nobody_reads",
    ),
    Mutant(
        "graph/softmax_masks.py",
        "                return ()  # over several axes, in steps",
        "                continue",
        "graph/test_look_alikes.py::test_a_softmax_over_two_axes_whose_sum_is_taken_in_steps",
    ),
    Mutant(
        "run/masked_softmax.py",
        "jnp.where(jnp.isnan(y) & jnp.isnan(of), 0.0, y)",
        "y",
        "architectures/test_attention_bad_input.py::test_a_shut_row_that_nobody_reads",
    ),
    Mutant(
        "run/masked_softmax.py",
        "return jnp.where(_are_shut(logits, softmax.rows), 0.0, logits)",
        "return logits",
        "architectures/test_attention_bad_input.py::test_a_shut_row_that_nobody_reads",
    ),
    Mutant(
        "run/layer_vjp.py",
        "local |= dict(zip(group.inputs, given, strict=True))",
        "pass",
        "architectures/test_attention_bad_input.py::test_a_shut_row_has_no_relevance",
    ),
    Mutant(
        "graph/softmax.py",
        "not _same(above, total.exp)",
        "above.name != total.exp.name",
        NO_SOFTMAX,
    ),
    Mutant(
        "graph/softmax.py",
        "if not runs_alike(numerator, above.out) or not runs_alike(total.terms",
        "if not runs_alike(total.terms",
        SHARES,
    ),
    Mutant(
        "graph/softmax.py",
        "or not runs_alike(total.terms, total.exp.out)",
        "",
        SHARES,
    ),
    Mutant(
        "graph/softmax.py",
        "elif eqn.name in MOVES | REDUCTIONS and not (",
        "elif False and not (",
        SHARES,
    ),
    Mutant("graph/softmax.py", "if not reads_back(eqn, scatter):", "if False:", SHARES),
    Mutant("graph/softmax.py", "and exponent is not None\n", "\n", NO_LOG_SOFTMAX),
    Mutant(
        "graph/softmax.py",
        "aligned(other, origin, log, origin) is not False",
        "True",
        NO_LOG_SOFTMAX,
    ),
    Mutant(
        "graph/softmax.py",
        "case is not None and select.inputs[1 + int(case)] is value",
        "True",
        NO_LOG_SOFTMAX,
    ),
    Mutant("graph/softmax.py", "constant and (learned", "(learned", SHIFTS),
    Mutant(
        "graph/softmax.py",
        "(learned or _is_maximum(bench, shift, source))",
        "True",
        "graph/test_look_alikes.py::test_a_shift_by_the_maximum_of_another_layer_is_a_sum",
    ),
    Mutant("graph/softmax.py", "eqn.inputs.count(dependent[0]) == 1", "True", NO_SOFTMAX),
    Mutant(
        "graph/desugar.py", 'eqn.primitive.name == "optimization_barrier" and', "False and", BARRIER
    ),
    Mutant("graph/shares.py", "proof.is_at_least(divisor) and", "True and", SHARES),
    Mutant("graph/shares.py", "return divides and", "return", SHARES),
    Mutant("graph/shares.py", "or not proof.adds_up((total.exp.out,)):", "or False:", SHARES),
    Mutant("graph/shares.py", '(1.0 if eqn.name == "mul" else 0.0)', "0.0", SHARES),
    Mutant("graph/shares.py", "if zero and self.unmoved", "if self.unmoved", SHARES),
    Mutant("graph/shares.py", "return int(_OF_POSITIVE[name])", "return 0", SHARES),
    Mutant("graph/shares.py", "not holds_exactly(self.dtype, eqn.out.dtype)", "False", SHARES),
    Mutant("graph/shares.py", "within = all(", "within = True or all(", SHARES),
    Mutant(
        "graph/shares.py",
        "                before = self._unchanged(eqn)\n            if",
        "                before = eqn and self._dependent(eqn)\n            if",
        SHARES,
    ),
    Mutant("graph/softmax.py", 'natural = total.exp.name == "exp"', "natural = True", SHARES),
    *(
        Mutant(file, old, new, SHARES)
        for file, old, new in (
            ("graph/softmax.py", "own and reads_own(bench.intervals, read[0], scatter)", "own"),
            ("graph/segments.py", "return read is added and", "return"),
            ("graph/segments.py", "low >= 0 and", ""),
            ("graph/segments.py", "and high <= last", ""),
            ("graph/segments.py", "or not _is_wrap(bounds, eqn)", ""),
            (
                "graph/segments.py",
                "if not holds_exactly(before.dtype, eqn.out.dtype):",
                "if False:",
            ),
            (
                "graph/segments.py",
                '{"copy", "copy_p"} or before.size',
                '{"copy", "transpose"} or before.size',
            ),
            ("graph/segments.py", "or before.size != eqn.out.size", ""),
            ("graph/segments.py", "fills and (number is None or number != number)", "fills"),
            ("graph/segments.py", "0.0 and bounds[kept][0] >= 0", "0.0"),
            ("graph/shares.py", "jnp.finfo(exp.out.dtype).bits < 32", "False"),
            ("graph/shares.py", "not proof.is_difference(exp, log, shift)", "False"),
        )
    ),
    Mutant(
        "graph/shares.py",
        '"mul" and len(static) == 1',
        '"mul"',
        SHARES,
        "a product of two exponentials is no softmax already",
    ),
    *(
        Mutant("graph/linear.py", old, new, WEIGHTED)
        for old, new in (
            ("ELEMENTWISE | _KEEP_AXES else None", "ELEMENTWISE else None"),
            ("frozenset().union(*read)", "last"),
        )
    ),
    # Activations and gates.
    Mutant(
        "graph/activation.py",
        "if joined := branches.joined_at(bench, last):",
        "if joined := []:",
        "graph/test_branches.py::test_the_plan_has_a_row_for_the_sum",
    ),
    Mutant(
        "graph/branches.py",
        "if eqns and _bends(bench, eqns) and is_complete(bench, eqns, source, end):",
        "if False:",
        "graph/test_branches.py::test_an_activation_that_adds_is_whole",
    ),
    Mutant(
        "graph/branches.py",
        "([] if source in terms else [join.out])",
        "[join.out]",
        "graph/test_branches.py::test_what_is_plainly_added_is_a_sum",
    ),
    Mutant(
        "graph/branches.py",
        "return _joined(bench, end, scales[:1])",
        "return _joined(bench, end, [])",
        "graph/test_branches.py::test_an_activation_that_adds_is_whole",
    ),
    Mutant(
        "graph/branches.py",
        "source = next((v for v in made_from if any(v in scaled",
        "source = next((v for v in made_from if any(v is scaled[0]",
        "graph/test_branches.py::test_what_is_plainly_added_is_a_sum",
    ),
    Mutant(
        "graph/branches.py",
        "or bench.sole_use(value) is not reader:",
        "or False:",
        "graph/test_branches.py",
    ),
    Mutant(
        "graph/activation.py",
        "if affine_operand(bench, last) is not None and not is_written(bench, last):",
        "if False:",
        "graph/test_recognition.py::test_a_learned_shift_beside_an_activation_is_a_layer",
    ),
    Mutant(
        "graph/activation.py",
        "and not _is_learned_shift(bench, eqn)",
        "",
        "graph/test_recognition.py::test_a_learned_shift_beside_an_activation_is_a_layer",
    ),
    Mutant(
        "graph/activation.py",
        "zero_at_zero = low >= -ZERO and high <= ZERO",
        "zero_at_zero = True",
        SPELLINGS,
    ),
    Mutant(
        "graph/activation.py",
        "hard_relu = left == (0.0, 0.0)",
        "hard_relu = left[0] == 0.0",
        "graph/test_recognition.py::test_hard_relus_are_proven",
    ),
    Mutant(
        "graph/particulars.py",
        "return self.relu_slopes == (0.0, 1.0)",
        "return self.relu_slopes is not None",
        "graph/test_recognition.py::test_a_number_times_a_relu_has_its_slopes",
    ),
    Mutant(
        "graph/activation.py",
        "return len(inactive) == 1 and",
        "return False and",
        "graph/test_flat_lists.py::test_a_stopped_term_by_hand",
    ),
    Mutant(
        "graph/activation.py",
        "return predicate not in depends or (",
        "return (",
        "graph/test_structural.py::test_a_density_follows_the_derivative[select a number]",
    ),
    Mutant(
        "graph/activation.py",
        "_is_learned_affine(bench, eqn) or branches.joined_before(bench, eqn, self.group)",
        "branches.joined_before(bench, eqn, self.group)",
        "graph/test_recognition.py::test_a_learned_scale_before_an_activation_is_a_layer",
    ),
    Mutant(
        "graph/gates.py",
        "return low >= UNIT[0] and high <= UNIT[1]",
        "return low >= UNIT[0]",
        "graph/test_recognition.py::test_a_factor_that_may_exceed_one_is_no_gate",
    ),
    Mutant(
        "graph/gates.py",
        "if 0 < len(found) < len(signals):",
        "if found:",
        "graph/test_recognition.py::test_of_two_gates_neither_is_the_signal",
    ),
    Mutant(
        "graph/gates.py",
        "if power < 0}",
        "if power > 0}",
        "graph/test_recognition.py::test_a_divisor_is_the_gate",
    ),
    # The order of scales, shifts, terms and factors.
    Mutant(
        "graph/readings.py",
        "np.any((own > 0) & (",
        "np.any((own > 1) & (",
        "graph/test_parts.py::test_elements_that_something_else_reads_too_keep_their_order",
    ),
    Mutant(
        "graph/hoist.py",
        "leaves = [v if v in alone else _turned(moves, v) for v in leaves]",
        "leaves = list(leaves)",
        "graph/test_parts.py::test_two_spellings[the same, by vmap-ZPlus()]",
        "elements that are read between two moves are found next, with the same leaves",
    ),
    Mutant(
        "graph/hoist.py",
        "if not any(_ends_layer(bench, leaf) for leaf in alone):",
        "if len(alone) < len(leaves):",
        "graph/test_parts.py::test_two_spellings[a joined value that a layer reads too-ZPlus()]",
    ),
    Mutant(
        "graph/linear.py",
        "bench.ends.update(v for group in holders[eqn] for v in group.inputs)",
        "pass",
        "graph/test_parts.py::test_what_a_layer_and_another_reader_hold_is_whole",
    ),
    Mutant(
        "graph/branches.py",
        "if eqns and _bends(bench, eqns) and",
        "if eqns and",
        "graph/test_branches.py::test_a_scale_makes_no_activation_of_a_plain_sum",
    ),
    Mutant(
        "graph/linear_region.py",
        "any(_undo(f, by) for f in numbers)",
        "any(_undo(f, by) for f in numbers[-1:])",
        "graph/test_written.py::test_numbers_that_cancel_are_not_there[False-a mean before-zplus]",
    ),
    Mutant(
        "graph/written_numbers.py",
        "return factor_in(bench, value.outer, most - 1) if most else 1.0",
        "return 1.0",
        "graph/test_written.py::test_numbers_that_cancel_are_not_there[False-a product-zplus]",
    ),
    Mutant(
        "graph/recognise.py",
        "    activation.find_shifts,\n",
        "",
        "graph/test_written_shifts.py::test_a_gate_and_the_rest_of_it",
    ),
    Mutant(
        "graph/linear_region.py",
        "return shifts[-1] if shifts and _ends_activation(bench, end) else 0",
        "return 0",
        "graph/test_written_shifts.py",
    ),
    Mutant(
        "graph/affine.py",
        "moves = is_move(bench, eqn) or eqn.name in COPIES",
        "moves = eqn.name in COPIES",
        "graph/test_written_shifts.py",
    ),
    Mutant(
        "graph/reorder.py",
        "if counts and bench.intervals.constant(zero) == 0.0:",
        "if False:",
        "graph/test_written_shifts.py::test_a_term_that_is_zero_is_not_there",
    ),
    Mutant(
        "graph/recognise.py",
        "if maker is None or maker is reader or value in maker.outputs:",
        "if True:",
        "graph/test_structural.py::test_a_layer_that_reads_within_another_is_a_fault",
    ),
    Mutant(
        "graph/hoist.py",
        "and not _joins_values(bench, leaves[0])",
        "",
        "graph/test_parts.py::test_two_spellings[a bias after a sum of layers is turned-ZPlus()]",
    ),
    Mutant(
        "graph/hoist.py",
        "[x, array + (1 - here)]",
        "[x, array + here]",
        "graph/test_parts.py::test_two_spellings[a scale and a bias for each part-ZPlus()]",
    ),
    Mutant(
        "graph/canonical.py",
        '"scatter-mul": (lax.mul, 1)',
        '"scatter-mul": (lax.mul, 0)',
        "graph/test_parts.py::test_two_spellings[a scale scattered over some columns-ZPlus()]",
    ),
    Mutant(
        "graph/trees.py",
        '1 if eqn.name == "mul" else -1',
        "1",
        "graph/test_flat_lists.py",
    ),
    Mutant(
        "graph/trees.py",
        '-1 if eqn.name == "sub" else 1',
        "1",
        "graph/test_flat_lists.py",
    ),
    # Repeated calls, embeddings.
    Mutant(
        "graph/repeats.py",
        "detached=tuple((eqn[e], i) for e, i in group.detached)",
        "detached=group.detached",
        "graph/test_repeated_calls.py::test_eager_calls[attention]",
    ),
    Mutant(
        "graph/layer_boundaries.py",
        'or eqn.name in ("exp", "exp2") or',
        "or",
        "graph/test_repeated_calls.py::test_calls_are_planned_and_explained_as_if_written_out",
    ),
    Mutant(
        "graph/embed.py",
        "kept = [e for e in looked_up if e not in factors]",
        "kept = looked_up",
        "surface/test_wrt.py::test_a_rotation_is_no_embedding",
    ),
    Mutant(
        "graph/embed.py",
        "if any(axis != last for axis",
        "if any(True for axis",
        "surface/test_wrt.py::test_spellings[a shift is no position]",
    ),
    # Running a layer; what edges carry.
    Mutant(
        "run/weights_by_sign.py",
        "return by if sign > 0 else Parts(by.negative, by.positive)",
        "return by",
        MAPS + "[a negative number]",
    ),
    Mutant(
        "run/weights_by_sign.py",
        "return Parts(_then(operator.neg, x.negative), _then(operator.neg, x.positive))",
        "return Parts(_then(operator.neg, x.positive), _then(operator.neg, x.negative))",
        MAPS + "[split and different scales]",
    ),
    Mutant(
        "run/weights_by_sign.py",
        "_sum(_then(up, x.positive), _then(down, x.negative))",
        "_sum(_then(up, x.positive))",
        MAPS,
    ),
    Mutant(
        "run/linear_map.py",
        "return 1 if number > 0 else -1",
        "return 1",
        MAPS + "[a negative number]",
    ),
    Mutant(
        "run/linear_map.py",
        'way.negated(env[v]) if name == "sub" and i == 1 else env[v]',
        "env[v]",
        MAPS + "[different scales behind]",
    ),
    Mutant(
        "run/linear_map.py",
        "jnp.zeros_like(static) if is_term else static",
        "static",
        MAPS + "[pad with a number]",
    ),
    Mutant(
        "run/linear_map.py",
        'if eqn.name == "div":\n                slope = 1 / scale',
        "if False:\n                slope = 1 / scale",
        LAYERS,
    ),
    Mutant(
        "run/linear_map.py", "signed + negative - absolute", "signed + negative + absolute", MAPS
    ),
    Mutant(
        "run/layer_facts.py",
        '-term if eqn.name == "sub" and position == 1',
        '-term if eqn.name == "sub" and position == 0',
        MAPS + "[different scales behind]",
    ),
    Mutant(
        "run/layer_facts.py",
        'if eqn.name == "gather" and eqn.params["fill_value"] not in (None, 0):',
        "if False:",
        MAPS + "[gather with filling]",
    ),
    Mutant(
        "run/layer_facts.py",
        'return frozenset(i for i, p in enumerate(eqn.params["permutation"]) if p in axes)',
        "return axes",
        "graph/test_linear_regions.py::test_relative_epsilon_finds_the_features_behind_moves",
    ),
    Mutant(
        "run/layer_facts.py",
        'in_place = "reduce_scatter" not in others and all(name in _IN_PLACE for name in others)',
        "in_place = True",
        "run/test_devices.py::test_rules_with_a_constant_input_before_a_scattered_sum",
    ),
    Mutant(
        "run/layer_facts.py",
        "_IN_PLACE = COPIES | ADDITIONS",
        "_IN_PLACE = ADDITIONS",
        "rules/test_linear_rules.py::test_padding_before_a_convolution",
        harmless="a constant has the whole shape where it might be thin",
    ),
    Mutant(
        "run/layer_facts.py",
        "if eqn.name not in _BRINGERS or eqn.name in COPIES:",
        "if eqn.name not in _BRINGERS:",
        MAPS,
        harmless="a copy has no constant beside what it maps",
    ),
    Mutant(
        "planning/edges.py",
        "and layer.output not in self.plan.found.outputs\n",
        "",
        "rules/test_linear_rules.py::test_outputs_that_are_read_by_a_relu_and_beside_it",
    ),
    Mutant(
        "planning/edges.py",
        "and all(_kills_negative(r) for r in readers)",
        "and any(_kills_negative(r) for r in readers)",
        "rules/test_linear_rules.py::test_outputs_that_are_read_by_a_relu_and_beside_it",
    ),
    Mutant(
        "planning/edges.py",
        'if what == "relevance" or value not in self.edges:',
        "if value not in self.edges:",
        "rules/test_linear_rules.py::test_a_residual_branch",
    ),
    # The mathematics.
    Mutant(
        "rules/arithmetic.py",
        "lax.select(*_alike(z >= 0, z + epsilon, z - epsilon))",
        "lax.select(*_alike(z > 0, z + epsilon, z - epsilon))",
        "rules/test_linear_rules.py::test_a_stabiliser_of_zero_is_positive",
    ),
    Mutant(
        "rules/base.py",
        "rest = safe_divide(layer.relevance - kept, count)",
        "rest = safe_divide(layer.relevance, count)",
        "rules/test_linear_rules.py::test_one_layer",
    ),
    Mutant(
        "rules/epsilon.py",
        '(layer.linear, 0.0) if self.bias == "ignore"',
        '(layer.z, 0.0) if self.bias == "ignore"',
        "rules/test_linear_rules.py::test_one_layer",
    ),
    Mutant(
        "rules/positive.py",
        "layer.map(positive=1)(layer.x)",
        "layer.map(signed=1)(layer.x)",
        "rules/test_linear_rules.py::test_an_input_known_to_be_non_negative",
    ),
    Mutant(
        "rules/positive.py",
        "favoured = choose(upper, p, q, p)",
        "favoured = p",
        "rules/test_linear_rules.py::test_one_layer[dense-gamma]",
    ),
    Mutant(
        "rules/positive.py",
        "a + choose(v < 0, -b, b, b)",
        "a + b",
        "rules/test_linear_rules.py::test_one_layer[dense-gamma]",
    ),
    Mutant(
        "rules/first_layer.py",
        "z = split(above, below)",
        "z = split(above, above)",
        "rules/test_linear_rules.py::test_one_layer[dense-zbox]",
    ),
    Mutant(
        "rules/first_layer.py",
        "layer.bias**2",
        "layer.bias",
        "rules/test_linear_rules.py::test_one_layer[dense-wsquare]",
    ),
    Mutant(
        "rules/first_layer.py",
        "s = layer.over(count, epsilon",
        "s = layer.over(count + layer.bias, epsilon",
        "rules/test_linear_rules.py::test_one_layer[dense-flat]",
    ),
    Mutant(
        "rules/bilinear.py",
        "(c if n == 1 else c / n)",
        "c",
        "graph/test_look_alikes.py::test_linear_attention",
    ),
    Mutant("rules/bilinear.py", "if i not in layer.gates]", "if i in layer.gates]", DIVISOR),
    Mutant(
        "rules/bilinear.py",
        "_shared(layer, 1 / layer.factors)",
        "_shared(layer, 0.5)",
        "graph/test_linear_primitives.py::test_each_factor_of_a_running_product_gets_an_equal_part",
    ),
    Mutant(
        "rules/elementary.py",
        "return layer.vjp(layer.over(layer.linear))",
        "return layer.vjp(layer.over(layer.z))",
        "rules/test_exact.py::test_a_norm_without_its_shift",
    ),
    Mutant(
        "rules/elementary.py",
        'layer.kind == "activation" and layer.zero_at_zero',
        'layer.kind == "activation"',
        "graph/test_recognition.py::test_an_activation_hands_on_what_comes_to_it_at_zero",
    ),
    # Companion methods.
    Mutant(
        "methods/reference_rules.py",
        "near, back(layer.relevance)[0], slope",
        "near | True, back(layer.relevance)[0], slope",
        "methods/test_deep_lift.py::test_it_conserves_the_difference",
    ),
    Mutant(
        "rules/tempered.py",
        "x / self.temperature",
        "x",
        "methods/test_transformers.py::TestTempered",
    ),
    Mutant(
        "methods/noise.py",
        "if not _floats(args, argnums):",
        "if False:",
        "methods/test_surface.py::test_noise_on_values_inside_the_function",
    ),
    Mutant(
        "methods/batches.py",
        "jnp.where(kept, y, jnp.zeros_like(y))",
        "y",
        "methods/test_paths.py::TestIntegratedGradients",
    ),
    Mutant(
        "methods/surrogate.py",
        "kernel = [(count - 1) / (comb(count, s) * s * (count - s))",
        "kernel = [1.0 + 0 * comb(count, s)",
        "methods/test_parts.py::TestKernelShap",
    ),
    Mutant(
        "run/identities.py",
        'found["density"] = arrived if by_density else safe_divide(arrived, y)',
        'found["density"] = arrived',
        "surface/test_layer_quantities.py",
    ),
    # Rows, notes and what users give.
    Mutant("graph/examples.py", "or after[0] in own", "", TARGETS),
    Mutant("graph/examples.py", "layout.own | _moved_along(eqn) if", "layout.own if", TARGETS),
    Mutant(
        "graph/examples.py",
        "if any(v.shape[after[0]] != value.shape[fact.axis] for v in eqn.outputs):",
        "if False:",
        TARGETS,
    ),
    Mutant("graph/examples.py", "b if a is None else _MIXED", "b", TARGETS),
    Mutant(
        "graph/examples.py", "if value.ndim < 2 or not output.ndim", "if not output.ndim", TARGETS
    ),
    Mutant(
        "graph/examples.py",
        "rows = any(facts.get(v) == Along(0) for v in outputs)",
        "rows = True",
        NOTES,
    ),
    Mutant("planning/notes.py", "return group.main.inputs[:1] if", "return [] if", NOTES),
    Mutant(
        "planning/notes.py", "if maker_before(plan.adjacency, index) is None:", "if True:", NOTES
    ),
    Mutant("planning/notes.py", 'and rule.bias == "absorb" and', "and", NOTES),
    Mutant("run/targets.py", "if len(shape) == 1 and is_batch():", "if False:", TARGETS),
    Mutant(
        "run/layer_vjp.py",
        "if jnp.shape(given) not in ((), jnp.shape(x)):",
        "if False:",
        WRONG_RULES,
    ),
    Mutant("run/bound_call.py", "next(given) if y is HOLE else y", "next(given, y)", STATIC_LEAVES),
    Mutant("rules/base.py", "array.tobytes()", "array.size", AS_IN_JAX),
    Mutant(
        "planning/rulemap.py",
        "return list(self._entries.items()) == list(",
        "return dict(self._entries.items()) == dict(",
        AS_IN_JAX,
    ),
    # What a mask leaves open.
    Mutant("planning/open_paths.py", "if self._crosses(reader, position)", "if True", OPEN_PATHS),
    Mutant("planning/open_paths.py", "masks.__contains__)", "lambda _: False)", OPEN_PATHS),
    Mutant("planning/open_paths.py", "and maker not in self._after", "", OPEN_PATHS),
    Mutant("planning/open_paths.py", "beside if apart else [reader]", "beside", OPEN_PATHS),
    Mutant("planning/open_paths.py", "sorted(self._sinks - self._after)", "()", OPEN_PATHS),
    Mutant("planning/adjacency.py", "in pairs(group.main, body)", "in ()", OPEN_PATHS),
    Mutant("rules/bilinear.py", "if layer.n_inputs == 1:", "if False:", OPEN_PATHS),
    # Prints and callbacks.
    Mutant(
        "graph/effects.py",
        "closed.replace(jaxpr=_without_actions(closed.jaxpr, {})), Actions",
        "closed, Actions",
        ACTIONS,
    ),
    Mutant("graph/effects.py", "return not live", "return True", ACTIONS),
    Mutant("graph/effects.py", "or needed.intersection(eqn.outvars):", "or False:", ACTIONS),
    Mutant("graph/effects.py", "(_is_action(e, needed) for", "(False for", ACTIONS),
    Mutant("run/replay.py", "bound.act()", "pass", ACTIONS),
    # What layers must have in common to be traced once.
    Mutant("run/alike.py", "id(layer.rule)", "0", ALIKE),
    Mutant("run/alike.py", "layer.nonnegative", "0", ALIKE),
    Mutant("run/alike.py", "content(number_of(v))", "0", ALIKE),
    Mutant(
        "run/alike.py",
        "or is_traced(layer.rule)",
        "",
        ALIKE,
        harmless="what a shared function closes over is handed to it; only then is it traced anew",
    ),
    Mutant("run/alike.py", "or not is_of_library(layer.rule)", "", ALIKE),
    Mutant("run/layer_vjp.py", "if shared else None", "if False else None", ALIKE),
    Mutant("graph/contents.py", "(eqn.prim, _params(eqn))", "(eqn.prim,)", ALIKE),
    Mutant(
        "run/series.py",
        "carried[v] > 1 and self._last[v] >= end",
        "False",
        f"{SERIES}::test_relevance_is_added_in_the_order_of_the_program",
    ),
    Mutant(
        "run/series.py",
        "y.relu is not None and y.relu not in layers",
        "False",
        SERIES,
        "a ReLU that runs again after its own output changes nothing, either way",
    ),
    Mutant("run/series.py", "or any(any(probes.of_layer(y)) for y in shown)", "", SERIES),
    Mutant(
        "run/parameter_values.py",
        "_digest(prim.name, _contents(params), *",
        "_digest(prim.name, *",
        f"{PREPARED}::test_relevance_is_the_same",
    ),
    Mutant(
        "run/parameter_values.py",
        "self.size <= sum(x.size for x in below)",
        "True",
        f"{PREPARED}::test_views_are_not_held_and_neither_is_what_grows",
    ),
    Mutant(
        "planning/roles.py",
        "if passed in layers.sinks:",
        "if passed == index and passed in layers.sinks:",
        "planning/test_selectors.py::test_a_summand_whose_bias_is_added_by_parts",
    ),
    Mutant(
        "graph/canonical.py",
        "_LAYERS = LINEAR_CORES | FIXED_LINEAR | WINDOW",
        "_LAYERS = LINEAR_CORES | WINDOW",
        "graph/test_linear_primitives.py::test_a_layer_without_weights_that_is_written_twice_is_one",
    ),
    Mutant(
        "graph/canonical.py",
        "return eqn.name in LINEAR_CORES and single and all(map(self.is_number, factors))",
        "return False",
        "graph/test_linear_primitives.py::test_a_product_with_written_numbers_that_is_written_twice_is_one",
    ),
    Mutant(
        "graph/canonical.py",
        "return eqn.name in LINEAR_CORES and single and all(map(self.is_number, factors))",
        "return eqn.name in LINEAR_CORES and single",
        "graph/test_linear_primitives.py::test_a_product_with_weights_that_is_written_twice_is_two",
    ),
    Mutant(
        "graph/shared_exponentials.py",
        "if total is not None and summed and",
        "if False and",
        "graph/test_shared_exponentials.py::test_softmaxes_that_share_an_exponential",
    ),
    Mutant(
        "graph/shared_exponentials.py",
        'if eqn is None or eqn.name != "sub":',
        "if True:",
        "graph/test_shared_exponentials.py::test_softmaxes_that_share_an_exponential",
    ),
    Mutant(
        "graph/shared_exponentials.py",
        "if eqn is None or eqn.bodies or eqn.name not in _OF_MAXIMA:",
        "if True:",
        "graph/test_shared_exponentials.py::test_softmaxes_that_share_an_exponential",
    ),
    Mutant(
        "graph/canonical.py",
        "and earlier.scope != later.scope:",
        "and False:",
        "planning/test_selectors.py::test_layers_without_weights_in_two_scopes_stay_apart",
    ),
    Mutant(
        "graph/canonical.py",
        "self.signs.read_instead(eqn, values)",
        "pass",
        "graph/test_parts.py::test_two_spellings",
    ),
    Mutant(
        "graph/canonical.py",
        "zero = added and self.is_zero(x)",
        "zero = added",
        "graph/test_parts.py::test_two_spellings",
    ),
    Mutant(
        "graph/stacks.py",
        "if readers[piece] > 1 and",
        "if False and",
        "graph/test_parts.py::test_a_stack_that_shares_a_view_is_a_sum",
    ),
    Mutant(
        "graph/hoist.py",
        "found = _taken_apart(bench, value, moves, leaves) if cuts else None",
        "found = None",
        "graph/test_parts.py::test_two_spellings",
    ),
    Mutant(
        "graph/readings.py",
        "+ (v is not leaf and v in leaves)",
        "",
        "graph/test_parts.py::test_two_spellings",
        harmless="a value is cut where others read it, and these are counted already",
    ),
    Mutant(
        "run/evaluate.py",
        "values = _varying_alike(values)",
        "pass",
        "run/test_devices.py::test_scales_and_shifts_that_move_inside_shard_map",
    ),
)
