"""Transformer layers against torch.nn's: options, masks, dropout, the fast path, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flaxnets import bridge, layers, parity
from torch_ref.arrays import tensor

D, HEADS, HIDDEN, B, T, S = 6, 2, 7, 3, 5, 4
RNG = np.random.default_rng(0)


def hidden(*shape):
    """A boolean mask that hides something from every query, and not everything."""
    mask = RNG.random(shape) < 0.4
    mask[..., 0], mask[..., 1] = False, True
    return mask


def causal(size):
    """Minus infinity for what comes after each entry."""
    return np.triu(np.full((size, size), -np.inf), 1)


class Called(nnx.Module):
    """A layer, called with masks that are no inputs."""

    def __init__(self, layer, masks):
        self.layer = layer
        self.masks = nnx.static(masks)

    def __call__(self, *inputs, rngs=None):
        return self.layer(*inputs, **given(self.masks, jnp.asarray), rngs=rngs)


class TorchCalled(torch.nn.Module):
    def __init__(self, layer, masks):
        super().__init__()
        self.layer = layer
        self.masks = masks

    def forward(self, *inputs):
        return self.layer(*inputs, **given(self.masks, torch.tensor))


class Masks(dict):
    """Masks by argument name, which NNX may compare by identity."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def given(masks, array):
    """The masks as arrays of a framework; promises about them stay what they are."""
    return {
        name: array(mask) if isinstance(mask, np.ndarray) else mask for name, mask in masks.items()
    }


def arrays(*lengths, batch_first=True, batched=True):
    """Sequences in the layout that the options ask for."""
    drawn = [RNG.standard_normal((B, length, D)).astype(np.float32) for length in lengths]
    if not batched:
        return [x[0] for x in drawn]
    return drawn if batch_first else [x.swapaxes(0, 1) for x in drawn]


def prove(create, masks, inputs, checks):
    """What `create` makes of either framework's layers, called alike, is one function."""

    def new(key):
        return Called(create(layers, {"rngs": nnx.Rngs(key)}, {}), Masks(masks))

    graph = nnx.graphdef(nnx.eval_shape(lambda: new(0)))
    born = jax.jit(lambda key: nnx.state(new(key)))

    def flax(seed):
        return nnx.merge(graph, born(jax.random.key(seed)))

    def reference(seed):
        torch.manual_seed(seed)
        return TorchCalled(create(torch.nn, {}, {"enable_nested_tensor": False}), masks)

    parity.check(flax, reference, inputs, checks).raise_if_failed()


ENCODER = [
    ({"norm_first": True}, {"src_mask": hidden(T, T)}),
    (
        {"batch_first": True, "activation": "gelu", "bias": False},
        {"src_mask": hidden(B * HEADS, T, T), "src_key_padding_mask": hidden(B, T)},
    ),
    (
        {"layer_norm_eps": 0.1},
        {
            "src_mask": RNG.standard_normal((T, T)),
            "src_key_padding_mask": RNG.standard_normal((B, T)),
        },
    ),
    ({"batch_first": True}, {"src_mask": causal(T), "is_causal": True}),
]
DECODER = [
    (
        {"norm_first": True, "activation": "gelu"},
        {"tgt_mask": hidden(T, T), "memory_mask": RNG.standard_normal((B * HEADS, T, S))},
    ),
    (
        {"batch_first": True, "bias": False},
        {"tgt_key_padding_mask": hidden(B, T), "memory_key_padding_mask": hidden(B, S)},
    ),
    (
        {"batch_first": True, "layer_norm_eps": 0.1},
        {
            "tgt_mask": causal(T),
            "tgt_is_causal": True,
            "memory_mask": np.triu(np.full((T, S), -np.inf), 1),
            "memory_is_causal": True,
        },
    ),
]
CHECKS = ["forward", "forward_train", "gradients"]


def named(value):
    """What a case is about, for its name."""
    return "-".join(f"{k}" for k in value) or "plain" if isinstance(value, dict) else None


@pytest.mark.parametrize(("options", "masks"), ENCODER, ids=named)
def test_encoder_layer(options, masks):
    """Outputs in both modes and gradients."""

    def create(module, rngs, _):
        return module.TransformerEncoderLayer(D, HEADS, HIDDEN, 0.3, **options, **rngs)

    prove(create, masks, arrays(T, batch_first=options.get("batch_first", False)), CHECKS)


@pytest.mark.parametrize(("options", "masks"), DECODER, ids=named)
def test_decoder_layer(options, masks):
    """Outputs in both modes and gradients, of the memory too."""

    def create(module, rngs, _):
        return module.TransformerDecoderLayer(D, HEADS, HIDDEN, 0.3, **options, **rngs)

    inputs = arrays(T, S, batch_first=options.get("batch_first", False))
    prove(create, masks, inputs, CHECKS)


STACK_CHECKS = [*CHECKS, "intermediates", "round_trip", "initialisation"]


def test_encoder():
    """Two encoder layers with a last normalisation, and both masks."""

    def create(module, rngs, nested):
        layer = module.TransformerEncoderLayer(D, HEADS, HIDDEN, 0.3, batch_first=True, **rngs)
        return module.TransformerEncoder(layer, 2, module.LayerNorm(D), **nested)

    masks = {"src_key_padding_mask": hidden(B, T), "mask": hidden(T, T)}
    prove(create, masks, arrays(T), STACK_CHECKS)


def test_decoder():
    """Two decoder layers without a last normalisation, causal, and with a padded memory."""

    def create(module, rngs, _):
        layer = module.TransformerDecoderLayer(D, HEADS, HIDDEN, 0.3, batch_first=True, **rngs)
        return module.TransformerDecoder(layer, 2)

    masks = {"tgt_mask": causal(T), "memory_key_padding_mask": hidden(B, S)}
    prove(create, masks, arrays(T, S), STACK_CHECKS)


@pytest.mark.parametrize(
    ("options", "masks", "batched"),
    [
        (
            {"batch_first": True, "norm_first": True},
            {
                "src_mask": hidden(S, S),
                "tgt_mask": hidden(T, T),
                "memory_mask": hidden(T, S),
                "src_key_padding_mask": hidden(B, S),
                "tgt_key_padding_mask": hidden(B, T),
                "memory_key_padding_mask": hidden(B, S),
            },
            True,
        ),
        (
            {"activation": "gelu", "bias": False},
            {"src_mask": causal(S), "src_is_causal": True, "src_key_padding_mask": None},
            False,
        ),
    ],
    ids=named,
)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # Transformer's own default
def test_transformer(options, masks, batched):
    """Encoder and decoder together, with all masks, and without a batch."""

    def create(module, rngs, _):
        return module.Transformer(D, HEADS, 1, 1, HIDDEN, 0.3, **options, **rngs)

    inputs = arrays(S, T, batch_first=options.get("batch_first", False), batched=batched)
    prove(create, masks, inputs, [*CHECKS, *([] if batched else ["initialisation"])])


def test_custom():
    """Other encoders and decoders take their places, and own what they hold."""
    layer = layers.TransformerEncoderLayer(D, HEADS, HIDDEN, rngs=nnx.Rngs(0))
    encoder = layers.TransformerEncoder(layer, 1)
    model = layers.Transformer(D, HEADS, 1, 1, HIDDEN, custom_encoder=encoder, rngs=nnx.Rngs(1))
    theirs = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(D, HEADS, HIDDEN), 1, enable_nested_tensor=False
    )
    theirs = torch.nn.Transformer(D, HEADS, 1, 1, HIDDEN, custom_encoder=theirs)
    assert bridge.state_dict(model).keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("graph", [True, False])
def test_own_weights(graph):
    """Layers of a stack start alike and share nothing, so that NNX splits them either way."""
    layer = layers.TransformerEncoderLayer(D, HEADS, HIDDEN, rngs=nnx.Rngs(0))
    encoder = layers.TransformerEncoder(layer, 2)
    first, second = (stacked.linear1.kernel for stacked in encoder.layers)
    np.testing.assert_array_equal(first, second)
    first[...] += 1
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, layer.linear1.kernel)
    x = jnp.ones((T, D))
    again = nnx.merge(*nnx.split(nnx.view(encoder, deterministic=True), graph=graph))
    np.testing.assert_array_equal(again(x), nnx.view(encoder, deterministic=True)(x))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_fast_path(activation, norm_first):
    """Without gradients torch takes one fused operation a layer, which is the same function."""
    options = {"batch_first": True, "activation": activation, "norm_first": norm_first}
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(D, HEADS, HIDDEN, **options).eval()
    ours = layers.TransformerEncoderLayer(D, HEADS, HIDDEN, **options, rngs=nnx.Rngs(0))
    bridge.load_state_dict(ours, theirs.state_dict())
    ours = nnx.view(ours, deterministic=True)
    (x,), mask = arrays(T), hidden(T, T)
    with torch.no_grad():
        wanted = theirs(tensor(x), torch.tensor(mask))
    y = ours(jnp.asarray(x), jnp.asarray(mask))
    np.testing.assert_allclose(y, wanted, rtol=0, atol=2e-6)


def test_jit():
    """A layer is the same function jitted and not, in training with dropout too."""
    model = layers.TransformerEncoderLayer(D, HEADS, HIDDEN, rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    x = jnp.asarray(arrays(T, batch_first=False)[0])
    mask = layers.Transformer.generate_square_subsequent_mask(T)

    def call(state, key):
        return nnx.merge(graph, state, copy=True)(x, mask, rngs=nnx.Rngs(key))

    key = jax.random.key(0)
    np.testing.assert_allclose(jax.jit(call)(state, key), call(state, key), rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float64"])
def test_square_subsequent_mask(dtype):
    """The mask is torch's."""
    with jax.enable_x64(dtype == "float64"):
        ours = layers.Transformer.generate_square_subsequent_mask(4, dtype)
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4)
    assert ours.dtype == (dtype or "float32")
    np.testing.assert_array_equal(np.asarray(ours, np.float32), theirs)


def test_bfloat16():
    """A bfloat16 model keeps its dtype, with a mask of float32 too."""
    model = layers.Transformer(D, HEADS, 1, 1, HIDDEN, rngs=nnx.Rngs(0))
    nnx.update(model, jax.tree.map(lambda v: v.astype(jnp.bfloat16), nnx.state(model)))
    src, tgt = (jnp.asarray(x, jnp.bfloat16) for x in arrays(S, T, batch_first=False))
    mask = layers.Transformer.generate_square_subsequent_mask(T)
    for view in (model, nnx.view(model, deterministic=True)):
        y = nnx.eval_shape(lambda view=view: view(src, tgt, tgt_mask=mask, rngs=nnx.Rngs(0)))
        assert y.dtype == jnp.bfloat16


def called(*shapes, **options):
    """The outputs of a small network for inputs of ones."""
    model = layers.Transformer(D, HEADS, 1, 1, HIDDEN, batch_first=True, rngs=nnx.Rngs(0))
    return model(*map(jnp.ones, shapes), **options)


def encoder_layer(*arguments, **options):
    """A layer, or a reason why there is none."""
    return layers.TransformerEncoderLayer(*arguments, **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: encoder_layer(6, 4), "d_model 6 is not a multiple of nhead 4"),
        (lambda: encoder_layer(0, 4), "d_model 0 is too small; use 1 or more"),
        (lambda: encoder_layer(6, 0), "nhead 0 is too small"),
        (lambda: encoder_layer(6, 2, 0), "dim_feedforward 0 is too small"),
        (lambda: encoder_layer(6, 2, dropout=-0.1), "dropout -0.1 is out of range; use 0 to 1"),
        (
            lambda: encoder_layer(6, 2, activation="tanh"),
            "activation 'tanh' is unknown; use relu, gelu or a function",
        ),
        (
            lambda: layers.TransformerEncoder(encoder_layer(6, 2), 0),
            "num_layers 0 is too small; use 1 or more",
        ),
        (lambda: called((3, 4, 6), (3, 5, 6)), "call it with rngs"),
        (lambda: called((3, 4, 6), (2, 5, 6)), r"src \(3, 4, 6\) and tgt .* differ in batch"),
        (lambda: called((3, 4, 5), (3, 5, 6)), r"src \(3, 4, 5\) has 5 features, not 6"),
        (lambda: called((3, 4, 6), (3, 5, 7)), r"tgt \(3, 5, 7\) has 7 features, not 6"),
        (
            lambda: called((3, 4, 6), (3, 5, 6), src_mask=jnp.ones((5, 5)), rngs=nnx.Rngs(0)),
            r"attn_mask has shape \(5, 5\); use \(4, 4\) or \(6, 4, 4\)",
        ),
    ],
)
def test_wrong(act, message):
    """Each wrong option and input is named with its value, in one line."""
    with pytest.raises(ValueError, match=message) as error:
        act()
    assert "\n" not in str(error.value)
