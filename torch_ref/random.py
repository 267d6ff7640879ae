"""jax.random's numbers in torch: threefry2x32 in integer arithmetic.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". A key is two 32-bit words in
an int64 tensor; counters are partitionable, as JAX's are by default. Bits, `split`, `fold_in`,
`permutation`, `uniform` on the unit interval and `bernoulli` are JAX's to the last bit; `normal`
follows XLA's inverse error function (`torch_ref.erfinv`): 9,999 in 10,000 numbers are XLA's on a
CPU to the last bit, the others within 2 ulp in float32 and 4 in float64.

How the layers of flaxnets draw, and how `replay` makes torch draw the same:

- A forward pass gets one `nnx.Rngs(key)`. Every random call takes the next key of its default
  stream, in the order of data flow: the n-th call, from 0, has the key `fold_in(key, n)`. (The
  layers ask for `rngs.dropout()`, which is the default stream unless the caller made another.)
- `TrainStep` gives step s the key `fold_in(key(seed), s)`.
- A call that needs no numbers (evaluation, p = 0, p = 1) takes no key.
- Masks are drawn in float32 whatever the dtype of the data, so that float32 and float64 runs
  see one mask: an entry is kept where `uniform(key, shape) < 1 - p`.
- Noise (`randn`, `rand`) is drawn in its own dtype, in float32 at least.
- Arrays are drawn in Flax's layout, channels last. Dropout of whole channels draws (b, c).
  Torch draws in that shape too and moves the channels forward.
- Between the layers of a recurrent network one mask is drawn behind each layer but the last,
  time first: (t, b, f) whatever `batch_first` says. Time i of the row j of a packed batch, j
  counted before sorting, takes the entry (i, j) of that array, which does not depend on t.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from torch_ref.erfinv import erfinv
from torch_ref.recurrent_replay import layer_by_layer, recurrent_call

WORD = 0xFFFFFFFF
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
# Bits of a float of each dtype: how many, how many of them are mantissa, and those of 1.0.
FLOATS = {
    torch.float32: (32, 23, 0x3F800000, torch.int32),
    torch.float64: (64, 52, 0x3FF0000000000000, torch.int64),
}


def key(seed: int) -> torch.Tensor:
    """`jax.random.key`.

    Raises:
        ValueError: a seed of more than 32 bits, of which JAX's key depends on its settings.

    >>> key(42)
    tensor([ 0, 42])
    """
    if not 0 <= seed <= WORD:
        raise ValueError(f"seed {seed} is out of range; use 0 to {WORD}")
    return torch.tensor([0, seed])


def threefry2x32(key: torch.Tensor, high: torch.Tensor, low: torch.Tensor) -> tuple:
    """Encrypt counters of two 32-bit words (int64 tensors of one shape)."""
    k0, k1 = int(key[0]), int(key[1])
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = (high + k0) & WORD, (low + k1) & WORD
    for block in range(5):
        for rotation in ROTATIONS[block % 2]:
            x0 = (x0 + x1) & WORD
            x1 = x0 ^ (((x1 << rotation) | (x1 >> (32 - rotation))) & WORD)
        x0 = (x0 + keys[(block + 1) % 3]) & WORD
        x1 = (x1 + keys[(block + 2) % 3] + block + 1) & WORD
    return x0, x1


def _words(key: torch.Tensor, size: int) -> tuple:
    counters = torch.arange(size)
    return threefry2x32(key, counters >> 32, counters & WORD)


def split(key: torch.Tensor, num: int = 2) -> torch.Tensor:
    """`jax.random.split`: new keys, one a row.

    >>> split(key(0), 3).shape
    torch.Size([3, 2])
    """
    return torch.stack(_words(key, num), -1)


def fold_in(key: torch.Tensor, data: int) -> torch.Tensor:
    """`jax.random.fold_in` of an integer below 2**32.

    >>> fold_in(key(0), 0).tolist() == split(key(0))[0].tolist()
    True
    """
    return torch.stack(threefry2x32(key, torch.tensor(0), torch.tensor(int(data) & WORD)))


def bits(key: torch.Tensor, shape: Sequence[int], width: int = 32) -> torch.Tensor:
    """`jax.random.bits` of 32 or 64 bits in int64 (of 64, the top bit is the sign).

    >>> bits(key(0), (2,)).tolist()
    [4070199207, 4202968722]
    """
    x0, x1 = _words(key, math.prod(shape))
    return (x0 ^ x1 if width == 32 else (x0 << 32) | x1).reshape(tuple(shape))


def uniform(
    key: torch.Tensor,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    minval: float = 0.0,
    maxval: float = 1.0,
) -> torch.Tensor:
    """`jax.random.uniform` in float32 or float64.

    Raises:
        ValueError: another dtype.

    >>> uniform(key(0), (1,))
    tensor([0.9477])
    """
    if dtype not in FLOATS:
        raise ValueError(f"dtype {dtype} is not drawn; use torch.float32 or torch.float64")
    width, mantissa, one, integer = FLOATS[dtype]
    drawn = bits(key, shape, width) >> (width - mantissa)
    drawn = (drawn & ((1 << mantissa) - 1)) | one  # the shift of int64 keeps the sign
    floats = drawn.to(integer).view(dtype) - 1
    low, high = torch.tensor(minval, dtype=dtype), torch.tensor(maxval, dtype=dtype)
    return torch.maximum(low, floats * (high - low) + low)


def bernoulli(
    key: torch.Tensor,
    p: float | torch.Tensor,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """`jax.random.bernoulli` with p of a dtype.

    >>> bernoulli(key(0), 0.5, (2,)).tolist()
    [False, False]
    """
    return uniform(key, shape, dtype) < torch.as_tensor(p, dtype=dtype)


def normal(
    key: torch.Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """`jax.random.normal` in float32 or float64.

    >>> normal(key(0), (1,))
    tensor([1.6226])
    """
    above = math.nextafter(-1, 0) if dtype == torch.float64 else -1 + 2**-24
    return math.sqrt(2) * erfinv(uniform(key, shape, dtype, above, 1.0))


def permutation(key: torch.Tensor, size: int) -> torch.Tensor:
    """`jax.random.permutation` of the numbers below `size`.

    >>> sorted(permutation(key(0), 4).tolist())
    [0, 1, 2, 3]
    """
    order = torch.arange(size)
    for _ in range(math.ceil(3 * math.log(max(1, size)) / math.log(WORD))):  # JAX's own count
        key, subkey = split(key)
        order = order[bits(subkey, (size,)).argsort(stable=True)]
    return order


def categorical(key: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """`jax.random.categorical` over the last axis.

    >>> categorical(key(0), torch.tensor([0.0, 100.0]))
    tensor(1)
    """
    tiny = torch.finfo(logits.dtype).tiny
    gumbel = -torch.log(-torch.log(uniform(key, logits.shape, logits.dtype, tiny, 1.0)))
    return (gumbel + logits).argmax(-1)


_key_of = key  # by a name that arguments called "key" do not hide


class ReplayError(RuntimeError):
    """Torch would draw what JAX did not, or cannot draw it; the message is one line."""


def replay(key: int | torch.Tensor, draws: Sequence[Sequence[int]] | None = None) -> "Replay":
    """A context in which torch draws what `nnx.Rngs(key)` gives to the Flax twin.

    Covered are the dropout functions and layers, attention and recurrent layers with dropout,
    `torch.rand`, `randn`, `rand_like`, `randn_like` and `bernoulli`; any other draw is refused.

    Args:
        key: of the forward pass: a seed or a key.
        draws: the shapes of the Flax twin's draws in their order, which then say whether
            torch's channels move; without it they do in tensors of four and five axes, as
            in feature maps, and do not in those of three, as in sequences.

    Raises:
        ReplayError: another number of draws than in `draws`, or one of another size; a
            random function that is not covered.

    >>> with replay(0):
    ...     F.dropout(torch.ones(3), 0.5).tolist()
    [0.0, 2.0, 2.0]
    """
    return Replay(key, draws)


class Replay(TorchFunctionMode):
    """See `replay`."""

    def __init__(self, key: int | torch.Tensor, draws: Sequence[Sequence[int]] | None) -> None:
        super().__init__()
        self._key = _key_of(key) if isinstance(key, int) else key
        self._draws = None if draws is None else [tuple(shape) for shape in draws]
        self._count = 0
        self._rows: torch.Tensor | None = None

    def __enter__(self) -> "Replay":
        self._hook = register_module_forward_pre_hook(self._see_packed)
        super().__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        self._hook.remove()
        if kind is None and self._draws is not None and self._count != len(self._draws):
            raise ReplayError(f"torch drew {self._count} arrays and Flax {len(self._draws)}")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in HANDLERS:
            return HANDLERS[func](self, *args, **kwargs)
        if func is F.multi_head_attention_forward:  # itself made of functions that draw
            with _replaced(F, self, "dropout", "scaled_dot_product_attention"):
                return func(*args, **kwargs)
        if call := recurrent_call(func, args):
            return layer_by_layer(self, func, call)
        if func in REFUSED:
            raise ReplayError(f"{func.__name__} draws numbers that replay has no rule for")
        return func(*args, **kwargs)

    def _see_packed(self, module: torch.nn.Module, args: tuple) -> None:
        """Keep the order of the rows of a packed batch, which the function inside is not told."""
        if isinstance(module, torch.nn.RNNBase):
            self._rows = None
            if args and isinstance(args[0], PackedSequence):
                rows = args[0].sorted_indices
                count = int(args[0].batch_sizes[0])
                self._rows = torch.arange(count) if rows is None else rows

    def packed_rows(self) -> torch.Tensor:
        """Which row of the batch each row of the packed batch was.

        Raises:
            ReplayError: no recurrent layer was called with the packed batch by position.
        """
        if self._rows is None:
            raise ReplayError("the order of a packed batch is unknown; pass it by position")
        return self._rows

    def longer(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape (t, ...) with the t of Flax's next draw: a packed batch lost its padding."""
        if self._draws is not None and self._count < len(self._draws):
            wanted = self._draws[self._count]
            if wanted[1:] == shape[1:] and wanted[0] >= shape[0]:
                return wanted
        return shape

    def draw(self, shape: Sequence[int], sample: Callable, feature: bool = False) -> torch.Tensor:
        """The next array: `sample(key, shape)` in Flax's layout, then in torch's."""
        shape = tuple(shape)
        last = (*shape[:1], *shape[2:], *shape[1:2])
        moved = len(shape) in (4, 5) and not feature
        if self._draws is not None:
            if self._count >= len(self._draws):
                raise ReplayError(f"torch draws {shape} after Flax's {self._count} draws")
            wanted = self._draws[self._count]
            if math.prod(wanted) != math.prod(shape):
                raise ReplayError(f"draw {self._count} is {shape} in torch and {wanted} in Flax")
            if not feature and shape != last:
                moved = last == wanted and shape != wanted
        values = sample(fold_in(self._key, self._count), last if moved else shape)
        self._count += 1
        return values.movedim(-1, 1) if moved else values

    def mask(self, x: torch.Tensor, p: float, feature: bool = False) -> torch.Tensor:
        """Which entries of a tensor, or which of its channels, are kept."""
        shape = x.shape[:2] if feature else x.shape
        kept = self.kept(shape, p, feature)
        return kept.reshape(shape + (1,) * (x.dim() - len(shape))).to(x)

    def kept(self, shape: Sequence[int], p: float, feature: bool = True) -> torch.Tensor:
        """A mask of a shape, which is not moved where it is of features."""
        return self.draw(shape, lambda key, shape: bernoulli(key, 1 - p, shape), feature)


def _dropout(feature: bool, alpha: bool, batched: int | None = None) -> Callable:
    """The dropout of torch (aten/src/ATen/native/Dropout.cpp) with a mask that is replayed."""

    def dropout(replay, input, p=0.5, training=True, inplace=False):
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        if p == 0 or not training:
            return input
        x = input[None] if batched is not None and input.dim() < batched else input
        if p == 1:
            result = x * torch.zeros((), dtype=x.dtype)
        elif alpha:
            low = 1.7580993408473766  # of SELU: -scale * alpha is where x goes
            scale = 1 / math.sqrt((low * low * p + 1) * (1 - p))
            kept = replay.mask(x, p, feature)
            result = x * (kept * scale) + ((kept - 1) * (low * scale) + low * scale * p)
        else:
            result = x * (replay.mask(x, p, feature) / (1 - p))
        result = result.reshape(input.shape)
        return input.copy_(result) if inplace else result

    return dropout


def _noise(sample: Callable) -> Callable:
    def draw(replay, *size, dtype=None, device=None, requires_grad=False, **options):
        shape = size[0] if size and not isinstance(size[0], int) else size
        shape = options.pop("size", shape)
        _no_options(options)
        wanted = dtype or torch.get_default_dtype()
        drawn = replay.draw(shape, lambda key, shape: sample(key, shape, _drawn_in(wanted)))
        return drawn.to(device, wanted).requires_grad_(requires_grad)

    return draw


def _noise_like(sample: Callable) -> Callable:
    def draw(replay, input, dtype=None, device=None, requires_grad=False, **options):
        _no_options(options)
        wanted = dtype or input.dtype
        drawn = replay.draw(input.shape, lambda key, shape: sample(key, shape, _drawn_in(wanted)))
        return drawn.to(device or input.device, wanted).requires_grad_(requires_grad)

    return draw


def _drawn_in(dtype: torch.dtype) -> torch.dtype:
    """The dtype of noise, before it is rounded to a narrower one."""
    return torch.promote_types(dtype, torch.float32)


def _no_options(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None and name in ("generator", "out"):
            raise ReplayError(f"{name} has no meaning in replay; leave it out")


def _bernoulli(replay, input, **options):
    _no_options(options)
    if input.dtype not in FLOATS:
        raise ReplayError(f"bernoulli of {input.dtype} is not drawn; use float32 or float64")
    uniforms = replay.draw(input.shape, lambda key, shape: uniform(key, shape, input.dtype))
    return (uniforms.to(input.device) < input).to(input.dtype)


ATTENTION = F.scaled_dot_product_attention


def _attention(
    replay,
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
):
    """Attention written out, since its own dropout draws inside one operation."""
    if dropout_p == 0:
        rest = {"scale": scale, "enable_gqa": enable_gqa}
        return ATTENTION(query, key, value, attn_mask, 0.0, is_causal=is_causal, **rest)
    if enable_gqa:
        key, value = (x.repeat_interleave(query.size(-3) // x.size(-3), -3) for x in (key, value))
    scores = query @ key.mT * (query.size(-1) ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        else:
            scores = scores + attn_mask
    weights = torch._safe_softmax(scores, -1)  # zeros for a query that may look nowhere
    if dropout_p == 1:
        return torch.zeros_like(weights) @ value
    kept = replay.kept(scores.shape, dropout_p)
    return (weights * (kept.to(scores) / (1 - dropout_p))) @ value


HANDLERS: dict[Callable, Callable] = {
    F.dropout: _dropout(feature=False, alpha=False),
    F.dropout1d: _dropout(feature=True, alpha=False, batched=3),
    F.dropout2d: _dropout(feature=True, alpha=False),
    F.dropout3d: _dropout(feature=True, alpha=False, batched=5),
    F.alpha_dropout: _dropout(feature=False, alpha=True),
    F.feature_alpha_dropout: _dropout(feature=True, alpha=True),
    ATTENTION: _attention,
    torch.dropout: _dropout(feature=False, alpha=False),
    torch.rand: _noise(uniform),
    torch.randn: _noise(normal),
    torch.rand_like: _noise_like(uniform),
    torch.randn_like: _noise_like(normal),
    torch.bernoulli: _bernoulli,
}
REFUSED = frozenset(
    [
        torch.dropout_,
        torch.multinomial,
        torch.normal,
        torch.poisson,
        torch.randint,
        torch.randint_like,
        torch.randperm,
        torch.Tensor.bernoulli,
        torch.Tensor.bernoulli_,
        torch.Tensor.exponential_,
        torch.Tensor.multinomial,
        torch.Tensor.normal_,
        torch.Tensor.random_,
        torch.Tensor.uniform_,
        F.fractional_max_pool2d,
        F.fractional_max_pool3d,
        F.gumbel_softmax,
        F.rrelu,
    ]
)


@contextlib.contextmanager
def _replaced(module: Any, replay: Replay, *names: str) -> Iterator[None]:
    """While open, functions of a module draw what a replay gives."""
    originals = {name: getattr(module, name) for name in names}
    for name, original in originals.items():
        setattr(module, name, functools.partial(HANDLERS[original], replay))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)
