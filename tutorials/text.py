# %% [markdown]
# # A text classifier
#
# A small transformer learns whether a sentence of a film review is positive, and AttnLRP says which words led to the answer. The 10,000
# sentences and their ratings by people come with the sources of the package vaderSentiment, which pip fetches once into `out/`.

# %%
import collections
import re
import sys
import textwrap
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxlrp as lrp
from jaxlrp import heatmap, methods

sys.path.append("examples")
from review_data import load_reviews

LENGTH = 32
sentences, ratings = load_reviews(Path("out"))
split = [re.findall(r"\w+(?:'\w+)*|[^\w\s]", s.lower())[:LENGTH] for s in sentences]
order = np.random.default_rng(0).permutation(len(split))
split, labels = [split[i] for i in order], (ratings[order] > 0).astype(np.int32)
train = len(split) * 4 // 5
counts = collections.Counter(word for s in split[:train] for word in s)
words = ["[pad]", "[new]", *(word for word, n in counts.most_common() if n > 1)]
index = {word: n for n, word in enumerate(words)}
tokens = np.zeros((len(split), LENGTH), np.int32)
for row, s in zip(tokens, split):
    row[: len(s)] = [index.get(word, 1) for word in s]
print(f"{train} sentences to train on, {len(split) - train} to test, {len(words)} words")


# %% [markdown]
# ## Train


# %%
class Classifier(nn.Module):
    @nn.compact
    def __call__(self, tokens, train=False):
        x = nn.Embed(len(words), 32, name="word")(tokens)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = x + self.param("position", nn.initializers.normal(0.02), (LENGTH, 32))
        mask = nn.make_attention_mask(tokens > 0, tokens > 0)
        attention = nn.MultiHeadDotProductAttention(num_heads=2, name="attention")
        h = attention(nn.LayerNorm()(x), mask=mask)
        x = x + nn.Dropout(0.5, deterministic=not train)(h)
        x = jnp.where(tokens[..., None] > 0, nn.LayerNorm()(x), 0).sum(1)
        x = x / (tokens > 0).sum(1, keepdims=True)
        return nn.Dense(2, name="head")(x)


network = Classifier()
params = network.init(jax.random.key(0), tokens[:1])
optimiser = optax.adamw(2e-3, weight_decay=0.02)
state = optimiser.init(params)


@jax.jit
def step(params, state, x, y, key):
    hide, drop = jax.random.split(key)
    x = jnp.where(jax.random.bernoulli(hide, 0.2, x.shape) & (x > 0), 1, x)  # unknown words

    def loss(params):
        logits = network.apply(params, x, train=True, rngs={"dropout": drop})
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    update, state = optimiser.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, update), state


key = jax.random.key(1)
rng = np.random.default_rng(1)
for _ in range(8):
    shuffled = rng.permutation(train)
    for i in range(0, train - 99, 100):
        key, own = jax.random.split(key)
        chosen = shuffled[i : i + 100]
        params, state = step(params, state, tokens[chosen], labels[chosen], own)

logits = jax.jit(network.apply)
x, truth = tokens[train:], labels[train:]
said = np.asarray(logits(params, x).argmax(-1))
print(f"{(said == truth).mean():.1%} of {len(x)} other sentences are right")

# %% [markdown]
# ## Plan
#
# Tokens are integers, so their embeddings are explained: `wrt="embed"`. Dropout is off, as it is in prediction.

# %%
rules = lrp.composites.attn_lrp()
print(lrp.plan(network.apply, rules, wrt="embed")(params, x[:1]))

# %% [markdown]
# ## Words
#
# The difference of the two logits is explained, so that red always means "positive". Relevance of an embedding is summed over its axis.

# %%
explain = jax.jit(lrp.explain(network.apply, rules, wrt="embed"))
difference = np.tile(np.array([-1.0, 1.0], np.float32), (len(x), 1))
R = explain(params, x, target=difference)
per_word = np.asarray(R["Classifier/word"].sum(-1))
shown = {}
values = np.asarray(logits(params, x))
certain = np.argsort(values[:, 1] - values[:, 0])
for n in [*certain[:2], *certain[-2:], *np.flatnonzero(said != truth)[:2]]:
    sentence = split[train + n]
    opinion = ["negative", "positive"][said[n]] + ("" if said[n] == truth[n] else ", wrong")
    shown[opinion + f" ({n})"] = (sentence, per_word[n, : len(sentence)])
for name, (sentence, numbers) in shown.items():
    top = np.argsort(-np.abs(numbers))[:3]
    print(textwrap.fill(f"{name}: {' '.join(sentence)}", 95))
    print("    " + ", ".join(f"{sentence[i]} {numbers[i]:+.2f}" for i in top))

# %%
sentence, numbers = next(iter(shown.values()))
heatmap.text_figure(sentence, numbers, title="For a positive answer, and against it")

# %% [markdown]
# ## Where the logit went

# %%
ledger = lrp.ledger(network.apply, rules, wrt="embed")(params, x[:200], target=difference[:200])
print(textwrap.fill(ledger.verdict, 95))

# %% [markdown]
# Position embeddings and unknown words receive a share of relevance too:

# %%
size = {name: float(jnp.abs(r).sum()) for name, r in R.items()}
print({name: f"{s / sum(size.values()):.0%}" for name, s in size.items()})

# %% [markdown]
# ## Is it true?
#
# One word is hidden in each test sentence: the one that speaks most for the answer, by each method.

# %%
sign = np.where(said == 1, 1.0, -1.0)[:, None]
gradient = jax.jit(methods.gradient_x_input(network.apply, wrt="embed"))
cp = jax.jit(lrp.explain(network.apply, lrp.composites.cp_lrp(), wrt="embed"))
maps = {
    "AttnLRP": per_word,
    "CP-LRP": cp(params, x, target=difference)["Classifier/word"].sum(-1),
    "gradient × input": gradient(params, x, target=difference)["Classifier/word"].sum(-1),
    "chance": rng.normal(size=x.shape),
}
for name, found in maps.items():
    chosen = np.where(x > 0, np.asarray(found) * sign, -np.inf).argmax(1)
    hidden = np.where(np.arange(LENGTH) == chosen[:, None], 1, x)
    turned = (np.asarray(logits(params, hidden).argmax(-1)) != said).mean()
    print(f"{name:17s} {turned:.1%} of the answers turn")
