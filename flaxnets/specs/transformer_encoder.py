"""The encoder of the Transformer alone: Vaswani et al. (2017), arXiv 1706.03762."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from flaxnets.specs import MOST_LAYERS, Input, Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class TransformerEncoderSpec(Spec):
    """Encoder layers on top of each other, from vectors to vectors; a causal one is a GPT's body.

    The defaults are those of torch.nn.TransformerEncoderLayer, in the paper's base size (table 3).

    Attributes:
        d_model: features of each vector.
        nhead: heads of each attention, which divide them.
        num_layers: how many layers.
        dim_feedforward: features between the two dense layers of each.
        dropout: share that is zeroed in training.
        activation: between the two dense layers.
        layer_norm_eps: added to variances.
        norm_first: whether the input of each block is normalised instead of the sum behind it.
        bias: whether dense layers, projections and normalisations have biases.
        final_norm: whether the output is normalised, as with `norm_first` it should be.
        causal: whether each vector sees those before it only, unless a call gives a mask.
        seq_len: vectors of a sequence, where an example of one is needed.
    """

    task: ClassVar[str] = "reconstruction"
    data: ClassVar[str] = "co2"
    on_cpu: ClassVar[str] = "small"

    d_model: int = 512
    nhead: int = 8
    num_layers: int = 6
    dim_feedforward: int = 2048
    dropout: float = 0.1
    activation: Literal["relu", "gelu"] = "relu"
    layer_norm_eps: float = 1e-5
    norm_first: bool = False
    bias: bool = True
    final_norm: bool = False
    causal: bool = False
    seq_len: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "d_model", "nhead", "num_layers", "dim_feedforward", "seq_len")
        self.at_most(MOST_LAYERS, "num_layers")
        self.at_least(0, "layer_norm_eps")
        if self.d_model % self.nhead:
            raise SpecError(
                f"{self.name}: d_model {self.d_model} is not a multiple of nhead {self.nhead}"
            )
        if not 0 <= self.dropout <= 1:
            raise SpecError(f"{self.name}: dropout {self.dropout} is out of range; use 0 to 1")

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """A sequence of vectors."""
        return (Input(name="src", shape=(batch, self.seq_len, self.d_model), axes="btf"),)


VARIANTS = {
    "tiny": TransformerEncoderSpec(
        d_model=6,
        nhead=2,
        num_layers=2,
        dim_feedforward=7,
        activation="gelu",
        norm_first=True,
        final_norm=True,
        causal=True,
        seq_len=5,
    ),
    # For the few thousand numbers of its data set, in seconds on a CPU; an output that is not
    # normalised can have the size of the input.
    "small": TransformerEncoderSpec(
        d_model=64,
        nhead=4,
        num_layers=2,
        dim_feedforward=128,
        dropout=0.0,
        norm_first=True,
    ),
    # Table 3, "big"; its "base" is the default.
    "big": TransformerEncoderSpec(d_model=1024, nhead=16, dim_feedforward=4096, dropout=0.3),
}
