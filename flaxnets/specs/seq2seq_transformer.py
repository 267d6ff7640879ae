"""Transformer that translates tokens: Vaswani et al. (2017), arXiv 1706.03762.

Names are those of PyTorch's tutorial on translation, but for the sizes of the vocabularies.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from flaxnets.specs import MOST_LAYERS, PAD, Input, Spec, SpecError, transformer

SOURCE, TARGET = 9, 5  # tokens in the suite; the network takes any number


@dataclass(frozen=True, kw_only=True)
class Seq2SeqTransformerSpec(Spec):
    """Embeddings and positions in front of a Transformer, a dense layer behind it.

    Attributes:
        num_encoder_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        emb_size: numbers a token, everywhere in the network.
        nhead: heads of each attention, which divide them.
        source_vocab_size: different tokens of the source.
        target_vocab_size: different tokens of the target.
        dim_feedforward: features between the two dense layers of each layer.
        dropout: share that is zeroed in training; 0.1 in the paper, which has more to learn from.
        max_positions: tokens of the longest source or target.
        max_length: tokens of the longest target that is decoded, its end included.
    """

    task: ClassVar[str] = "translation"
    data: ClassVar[str] = "dates"

    num_encoder_layers: int = 2
    num_decoder_layers: int = 2
    emb_size: int = 64
    nhead: int = 4
    source_vocab_size: int = 80
    target_vocab_size: int = 20
    dim_feedforward: int = 128
    dropout: float = 0.0
    max_positions: int = 512
    max_length: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(3, "source_vocab_size", "target_vocab_size")  # room for START and END
        self.at_least(1, "num_encoder_layers", "num_decoder_layers", "emb_size", "nhead")
        self.at_least(1, "dim_feedforward", "max_positions", "max_length")
        self.at_most(MOST_LAYERS, "num_encoder_layers", "num_decoder_layers")
        if self.emb_size % self.nhead:
            raise SpecError(
                f"seq2seq_transformer: emb_size {self.emb_size} is not a multiple of "
                f"nhead {self.nhead}"
            )
        if not 0 <= self.dropout <= 1:
            raise SpecError(
                f"seq2seq_transformer: dropout {self.dropout} is out of range; use 0 to 1"
            )
        if self.max_length > self.max_positions:
            raise SpecError(
                f"seq2seq_transformer: max_length {self.max_length} is longer than "
                f"max_positions {self.max_positions}"
            )

    @property
    def transformer_spec(self) -> transformer.TransformerSpec:
        """The part between embeddings and output layer."""
        return transformer.TransformerSpec(
            d_model=self.emb_size,
            nhead=self.nhead,
            num_encoder_layers=self.num_encoder_layers,
            num_decoder_layers=self.num_decoder_layers,
            dim_feedforward=self.dim_feedforward,
            dropout=self.dropout,
        )

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Sources, and targets as far as they are known."""
        shape = (batch, TARGET)
        high = self.target_vocab_size
        target = Input(name="target", shape=shape, axes="bt", high=high, padding=PAD)
        return (*self.examples(batch), target)

    def examples(self, batch: int) -> tuple[Input, ...]:
        """Sources alone."""
        shape = (batch, SOURCE)
        high = self.source_vocab_size
        return (Input(name="source", shape=shape, axes="bt", high=high, padding=PAD),)

    def targets(self, batch: int) -> Input:
        """Targets with the token that begins them and the one that ends them."""
        shape = (batch, TARGET + 1)
        high = self.target_vocab_size
        return Input(name="target", shape=shape, axes="bt", high=high, padding=PAD)

    def recipe(self, data: str) -> dict[str, Any]:
        """Adam with the paper's second beta, at a rate that a small Transformer stands."""
        return {
            "optimizer": "adam",
            "lr": 1.5e-3,
            "betas": (0.9, 0.98),
            "batch_size": 64,
            "steps": 1000,
        }


VARIANTS = {
    "tiny": Seq2SeqTransformerSpec(
        num_encoder_layers=1,
        num_decoder_layers=2,
        emb_size=6,
        nhead=2,
        source_vocab_size=11,
        target_vocab_size=8,
        dim_feedforward=7,
        dropout=0.2,
        max_positions=10,
        max_length=4,
    ),
}
