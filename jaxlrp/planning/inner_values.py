"""`wrt=`: the values inside the function that are explained in place of an argument."""

from __future__ import annotations

from collections.abc import Sequence

from jaxlrp.errors import InputError
from jaxlrp.graph import embed
from jaxlrp.graph.groups import Group, InnerValue
from jaxlrp.graph.inner_layers import cut
from jaxlrp.graph.ir import Graph, Value
from jaxlrp.planning.layers import Layer, group_of
from jaxlrp.planning.planner import survey
from jaxlrp.planning.selectors import Selector


def choose_inner(
    graph: Graph,
    wrt: Selector,
    n_outputs: int,
    given: Sequence[Value],
    explained: Sequence[Value] = (),
) -> tuple[Graph, list[Group]]:
    """The graph cut at the values that `wrt` selects, and the layers at which it was cut.

    Data enters at the embeddings, if there are any, else at the `given` inputs. It also enters at
    the inputs that are `explained` themselves.
    """
    embeddings = embed.find(graph)
    graph, inner_layers = cut(graph, embeddings)
    start = [group.inputs[0] for group in inner_layers] or list(given)
    start = list(dict.fromkeys([*explained, *start]))
    if not start:
        raise InputError(
            f"wrt={wrt!r}: no embedding was found (a gather from a table by an integer array, a "
            "one-hot times a matrix), and the argument that argnums names holds no floating array "
            "to start from. Give the indices to fn as an integer array."
        )
    if isinstance(wrt, (list, tuple)) and not wrt:
        raise InputError('wrt is empty; give a selector or a list of them, such as wrt="embed".')
    plan = survey(graph, start, graph.outputs[:n_outputs], inner_layers)
    found = plan.select(wrt)
    if all(group_of(layer).inner is not None for layer in found):
        return graph, [group_of(layer) for layer in found]
    inside = next((y for y in found if group_of(y).around is not None), None)
    if inside is not None:
        raise InputError(
            f"wrt={wrt!r} selects {inside.name!r}, which is inside a loop or a branch; explain a "
            "value outside it, or get the relevance there with layers=."
        )
    return cut(graph, [_inner_value(layer) for layer in found])


def _inner_value(layer: Layer) -> InnerValue:
    group = group_of(layer)
    return InnerValue(
        layer.kind, layer.output, group.main, name=layer.name, names=tuple(layer.names[1:])
    )
