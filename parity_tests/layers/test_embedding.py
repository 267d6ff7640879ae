"""`layers.Embedding` and `EmbeddingBag` against torch.nn's, out-of-range indices included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import layers, parity
from flaxnets.specs import Input

CHECKS = ["forward", "forward_train", "gradients", "buffers", "round_trip", "initialisation"]
OFFSETS = np.array([0, 3, 3, 7], np.int32)  # the second bag is empty
# Four bags; in the last of them only the row 2, which may be the padding.
FLAT = np.array([1, 2, 5, 4, 2, 4, 0, 2, 2], np.int32)
PADDED = np.array([[1, 2, 5], [2, 2, 2], [4, 4, 0], [2, 3, 2]], np.int32)


def seeded(seed, create):
    """A torch layer from a seed."""
    torch.manual_seed(seed)
    return create()


@pytest.mark.parametrize("padding_idx", [None, 0, 2, -1])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_embedding(shape, padding_idx):
    """Rows, their gradients and their distribution agree; a padding row gets no gradient."""
    parity.check(
        lambda seed: layers.Embedding(6, 5, padding_idx, rngs=nnx.Rngs(seed)),
        lambda seed: seeded(seed, lambda: torch.nn.Embedding(6, 5, padding_idx)),
        [Input(name="x", shape=shape, axes="btf"[: len(shape)], high=6)],
        CHECKS,
    ).raise_if_failed()


class Tied(nnx.Module):
    """The table is the output layer too."""

    def __init__(self, rngs):
        self.embed = layers.Embedding(6, 5, padding_idx=1, rngs=rngs)

    def __call__(self, x):
        return self.embed.attend(jnp.tanh(self.embed(x)))


class TorchTied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(6, 5, padding_idx=1)

    def forward(self, x):
        return torch.nn.functional.linear(torch.tanh(self.embed(x)), self.embed.weight)


def test_attend():
    """Tied weights: products with all rows, and a padding row that learns as an output only."""
    inputs = [Input(name="x", shape=(4, 3), axes="bt", high=6)]
    parity.check(Tied(nnx.Rngs(0)), TorchTied(), inputs, ["forward", "gradients"]).raise_if_failed()


class Weighted(nnx.Module):
    """Weights of the rows, by position, as the harness passes them."""

    def __init__(self, bag, flat):
        self.bag, self.flat = bag, flat

    def __call__(self, x, weights):
        offsets = jnp.asarray(OFFSETS) if self.flat else None
        return self.bag(x, offsets, weights)


class TorchWeighted(torch.nn.Module):
    def __init__(self, bag, flat):
        super().__init__()
        self.bag, self.flat = bag, flat

    def forward(self, x, weights):
        return self.bag(x, torch.tensor(OFFSETS) if self.flat else None, weights)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 2, -4])
@pytest.mark.parametrize(("flat", "last"), [(False, False), (True, False), (True, True)])
def test_bag(mode, padding_idx, flat, last):
    """Bags in rows and by offsets, with empty ones and ones of padding only."""
    options = {"mode": mode, "padding_idx": padding_idx, "include_last_offset": last}
    offsets = np.append(OFFSETS, len(FLAT)).astype(np.int32) if last else OFFSETS
    parity.check(
        lambda seed: layers.EmbeddingBag(6, 5, **options, rngs=nnx.Rngs(seed)),
        lambda seed: seeded(seed, lambda: torch.nn.EmbeddingBag(6, 5, **options)),
        [FLAT, offsets] if flat else [PADDED],
        CHECKS if mode == "sum" and not flat else CHECKS[:-1],  # all begin alike
    ).raise_if_failed()


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("flat", [False, True])
def test_weighted_bag(flat, padding_idx):
    """Weighted sums, and the gradients of the weights."""
    options = {"mode": "sum", "padding_idx": padding_idx}
    x = FLAT if flat else PADDED
    weights = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    parity.check(
        Weighted(layers.EmbeddingBag(6, 5, **options, rngs=nnx.Rngs(0)), flat),
        TorchWeighted(torch.nn.EmbeddingBag(6, 5, **options), flat),
        [x, weights],
        ["forward", "gradients"],
    ).raise_if_failed()


def test_initial_padding():
    """A padding row starts at zero."""
    for layer in (
        layers.Embedding(6, 5, padding_idx=-2, rngs=nnx.Rngs(0)),
        layers.EmbeddingBag(6, 5, padding_idx=-2, rngs=nnx.Rngs(0)),
    ):
        assert np.flatnonzero(~np.asarray(layer.weight).any(-1)).tolist() == [4]


@pytest.mark.parametrize("index", [-1, 6])
def test_out_of_range(index):
    """Torch raises; so does Flax where it knows the value, and inside jit the row is NaN."""
    with pytest.raises(IndexError, match="out of range"):
        torch.nn.Embedding(6, 5)(torch.tensor([0, index]))
    layer = layers.Embedding(6, 5, rngs=nnx.Rngs(0))
    bag = layers.EmbeddingBag(6, 5, rngs=nnx.Rngs(0))
    x = jnp.array([0, index])
    for call in (lambda: layer(x), lambda: bag(x[None])):
        with pytest.raises(ValueError, match=f"index {index} is not one of 6 rows; use 0 to 5"):
            call()
    rows = jax.jit(lambda x: layer(x))(x)
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1]).all()
    for mode in ("sum", "mean", "max"):
        bag = layers.EmbeddingBag(6, 5, mode=mode, rngs=nnx.Rngs(0))
        bags = jax.jit(lambda x, bag=bag: bag(x))(jnp.array([[0, index], [1, 2]]))
        assert np.isnan(bags[0]).all()
        assert np.isfinite(bags[1]).all()


def make(kind, *arguments, **options):
    """A layer by its name."""
    return getattr(layers, kind)(*arguments, **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: make("Embedding", 6, 5, max_norm=1.0), "max_norm 1.0 would change weights"),
        (lambda: make("Embedding", 6, 5, 6), "padding_idx 6 is not one of 6 rows"),
        (lambda: make("EmbeddingBag", 6, 5, max_norm=1.0), "max_norm 1.0 would change weights"),
        (lambda: make("EmbeddingBag", 6, 5, mode="min"), "mode 'min' is unknown; use sum, mean"),
        (lambda: make("EmbeddingBag", 6, 5, padding_idx=-7), "padding_idx -7 is not one of 6"),
        (
            lambda: make("EmbeddingBag", 6, 5)(jnp.asarray(PADDED), None, jnp.ones((4, 3))),
            "per_sample_weights need mode 'sum', not 'mean'",
        ),
        (
            lambda: make("EmbeddingBag", 6, 5, mode="sum")(
                jnp.asarray(PADDED), None, jnp.ones((4, 2))
            ),
            r"per_sample_weights \(4, 2\) are not of the shape \(4, 3\)",
        ),
        (
            lambda: make("EmbeddingBag", 6, 5)(jnp.asarray(PADDED), jnp.asarray(OFFSETS)),
            r"offsets go with one row of indices, not with \(4, 3\)",
        ),
        (
            lambda: make("EmbeddingBag", 6, 5)(jnp.asarray(FLAT)),
            r"indices \(9,\) in one row need offsets",
        ),
        (
            lambda: make("EmbeddingBag", 6, 5)(jnp.asarray(FLAT), jnp.array([1, 2])),
            "the first of the offsets is 1; use 0",
        ),
    ],
)
def test_wrong(act, message):
    """Each wrong option and input is named with its value, in one line."""
    with pytest.raises(ValueError, match=message) as error:
        act()
    assert "\n" not in str(error.value)


def test_indices_of_a_closure():
    """What a jitted function has from outside is a number there, too: it works, and is judged."""
    table = layers.Embedding(6, 3, rngs=nnx.Rngs(0))
    bags = layers.EmbeddingBag(6, 3, rngs=nnx.Rngs(0))
    flat, offsets = jnp.asarray(FLAT), jnp.asarray(OFFSETS)
    for call in (lambda: table(flat), lambda: bags(flat, offsets)):
        np.testing.assert_array_equal(jax.jit(call)(), call())
    beyond, late = flat + 1, offsets + 1
    with pytest.raises(ValueError, match="index 6 is not one of 6 rows"):
        jax.jit(lambda: table(beyond))()
    with pytest.raises(ValueError, match="the first of the offsets is 1"):
        jax.jit(lambda: bags(flat, late))()
