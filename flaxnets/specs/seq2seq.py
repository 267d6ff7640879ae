"""GRU encoder and decoder with additive attention: Bahdanau et al. (2014), arXiv 1409.0473."""

from dataclasses import dataclass
from typing import Any, ClassVar

from flaxnets.specs import MOST_LAYERS, PAD, Input, Spec, SpecError

SOURCE, TARGET = 9, 6  # tokens in the suite; the network takes any number


@dataclass(frozen=True, kw_only=True)
class Seq2SeqSpec(Spec):
    """A GRU reads the source, another writes the target and looks back at each of its tokens.

    Attributes:
        source_vocab_size: different tokens of the source.
        target_vocab_size: different tokens of the target.
        embedding_dim: numbers a token.
        hidden_size: of both networks, and of the attention between them.
        num_layers: of both networks.
        bidirectional: whether the source is read from both ends, as in the paper.
        dropout: share of the embeddings that is zeroed in training.
        max_length: tokens of the longest target that is decoded, its end included.
    """

    task: ClassVar[str] = "translation"
    data: ClassVar[str] = "dates"

    source_vocab_size: int = 80
    target_vocab_size: int = 20
    embedding_dim: int = 32
    hidden_size: int = 64
    num_layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.0
    max_length: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(3, "source_vocab_size", "target_vocab_size")  # room for START and END
        self.at_least(1, "embedding_dim", "hidden_size", "num_layers", "max_length")
        self.at_most(MOST_LAYERS, "num_layers")
        if not 0 <= self.dropout <= 1:
            raise SpecError(f"seq2seq: dropout {self.dropout} is out of range; use 0 to 1")

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
        """Adam at a rate that a small recurrent network stands."""
        return {"optimizer": "adam", "lr": 4e-3, "batch_size": 128, "steps": 400}


VARIANTS = {
    "tiny": Seq2SeqSpec(
        source_vocab_size=11,
        target_vocab_size=7,
        embedding_dim=3,
        hidden_size=4,
        num_layers=2,
        dropout=0.2,
        max_length=5,
    ),
}
