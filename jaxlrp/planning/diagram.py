"""The layers of a plan as a diagram in Mermaid's language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxlrp.planning.table import shape_text

# Fills on which black letters are easy to read, and which colour-blind readers can distinguish:
# tints of the palette of Okabe and Ito.
_FILLS = (
    "#b3d9f2", "#fbdba6", "#a6dfcd", "#f2c4de", "#f7f2a1", "#a9c9e0", "#f2bd99", "#dddddd",
)  # fmt: skip


def mermaid(plan: Any, direction: str) -> str:
    """A flowchart of the layers; see `Plan.draw`."""
    graph = plan.adjacency
    loops = {i for i, layer in enumerate(plan.layers) if layer.group.main.bodies}
    drawn = [
        i for i, layer in enumerate(plan.layers) if layer.kind != "structural" and i not in loops
    ]
    passed = set(range(len(plan.layers))) - set(drawn)
    rules = list(dict.fromkeys(str(plan.layers[i].rule) for i in drawn))
    lines = [f"flowchart {direction}", '  input(["explained input"])', '  output(["output"])']
    for i in drawn:
        layer = plan.layers[i]
        label = "<br>".join(
            _escaped(part)
            for part in (
                layer.name,
                f"{layer.kind} {shape_text(layer.shape, layer.dtype)}",
                str(layer.rule),
            )
        )
        lines.append(f'  L{i}["{label}"]:::rule{rules.index(str(layer.rule))}')
    lines += [f"  input --> L{i}" for i in _past(sorted(graph.sources), graph.feeds, passed)]
    for i in drawn:
        lines += [f"  L{i} --> L{j}" for j in _past(graph.feeds[i], graph.feeds, passed)]
    for i in drawn:
        through = _reached(graph.feeds[i], graph.feeds, passed)
        if i in graph.sinks or through & graph.sinks & passed:
            lines.append(f"  L{i} --> output")
    for number in range(len(rules)):
        fill = _FILLS[number % len(_FILLS)]
        lines.append(f"  classDef rule{number} fill:{fill},stroke:#444,color:#000")
    return "\n".join(lines) + "\n"


def _reached(start: Sequence[int], feeds: Sequence[Sequence[int]], passed: set[int]) -> set[int]:
    """The layers that are reached from `start` through layers that are not drawn."""
    reached: set[int] = set()
    stack = list(start)
    while stack:
        i = stack.pop()
        if i not in reached:
            reached.add(i)
            if i in passed:
                stack.extend(feeds[i])
    return reached


def _past(start: Sequence[int], feeds: Sequence[Sequence[int]], passed: set[int]) -> list[int]:
    return sorted(_reached(start, feeds, passed) - passed)


def _escaped(text: str) -> str:
    """Text without markup: Mermaid reads `#60;` as the character with that number."""
    return "".join(
        letter if (letter.isalnum() or letter in " _./-,()[]=:") else f"#{ord(letter)};"
        for letter in text
    )
