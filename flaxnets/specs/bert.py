"""BERT: Devlin, Chang, Lee, Toutanova (2018), arXiv 1810.04805."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from flaxnets.specs import MOST_LAYERS, Input, Spec, SpecError

PRETRAINING_LENGTH = 128  # tokens, of nine tenths of the paper's steps (appendix A.2)


@dataclass(frozen=True, kw_only=True)
class BertSpec(Spec):
    """A Transformer encoder that sees both sides of every token.

    Fields have the names and defaults of Hugging Face's BertConfig, which are the paper's base.

    Attributes:
        head: "masked_lm" for guesses of hidden tokens (`BertForMaskedLM`), "pooler" for the
            features of every token and of the whole row (`BertModel`).
        vocab_size: different tokens.
        hidden_size: features of a token.
        num_hidden_layers: layers of attention and two dense layers.
        num_attention_heads: subspaces of attention, of hidden_size / num_attention_heads.
        intermediate_size: features between the two dense layers.
        hidden_act: between them, and in the head; "gelu_new" is the approximation by tanh.
        hidden_dropout_prob: of embeddings and of what each layer adds, the share zeroed.
        attention_probs_dropout_prob: of the attention weights.
        max_position_embeddings: tokens of the longest row.
        type_vocab_size: kinds of segments that a row may be made of.
        initializer_range: standard deviation of initial weights.
        layer_norm_eps: added to the variance.
        pad_token_id: the token behind the end of a row, whose embedding starts at zero.

    >>> BertSpec().twin, BertSpec(head="pooler").twin
    ('BertForMaskedLM', 'BertModel')
    """

    data: ClassVar[str] = "python-docs"
    on_cpu: ClassVar[str] = "miniature"

    head: Literal["masked_lm", "pooler"] = "masked_lm"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Literal["gelu", "gelu_new", "relu", "silu", "swish"] = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(
            1,
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        )
        self.at_most(MOST_LAYERS, "num_hidden_layers")
        if self.hidden_size % self.num_attention_heads:
            raise SpecError(
                f"bert: hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        for field in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, field) <= 1:
                raise SpecError(f"bert: {field} {getattr(self, field)} is out of range; use 0 to 1")
        for field in ("initializer_range", "layer_norm_eps"):
            if not getattr(self, field) > 0:
                raise SpecError(f"bert: {field} {getattr(self, field)} is not above 0")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise SpecError(
                f"bert: pad_token_id {self.pad_token_id} is not a token; "
                f"use 0 to {self.vocab_size - 1}"
            )

    @property
    def twin(self) -> str:
        """Hugging Face's name of the network with this head."""
        return "BertForMaskedLM" if self.head == "masked_lm" else "BertModel"

    @property
    def task(self) -> str:  # type: ignore[override]
        """Guessing hidden tokens; features alone are not trained."""
        return "masked_language_modelling" if self.head == "masked_lm" else ""

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Tokens, which of them are there, and the segment that each belongs to."""
        shape = (batch, min(PRETRAINING_LENGTH, self.max_position_embeddings))
        segments = Input(name="token_type_ids", shape=shape, axes="bt", high=self.type_vocab_size)
        return (*self.examples(batch), segments)

    def examples(self, batch: int) -> tuple[Input, ...]:
        """Tokens and which of them are there; all belong to one segment."""
        shape = (batch, min(PRETRAINING_LENGTH, self.max_position_embeddings))
        return (
            Input(
                name="input_ids",
                shape=shape,
                axes="bt",
                high=self.vocab_size,
                padding=self.pad_token_id,
            ),
            Input(name="attention_mask", shape=shape, axes="bt", high=2, padding=0),
        )

    def recipe(self, data: str) -> dict[str, Any]:
        """The paper's rate (appendix A.2), a larger one for networks that stand it.

        The paper's weight decay is the optimizer's default.
        """
        small = self.hidden_size < 256
        return {"optimizer": "adamw", **({"lr": 1e-3, "steps": 1500} if small else {"lr": 1e-4})}


VARIANTS = {
    # Devlin et al. 2018, section 3.
    "large": BertSpec(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    # Turc, Chang, Lee, Toutanova 2019, "Well-read students learn better", arXiv 1908.08962:
    # 64 features a head, four times the features between the dense layers.
    "small": BertSpec(
        hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048
    ),
    "mini": BertSpec(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    ),
    # The smallest of theirs, without dropout and with a vocabulary for its data set.
    "miniature": BertSpec(
        vocab_size=2048,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "tiny": BertSpec(
        vocab_size=13,
        hidden_size=6,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=7,
        type_vocab_size=3,
        initializer_range=0.1,
    ),
    "tiny_model": BertSpec(
        head="pooler",
        vocab_size=11,
        hidden_size=15,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=9,
        hidden_act="gelu_new",
        hidden_dropout_prob=0.3,
        attention_probs_dropout_prob=0.2,
        max_position_embeddings=6,
        layer_norm_eps=1e-5,
        pad_token_id=2,
    ),
}
