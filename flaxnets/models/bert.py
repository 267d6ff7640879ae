"""BERT: Devlin, Chang, Lee, Toutanova (2018), arXiv 1810.04805.

Names of classes, attributes and weights are those of Hugging Face's transformers. Axes: b batch,
t tokens, h heads, d features of a head, e f features of a token, v tokens to choose from.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flaxnets.layers import GELU, Dropout, Embedding, LayerNorm, Linear, ReLU, SiLU, Tanh
from flaxnets.layers.attention import attend
from flaxnets.layers.init import normal
from flaxnets.layers.shape import lifted
from flaxnets.specs.bert import BertSpec

ACTIVATIONS = {
    "gelu": GELU,
    "gelu_new": lambda: GELU("tanh"),
    "relu": ReLU,
    "silu": SiLU,
    "swish": SiLU,
}
Tokens = Int[Array, "b t"]
Mask = Bool[Array, "b 1 1 t"]
Features = Float[Array, "b t e"]


class BertEmbeddings(nnx.Module):
    """What a token is, where it stands and which segment it belongs to, added up."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        size = spec.hidden_size
        self.word_embeddings = Embedding(spec.vocab_size, size, spec.pad_token_id, rngs=rngs)
        self.position_embeddings = Embedding(spec.max_position_embeddings, size, rngs=rngs)
        self.token_type_embeddings = Embedding(spec.type_vocab_size, size, rngs=rngs)
        self.LayerNorm = LayerNorm(size, spec.layer_norm_eps)
        self.dropout = Dropout(spec.hidden_dropout_prob)

    def __call__(
        self, input_ids: Tokens, token_type_ids: Tokens, *, rngs: nnx.Rngs | None = None
    ) -> Features:
        positions = jnp.arange(input_ids.shape[1])[None]
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        x = self.LayerNorm(x + self.position_embeddings(positions))
        return self.dropout(x, rngs=rngs)


class BertSelfAttention(nnx.Module):
    """Attention of every token to all tokens that are there."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.num_attention_heads = spec.num_attention_heads
        self.query = Linear(spec.hidden_size, spec.hidden_size, rngs=rngs)
        self.key = Linear(spec.hidden_size, spec.hidden_size, rngs=rngs)
        self.value = Linear(spec.hidden_size, spec.hidden_size, rngs=rngs)
        self.dropout = Dropout(spec.attention_probs_dropout_prob)

    def __call__(self, x: Features, mask: Mask | None, *, rngs: nnx.Rngs | None = None) -> Features:
        query, key, value = (
            rearrange(project(x), "b t (h d) -> b t h d", h=self.num_attention_heads)
            for project in (self.query, self.key, self.value)
        )
        dropout = 0.0 if self.dropout.deterministic else self.dropout.p
        y = attend(query, key, value, mask, dropout=dropout, rngs=rngs)
        return rearrange(y, "b t h d -> b t (h d)")


class BertSelfOutput(nnx.Module):
    """What attention found, added to what was there."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.dense = Linear(spec.hidden_size, spec.hidden_size, rngs=rngs)
        self.LayerNorm = LayerNorm(spec.hidden_size, spec.layer_norm_eps)
        self.dropout = Dropout(spec.hidden_dropout_prob)

    def __call__(
        self, x: Features, residual: Features, *, rngs: nnx.Rngs | None = None
    ) -> Features:
        return self.LayerNorm(self.dropout(self.dense(x), rngs=rngs) + residual)


class BertAttention(nnx.Module):
    """Attention and what is made of it."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.self = BertSelfAttention(spec, rngs=rngs)
        self.output = BertSelfOutput(spec, rngs=rngs)

    def __call__(self, x: Features, mask: Mask | None, *, rngs: nnx.Rngs | None = None) -> Features:
        return self.output(self.self(x, mask, rngs=rngs), x, rngs=rngs)


class BertIntermediate(nnx.Module):
    """The first of two dense layers, and the activation."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.dense = Linear(spec.hidden_size, spec.intermediate_size, rngs=rngs)
        self.intermediate_act_fn = ACTIVATIONS[spec.hidden_act]()

    def __call__(self, x: Features) -> Float[Array, "b t f"]:
        return self.intermediate_act_fn(self.dense(x))


class BertOutput(nnx.Module):
    """The second of two dense layers, added to what was there."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.dense = Linear(spec.intermediate_size, spec.hidden_size, rngs=rngs)
        self.LayerNorm = LayerNorm(spec.hidden_size, spec.layer_norm_eps)
        self.dropout = Dropout(spec.hidden_dropout_prob)

    def __call__(
        self, x: Float[Array, "b t f"], residual: Features, *, rngs: nnx.Rngs | None = None
    ) -> Features:
        return self.LayerNorm(self.dropout(self.dense(x), rngs=rngs) + residual)


class BertLayer(nnx.Module):
    """Attention and two dense layers."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.attention = BertAttention(spec, rngs=rngs)
        self.intermediate = BertIntermediate(spec, rngs=rngs)
        self.output = BertOutput(spec, rngs=rngs)

    def __call__(self, x: Features, mask: Mask | None, *, rngs: nnx.Rngs | None = None) -> Features:
        x = self.attention(x, mask, rngs=rngs)
        return self.output(self.intermediate(x), x, rngs=rngs)


class BertEncoder(nnx.Module):
    """The layers, one after the other."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.layer = nnx.List(BertLayer(spec, rngs=rngs) for _ in range(spec.num_hidden_layers))

    def __call__(self, x: Features, mask: Mask | None, *, rngs: nnx.Rngs | None = None) -> Features:
        for layer in self.layer:
            x = layer(x, mask, rngs=rngs)
        return x


class BertPooler(nnx.Module):
    """The first token's features, which stand for the whole row."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.dense = Linear(spec.hidden_size, spec.hidden_size, rngs=rngs)
        self.activation = Tanh()

    def __call__(self, x: Features) -> Float[Array, "b e"]:
        return self.activation(self.dense(x[:, 0]))


class BertModel(nnx.Module):
    """The features of every token and, from the first one's, of the whole row.

    A row without any token there attends to nothing, and attention adds its bias only.

    Raises:
        ValueError: rows that are too long, a mask or segments of another shape than the tokens;
            outside `jax.jit`, tokens or segments out of range, which inside give NaN.

    >>> model = BertModel(BertSpec(hidden_size=12), rngs=nnx.Rngs(0))
    >>> features, row = nnx.view(model, deterministic=True)(jnp.array([[5, 6, 7]]))
    >>> features.shape, row.shape
    ((1, 3, 12), (1, 12))
    """

    def __init__(self, spec: BertSpec, add_pooling_layer: bool = True, *, rngs: nnx.Rngs) -> None:
        self.vocab_size = spec.vocab_size
        self.max_position_embeddings = spec.max_position_embeddings
        self.type_vocab_size = spec.type_vocab_size
        self.embeddings = BertEmbeddings(spec, rngs=rngs)
        self.encoder = BertEncoder(spec, rngs=rngs)
        self.pooler = nnx.data(BertPooler(spec, rngs=rngs) if add_pooling_layer else None)
        initialise(self, spec, rngs)

    def __call__(
        self,
        input_ids: Tokens,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Features, Float[Array, "b e"] | None]:
        """Features of the tokens, and of the rows.

        Args:
            input_ids: tokens.
            attention_mask: (b, t), 1 or True where a token is there; None for everywhere.
            token_type_ids: (b, t), the segment of each token; None for the first everywhere.
            rngs: draws the dropout in training.
        """
        if input_ids.shape[1] > self.max_position_embeddings:
            raise ValueError(
                f"bert: input_ids {input_ids.shape} are longer than "
                f"max_position_embeddings {self.max_position_embeddings}"
            )
        for name, given in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if given is not None and given.shape != input_ids.shape:
                raise ValueError(
                    f"bert: {name} has shape {given.shape}, not {input_ids.shape} as input_ids"
                )
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        _check_range("input_ids", input_ids, self.vocab_size)
        _check_range("token_type_ids", token_type_ids, self.type_vocab_size)
        mask = None if attention_mask is None else attention_mask.astype(bool)[:, None, None]
        x = self.embeddings(input_ids, token_type_ids, rngs=rngs)
        x = self.encoder(x, mask, rngs=rngs)
        return x, None if self.pooler is None else self.pooler(x)


class BertPredictionHeadTransform(nnx.Module):
    """A dense layer between features and guesses."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.dense = Linear(spec.hidden_size, spec.hidden_size, rngs=rngs)
        self.transform_act_fn = ACTIVATIONS[spec.hidden_act]()
        self.LayerNorm = LayerNorm(spec.hidden_size, spec.layer_norm_eps)

    def __call__(self, x: Features) -> Features:
        return self.LayerNorm(self.transform_act_fn(self.dense(x)))


class TiedDecoder(nnx.Module):
    """Products with every token's embedding, and a bias; it holds neither of them."""

    def __call__(
        self, x: Features, embedding: Float[Array, "v e"], bias: Float[Array, "v"]
    ) -> Float[Array, "b t v"]:
        return x @ embedding.T + lifted(bias, 3)


class BertLMPredictionHead(nnx.Module):
    """Scores of every token, by its embedding."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.transform = BertPredictionHeadTransform(spec, rngs=rngs)
        self.decoder = TiedDecoder()
        self.bias = nnx.Param(jnp.zeros(spec.vocab_size, jnp.float32))

    def __call__(self, x: Features, embedding: Float[Array, "v e"]) -> Float[Array, "b t v"]:
        return self.decoder(self.transform(x), embedding, self.bias[...])


class BertOnlyMLMHead(nnx.Module):
    """The head for guesses of hidden tokens."""

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.predictions = BertLMPredictionHead(spec, rngs=rngs)

    def __call__(self, x: Features, embedding: Float[Array, "v e"]) -> Float[Array, "b t v"]:
        return self.predictions(x, embedding)


class BertForMaskedLM(nnx.Module):
    """The logits of every token at every place, from what stands on both sides of it.

    The call takes what `BertModel` takes, and raises what it raises.

    >>> model = BertForMaskedLM(BertSpec(hidden_size=12), rngs=nnx.Rngs(0))
    >>> nnx.view(model, deterministic=True)(jnp.array([[5, 4, 7]])).shape
    (1, 3, 30522)
    """

    tied_weights: ClassVar[Mapping[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, spec: BertSpec, *, rngs: nnx.Rngs) -> None:
        self.vocab_size = spec.vocab_size
        self.bert = BertModel(spec, add_pooling_layer=False, rngs=rngs)
        self.cls = BertOnlyMLMHead(spec, rngs=rngs)
        initialise(self.cls, spec, rngs)

    def __call__(
        self,
        input_ids: Tokens,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b t v"]:
        x, _ = self.bert(input_ids, attention_mask, token_type_ids, rngs=rngs)
        return self.cls(x, self.bert.embeddings.word_embeddings.weight[...])


def initialise(model: nnx.Module, spec: BertSpec, rngs: nnx.Rngs) -> None:
    """Normal weights, biases of zero and no embedding of padding, as Hugging Face starts."""
    found = [m for _, m in nnx.iter_modules(model) if isinstance(m, Linear | Embedding)]
    for module, key in zip(found, jax.random.split(rngs.params(), len(found)), strict=True):
        weight = module.kernel if isinstance(module, Linear) else module.weight
        values = normal(spec.initializer_range)(key, weight.shape)
        if isinstance(module, Linear) and module.bias is not None:
            module.bias.set_value(jnp.zeros_like(module.bias[...]))
        elif isinstance(module, Embedding) and module.padding_idx is not None:
            values = values.at[module.padding_idx].set(0)
        weight.set_value(values)


def _check_range(name: str, values: Array, size: int) -> None:
    if isinstance(values, jax.core.Tracer) or not values.size:
        return
    seen = np.asarray(values)
    for value in (int(seen.min()), int(seen.max())):
        if not 0 <= value < size:
            raise ValueError(f"bert: {name} holds {value}; use 0 to {size - 1}")
