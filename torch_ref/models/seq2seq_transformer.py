"""Transformer that translates tokens: Vaswani et al. (2017), arXiv 1706.03762.

Names are those of PyTorch's tutorial on translation. Axes: b batch, s source, t target,
e embedding, l layers of the decoder, c keys and values, h heads, d features of a head, k target
vocabulary.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from einops import rearrange
from torch import nn

from flaxnets.specs import END, PAD, START
from flaxnets.specs.seq2seq_transformer import Seq2SeqTransformerSpec
from torch_ref.layers import SinusoidalPositionalEncoding, decoding
from torch_ref.models.transformer import Transformer

Memory = Sequence[torch.Tensor]  # keys and values (b, l, c, h, s, d), where there are any (b, s)


class TokenEmbedding(nn.Module):
    """Embeddings, scaled up so that positions do not outweigh them."""

    def __init__(self, vocab_size: int, emb_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, emb_size)
        self.emb_size = emb_size

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(b, t) -> (b, t, e)."""
        return self.embedding(tokens) * math.sqrt(self.emb_size)


class Seq2SeqTransformer(nn.Module):
    """Source tokens and target tokens to logits of the token behind each of the latter.

    PAD is not looked at. In training the right targets are given (teacher forcing); without them
    `greedy` and `beam` write their own, in evaluation mode, and compute each key and value once.
    All matrices start Xavier-uniform, as in the tutorial.

    >>> model = Seq2SeqTransformer(Seq2SeqTransformerSpec())
    >>> source = torch.tensor([[5, 6, 7], [8, 9, PAD]])
    >>> model(source, torch.tensor([[START, 5], [START, 6]])).shape, model.greedy(source).shape
    (torch.Size([2, 2, 20]), torch.Size([2, 12]))
    """

    def __init__(self, spec: Seq2SeqTransformerSpec) -> None:
        super().__init__()
        self.src_tok_emb = TokenEmbedding(spec.source_vocab_size, spec.emb_size)
        self.tgt_tok_emb = TokenEmbedding(spec.target_vocab_size, spec.emb_size)
        self.positional_encoding = SinusoidalPositionalEncoding(
            spec.emb_size, spec.max_positions, spec.dropout
        )
        self.transformer = Transformer(spec.transformer_spec)
        self.generator = nn.Linear(spec.emb_size, spec.target_vocab_size)
        self.max_length = spec.max_length
        self.max_positions = spec.max_positions
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(b, s), (b, t) -> (b, t, k)."""
        src = self.positional_encoding(self.src_tok_emb(source))
        tgt = self.positional_encoding(self.tgt_tok_emb(target))
        size = target.size(1)
        hidden = self.transformer(
            src,
            tgt,
            tgt_mask=torch.ones(size, size, dtype=torch.bool, device=target.device).triu(1),
            src_key_padding_mask=source == PAD,
            tgt_key_padding_mask=target == PAD,
            memory_key_padding_mask=source == PAD,
        )
        return self.generator(hidden)

    def encode(self, source: torch.Tensor) -> Memory:
        """Keys and values of the source (b, s) for every layer of the decoder."""
        src = self.positional_encoding(self.src_tok_emb(source))
        memory = self.transformer.encoder(src, src_key_padding_mask=source == PAD)
        layers = self.transformer.decoder.layers
        keys_values = [_projected(memory, layer.multihead_attn, "kv") for layer in layers]
        return torch.stack(keys_values, dim=1), source != PAD

    def step(
        self, tokens: torch.Tensor, position: int, cache: torch.Tensor, memory: Memory
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the call gives for the last of the target's tokens, from it and what is cached.

        Args:
            tokens: the last ones (b,).
            position: how many came before them.
            cache: keys and values of those (b, l, c, h, t, d).
            memory: of the source.

        Returns:
            Logits (b, k), and the cache with the tokens' own keys and values.
        """
        others, present = memory
        embedded = self.tgt_tok_emb(tokens.unsqueeze(1))
        x = embedded + self.positional_encoding.pe[position].to(embedded.dtype)
        grown = []
        for index, layer in enumerate(self.transformer.decoder.layers):
            own = _projected(x, layer.self_attn, "kv")
            grown.append(torch.cat([cache[:, index], own], dim=-2))
            x = layer.norm1(x + _attended(x, layer.self_attn, grown[-1]))
            found = _attended(x, layer.multihead_attn, others[:, index], present[:, None, None])
            x = layer.norm2(x + found)
            x = layer.norm3(x + layer.linear2(layer.activation(layer.linear1(x))))
        logits = self.generator(self.transformer.decoder.norm(x))
        return logits.squeeze(1), torch.stack(grown, dim=1)

    @torch.no_grad()
    def greedy(self, source: torch.Tensor, max_length: int | None = None) -> torch.Tensor:
        """The likeliest token, again and again: tokens (b, max_length), PAD behind END."""
        return decoding.greedy(self.step, *self._start(source, max_length), end=END, padding=PAD)

    @torch.no_grad()
    def beam(
        self,
        source: torch.Tensor,
        beam_size: int = 4,
        max_length: int | None = None,
        length_penalty: float = 0.6,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best of several hypotheses (b, max_length), and its score (b,)."""
        return decoding.beam(
            self.step,
            *self._start(source, max_length),
            end=END,
            padding=PAD,
            beam_size=beam_size,
            length_penalty=length_penalty,
        )

    def _start(
        self, source: torch.Tensor, max_length: int | None
    ) -> tuple[torch.Tensor, Memory, torch.Tensor, int]:
        length = self.max_length if max_length is None else max_length
        most = self.max_positions
        if not 1 <= length <= most:
            raise ValueError(f"max_length {length} is out of range; use 1 to {most}, the positions")
        keys_values, present = self.encode(source)
        first = source.new_full((len(source),), START)
        return keys_values[..., :0, :], (keys_values, present), first, length


def _projected(x: torch.Tensor, attention: nn.MultiheadAttention, parts: str) -> torch.Tensor:
    """Those of "qkv" that are named, for every head: (b, t, e) -> (b, c, h, t, d)."""
    names = ["q", "k", "v"]
    weights = dict(zip(names, attention.in_proj_weight.chunk(3), strict=True))
    biases = dict(zip(names, attention.in_proj_bias.chunk(3), strict=True))
    heads = [
        rearrange(
            F.linear(x, weights[part], biases[part]), "b t (h d) -> b h t d", h=attention.num_heads
        )
        for part in parts
    ]
    return torch.stack(heads, dim=1)


def _attended(
    x: torch.Tensor,
    attention: nn.MultiheadAttention,
    keys_values: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    query = _projected(x, attention, "q")[:, 0]
    keys, values = keys_values.unbind(1)
    found = F.scaled_dot_product_attention(query, keys, values, mask)
    return attention.out_proj(rearrange(found, "b h t d -> b t (h d)"))
