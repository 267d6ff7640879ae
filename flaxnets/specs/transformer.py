"""Transformer: Vaswani et al. (2017), "Attention is all you need", arXiv 1706.03762."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from flaxnets.specs import MOST_LAYERS, Input, Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class TransformerSpec(Spec):
    """Encoder and decoder, between vectors: no embedding in front, no output layer behind.

    The defaults are torch.nn.Transformer's, which are the paper's base model (table 3).

    Attributes:
        d_model: features of each vector.
        nhead: heads of each attention, which divide them.
        num_encoder_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        dim_feedforward: features between the two dense layers of each.
        dropout: share that is zeroed in training.
        activation: between the two dense layers.
        layer_norm_eps: added to variances.
        norm_first: whether the input of each block is normalised instead of the sum behind it.
        bias: whether dense layers, projections and normalisations have biases.
        src_len: vectors of a source, where an example of one is needed.
        tgt_len: vectors of a target, likewise.
    """

    task: ClassVar[str] = "regression"
    data: ClassVar[str] = "co2"
    on_cpu: ClassVar[str] = "small"

    d_model: int = 512
    nhead: int = 8
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    dim_feedforward: int = 2048
    dropout: float = 0.1
    activation: Literal["relu", "gelu"] = "relu"
    layer_norm_eps: float = 1e-5
    norm_first: bool = False
    bias: bool = True
    src_len: int = 10
    tgt_len: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "d_model", "nhead", "num_encoder_layers", "num_decoder_layers")
        self.at_least(1, "dim_feedforward", "src_len", "tgt_len")
        self.at_most(MOST_LAYERS, "num_encoder_layers", "num_decoder_layers")
        self.at_least(0, "layer_norm_eps")
        if self.d_model % self.nhead:
            raise SpecError(
                f"transformer: d_model {self.d_model} is not a multiple of nhead {self.nhead}"
            )
        if not 0 <= self.dropout <= 1:
            raise SpecError(f"transformer: dropout {self.dropout} is out of range; use 0 to 1")

    def inputs(self, batch: int) -> tuple[Input, ...]:
        """A source and a target."""
        return (
            Input(name="src", shape=(batch, self.src_len, self.d_model), axes="btf"),
            Input(name="tgt", shape=(batch, self.tgt_len, self.d_model), axes="btf"),
        )

    def examples(self, batch: int) -> tuple[Input, ...]:
        """Windows of a series, and the last of them."""
        src, tgt = self.inputs(batch)
        return src, replace(tgt, shape=(batch, 1, self.d_model))

    def targets(self, batch: int) -> Input:
        """The window that follows."""
        return Input(name="target", shape=(batch, 1, self.d_model), axes="btf")

    def recipe(self, data: str) -> dict[str, Any]:
        """A rate at which the scale of the last normalisation, 1 at first, finds the data's."""
        return {"lr": 5e-3, "steps": 1000} if self.d_model < 256 else {}


VARIANTS = {
    "tiny": TransformerSpec(
        d_model=6,
        nhead=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dim_feedforward=7,
        src_len=3,
        tgt_len=5,
    ),
    # For the few thousand numbers of its data set, in seconds on a CPU.
    "small": TransformerSpec(
        d_model=64,
        nhead=4,
        num_encoder_layers=2,
        num_decoder_layers=2,
        dim_feedforward=128,
        dropout=0.0,
    ),
    # Table 3, "big"; its "base" is the default.
    "big": TransformerSpec(d_model=1024, nhead=16, dim_feedforward=4096, dropout=0.3),
}
