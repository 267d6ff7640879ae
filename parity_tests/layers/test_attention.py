"""`layers.MultiheadAttention` against torch.nn's: options, masks, dropout, masked rows, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from flax import nnx

from flaxnets import bridge, layers, parity
from flaxnets.layers import attention
from torch_ref.arrays import tensor
from torch_ref.random import replay

EMBED, HEADS, B, T, S = 6, 2, 3, 5, 4
RNG = np.random.default_rng(0)


def hidden(*shape):
    """A boolean mask that hides something from every query, and not everything."""
    mask = RNG.random(shape) < 0.4
    mask[..., 0], mask[..., 1] = False, True
    return mask


BOOL, BOOL_HEADS, BOOL_PADDING = hidden(T, S), hidden(B * HEADS, T, S), hidden(B, S)
CAUSAL = np.triu(np.ones((T, T), bool), 1)
FLOAT, FLOAT_HEADS, FLOAT_PADDING = (
    RNG.standard_normal(mask.shape).astype(np.float32) for mask in (BOOL, BOOL_HEADS, BOOL_PADDING)
)
INFINITE = np.where(BOOL, -np.inf, FLOAT).astype(np.float32)


class Called(nnx.Module):
    """A layer, called as a function of it, of its inputs and of the framework's `array` says."""

    def __init__(self, layer, call):
        self.layer = layer
        self.call = call

    def __call__(self, *inputs, rngs=None):
        return self.call(self.layer, jnp.asarray, inputs, {"rngs": rngs})


class TorchCalled(torch.nn.Module):
    def __init__(self, layer, call):
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, *inputs):
        return self.call(self.layer, torch.tensor, inputs, {})


def prove(options, call, inputs, checks):
    """The two layers, called alike, are one function."""

    def flax(seed):
        return Called(layers.MultiheadAttention(EMBED, HEADS, **options, rngs=nnx.Rngs(seed)), call)

    def reference(seed):
        torch.manual_seed(seed)
        return TorchCalled(torch.nn.MultiheadAttention(EMBED, HEADS, **options), call)

    parity.check(flax, reference, inputs, checks).raise_if_failed()


def arrays(options, batched=True):
    """Query, key and value in the layout that the options ask for."""
    shapes = [
        (B, T, EMBED),
        (B, S, options.get("kdim", EMBED)),
        (B, S, options.get("vdim", EMBED)),
    ]
    drawn = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    if not batched:
        return [x[0] for x in drawn]
    return drawn if options.get("batch_first") else [x.swapaxes(0, 1) for x in drawn]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    ("options", "masks"),
    [
        ({"dropout": 1.0}, {}),
        ({"batch_first": True, "bias": False}, {"attn_mask": BOOL}),
        ({"kdim": 7, "vdim": 3}, {"attn_mask": FLOAT}),
        ({"kdim": 7, "bias": False, "batch_first": True}, {"attn_mask": INFINITE}),
        ({"add_bias_kv": True}, {"attn_mask": BOOL_HEADS, "key_padding_mask": BOOL_PADDING}),
        ({"add_zero_attn": True}, {"attn_mask": FLOAT_HEADS, "key_padding_mask": FLOAT_PADDING}),
        (
            {"add_bias_kv": True, "add_zero_attn": True, "vdim": 7},
            {"key_padding_mask": BOOL_PADDING},
        ),
        ({"add_bias_kv": True, "add_zero_attn": True, "batch_first": True}, {"attn_mask": FLOAT}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_options(options, masks, need_weights):
    """Outputs, weights and gradients, of masks too, in both modes; dropout of the same entries."""
    whole = {name: mask for name, mask in masks.items() if mask.dtype == bool}
    added = {name: mask for name, mask in masks.items() if mask.dtype != bool}

    def call(layer, array, inputs, rngs):
        query, key, value, *others = inputs
        given = {name: array(mask) for name, mask in whole.items()}
        given |= dict(zip(added, others, strict=True))
        return layer(
            query, key, value, **given, need_weights=need_weights, **rngs,
            average_attn_weights=layer.bias_k is None,
        )  # fmt: skip

    infinite = [name for name, mask in added.items() if np.isinf(mask).any()]
    if infinite:  # not an input: of a gradient there, only a finite one can be compared
        whole |= {name: added.pop(name).astype(np.float64) for name in infinite}
    inputs = [*arrays(options), *added.values()]
    prove(
        {"dropout": 0.3, **options}, call, inputs,
        ["forward", "forward_train", "gradients", *([] if need_weights else ["round_trip"])],
    )  # fmt: skip


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_without_batch(need_weights, average):
    """Arrays (t, e), for which `batch_first` means nothing."""

    def call(layer, array, inputs, rngs):
        masks = {"key_padding_mask": array(BOOL_PADDING[1]), "attn_mask": array(BOOL_HEADS[:2])}
        options = {"need_weights": need_weights, "average_attn_weights": average}
        return layer(*inputs, **masks, **options, **rngs)

    options = {"dropout": 0.2, "batch_first": average, "add_zero_attn": True}
    prove(options, call, arrays(options, batched=False), ["forward", "forward_train", "gradients"])


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_causal(padded, need_weights):
    """`is_causal` of one array as query, key and value, where the promise is kept."""
    padding = np.zeros((B, T), bool)
    padding[1, 3:] = True
    padding[2, 0] = not need_weights  # whose first query then sees nothing

    def call(layer, array, inputs, rngs):
        (x,) = inputs
        masks = {"attn_mask": array(CAUSAL)}
        if padded:
            masks["key_padding_mask"] = array(padding)
        return layer(x, x, x, **masks, is_causal=True, need_weights=need_weights, **rngs)

    options = {"dropout": 0.3, "batch_first": True, "add_bias_kv": not padded}
    x = RNG.standard_normal((B, T, EMBED)).astype(np.float32)
    prove(options, call, [x], ["forward", "forward_train", "gradients"])


@pytest.mark.parametrize(
    "options", [{}, {"kdim": 5, "vdim": 7, "add_bias_kv": True}, {"bias": False}], ids=str
)
def test_initialisation(options):
    """New weights come from torch's distributions."""
    prove(options, lambda layer, array, inputs, rngs: layer(*inputs, **rngs), arrays(options),
          ["initialisation"])  # fmt: skip


@pytest.mark.parametrize("mask", ["bool", "float"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_masked_row(need_weights, train, mask):
    """A query that sees nothing: NaN with weights, zeros without, in torch's very places."""
    hide = np.zeros((T, S), bool)
    hide[1] = hide[2, 0] = True
    given = hide if mask == "bool" else np.where(hide, -np.inf, 0.0)
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(EMBED, HEADS, dropout=0.4).double().train(train)
    inputs = [x.astype(np.float64) for x in arrays({})]
    with jax.enable_x64(True):
        ours = layers.MultiheadAttention(EMBED, HEADS, dropout=0.4, rngs=nnx.Rngs(0))
        nnx.update(ours, jax.tree.map(lambda v: v.astype(jnp.float64), nnx.state(ours)))
        bridge.load_state_dict(ours, theirs.state_dict())
        ours = nnx.view(ours, deterministic=not train)
        graph, state = nnx.split(ours)

        def total(state, inputs):
            y, weights = nnx.merge(graph, state, copy=True)(
                *inputs,
                attn_mask=jnp.asarray(given),
                need_weights=need_weights,
                rngs=nnx.Rngs(jax.random.key(0)),
            )
            # A query that sees nothing has a constant, not NaN, in the loss.
            return jnp.nan_to_num(y).sum(), (y, weights)

        (_, results), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(
            state, [jnp.asarray(x) for x in inputs]
        )
        mine = bridge.state_dict(ours, gradients[0])
        mine |= dict(zip("qkv", gradients[1], strict=True))
    given_inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    with replay(0):
        y, weights = theirs(*given_inputs, attn_mask=torch.tensor(given), need_weights=need_weights)
    y.nan_to_num().sum().backward()
    truth = {name: weight.grad for name, weight in theirs.named_parameters()}
    truth |= {name: x.grad for name, x in zip("qkv", given_inputs, strict=True)}
    assert bool(y.isnan().any()) == need_weights
    for name, value in truth.items():
        np.testing.assert_allclose(mine[name], value, rtol=0, atol=1e-10, err_msg=name)
    np.testing.assert_allclose(results[0], y.detach(), rtol=0, atol=1e-10)
    if need_weights:
        np.testing.assert_allclose(results[1], weights.detach(), rtol=0, atol=1e-10)


def test_fast_path():
    """Without gradients torch takes one fused operation, which is the same function."""
    options = {"batch_first": True}
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(EMBED, HEADS, **options).eval()
    ours = layers.MultiheadAttention(EMBED, HEADS, **options, rngs=nnx.Rngs(0))
    bridge.load_state_dict(ours, theirs.state_dict())
    ours = nnx.view(ours, deterministic=True)
    x = RNG.standard_normal((B, S, EMBED)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(*[tensor(x)] * 3, key_padding_mask=torch.tensor(BOOL_PADDING))
    y, weights = ours(*[jnp.asarray(x)] * 3, key_padding_mask=jnp.asarray(BOOL_PADDING))
    np.testing.assert_allclose(y, wanted[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(weights, wanted[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_precision(dtype, need_weights):
    """In every dtype the layer keeps it and is as near to float64's truth as torch."""
    torch.manual_seed(0)
    truth = torch.nn.MultiheadAttention(EMBED, HEADS, batch_first=True)
    kind = getattr(torch, dtype)
    theirs = torch.nn.MultiheadAttention(EMBED, HEADS, batch_first=True).to(kind)
    theirs.load_state_dict(truth.state_dict())
    truth.load_state_dict(theirs.state_dict())
    ours = layers.MultiheadAttention(EMBED, HEADS, batch_first=True, rngs=nnx.Rngs(0))
    nnx.update(ours, jax.tree.map(lambda v: v.astype(dtype), nnx.state(ours)))
    bridge.load_state_dict(ours, theirs.state_dict())
    inputs = [torch.tensor(x).to(kind) for x in arrays({"batch_first": True})]
    masks = {"attn_mask": BOOL, "need_weights": need_weights}
    mine, _ = ours(
        *(jnp.asarray(x.float().numpy(), dtype) for x in inputs),
        **masks | {"attn_mask": jnp.asarray(BOOL)},
    )
    masks["attn_mask"] = torch.tensor(BOOL)
    exact, _ = truth.double()(*(x.double() for x in inputs), **masks)
    other, _ = theirs(*inputs, **masks)
    assert mine.dtype == dtype
    gaps = [
        np.abs(np.asarray(y, np.float64) - exact.detach().numpy()).max()
        for y in (mine, other.detach().float().numpy())
    ]
    assert gaps[0] <= 2 * gaps[1] + 2 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("masked", ["none", "causal", "bool", "float"])
def test_attend(masked, dtype):
    """The core is torch's scaled_dot_product_attention, whichever way it is computed."""
    q, k, v = (RNG.standard_normal((B, HEADS, n, 3)).astype(dtype) for n in (T, S, S))
    mask = {"bool": ~BOOL, "float": np.where(BOOL, -np.inf, FLOAT).astype(dtype)}.get(masked)
    causal = masked == "causal"
    theirs = F.scaled_dot_product_attention(
        *map(torch.tensor, (q, k, v)), None if mask is None else torch.tensor(mask),
        is_causal=causal,
    )  # fmt: skip
    with jax.enable_x64(True):
        ours = layers.attend(
            *(jnp.asarray(x.swapaxes(1, 2)) for x in (q, k, v)),
            mask=jnp.asarray(mask)[None, None] if masked == "bool" else None,
            bias=jnp.asarray(mask)[None, None] if masked == "float" else None,
            is_causal=causal,
        )
    bound = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(ours.swapaxes(1, 2), theirs, rtol=0, atol=bound)


def make(*arguments, **options):
    """A layer, or a reason why there is none."""
    return layers.MultiheadAttention(*arguments, **options, rngs=nnx.Rngs(0))


def called(*shapes, **options):
    """The outputs of a layer for inputs of ones."""
    return make(6, 2, dropout=0.5, batch_first=True)(*map(jnp.ones, shapes), **options)


X, Y = (3, 5, 6), (3, 4, 6)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: make(6, 4), "embed_dim 6 is not a multiple of num_heads 4"),
        (lambda: make(0, 4), "embed_dim 0 is too small; use 1 or more"),
        (lambda: make(6, 0), "num_heads 0 is too small"),
        (lambda: make(6, 2, kdim=0), "kdim 0 is too small"),
        (lambda: make(6, 2, dropout=1.5), "dropout 1.5 is out of range; use 0 to 1"),
        (lambda: called(X, Y, Y), "call it with rngs"),
        (lambda: called(X[1:], Y, Y), r"key \(3, 4, 6\) has 3 axes"),
        (lambda: called((6,), (6,), (6,)), r"query \(6,\) has 1 axes; use 3, or 2"),
        (lambda: called((3, 5, 7), Y, Y), r"query \(3, 5, 7\) has 7 features, not 6"),
        (lambda: called(X, (3, 4, 5), Y), r"key \(3, 4, 5\) has 5 features, not 6"),
        (lambda: called(X, Y, (3, 4, 5)), r"value \(3, 4, 5\) has 5 features, not 6"),
        (lambda: called(X, Y, X), r"key \(3, 4, 6\) and value \(3, 5, 6\) differ in length"),
        (lambda: called(X, (2, 4, 6), (2, 4, 6)), r"query \(3, 5, 6\) and key .* differ in batch"),
        (lambda: called(X, Y, Y, is_causal=True), "is_causal is a promise about attn_mask"),
        (
            lambda: called(X, Y, Y, attn_mask=jnp.ones((4, 5))),
            r"attn_mask has shape \(4, 5\); use \(5, 4\) or \(6, 5, 4\)",
        ),
        (
            lambda: called(X, Y, Y, key_padding_mask=jnp.ones((3, 5))),
            r"key_padding_mask has shape \(3, 5\); use \(3, 4\)",
        ),
        (
            lambda: called(X, Y, Y, attn_mask=jnp.ones((5, 4), jnp.int32)),
            "attn_mask has dtype int32; use bool or a floating one",
        ),
    ],
)
def test_wrong(act, message):
    """Each wrong option and input is named with its value, in one line."""
    with pytest.raises(ValueError, match=message) as error:
        act()
    assert "\n" not in str(error.value)


SHAPE = (2, 16, 4, 64)


@pytest.mark.parametrize(
    ("expected", "shape", "dtype", "options"),
    [
        ("cudnn", SHAPE, "bfloat16", {}),
        ("cudnn", SHAPE, "float16", {"masked": True}),
        ("xla", SHAPE, "float32", {}),
        ("xla", SHAPE, "float64", {}),
        ("xla", SHAPE, "bfloat16", {"dropout": 0.1}),
        ("xla", SHAPE, "bfloat16", {"biased": True}),
        ("cudnn", (2, 15, 4, 64), "bfloat16", {}),
        ("xla", (2, 15, 4, 64), "bfloat16", {"masked": True}),
        ("xla", (2, 16, 4, 60), "bfloat16", {}),
        ("xla", (2, 16, 4, 256), "bfloat16", {}),
    ],
)
def test_kernel_on_cuda(expected, shape, dtype, options):
    """The kernel that is taken on CUDA, and the one that cuDNN's conditions leave."""
    taken = layers.attention_kernel(shape, shape, dtype, platform="cuda", **options)
    assert taken == expected
    assert layers.attention_kernel(shape, shape, dtype, platform="cpu", **options) == "xla"


def test_kernel_by_compute_capability(monkeypatch):
    """The kernel of heads of 256 features, and the age of the GPU."""
    shape = (2, 16, 4, 256)
    for capability, expected in (((7, 5), "xla"), ((8, 0), "xla"), ((9, 0), "cudnn")):
        monkeypatch.setattr(attention, "_compute_capability", lambda found=capability: found)
        assert layers.attention_kernel(shape, shape, "bfloat16") == expected
    monkeypatch.setattr(attention, "_compute_capability", lambda: (7, 5))
    assert layers.attention_kernel(SHAPE, SHAPE, "bfloat16") == "xla"


def test_layer_asks_for_the_kernel_that_is_named(monkeypatch):
    """What `attend` asks JAX for, and the kernel that `attention_kernel` names."""
    asked = []
    own = jax.nn.dot_product_attention

    def watched(*arrays, implementation=None, **options):
        asked.append(implementation)
        return own(*arrays, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", watched)
    x = jnp.ones((2, 4, 2, 8), jnp.bfloat16)
    mask = jnp.ones((1, 1, 1, 4), bool)
    plain = layers.attend(x, x, x, mask)
    assert asked == [None]
    monkeypatch.setattr(attention, "_compute_capability", lambda: (9, 0))
    given = jax.jit(layers.attend)(x, x, x, mask)  # traced for CUDA, too, lowered for the CPU
    np.testing.assert_array_equal(given, plain)
    assert asked == [None, "cudnn", None]
