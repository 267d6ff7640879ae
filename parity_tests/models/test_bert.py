"""BERT: Hugging Face's weights, outputs and gradients in both twins, masks, and what is refused."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flaxnets
from flaxnets import bridge
from flaxnets.specs import SpecError

os.environ["HF_HUB_OFFLINE"] = "1"
CASES = {  # fields that are not those of the variant, which activation among them
    "tiny": {},
    "tiny_model": {},
    "tiny-relu": {"hidden_act": "relu", "pad_token_id": 3},
    "tiny_model-swish": {"hidden_act": "swish", "type_vocab_size": 1},
}
IDS = np.array([[5, 6, 0, 7, 10], [8, 2, 9, 3, 1], [4, 3, 2, 1, 2]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 0, 1]])


def _hugging_face(spec, attention="eager"):
    transformers = pytest.importorskip("transformers", reason="transformers is the reference")
    fields = {name: value for name, value in vars(spec).items() if name != "head"}
    config = transformers.BertConfig(**fields, attn_implementation=attention)
    torch.manual_seed(0)
    return getattr(transformers, spec.twin)(config).double().eval()


def _weighted(model):
    """Random numbers where Hugging Face starts from zeros and ones; shared weights stay so."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def _flax(spec, state):
    graph, shapes = nnx.split(nnx.eval_shape(lambda: flaxnets.build(spec)))
    with jax.enable_x64(True):
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float64), shapes)
        model = nnx.merge(graph, shapes)
    bridge.load_state_dict(model, state)
    return nnx.view(model, deterministic=True)


def _named(output):
    """The arrays of an output of any of the three."""
    if isinstance(output, torch.Tensor | jax.Array):
        return {"logits": output}
    if isinstance(output, tuple):
        return dict(zip(("last_hidden_state", "pooler_output"), output, strict=True))
    return dict(output)


def _agree(ours, theirs):
    """Below 1e-10 of the largest: of all, since a bias of keys has a gradient of zero."""
    assert ours.keys() == theirs.keys()
    arrays = {name: bridge.convert.as_numpy(value) for name, value in theirs.items()}
    bound = 1e-10 * max(np.abs(array).max() for array in arrays.values())
    for name, array in arrays.items():
        np.testing.assert_allclose(
            bridge.convert.as_numpy(ours[name]), array, rtol=0, atol=bound, err_msg=name
        )


@pytest.fixture(params=CASES)
def trio(request):
    """Hugging Face's network, the torch twin and the Flax twin in float64, with its weights."""
    spec = flaxnets.spec("bert", request.param.partition("-")[0], **CASES[request.param])
    theirs = _weighted(_hugging_face(spec))
    twin = flaxnets.build(spec, "torch").double().eval()
    twin.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(twin.state_dict())
    with jax.enable_x64(True):
        yield spec, theirs, twin, _flax(spec, theirs.state_dict())


def test_hugging_face(trio):
    """Names, order, outputs and all gradients of the three agree; masks given or not."""
    spec, theirs, twin, flax = trio
    assert list(twin.state_dict()) == list(theirs.state_dict())
    assert bridge.state_dict(flax).keys() == theirs.state_dict().keys()
    segments = np.arange(IDS.size).reshape(IDS.shape) % spec.type_vocab_size

    @jax.jit
    def pull(state, given, cotangents):
        def forward(params):
            return _named(nnx.merge(graph, params, copy=True)(*given))

        outputs, back = jax.vjp(forward, state)
        return outputs, back(cotangents)[0]

    graph, state = nnx.split(flax)
    given = (IDS, MASK, segments) if spec.type_vocab_size > 1 else (IDS, None, None)
    tensors = [None if x is None else torch.tensor(x) for x in given]
    names = ("input_ids", "attention_mask", "token_type_ids")
    wanted = _named(theirs(**dict(zip(names, tensors, strict=True))))
    found = _named(twin(*tensors))
    cotangents = {name: torch.randn_like(value) for name, value in wanted.items()}
    outputs, gradients = pull(
        state,
        jax.tree.map(jnp.asarray, given),
        {name: jnp.asarray(value.numpy()) for name, value in cotangents.items()},
    )
    _agree(found, wanted)
    _agree(outputs, wanted)
    for model, result in ((theirs, wanted), (twin, found)):
        model.zero_grad()
        torch.autograd.backward(list(result.values()), list(cotangents.values()))
    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    _agree({name: weight.grad for name, weight in twin.named_parameters()}, expected)
    _agree(bridge.state_dict(flax, gradients), expected)


def test_nothing_to_attend_to():
    """A row without a token gives what Hugging Face gives by default, in its "sdpa" attention."""
    spec = flaxnets.spec("bert", "tiny")
    theirs = _weighted(_hugging_face(spec, "sdpa"))
    mask = MASK * np.array([[1], [0], [1]])
    wanted = theirs(torch.tensor(IDS), torch.tensor(mask)).logits
    twin = flaxnets.build(spec, "torch").double().eval()
    twin.load_state_dict(theirs.state_dict())
    _agree(_named(twin(torch.tensor(IDS), torch.tensor(mask))), {"logits": wanted})
    with jax.enable_x64(True):
        flax = _flax(spec, theirs.state_dict())
        _agree(_named(flax(jnp.asarray(IDS), jnp.asarray(mask))), {"logits": wanted})


@pytest.mark.parametrize("variant", ["tiny", "tiny_model"])
def test_hugging_face_file(variant, tmp_path):
    """A file that `save_pretrained` wrote, without copies of shared weights, loads; ours there."""
    spec = flaxnets.spec("bert", variant)
    theirs = _hugging_face(spec).float()
    theirs.save_pretrained(tmp_path)
    model = flaxnets.build(spec, seed=1)
    bridge.load(model, tmp_path / "model.safetensors")
    state = bridge.state_dict(model)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(state[name], value.numpy())
    model = flaxnets.build(spec, seed=2)
    bridge.save(model, tmp_path / "model.safetensors")
    again = type(theirs).from_pretrained(tmp_path).state_dict()
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value, again[name].numpy())


def test_copies_differ():
    """Embedding and output weights that differ are refused, both by name, and nothing changes."""
    model = flaxnets.create("bert", variant="tiny")
    before = bridge.state_dict(model)
    state = {name: value + 1 for name, value in before.items()}
    state["cls.predictions.decoder.weight"][3, 2] += 1
    wanted = r"decoder\.weight differs from bert\.embeddings\.word_embeddings\.weight, to which"
    with pytest.raises(bridge.BridgeError, match=wanted):
        bridge.load_state_dict(model, state)
    for name, value in bridge.state_dict(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_initialisation():
    """Weights start with Hugging Face's deviation, biases and padding at zero, in both twins."""
    spec = flaxnets.spec("bert", "tiny", hidden_size=64, initializer_range=0.05, pad_token_id=2)
    twin = {k: v.numpy() for k, v in flaxnets.build(spec, "torch").state_dict().items()}
    for state in (bridge.state_dict(flaxnets.build(spec)), twin):
        words = state["bert.embeddings.word_embeddings.weight"]
        assert np.flatnonzero(~words.any(axis=1)).tolist() == [2]
        for name, value in state.items():
            if name.endswith("LayerNorm.weight"):
                np.testing.assert_array_equal(value, 1)
            elif name.endswith("bias"):
                np.testing.assert_array_equal(value, 0)
            elif "type" not in name:
                assert 0.04 < value.std() < 0.06, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1] * 8],), r"input_ids \(1, 8\) are longer than max_position_embeddings 7"),
        (([[1, 2]], [[1]]), r"attention_mask has shape \(1, 1\), not \(1, 2\) as input_ids"),
        (([[1, 2]], None, [[[0, 0]]]), r"token_type_ids has shape \(1, 1, 2\), not \(1, 2\)"),
    ],
)
def test_wrong_shape(arguments, message):
    """Both twins refuse arrays that do not fit, in one line with the argument's name."""
    flax, twin = (flaxnets.create("bert", backend, "tiny") for backend in ("flax", "torch"))
    for model, array in ((flax, jnp.array), (twin, torch.tensor)):
        with pytest.raises(ValueError, match=message) as caught:
            model(*(None if x is None else array(x) for x in arguments))
        assert "\n" not in str(caught.value)


def test_out_of_range():
    """Tokens and segments that are none are named; inside `jax.jit` they give NaN."""
    model = nnx.view(flaxnets.create("bert", variant="tiny"), deterministic=True)
    good, bad = jnp.array([[1, 2]]), jnp.array([[1, 13]])
    with pytest.raises(ValueError, match="bert: input_ids holds 13; use 0 to 12"):
        model(bad)
    with pytest.raises(ValueError, match="bert: input_ids holds -1; use 0 to 12"):
        model(good - 2)
    with pytest.raises(ValueError, match="bert: token_type_ids holds 3; use 0 to 2"):
        model(good, None, jnp.array([[0, 3]]))
    graph, state = nnx.split(model)
    logits = jax.jit(lambda state, ids: nnx.merge(graph, state)(ids))(state, bad)
    assert jnp.isnan(logits).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 7}, "hidden_size 7 is not a multiple of num_attention_heads 2"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob 1.5 is out of range; use 0 to 1"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps 0.0 is not above 0"),
        ({"pad_token_id": 13}, "pad_token_id 13 is not a token; use 0 to 12"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not one of 'gelu'"),
    ],
)
def test_wrong_field(fields, message):
    """What cannot be built is refused with the field's name."""
    with pytest.raises(SpecError, match=message):
        flaxnets.spec("bert", "tiny", **fields)


def test_published_sizes():
    """Parameters of the named sizes: 110 and 340 million, 28.8 and 11.2 (Turc et al., table 1)."""
    spec = flaxnets.spec("bert", "mini", head="pooler")
    count = sum(weight.numel() for weight in flaxnets.build(spec, "torch").parameters())
    assert count == 11_170_560


def test_tokens_of_a_closure():
    """Tokens may come from outside of a jitted function, and are judged there, too."""
    model = nnx.view(flaxnets.create("bert", variant="tiny"), deterministic=True)
    ids = jnp.asarray(IDS)
    np.testing.assert_allclose(jax.jit(lambda: model(ids))(), model(ids), rtol=1e-4, atol=1e-6)
    wrong = ids + 3
    with pytest.raises(ValueError, match="holds 13; use 0 to 12"):
        jax.jit(lambda: model(wrong))()
