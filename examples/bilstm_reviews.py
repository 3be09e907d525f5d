"""Why is this review positive? A bidirectional LSTM, trained here and asked word by word.

Trains a BiLSTM of 64 units each way on sentences from movie reviews, to give the rating that people
gave, from -4 to 4; where its sign is theirs, the network is right. No vectors of words come from
elsewhere: a word's is learned, and so are those of its pieces of 3 to 5 letters, which are added.
Then the rating of a review is traced back through both LSTMs to the embedding of each word: by
LRP-all, the rule of Arras et al. (2017) for gates, and by gradient × input. At last words are
deleted from every test review, the most relevant ones first, as Arras et al. do: where the
relevance is right, accuracy falls faster than with random words.

The settings were chosen by mean accuracy on two or three validation folds of the sentences for
training, from those of an earlier version on; the test sentences were set aside before.

The reviews come from the source archive of the package vaderSentiment, which pip fetches once.

    python examples/bilstm_reviews.py --out out/bilstm_reviews.png
"""

from __future__ import annotations

import argparse
import collections
import re
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from review_data import load_reviews
from tqdm import tqdm

import jaxlrp as lrp
from jaxlrp import composites, heatmap

LONGEST, SHORT = 48, 24  # words; longer reviews are cut, and two lengths are compiled
NOTHING, UNKNOWN = 0, 1  # numbers of the padding, and of words that are hidden or new
SPLIT = 1  # the seed that sets test sentences aside, whatever --seed is
PIECES, OFTEN = 20, 4  # at most so many pieces of a word, each in that many words at least
LRP, GRADIENT, RANDOM = "LRP-all", "gradient × input", "random order"
OUR_OWN = ("it never fails to entertain", "it fails to entertain")


class BiLSTM(nn.Module):
    """Words to vectors, an LSTM each way, the maximum over words; returns one rating a review."""

    vocabulary: int
    pieces: int = 0
    width: int = 64
    dropout: float = 0.6

    @nn.compact
    def __call__(self, ids, lengths, pieces=None, train: bool = False):
        start = nn.initializers.normal(0.1)
        x = nn.Embed(self.vocabulary, self.width, embedding_init=start, name="words")(ids)
        if pieces is not None:  # only while it learns: see add_pieces
            parts = nn.Embed(self.pieces, self.width, embedding_init=start, name="pieces")(pieces)
            x += pooled(parts, pieces)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        forward = nn.RNN(nn.OptimizedLSTMCell(self.width), name="forward")
        backward = nn.RNN(
            nn.OptimizedLSTMCell(self.width), reverse=True, keep_order=True, name="backward"
        )
        h = [lstm(x, seq_lengths=lengths) for lstm in (forward, backward)]
        inside = jnp.arange(ids.shape[1]) < lengths[:, None]
        h = jnp.where(inside[..., None], jnp.concatenate(h, axis=-1), -1.0).max(axis=1)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return nn.Dense(1, name="head")(h)[:, 0]


def pooled(parts: jax.Array, pieces: jax.Array) -> jax.Array:
    """The sum of vectors of pieces, over the root of their number: (..., PIECES, width) to one."""
    present = (pieces != NOTHING)[..., None]
    return (parts * present).sum(-2) / jnp.sqrt(jnp.maximum(present.sum(-2), 1))


def words_of(review: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)*|[^\w\s]", review.lower())[:LONGEST]


def pieces_of(word: str) -> list[str]:
    """All runs of 3 to 5 characters, long ones first; < and > are the ends of the word."""
    word = f"<{word}>"
    return [word[i : i + n] for n in (5, 4, 3) for i in range(len(word) - n + 1)]


def spell(words: list[str], known: dict[str, int]) -> np.ndarray:
    """Numbers of each word's known pieces, filled up with NOTHING: (words, PIECES)."""
    spelling = np.full((len(words), PIECES), NOTHING, np.int32)
    for row, word in zip(spelling, words):
        found = [known[piece] for piece in dict.fromkeys(pieces_of(word)) if piece in known]
        row[: len(found)] = found[:PIECES]
    return spelling


def add_pieces(network: BiLSTM, params, spelling: np.ndarray):
    """The network with one vector a word, that of its pieces added; new words follow the known."""
    inner = dict(params["params"])
    own, parts = inner["words"]["embedding"], inner.pop("pieces")["embedding"]
    rows = np.arange(len(spelling))
    own = own[np.where(rows < network.vocabulary, rows, UNKNOWN)]
    inner["words"] = {"embedding": own + pooled(parts[spelling], spelling)}
    return network.clone(vocabulary=len(spelling), pieces=0), {"params": inner}


def pad(numbers: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Word numbers (reviews, SHORT or LONGEST) and lengths (reviews,)."""
    lengths = np.array([len(row) for row in numbers], np.int32)
    ids = np.full((len(numbers), SHORT if lengths.max() <= SHORT else LONGEST), NOTHING, np.int32)
    for row, of in zip(ids, numbers):
        row[: len(of)] = of
    return ids, lengths


def train_network(network, numbers, spelling, ratings, seed: int, epochs: int, batch: int = 50):
    """AdamW on the squared error; in every step three words in ten are hidden."""
    rng = np.random.default_rng(seed)
    ids, lengths = pad(numbers[:1])
    params = jax.jit(network.init)(jax.random.key(seed), ids, lengths, spelling[ids])
    spelling = jnp.asarray(spelling)
    longer = np.array([len(row) > SHORT for row in numbers])
    parts = [np.flatnonzero(longer == which) for which in (False, True)]
    steps = epochs * sum(len(part) // batch for part in parts)
    optimiser = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-2)
    state = optimiser.init(params)

    @jax.jit
    def step(params, state, ids, lengths, truth, key):
        hide, drop = jax.random.split(key)
        hidden = jax.random.bernoulli(hide, 0.3, ids.shape)
        ids = jnp.where(hidden & (ids != NOTHING), UNKNOWN, ids)

        def loss_fn(params):
            pieces, rngs = spelling[ids], {"dropout": drop}
            said = network.apply(params, ids, lengths, pieces, train=True, rngs=rngs)
            return optax.l2_loss(said, truth).mean()

        loss, gradient = jax.value_and_grad(loss_fn)(params)
        update, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, update), state, loss

    for part in parts:  # compiles
        some = part[:batch]
        ids, lengths = pad([numbers[row] for row in some])
        step(params, state, ids, lengths, ratings[some].astype(np.float32), jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(seed + 1), steps))
    with tqdm(total=steps, desc="training", unit="step", mininterval=0.5) as bar:
        for _ in range(epochs):
            batches = []
            for part in parts:
                order = rng.permutation(part)
                batches += [order[i : i + batch] for i in range(0, len(order) - batch + 1, batch)]
            for i in rng.permutation(len(batches)):
                ids, lengths = pad([numbers[row] for row in batches[i]])
                truth = ratings[batches[i]].astype(np.float32)
                params, state, loss = step(params, state, ids, lengths, truth, next(keys))
                bar.update()
            bar.set_postfix(loss=f"{loss:.4f}")
    return params


def in_batches(call: Callable, numbers: list[np.ndarray], what: str, batch: int = 200) -> list:
    """call(ids, lengths) for all reviews, the short ones together; one result for each."""
    order = np.argsort([len(row) for row in numbers], kind="stable")
    found = [np.empty(0)] * len(numbers)
    for start in tqdm(range(0, len(order), batch), desc=what, unit="batch", leave=False):
        rows = order[start : start + batch]
        # A last batch that is not full is filled up: one more shape would be compiled for it.
        result = np.asarray(call(*pad([numbers[i] for i in np.resize(rows, batch)])))
        for i, row in zip(rows, result):
            found[i] = row
    return found


def relevance(network: BiLSTM, params) -> Callable:
    """Compiled: word numbers and lengths to relevance per word by LRP-all."""

    def rating(ids, lengths):
        return network.apply(params, ids, lengths)

    explain = lrp.explain(rating, composites.lstm_lrp_all(), wrt="embed")

    @jax.jit
    def per_word(ids, lengths):
        (R,) = explain(ids, lengths).values()
        return R.sum(-1)

    return per_word


def gradient(network: BiLSTM, params) -> Callable:
    """Compiled: word numbers and lengths to gradient × input, summed over a word's vector."""

    def rating(vectors, ids, lengths):
        # A table of the vectors themselves, each looked up once, has the gradient of each word.
        table = {"params": {**params["params"], "words": {"embedding": vectors}}}
        places = jnp.arange(ids.size).reshape(ids.shape)
        return network.clone(vocabulary=ids.size).apply(table, places, lengths).sum()

    @jax.jit
    def per_word(ids, lengths):
        vectors = params["params"]["words"]["embedding"][ids.reshape(-1)]
        slope = jax.grad(rating)(vectors, ids, lengths)
        return (slope * vectors).sum(-1).reshape(ids.shape)

    return per_word


def delete(numbers: list[np.ndarray], scores: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Each review without its `count` words of highest score; one word stays at least."""
    shorter = []
    for row, score in zip(numbers, scores):
        kept = np.sort(np.argsort(-score[: len(row)], kind="stable")[min(count, len(row) - 1) :])
        shorter.append(row[kept])
    return shorter


def draw_deletion(curves: dict[str, dict[str, np.ndarray]], out: Path) -> None:
    """One panel for reviews that were right, one for those that were wrong."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    styles = {LRP: ("#bf3324", "o"), GRADIENT: ("#1b84eb", "s"), RANDOM: ("0.45", "^")}
    for axes, (heading, lines) in zip(figure.subplots(1, len(curves)), curves.items()):
        for name, share in lines.items():
            colour, marker = styles[name]
            axes.plot(100 * share, color=colour, marker=marker, markersize=4, label=name)
        axes.set_title(heading, fontsize=10)
        axes.set_xlabel("words deleted from each review")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("right, %")
        axes.set_ylim(-3, 103)
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    figure.suptitle("Deleting words in the order of their relevance", fontweight="bold")
    figure.savefig(out, dpi=150)


def measure_deletion(explained: dict, predict: Callable, numbers, positive, most: int, rng):
    """Share of right answers after each number of deletions, {panel: {order: (most + 1,)}}.

    Where the prediction is right, the words that speak for the truth go first; elsewhere, those
    that speak against it.
    """
    before = (np.array(in_batches(predict, numbers, "predicting")) > 0) == positive
    sides = np.where(positive, 1.0, -1.0) * np.where(before, 1.0, -1.0)
    scores = {
        name: [side * row for side, row in zip(sides, found)] for name, found in explained.items()
    }
    scores[RANDOM] = [rng.random(len(row)) for row in numbers]
    right = {}
    for name, score in scores.items():
        right[name] = [before]
        for count in range(1, most + 1):
            shorter = delete(numbers, score, count)
            after = np.array(in_batches(predict, shorter, f"{name}, {count} deleted")) > 0
            right[name].append(after == positive)
    panels = {
        f"{before.sum()} reviews that were right, most relevant first": before,
        f"{(~before).sum()} reviews that were wrong, least relevant first": ~before,
    }
    return {
        heading: {name: np.array([r[of].mean() for r in rows]) for name, rows in right.items()}
        for heading, of in panels.items()
    }


def pick_reviews(said, positive, numbers) -> list[int]:
    """Short ones: of either sort the surest hit and the surest mistake."""
    short = np.array([6 <= len(row) <= 20 for row in numbers])
    chosen = []
    for sort in (True, False):
        members = np.flatnonzero(short & (positive == sort))
        surely = members[np.argsort(said[members] if sort else -said[members])]
        chosen += [int(surely[-1]), int(surely[0])]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/bilstm_reviews.png"))
    parser.add_argument("--cache", type=Path, default=Path("out/cache"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--delete", type=int, default=8, help="how many words to delete at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    reviews, ratings = load_reviews(args.cache)
    # Of sentences with the same words, one stays.
    plain = [" ".join(re.findall(r"\w+", review.lower())) for review in reviews]
    once = np.sort(np.unique(plain, return_index=True)[1])
    order = once[np.random.default_rng(SPLIT).permutation(len(once))]
    texts, ratings = [words_of(reviews[i]) for i in order], ratings[order]
    cut = round(0.8 * len(texts))

    known = sorted({word for text in texts[:cut] for word in text})
    others = [*texts[cut:], *map(words_of, OUR_OWN)]
    new = sorted({word for text in others for word in text} - {*known})
    vocabulary = {word: number for number, word in enumerate([*known, *new], UNKNOWN + 1)}
    count = collections.Counter(piece for word in known for piece in {*pieces_of(word)})
    often = sorted(piece for piece in count if count[piece] >= OFTEN)
    pieces = {piece: number for number, piece in enumerate(often, NOTHING + 1)}
    spelling = spell(["", "", *known, *new], pieces)  # two rows for NOTHING and UNKNOWN

    def read(text: list[str]) -> np.ndarray:
        return np.array([vocabulary[word] for word in text], np.int32)

    start, cpu = time.perf_counter(), time.process_time()
    network = BiLSTM(len(known) + 2, len(pieces) + 1)
    numbers = [read(text) for text in texts]
    learned = numbers[:cut], spelling[: network.vocabulary], ratings[:cut]
    params = train_network(network, *learned, args.seed, args.epochs)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    network, params = add_pieces(network, params, spelling)
    predict = jax.jit(lambda ids, lengths: network.apply(params, ids, lengths))
    texts, ratings, test = texts[cut:], ratings[cut:], numbers[cut:]
    positive, said = ratings > 0, np.array(in_batches(predict, test, "predicting"))
    print(
        f"Trained on {cut} reviews in {seconds:.0f} s ({cpu:.0f} s of processor time); "
        f"{np.mean((said > 0) == positive):.1%} of {len(test)} test reviews have the right sign.\n"
    )

    calls = {LRP: relevance(network, params), GRADIENT: gradient(network, params)}
    explained = {name: in_batches(call, test, name) for name, call in calls.items()}
    picked = pick_reviews(said, positive, test)
    shown = [*(words_of(text) for text in OUR_OWN), *(texts[i] for i in picked)]
    people = [*("" for _ in OUR_OWN), *(f" (people: {ratings[i]:+.1f})" for i in picked)]
    draw_reviews(calls, predict, shown, [read(text) for text in shown], people, args.out)

    rng = np.random.default_rng(args.seed)
    curves = measure_deletion(explained, predict, test, positive, args.delete, rng)
    curve_file = args.out.with_name(f"{args.out.stem}_deletion.png")
    draw_deletion(curves, curve_file)
    for heading, lines in curves.items():
        print(f"\n{heading}: share right after 0, 1, ... words are deleted")
        for name, share in lines.items():
            print(f"  {name:<18}" + "".join(f" {value:>6.1%}" for value in share))
    print(f"\nThe text is in {args.out.with_suffix('.html')} and {args.out},")
    print(f"the curves are in {curve_file}.")


def draw_reviews(calls, predict, shown, numbers, people, out: Path) -> None:
    """A line in the table and a coloured text for each review and method."""
    values = in_batches(predict, numbers, "predicting")
    results = {name: in_batches(call, numbers, name) for name, call in calls.items()}
    texts, relevances = {}, {}
    print("The network's rating, and the part of it that reaches the words:")
    print(f"  {'':<18} {'rating':>7} {'words':>7}   review")
    for row, text in enumerate(shown):
        for name, found in results.items():
            R = found[row][: len(text)]
            print(f"  {name:<18} {values[row]:>+7.2f} {R.sum():>+7.2f}   {' '.join(text)}")
            heading = f"{row + 1}. {name}: rating {values[row]:+.2f}{people[row]}, {R.sum():+.2f}"
            texts[f"{heading} at the words"] = text
            relevances[f"{heading} at the words"] = R
    options = {"title": "What makes a review positive (red) or negative (blue)?"}
    out.parent.mkdir(parents=True, exist_ok=True)
    page = heatmap.text_html(texts, relevances, **options)
    out.with_suffix(".html").write_text(page, encoding="utf-8")
    heatmap.text_figure(texts, relevances, width=8.5, **options).savefig(out, dpi=150)


if __name__ == "__main__":
    main()
