"""LSTM that gives every word of a sentence a tag (PyTorch's tutorial; Graves et al. 2012)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from flaxnets.specs import PAD, Input, Spec

WORDS = 9  # a sentence has in the suite; the network takes any number


@dataclass(frozen=True, kw_only=True)
class LSTMTaggerSpec(Spec):
    """Word embeddings, an LSTM from left to right, a dense layer on every step.

    Attributes:
        embedding_dim: numbers a word.
        hidden_dim: of the LSTM.
        vocab_size: different words.
        tagset_size: different tags; Universal Dependencies has 17.

    >>> LSTMTaggerSpec().targets(2).shape
    (2, 9)
    """

    task: ClassVar[str] = "classification"
    data: ClassVar[str] = "english-tags"

    embedding_dim: int = 32
    hidden_dim: int = 64
    vocab_size: int = 2000
    tagset_size: int = 17

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "embedding_dim", "hidden_dim", "tagset_size")
        self.at_least(2, "vocab_size")

    @property
    def outputs(self) -> str:
        """Logarithms of probabilities."""
        return "log_probabilities"

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """Sentences and how many words each has."""
        words = Input(
            name="sentence", shape=(batch, WORDS), axes="bt", high=self.vocab_size, padding=PAD
        )
        return words, Input(name="lengths", shape=(batch,), axes="b", high=WORDS + 1, padding=0)

    def targets(self, batch: int) -> Input:
        """One tag a word, -100 where there is none."""
        shape = (batch, WORDS)
        return Input(name="tags", shape=shape, axes="bt", high=self.tagset_size, padding=-100)

    def recipe(self, data: str) -> dict[str, Any]:
        """A rate for a few hundred short sentences."""
        return {"optimizer": "adam", "lr": 5e-3, "batch_size": 32}


VARIANTS = {
    "tiny": LSTMTaggerSpec(embedding_dim=3, hidden_dim=4, vocab_size=11, tagset_size=5),
}
