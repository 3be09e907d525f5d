"""Tokens or bytes with one number each: reading, colouring, and merging pieces into words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxlrp.heatmap.letters import readable, visible
from jaxlrp.heatmap.palette import check_percentile, given_scale, magnitude_of, paint

Tokens = str | bytes | Sequence[str | bytes]
PerText = Literal["text", "shared"]


@dataclasses.dataclass(frozen=True)
class Text:
    """One text, ready to be set: how each token is shown, and in which colours."""

    heading: str
    tokens: tuple[str | bytes, ...]
    visible: tuple[str, ...]
    R: np.ndarray  # (tokens,)
    background: np.ndarray  # (tokens, 3), uint8
    white_ink: np.ndarray  # (tokens,), bool: whether white letters are easier to read than black
    scale: float
    separator: str

    @property
    def monospace(self) -> bool:
        return not self.separator


def merge_pieces(
    tokens: Sequence[str],
    R: Any,
    *,
    continues: str | None = None,
    starts: str | None = None,
    alone: Iterable[str] = (),
) -> tuple[list[str], np.ndarray]:
    """Word pieces as words: the relevance of a word is the sum over its pieces.

    Relevance is additive, so nothing is lost: sums before and after are the same, up to rounding.
    The caller states how the tokeniser marks its pieces:

    | tokeniser | pieces | argument |
    | --- | --- | --- |
    | WordPiece (BERT) | `play ##ing` | `continues="##"` |
    | SentencePiece (Llama, T5) | `▁play ing` | `starts="▁"` |
    | byte-level BPE (GPT-2, RoBERTa) | `Ġplay ing` | `starts="Ġ"` |

    Args:
        tokens: n pieces.
        R: relevance of shape (..., n).
        continues: the marker of a piece that belongs to the word before it.
        starts: the marker of a piece that begins a word. Exactly one of the two is given.
        alone: tokens that are never part of a word, such as `"</s>"`.

    Returns:
        The words, without markers, and their relevance of shape (..., words). The first piece, or a
        piece after a token of `alone`, begins a word whatever its marker.

    Raises:
        TypeError: `tokens` are not strings, or `R` is not floating.
        ValueError: not exactly one marker is given, or the last axis of `R` does not fit.

    Examples:
        >>> merge_pieces(
        ...     ["un", "##believ", "##able", "fun"], [0.5, 1.0, -0.25, 2.0], continues="##"
        ... )
        (['unbelievable', 'fun'], array([1.25, 2.  ]))
    """
    marker = continues if starts is None else starts
    if (continues is None) == (starts is None) or not marker:
        raise ValueError(
            'merge_pieces needs one marker: continues="##" (WordPiece), starts="▁" '
            '(SentencePiece) or starts="Ġ" (byte-level BPE)'
        )
    if isinstance(tokens, str) or not all(isinstance(token, str) for token in tokens):
        raise TypeError("merge_pieces wants a sequence of strings, one per piece")
    R = _floating(R)
    if R.ndim == 0 or R.shape[-1] != len(tokens):
        raise ValueError(
            f"{len(tokens)} tokens need relevance of shape (..., {len(tokens)}), not {R.shape}"
        )
    alone = frozenset(alone)
    words: list[str] = []
    begins: list[int] = []
    closed = True  # no word is open at the start, nor after a token that stands alone
    for index, token in enumerate(tokens):
        marked = token.startswith(marker) and token not in alone
        inside = marked if starts is None else not marked
        if inside and not closed and token not in alone:
            words[-1] += token.removeprefix(marker) if marked else token
        else:
            begins.append(index)
            words.append(token.removeprefix(marker) if marked else token)
        closed = token in alone
    if not words:
        return [], R
    return words, np.add.reduceat(R, begins, axis=-1)


def read_texts(
    tokens: Tokens | Mapping[str, Tokens],
    R: Any,
    separator: str | None,
    per: PerText,
    scale: Any,
    percentile: float,
) -> list[Text]:
    """Checked and coloured texts, in the order of R; see `text_html` for the arguments."""
    relevance = dict(R) if isinstance(R, Mapping) else {"": R}
    if not relevance:
        raise ValueError("there is nothing to draw: the mapping of relevance is empty")
    texts = dict(tokens) if isinstance(tokens, Mapping) else dict.fromkeys(relevance, tokens)
    if set(texts) != set(relevance):
        raise ValueError(f"tokens names the texts {[*texts]}, relevance {[*relevance]}")
    words = {heading: _tokens(texts[heading]) for heading in relevance}
    numbers = {h: _one_per_token(r, words[h], h) for h, r in relevance.items()}
    bounds = _scales(list(numbers.values()), per, scale, percentile)
    return [
        _text(
            readable(heading),
            words[heading],
            numbers[heading],
            bound,
            _separator(texts[heading], separator),
        )
        for heading, bound in zip(relevance, bounds)
    ]


def _tokens(tokens: Tokens) -> tuple[str | bytes, ...]:
    if isinstance(tokens, bytes):
        tokens = [tokens[i : i + 1] for i in range(len(tokens))]
    tokens = tuple(tokens)
    for token in tokens:
        if not isinstance(token, str | bytes):
            raise TypeError(
                f"tokens must be str or bytes, not {type(token).__name__}: "
                "have the tokeniser turn its numbers into pieces first"
            )
    if not tokens:
        raise ValueError("there is nothing to draw: the text has no tokens")
    return tokens


def _separator(text: Tokens, separator: str | None) -> str:
    if separator is not None:
        return readable(separator)
    return "" if isinstance(text, str | bytes) else " "


def _floating(R: Any) -> np.ndarray:
    R = np.asarray(R)
    if not jnp.issubdtype(R.dtype, np.floating):
        raise TypeError(f"relevance must be a floating array, not {R.dtype}")
    return R if R.dtype == np.float64 else R.astype(np.float32)


def _one_per_token(R: Any, tokens: tuple[str | bytes, ...], heading: str) -> np.ndarray:
    where = f" of {heading!r}" if heading != "" else ""
    R = _floating(R)
    if R.shape != (len(tokens),):
        hint = ""
        if R.ndim == 2 and R.shape[0] == len(tokens):
            hint = "; sum over its features first, R.sum(-1)"
        elif R.ndim > 1 and R.shape[0] == 1:
            hint = "; it has an axis for the batch, R[0] is the first text"
        raise ValueError(
            f"the {len(tokens)} tokens{where} need one number each, "
            f"but the relevance has shape {R.shape}{hint}"
        )
    if not np.isfinite(R).all():
        nans, infinite = int(np.isnan(R).sum()), int(np.isinf(R).sum())
        raise ValueError(
            f"relevance{where} cannot be drawn: of {R.size} values {nans} are NaN, "
            f"{infinite} infinite"
        )
    return R


def _scales(numbers: list[np.ndarray], per: PerText, scale: Any, percentile: float) -> np.ndarray:
    if per not in ("text", "shared"):
        raise ValueError(f'per must be "text" or "shared", not {per!r}')
    if scale is not None:
        return given_scale(scale, (len(numbers),))
    check_percentile(percentile)
    groups = numbers if per == "text" else [np.concatenate(numbers)]
    found = [float(magnitude_of(np.abs(R), percentile, (0,), pictures=False)) for R in groups]
    return np.broadcast_to(found, (len(numbers),))


def _text(
    heading: str, tokens: tuple[str | bytes, ...], R: np.ndarray, scale: float, separator: str
) -> Text:
    background = paint(R[None], np.array(scale))[0]
    return Text(
        heading=heading,
        tokens=tokens,
        visible=tuple(visible(token) for token in tokens),
        R=R,
        background=background,
        white_ink=_luminance(background) < 0.179,  # where black and white have the same contrast
        scale=float(scale),
        separator=separator,
    )


def _luminance(colours: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB colours, as WCAG 2 defines it for contrast."""
    s = colours / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])
