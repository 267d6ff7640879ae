"""`torch_ref.random` against jax.random: the same bits, and the same masks in torch's layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F  # noqa: N812 (torch's own custom)
from torch.nn.utils.rnn import pack_sequence

from flaxnets import compile_options
from torch_ref import random

DTYPES = {"float32": torch.float32, "float64": torch.float64}
SEEDS = [0, 42, 2**32 - 1]
COUNT = 100_000


def jax_key(seed):
    """JAX takes seeds above 2**31 with 64-bit integers only."""
    with jax.enable_x64(True):
        return jax.random.key(seed)


def words(key):
    """The two words of one of JAX's keys."""
    return np.asarray(jax.random.key_data(key)).astype(np.int64)


@pytest.mark.parametrize("seed", SEEDS)
def test_keys(seed):
    """`key`, `split` and `fold_in` give JAX's keys, also one after the other."""
    theirs, ours = jax_key(seed), random.key(seed)
    np.testing.assert_array_equal(ours, words(theirs))
    np.testing.assert_array_equal(random.split(ours, 5), words(jax.random.split(theirs, 5)))
    for data in (0, 1, 2**31, 2**32 - 1):
        folded = jax.random.fold_in(theirs, np.uint32(data))
        np.testing.assert_array_equal(random.fold_in(ours, data), words(folded))
    theirs, ours = jax.random.split(jax.random.fold_in(theirs, 7))[1], random.fold_in(ours, 7)
    np.testing.assert_array_equal(random.split(ours)[1], words(theirs))


def test_stream():
    """The n-th key of `nnx.Rngs(key)` is `fold_in(key, n)`, whatever the stream is called."""
    rngs = nnx.Rngs(3)
    for count, stream in enumerate((rngs.dropout, rngs.noise, rngs)):
        np.testing.assert_array_equal(random.fold_in(random.key(3), count), words(stream()))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("width", [32, 64])
def test_bits(seed, width):
    """All bits are JAX's, in every shape."""
    for shape in ((), (5,), (3, 4, 5), (COUNT,)):
        with jax.enable_x64(True):
            bits = jax.random.bits(jax_key(seed), shape, f"uint{width}")
        ours = random.bits(random.key(seed), shape, width)
        np.testing.assert_array_equal(ours.numpy().astype(f"uint{width}"), np.asarray(bits))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-0.3, 0.7), (-1.0, 1.0)])
def test_uniform(dtype, bounds):
    """Uniform numbers are JAX's to the last bit."""
    with jax.enable_x64(dtype == "float64"):
        theirs = np.asarray(jax.random.uniform(jax.random.key(5), (COUNT,), dtype, *bounds))
    ours = random.uniform(random.key(5), (COUNT,), DTYPES[dtype], *bounds).numpy()
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_bernoulli(dtype, p):
    """Masks are JAX's for a p of the same dtype."""
    with jax.enable_x64(dtype == "float64"):
        theirs = jax.random.bernoulli(jax.random.key(6), jnp.asarray(p, dtype), (COUNT,))
    ours = random.bernoulli(random.key(6), p, (COUNT,), DTYPES[dtype])
    np.testing.assert_array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_normal(dtype, seed):
    """Normal numbers are XLA's, all within a few ulp and nearly all to the last bit.

    How many depends on which products and sums XLA fuses on this processor: 9,996 in 10,000 on
    one, 9,999 on another.
    """
    with jax.enable_x64(True):
        optimised = compile_options.known(compile_options.OPTIMISED)
        draw = jax.jit(
            lambda key: jax.random.normal(key, (COUNT,), dtype), compiler_options=optimised
        )
        theirs = np.asarray(draw(jax_key(seed)))
    ours = random.normal(random.key(seed), (COUNT,), DTYPES[dtype]).numpy()
    assert ours.dtype == theirs.dtype
    ulps = np.abs(ours - theirs) / np.spacing(np.abs(theirs))
    assert ulps.max() <= (2 if dtype == "float32" else 4)
    assert np.mean(ulps == 0) > 0.999
    assert np.abs(ours).max() > 4  # the tail's polynomial was used


@pytest.mark.parametrize("dtype", DTYPES)
def test_erfinv(dtype):
    """Near 0, near both ends and in every polynomial's range it is the inverse of erf."""
    near = 1 - 10.0 ** -np.arange(1, 7 if dtype == "float32" else 16)
    points = np.concatenate([near, -near, [0.0, 1e-5, 0.3, -0.7]]).astype(dtype)
    with jax.enable_x64(True):
        theirs = np.asarray(jax.lax.erf_inv(jnp.asarray(points)))
    ours = random.erfinv(torch.tensor(points)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 1000, 3000])
def test_permutation(size):
    """Orders are JAX's, with one round of sorting and with two."""
    theirs = jax.random.permutation(jax.random.key(8), size)
    np.testing.assert_array_equal(random.permutation(random.key(8), size), np.asarray(theirs))


def test_categorical():
    """Classes drawn from logits are JAX's."""
    logits = np.random.default_rng(0).standard_normal((1000, 7)).astype(np.float32)
    theirs = jax.random.categorical(jax.random.key(9), jnp.asarray(logits))
    ours = random.categorical(random.key(9), torch.tensor(logits))
    np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_replay_noise():
    """`randn`, `rand` and their likes draw one key after the other, maps channels last."""
    rngs = nnx.Rngs(4)
    with random.replay(4):
        x = torch.zeros(2, 3, 5, 4)
        drawn = [
            torch.randn(3, 2),
            torch.rand((4,)),
            torch.randn_like(x),
            torch.rand_like(x, dtype=torch.float32),
            torch.bernoulli(torch.full((2, 5), 0.3)),
            torch.randn(size=(6,), dtype=torch.float32, requires_grad=True).detach(),
        ]
    with jax.enable_x64(False):
        wanted = [
            jax.random.normal(rngs(), (3, 2)),
            jax.random.uniform(rngs(), (4,)),
            jnp.moveaxis(jax.random.normal(rngs(), (2, 5, 4, 3)), -1, 1),
            jnp.moveaxis(jax.random.uniform(rngs(), (2, 5, 4, 3)), -1, 1),
            jax.random.bernoulli(rngs(), 0.3, (2, 5)).astype(jnp.float32),
            jax.random.normal(rngs(), (6,)),
        ]
    for ours, theirs in zip(drawn, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_replay_layout():
    """Flax's shapes decide which axes move: maps do, attention weights (b, heads, t, s) do not."""
    x = torch.ones(2, 3, 5, 4)
    kept = jax.random.bernoulli(nnx.Rngs(0)(), jnp.float32(0.5), (2, 3, 5, 4))
    with random.replay(0, [(2, 3, 5, 4)]):
        np.testing.assert_array_equal(F.dropout(x, 0.5), 2.0 * kept)
    moved = jnp.moveaxis(kept.reshape(2, 5, 4, 3), -1, 1)
    for draws in (None, [(2, 5, 4, 3)]):
        with random.replay(0, draws):
            np.testing.assert_array_equal(F.dropout(x, 0.5), 2.0 * moved)
    kept = kept.ravel()[:30].reshape(2, 5, 3)
    with random.replay(0):
        np.testing.assert_array_equal(F.dropout(torch.ones(2, 5, 3), 0.5), 2.0 * kept)
    with random.replay(0, [(2, 5, 3)]):
        moved = jnp.moveaxis(kept, -1, 1)
        np.testing.assert_array_equal(F.dropout(torch.ones(2, 3, 5), 0.5), 2.0 * moved)


@pytest.mark.parametrize("need_weights", [True, False])
def test_replay_attention(need_weights):
    """The attention of torch drops the weights that Flax's draw of (b, heads, t, s) says."""
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(6, 2, dropout=0.4, batch_first=True)
    x = torch.randn(3, 5, 6)
    with random.replay(0, [(3, 2, 5, 5)]):
        ours, _ = layer(x, x, x, need_weights=need_weights)
    query, key, value = (
        part.unflatten(-1, (2, 3)).transpose(1, 2)
        for part in F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
    )
    kept = jax.random.bernoulli(nnx.Rngs(0)(), jnp.float32(0.6), (3, 2, 5, 5))
    weights = (query @ key.mT / 3**0.5).softmax(-1) * torch.tensor(np.asarray(kept)) / 0.6
    wanted = layer.out_proj((weights @ value).transpose(1, 2).flatten(2))
    np.testing.assert_allclose(ours.detach(), wanted.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", ["none", "causal", "boolean", "added", "grouped"])
def test_replay_attention_written_out(masked):
    """With next to no dropout the attention that is written out is torch's fused one."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, 5, 3, dtype=torch.float64) for _ in range(3))
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    options = {
        "none": {"scale": 0.3},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": mask},
        "added": {"attn_mask": torch.randn(5, 5, dtype=torch.float64)},
        "grouped": {"enable_gqa": True},
    }[masked]
    if masked == "grouped":
        key, value = key[:, :2], value[:, :2]
    wanted = F.scaled_dot_product_attention(query, key, value, **options)
    with random.replay(0):
        ours = F.scaled_dot_product_attention(query, key, value, dropout_p=1e-12, **options)
        same = F.scaled_dot_product_attention(query, key, value, **options)
    np.testing.assert_allclose(ours, wanted, atol=1e-9)
    np.testing.assert_array_equal(same, wanted)


def test_replay_in_place():
    """Dropout in place changes its input and lets gradients through."""
    x = torch.ones(6, requires_grad=True)
    with random.replay(0):
        y = x * 1
        assert F.dropout(y, 0.5, inplace=True) is y
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.detach())


def test_replay_ends():
    """Outside the context torch draws its own numbers again."""
    torch.manual_seed(0)
    wanted = torch.randn(3)
    torch.manual_seed(0)
    with random.replay(0):
        assert not torch.equal(torch.randn(3), wanted)
    assert torch.equal(torch.randn(3), wanted)


@pytest.mark.parametrize(
    ("draws", "act", "message"),
    [
        ([(3,)], lambda: None, "torch drew 0 arrays and Flax 1"),
        ([], lambda: torch.randn(3), r"torch draws \(3,\) after Flax's 0 draws"),
        ([(4,)], lambda: torch.randn(3), r"draw 0 is \(3,\) in torch and \(4,\) in Flax"),
        (None, lambda: torch.randint(3, (2,)), "randint draws numbers that replay has no rule"),
        (None, lambda: torch.ones(3).normal_(), "normal_ draws numbers"),
        (None, lambda: F.gumbel_softmax(torch.ones(3)), "gumbel_softmax draws numbers"),
        (
            None,
            lambda: torch.nn.GRU(2, 3, 2, dropout=0.5)(input=pack_sequence([torch.ones(4, 2)])),
            "order of a packed batch is unknown; pass it by position",
        ),
        (None, lambda: torch.randn(3, generator=torch.Generator()), "generator has no meaning"),
        (None, lambda: torch.bernoulli(torch.ones(3).half()), "bernoulli of torch.float16"),
    ],
)
def test_replay_refuses(draws, act, message):
    """What cannot be the Flax twin's draw is an error of one line."""
    with pytest.raises(random.ReplayError, match=message) as error, random.replay(0, draws):
        act()
    assert "\n" not in str(error.value)


def test_wrong():
    """Seeds and dtypes that JAX's numbers are not made for are named."""
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed {seed} is out of range"):
            random.key(seed)
    with pytest.raises(ValueError, match=r"dtype torch.bfloat16 is not drawn; use"):
        random.uniform(random.key(0), (2,), torch.bfloat16)
