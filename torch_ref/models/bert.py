"""BERT: Devlin, Chang, Lee, Toutanova (2018), arXiv 1810.04805.

Names of classes, attributes and weights are those of Hugging Face's transformers. Axes: b batch,
t queries, s keys, h heads, d features of a head, e features of a token, v tokens to choose from.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from einops import rearrange
from torch import nn

from flaxnets.specs.bert import BertSpec

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU("tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
}


class BertEmbeddings(nn.Module):
    """What a token is, where it stands and which segment it belongs to, added up."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        size = spec.hidden_size
        self.word_embeddings = nn.Embedding(spec.vocab_size, size, spec.pad_token_id)
        self.position_embeddings = nn.Embedding(spec.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(spec.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """(b, t), (b, t) -> (b, t, e)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(x + self.position_embeddings(positions)))


class BertSelfAttention(nn.Module):
    """Attention of every token to all tokens that are there."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.num_attention_heads = spec.num_attention_heads
        self.query = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.key = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.value = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.dropout = nn.Dropout(spec.attention_probs_dropout_prob)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(b, t, e), (b, 1, 1, s) with True where a token is there -> (b, t, e)."""
        query, key, value = (
            rearrange(project(x), "b t (h d) -> b h t d", h=self.num_attention_heads)
            for project in (self.query, self.key, self.value)
        )
        dropout = self.dropout.p if self.training else 0.0
        y = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return rearrange(y, "b h t d -> b t (h d)")


class BertSelfOutput(nn.Module):
    """What attention found, added to what was there."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.LayerNorm = nn.LayerNorm(spec.hidden_size, spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """(b, t, e), (b, t, e) -> (b, t, e)."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class BertAttention(nn.Module):
    """Attention and what is made of it."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.self = BertSelfAttention(spec)
        self.output = BertSelfOutput(spec)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(b, t, e), (b, 1, 1, s) -> (b, t, e)."""
        return self.output(self.self(x, mask), x)


class BertIntermediate(nn.Module):
    """The first of two dense layers, and the activation."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.intermediate_size)
        self.intermediate_act_fn = ACTIVATIONS[spec.hidden_act]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, e) -> (b, t, intermediate_size)."""
        return self.intermediate_act_fn(self.dense(x))


class BertOutput(nn.Module):
    """The second of two dense layers, added to what was there."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.intermediate_size, spec.hidden_size)
        self.LayerNorm = nn.LayerNorm(spec.hidden_size, spec.layer_norm_eps)
        self.dropout = nn.Dropout(spec.hidden_dropout_prob)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """(b, t, intermediate_size), (b, t, e) -> (b, t, e)."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class BertLayer(nn.Module):
    """Attention and two dense layers."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.attention = BertAttention(spec)
        self.intermediate = BertIntermediate(spec)
        self.output = BertOutput(spec)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(b, t, e), (b, 1, 1, s) -> (b, t, e)."""
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class BertEncoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(spec) for _ in range(spec.num_hidden_layers))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(b, t, e), (b, 1, 1, s) -> (b, t, e)."""
        for layer in self.layer:
            x = layer(x, mask)
        return x


class BertPooler(nn.Module):
    """The first token's features, which stand for the whole row."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.activation = nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, e) -> (b, e)."""
        return self.activation(self.dense(x[:, 0]))


class BertModel(nn.Module):
    """The features of every token and, from the first one's, of the whole row.

    A row without any token there attends to nothing, and attention adds its bias only.

    >>> features, row = BertModel(BertSpec(hidden_size=12))(torch.tensor([[5, 6, 7]]))
    >>> features.shape, row.shape
    (torch.Size([1, 3, 12]), torch.Size([1, 12]))
    """

    def __init__(self, spec: BertSpec, add_pooling_layer: bool = True) -> None:
        super().__init__()
        self.vocab_size = spec.vocab_size
        self.max_position_embeddings = spec.max_position_embeddings
        self.embeddings = BertEmbeddings(spec)
        self.encoder = BertEncoder(spec)
        self.pooler = BertPooler(spec) if add_pooling_layer else None
        initialise(self, spec)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(b, t), each -> (b, t, e) and (b, e); tokens that are there have the mask 1."""
        if input_ids.shape[1] > self.max_position_embeddings:
            raise ValueError(
                f"bert: input_ids {tuple(input_ids.shape)} are longer than "
                f"max_position_embeddings {self.max_position_embeddings}"
            )
        for name, given in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if given is not None and given.shape != input_ids.shape:
                raise ValueError(
                    f"bert: {name} has shape {tuple(given.shape)}, "
                    f"not {tuple(input_ids.shape)} as input_ids"
                )
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None]
        x = self.encoder(self.embeddings(input_ids, token_type_ids), mask)
        return x, None if self.pooler is None else self.pooler(x)


class BertPredictionHeadTransform(nn.Module):
    """A dense layer between features and guesses."""

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.transform_act_fn = ACTIVATIONS[spec.hidden_act]()
        self.LayerNorm = nn.LayerNorm(spec.hidden_size, spec.layer_norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, e) -> (b, t, e)."""
        return self.LayerNorm(self.transform_act_fn(self.dense(x)))


class BertLMPredictionHead(nn.Module):
    """Scores of every token, by its embedding."""

    def __init__(self, spec: BertSpec, embedding: torch.Tensor) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(spec)
        self.decoder = nn.Linear(spec.hidden_size, spec.vocab_size)
        self.decoder.weight = embedding
        self.bias = self.decoder.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, e) -> (b, t, v)."""
        return self.decoder(self.transform(x))


class BertOnlyMLMHead(nn.Module):
    """The head for guesses of hidden tokens."""

    def __init__(self, spec: BertSpec, embedding: torch.Tensor) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(spec, embedding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, t, e) -> (b, t, v)."""
        return self.predictions(x)


class BertForMaskedLM(nn.Module):
    """The logits of every token at every place, from what stands on both sides of it.

    >>> BertForMaskedLM(BertSpec(hidden_size=12))(torch.tensor([[5, 4, 7]])).shape
    torch.Size([1, 3, 30522])
    """

    def __init__(self, spec: BertSpec) -> None:
        super().__init__()
        self.vocab_size = spec.vocab_size
        self.bert = BertModel(spec, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(spec, self.bert.embeddings.word_embeddings.weight)
        initialise(self, spec)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(b, t), each -> (b, t, v); tokens that are there have the mask 1."""
        x, _ = self.bert(input_ids, attention_mask, token_type_ids)
        return self.cls(x)


@torch.no_grad()
def initialise(model: nn.Module, spec: BertSpec) -> None:
    """Normal weights, biases of zero and no embedding of padding, as Hugging Face starts."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=spec.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
