"""torch.nn's dropout layers, channels last.

The layers hold no random state: in training they take `rngs` at call time and draw one array
each, in the order and from the keys that `torch_ref.random` describes. Masks are drawn in
float32 whatever the dtype of the data. Axes: b batch, x every spatial axis, c channels.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flaxnets.layers.threefry import fused

# Where the SELU goes far below zero: scale times alpha (Klambauer et al. 2017).
SELU_LOW = 1.7580993408473766


class _Dropout(nnx.Module):
    """Values, or whole channels, are zeroed at random in training and the others scaled up.

    `nnx.view(model, deterministic=...)` switches between training (False) and evaluation.

    Args:
        p: the share that is zeroed.

    Raises:
        ValueError: p outside [0, 1]; a call in training without `rngs`; a number of axes that
            a layer for whole channels does not take.

    Source: Srivastava et al. 2014, JMLR 15; torch.nn's layers of the same names.
    """

    feature: ClassVar[bool] = False
    alpha: ClassVar[bool] = False
    axes: ClassVar[tuple[int, ...]] = ()  # without the batch, with it; () for any

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p {p} is out of range; use 0 to 1")
        self.p = p
        self.deterministic = False

    def set_view(self, deterministic: bool | None = None) -> None:
        """Switch between training and evaluation, for `nnx.view`.

        Args:
            deterministic: True in evaluation, where nothing is zeroed.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def __call__(
        self, x: Float[Array, "*b_x c"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*b_x c"]:
        name = type(self).__name__
        if self.axes and x.ndim not in self.axes:
            wanted = " or ".join(map(str, self.axes))
            raise ValueError(f"{name}: input {x.shape} has {x.ndim} axes; use {wanted}")
        if self.feature and x.ndim < 2:
            raise ValueError(f"{name}: input {x.shape} has {x.ndim} axes; use 2 or more")
        if self.deterministic or self.p == 0:
            return x
        if self.p == 1:
            return x * jnp.zeros((), x.dtype)
        if rngs is None:
            raise ValueError(f"{name} in training draws numbers; call it with rngs=nnx.Rngs(seed)")
        shape = x.shape
        if self.feature:
            batch = x.shape[: 0 if self.axes and x.ndim == self.axes[0] < self.axes[-1] else 1]
            shape = (*batch, *(1,) * (x.ndim - len(batch) - 1), x.shape[-1])
        keep = jnp.float32(1 - self.p)
        kept = jax.random.bernoulli(fused(rngs.dropout()), keep, shape).astype(x.dtype)
        if not self.alpha:
            return x * (kept / (1 - self.p))
        scale = 1 / math.sqrt((SELU_LOW**2 * self.p + 1) * (1 - self.p))
        shift = (kept - 1) * (SELU_LOW * scale) + SELU_LOW * scale * self.p
        return x * (kept * scale) + shift


class Dropout(_Dropout):
    """torch.nn.Dropout: every value for itself.

    >>> Dropout(0.5)(jnp.ones(4), rngs=nnx.Rngs(0)).tolist()
    [0.0, 2.0, 2.0, 2.0]
    >>> nnx.view(Dropout(0.5), deterministic=True)(jnp.ones(4)).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """


class Dropout1d(_Dropout):
    """torch.nn.Dropout1d: whole channels of arrays (b, l, c) and (l, c).

    >>> Dropout1d(0.5)(jnp.ones((1, 2, 3)), rngs=nnx.Rngs(0)).tolist()
    [[[0.0, 2.0, 2.0], [0.0, 2.0, 2.0]]]
    """

    feature = True
    axes = (2, 3)


class Dropout2d(_Dropout):
    """torch.nn.Dropout2d: whole channels of arrays (b, h, w, c).

    >>> Dropout2d()(jnp.ones((2, 4, 4, 3)), rngs=nnx.Rngs(0)).shape
    (2, 4, 4, 3)
    """

    feature = True
    axes = (4,)


class Dropout3d(_Dropout):
    """torch.nn.Dropout3d: whole channels of arrays (b, d, h, w, c) and (d, h, w, c).

    >>> Dropout3d()(jnp.ones((2, 2, 4, 4, 3)), rngs=nnx.Rngs(0)).shape
    (2, 2, 4, 4, 3)
    """

    feature = True
    axes = (4, 5)


class AlphaDropout(_Dropout):
    """torch.nn.AlphaDropout: values go to SELU's lower end, mean and variance stay.

    Source: Klambauer et al. 2017, arXiv 1706.02515.

    >>> AlphaDropout()(jnp.ones(4), rngs=nnx.Rngs(0)).shape
    (4,)
    """

    alpha = True


class FeatureAlphaDropout(_Dropout):
    """torch.nn.FeatureAlphaDropout: `AlphaDropout` of whole channels of (b, ..., c).

    >>> FeatureAlphaDropout()(jnp.ones((2, 4, 4, 3)), rngs=nnx.Rngs(0)).shape
    (2, 4, 4, 3)
    """

    feature = True
    alpha = True
