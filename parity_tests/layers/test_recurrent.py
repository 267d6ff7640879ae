"""RNN, LSTM, GRU and their cells against torch.nn's, over their options, padded and packed."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flaxnets import bridge, layers, parity
from flaxnets.bridge.convert import in_dtype
from flaxnets.specs import Input
from torch_ref.random import replay

TIME, BATCH, FEATURES, HIDDEN = 6, 4, 5, 3
LENGTHS = np.array([3, 5, 1, 2], np.int32)  # none of them as long as the padded batch
X = Input(name="x", shape=(TIME, BATCH, FEATURES), axes="tbf")
STATES = [Input(name=name, shape=(6, BATCH, HIDDEN), axes="tbf") for name in ("h", "c")]
OPTIONS = {
    "one": {},
    "three": {"num_layers": 3},
    "batch_first": {"batch_first": True, "bidirectional": True},
    "two_both_ways": {"num_layers": 2, "bidirectional": True},
    "no_bias": {"num_layers": 2, "bias": False},
    "unbatched": {"batch_first": True, "num_layers": 2, "bidirectional": True},
}
PROJECTED = {
    "projected": {"proj_size": 2, "num_layers": 2, "bidirectional": True},
    "projected_no_bias": {"proj_size": 1, "bias": False},
}
KINDS = {
    "RNN": OPTIONS,
    "RNN relu": {name: {"nonlinearity": "relu", **given} for name, given in OPTIONS.items()},
    "LSTM": OPTIONS | PROJECTED,
    "GRU": OPTIONS,
}
DROPPED = {
    "LSTM": {"num_layers": 3, "dropout": 0.4, "bidirectional": True, "proj_size": 2},
    "GRU": {"num_layers": 2, "dropout": 0.3, "bidirectional": True, "batch_first": True},
    "RNN": {"num_layers": 2, "dropout": 0.6, "batch_first": True},
}


def states(name, options, kind, given):
    """The initial states of a layer, cut from given ones; every second layer starts from 0."""
    if not given or name in ("three", "projected_no_bias"):
        return None
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    batch = 0 if name == "unbatched" else slice(None)
    h, c = (state[:count, batch] for state in given)
    h = h[..., : options.get("proj_size", 0) or HIDDEN]
    return (h, c) if kind == "LSTM" else h


class Many(nnx.Module):
    """Layers of one kind side by side, one for each set of options."""

    def __init__(self, kind, options, rngs):
        self.kind, self.options = kind.split()[0], options
        make = getattr(layers, self.kind)
        self.made = nnx.Dict(
            {name: make(FEATURES, HIDDEN, **given, rngs=rngs) for name, given in options.items()}
        )

    def __call__(self, x, *given, rngs=None):
        lengths, given = (given[0], given[1:]) if len(given) % 2 else (None, given)
        outputs = {}
        for name, options in self.options.items():
            hx = states(name, options, self.kind, given)
            layer, own = self.made[name], lengths
            if name == "unbatched":
                output, final = layer(x[:, 0], hx, rngs=rngs)
            elif options.get("batch_first"):
                output, final = layer(jnp.swapaxes(x, 0, 1), hx, lengths=own, rngs=rngs)
            else:
                output, final = layer(x, hx, lengths=own, rngs=rngs)
            outputs[name] = [output, final]
        return outputs


class TorchMany(torch.nn.Module):
    """The same of torch's layers, which take packed batches."""

    def __init__(self, kind, options):
        super().__init__()
        self.kind, self.options = kind.split()[0], options
        make = getattr(torch.nn, self.kind)
        self.made = torch.nn.ModuleDict(
            {name: make(FEATURES, HIDDEN, **given) for name, given in options.items()}
        )

    def forward(self, x, *given):
        lengths, given = (given[0], given[1:]) if len(given) % 2 else (None, given)
        outputs = {}
        for name, options in self.options.items():
            hx = states(name, options, self.kind, given)
            if isinstance(hx, tuple):
                hx = tuple(state.contiguous() for state in hx)
            first = options.get("batch_first", False)
            rows = x.transpose(0, 1) if first else x
            if name == "unbatched":
                outputs[name] = self.made[name](x[:, 0], hx)
            elif lengths is None:
                outputs[name] = self.made[name](rows, hx)
            else:
                packed = pack_padded_sequence(rows, lengths.long(), first, enforce_sorted=False)
                output, final = self.made[name](packed, hx)
                output, _ = pad_packed_sequence(output, first, total_length=TIME)
                outputs[name] = [output, final]
        return outputs


def create(seed, kind, options):
    """Torch's layers from a seed."""
    torch.manual_seed(seed)
    return TorchMany(kind, options)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_options(kind, packed):
    """Outputs, final states and all gradients agree for every option, with and without lengths."""
    parity.check(
        Many(kind, KINDS[kind], nnx.Rngs(0)),
        TorchMany(kind, KINDS[kind]),
        [X, *([LENGTHS] if packed else []), *STATES],
        ["forward", "gradients"],
    ).raise_if_failed()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_weights(kind):
    """Names, their order, shapes and distributions are torch's, and weights cross both ways."""
    options = {"all": {"num_layers": 2, "bidirectional": True}}
    if kind == "LSTM":
        options["all"]["proj_size"] = 2
    ours, theirs = Many(kind, options, nnx.Rngs(0)), TorchMany(kind, options)
    assert list(bridge.state_dict(ours)) == list(theirs.state_dict())
    parity.check(
        lambda seed: Many(kind, options, nnx.Rngs(seed)),
        lambda seed: create(seed, kind, options),
        [X],
        ["round_trip", "initialisation"],
    ).raise_if_failed()


class Tagger(nnx.Module):
    """One layer of each kind behind the other, the second with dropout inside."""

    def __init__(self, rngs):
        self.rnn = layers.RNN(FEATURES, HIDDEN, batch_first=True, rngs=rngs)
        self.lstm = layers.LSTM(HIDDEN, 4, 2, batch_first=True, dropout=0.4, rngs=rngs)
        self.gru = layers.GRU(4, HIDDEN, batch_first=True, bidirectional=True, rngs=rngs)

    def __call__(self, x, lengths, rngs=None):
        for layer in (self.rnn, self.lstm, self.gru):
            x, final = layer(x, lengths=lengths, rngs=rngs)
        return x, final


class TorchTagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.RNN(FEATURES, HIDDEN, batch_first=True)
        self.lstm = torch.nn.LSTM(HIDDEN, 4, 2, batch_first=True, dropout=0.4)
        self.gru = torch.nn.GRU(4, HIDDEN, batch_first=True, bidirectional=True)

    def forward(self, x, lengths):
        total = x.shape[1]
        x = pack_padded_sequence(x, lengths.long(), batch_first=True, enforce_sorted=False)
        for layer in (self.rnn, self.lstm, self.gru):
            x, final = layer(x)
        return pad_packed_sequence(x, batch_first=True, total_length=total)[0], final


def test_network():
    """A packed network of all kinds is torch's in every check of values and programs."""
    checks = "forward forward_train intermediates gradients compiled lowering float32"
    report = parity.check(
        Tagger(nnx.Rngs(0)),
        TorchTagger(),
        [Input(name="x", shape=(BATCH, TIME, FEATURES), axes="btf"), LENGTHS],
        checks.split(),
    )
    report.raise_if_failed()


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("kind", DROPPED)
def test_dropout(kind, packed):
    """In training, outputs and gradients agree; a mask is drawn once for (t, b, f)."""
    options = {"dropped": DROPPED[kind]} | ({} if packed else {"unbatched": DROPPED[kind]})
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(X.shape), *([LENGTHS] if packed else [])]
    theirs = TorchMany(kind, options).double()
    with replay(3, None):
        outputs = parity.pair.named(theirs(*map(torch.tensor, given)))
    cotangents = {name: rng.standard_normal(output.shape) for name, output in outputs.items()}
    sum((torch.tensor(cotangents[n]) * output).sum() for n, output in outputs.items()).backward()

    with jax.enable_x64(True):
        ours = in_dtype(Many(kind, options, nnx.Rngs(0)), "float64")
        bridge.load_state_dict(ours, theirs.state_dict())
        graph, state = nnx.split(ours)

        def projected(state):
            model = nnx.merge(graph, state, copy=True)
            found = parity.pair.named(model(*map(jnp.asarray, given), rngs=nnx.Rngs(3)))
            return sum((cotangents[name] * found[name]).sum() for name in found), found

        gradients, found = jax.jit(jax.grad(projected, has_aux=True))(state)
        gradients = bridge.state_dict(ours, gradients)
        evaluated = nnx.view(ours, deterministic=True)(*map(jnp.asarray, given))["dropped"][0]
    for name, output in outputs.items():
        np.testing.assert_allclose(found[name], output.detach(), rtol=0, atol=1e-12)
    for name, weight in theirs.named_parameters():
        np.testing.assert_allclose(gradients[name], weight.grad, rtol=0, atol=1e-12, err_msg=name)
    assert not np.allclose(evaluated, found["output.dropped.0"])


def test_dropout_of_everything():
    """At 1 nothing is drawn and nothing passes; with one layer torch warns, and so do we."""
    layer = layers.GRU(5, 3, 2, dropout=1.0, rngs=nnx.Rngs(0))
    theirs = torch.nn.GRU(5, 3, 2, dropout=1.0)
    bridge.load_state_dict(layer, theirs.state_dict())
    with replay(0, []):
        output, _ = theirs(torch.ones(4, 5))
    np.testing.assert_allclose(layer(jnp.ones((4, 5)))[0], output.detach(), atol=1e-6)
    for make in (
        lambda: layers.LSTM(5, 3, dropout=0.5, rngs=nnx.Rngs(0)),
        lambda: torch.nn.LSTM(5, 3, dropout=0.5),
    ):
        with pytest.warns(UserWarning, match="num_layers"):
            make()


class Cells(nnx.Module):
    """Every cell, with a state and without, for a batch and for one example."""

    def __init__(self, bias, rngs):
        self.tanh = layers.RNNCell(FEATURES, HIDDEN, bias, rngs=rngs)
        self.relu = layers.RNNCell(FEATURES, HIDDEN, bias, "relu", rngs=rngs)
        self.lstm = layers.LSTMCell(FEATURES, HIDDEN, bias, rngs=rngs)
        self.gru = layers.GRUCell(FEATURES, HIDDEN, bias, rngs=rngs)

    def __call__(self, x, h, c):
        return run_cells(self, x, h, c)


def run_cells(cells, x, h, c):
    """What the cells of either side return."""
    return {
        "state": [cell(x, h) for cell in (cells.tanh, cells.relu, cells.gru)],
        "none": [cell(x) for cell in (cells.tanh, cells.relu, cells.gru, cells.lstm)],
        "one": [cells.gru(x[0], h[0]), cells.lstm(x[0], (h[0], c[0])), cells.tanh(x[0])],
        "lstm": cells.lstm(x, (h, c)),
    }


class TorchCells(torch.nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.tanh = torch.nn.RNNCell(FEATURES, HIDDEN, bias)
        self.relu = torch.nn.RNNCell(FEATURES, HIDDEN, bias, "relu")
        self.lstm = torch.nn.LSTMCell(FEATURES, HIDDEN, bias)
        self.gru = torch.nn.GRUCell(FEATURES, HIDDEN, bias)

    def forward(self, x, h, c):
        return run_cells(self, x, h, c)


def seeded_cells(seed, bias):
    """Torch's cells from a seed."""
    torch.manual_seed(seed)
    return TorchCells(bias)


@pytest.mark.parametrize("bias", [True, False])
def test_cells(bias):
    """The cells are torch's in value, gradient, initial weights and float32 rounding."""
    inputs = [
        Input(name="x", shape=(BATCH, FEATURES), axes="bf"),
        *(Input(name=name, shape=(BATCH, HIDDEN), axes="bf") for name in ("h", "c")),
    ]
    parity.check(
        lambda seed: Cells(bias, nnx.Rngs(seed)),
        lambda seed: seeded_cells(seed, bias),
        inputs,
        ["forward", "gradients", "round_trip", "initialisation", "float32"],
    ).raise_if_failed()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_cell_loop(kind):
    """A layer is a loop over its cell, written in Python: outputs and gradients agree."""
    with jax.enable_x64(True):
        layer, cell = (
            in_dtype(getattr(layers, name)(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), "float64")
            for name in (kind, f"{kind}Cell")
        )
        bridge.load_state_dict(
            cell, {name[:-3]: value for name, value in bridge.state_dict(layer).items()}
        )
        x = jax.random.normal(jax.random.key(0), X.shape)

        def by_scan(model, x):
            return jnp.sum(jnp.sin(3 * model(x)[0]))

        def by_loop(model, x):
            total, state = 0.0, None
            for row in x:
                state = model(row, state)
                total += jnp.sum(jnp.sin(3 * (state[0] if kind == "LSTM" else state)))
            return total

        results = []
        for model, run in ((layer, by_scan), (cell, by_loop)):
            graph, params = nnx.split(model)
            value, grads = jax.jit(
                jax.value_and_grad(
                    lambda p, x, run=run, graph=graph: run(nnx.merge(graph, p, copy=True), x),
                    (0, 1),
                )
            )(params, x)
            results.append([value, *grads[:0], grads[1], *jax.tree.leaves(grads[0])])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_lengths_traced(kind):
    """Inside jit lengths are not known: 0 leaves the initial state, more than t counts as t."""
    layer = getattr(layers, kind)(FEATURES, HIDDEN, bidirectional=True, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), X.shape)
    h = jax.random.normal(jax.random.key(1), (2, BATCH, HIDDEN))
    hx = (h, h) if kind == "LSTM" else h
    run = jax.jit(lambda lengths: layer(x, hx, lengths=lengths))
    (output, final), (whole, last) = run(jnp.array([0, 9, 3, 6])), run(jnp.full(BATCH, TIME))
    assert not np.asarray(output[:, 0]).any()
    for state, end in zip(jax.tree.leaves(final), jax.tree.leaves(last), strict=True):
        np.testing.assert_array_equal(state[:, 0], h[:, 0])
        np.testing.assert_array_equal(state[:, [1, 3]], end[:, [1, 3]])
    np.testing.assert_array_equal(output[:, [1, 3]], whole[:, [1, 3]])
    assert not np.allclose(output[:, 2], whole[:, 2])
    known = jnp.array([1, 9, 3, 6])  # a constant is known inside jit too
    with pytest.raises(ValueError, match="lengths hold 9"):
        jax.jit(lambda x: layer(x, lengths=known))(x)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_bfloat16(kind):
    """bfloat16 in, bfloat16 out, as near to the float64 truth as torch's, within a factor of 2."""
    theirs = getattr(torch.nn, kind)(FEATURES, HIDDEN, 2).bfloat16()
    x = torch.randn(X.shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours = getattr(layers, kind)(FEATURES, HIDDEN, 2, rngs=nnx.Rngs(0))
    nnx.update(ours, jax.tree.map(lambda v: v.astype(jnp.bfloat16), nnx.state(ours)))
    bridge.load_state_dict(ours, theirs.state_dict())
    output, _ = ours(jnp.asarray(x.float().numpy(), jnp.bfloat16))
    assert output.dtype == jnp.bfloat16
    rounded = theirs(x)[0].double().detach().numpy()
    truth = theirs.double()(x.double())[0].detach().numpy()
    errors = [np.abs(np.asarray(y, np.float64) - truth).max() for y in (output, rounded)]
    assert errors[0] <= max(2 * errors[1], 2.0**-8)


def make(kind, *arguments, **options):
    """A layer by its name."""
    return getattr(layers, kind)(*arguments, **options, rngs=nnx.Rngs(0))


def call(kind, shape, hx=None, **options):
    """A call of a layer of 5 features and 3 hidden ones."""
    return lambda: make(kind, 5, 3)(jnp.ones(shape), hx, **options)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: make("RNN", 0, 3), "input_size 0 is too small; use 1 or more"),
        (lambda: make("GRUCell", 5, 0), "hidden_size 0 is too small"),
        (lambda: make("GRU", 5, 3, 0), "num_layers 0 is too small"),
        (lambda: make("RNN", 5, 3, nonlinearity="gelu"), "nonlinearity 'gelu' is unknown; use"),
        (lambda: make("RNNCell", 5, 3, True, "gelu"), "nonlinearity 'gelu' is unknown; use"),
        (lambda: make("LSTM", 5, 3, 2, dropout=1.5), "dropout 1.5 is out of range; use 0 to 1"),
        (lambda: make("LSTM", 5, 3, proj_size=3), "proj_size 3 is out of range; use 0 for none"),
        (lambda: make("LSTM", 5, 3, proj_size=-1), "proj_size -1 is out of range"),
        (call("LSTM", (6, 4, 2)), r"LSTM: input \(6, 4, 2\) has 2 features, not 5"),
        (call("GRU", (5,)), r"GRU: input \(5,\) has 1 axes; use 2 or 3"),
        (call("GRU", (0, 4, 5)), "input has 0 time steps; use 1 or more"),
        (call("GRU", (6, 4, 5), jnp.ones((4, 3))), r"hx has shape \(4, 3\), not \(1, 4, 3\)"),
        (call("GRU", (6, 5), jnp.ones((1, 4, 3))), r"hx has shape \(1, 4, 3\), not \(1, 3\)"),
        (call("LSTM", (6, 4, 5), jnp.ones((1, 4, 3))), "hx is of type .*; use a pair of arrays"),
        (call("RNN", (6, 4, 5), (jnp.ones((1, 4, 3)),) * 2), "hx is of type tuple; use one array"),
        (
            call("LSTM", (6, 4, 5), (jnp.ones((1, 4, 3)), jnp.ones((1, 4, 2)))),
            r"hx\[1\] has shape \(1, 4, 2\), not \(1, 4, 3\)",
        ),
        (
            call("RNN", (6, 4, 5), lengths=jnp.ones(5, int)),
            r"lengths have shape \(5,\), not \(4,\)",
        ),
        (call("RNN", (6, 4, 5), lengths=jnp.arange(4)), "lengths hold 0; use 1 to 6"),
        (call("RNN", (6, 4, 5), lengths=jnp.arange(4) + 4), "lengths hold 7; use 1 to 6"),
        (call("RNN", (6, 5), lengths=jnp.ones(1, int)), "lengths need an input with a batch axis"),
        (
            lambda: make("LSTM", 5, 3, 2, dropout=0.5)(jnp.ones((6, 5))),
            "LSTM in training draws numbers; call it with rngs",
        ),
        (lambda: make("LSTMCell", 5, 3)(jnp.ones((2, 4))), "has 4 features, not 5"),
        (lambda: make("LSTMCell", 5, 3)(jnp.ones((2, 4, 5))), "has 3 axes; use 1 or 2"),
        (
            lambda: make("GRUCell", 5, 3)(jnp.ones((2, 5)), jnp.ones(3)),
            r"GRUCell: hx has shape \(3,\), not \(2, 3\)",
        ),
    ],
)
def test_wrong(act, message):
    """Each wrong option and input is named with its value, in one line."""
    with pytest.raises(ValueError, match=message) as error:
        act()
    assert "\n" not in str(error.value)


GRAPHEMES = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
OTHERS = "B CH D DH F G HH JH K L M N NG P R S SH T TH UW V W Y Z ZH"
STRESSED = [vowel + stress for vowel in VOWELS.split() for stress in "012"]
PHONEMES = ["<pad>", "<unk>", "<s>", "</s>", *sorted(STRESSED + OTHERS.split())]


def test_trained_weights():
    """The GRUs that g2p-en ships pronounce English: an encoder layer and a decoder cell.

    Park, Kim 2019, https://github.com/Kyubyong/g2p; weights in torch's gate order.
    """
    found = importlib.util.find_spec("g2p_en")  # importing it would download other data
    if found is None:
        pytest.skip("the package g2p-en, which holds the weights, is not installed")
    folder = Path(found.submodule_search_locations[0])
    with np.load(folder / "checkpoint20.npz") as file:
        weights = dict(file)
    assert len(PHONEMES) == len(weights["dec_emb"])
    size = weights["enc_w_hh"].shape[1]
    encoder = layers.GRU(weights["enc_emb"].shape[1], size, batch_first=True, rngs=nnx.Rngs(0))
    decoder = layers.GRUCell(weights["dec_emb"].shape[1], size, rngs=nnx.Rngs(0))
    long = {"weight": "w", "bias": "b"}
    for layer, side in ((encoder, "enc"), (decoder, "dec")):
        state = {}
        for name in bridge.state_dict(layer):
            kind, place, *_ = name.split("_")
            state[name] = weights[f"{side}_{long[kind]}_{place}"]
        bridge.load_state_dict(layer, state)

    def pronounce(word):
        letters = [GRAPHEMES.index(letter) for letter in word] + [GRAPHEMES.index("</s>")]
        _, h = encoder(jnp.asarray(weights["enc_emb"][letters])[None])
        h, last, said = h[0], PHONEMES.index("<s>"), []
        while len(said) < 20:
            h = decoder(jnp.asarray(weights["dec_emb"][[last]]), h)
            last = int((h @ weights["fc_w"].T + weights["fc_b"][None]).argmax())
            if PHONEMES[last] == "</s>":
                break
            said.append(PHONEMES[last])
        return " ".join(said)

    assert pronounce("hello") == "HH EH1 L OW0"
