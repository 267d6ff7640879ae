"""Arrays of JAX and torch that are the same memory, by DLPack."""

import os
import warnings
from typing import Any, Literal

import jax
import jax.numpy as jnp
import torch
from jax._src.xla_bridge import backends_are_initialized

Copy = Literal["never", "warn", "allow"]
ALIGNMENT = 64  # bytes; XLA computes in place only where an array begins at a multiple of it
WIDE = (torch.float64, torch.complex128, torch.uint64)  # which JAX has under x64 alone


class SwapError(ValueError):
    """What one backend cannot take from the other; the message is one line."""


class CopyWarning(UserWarning):
    """Memory that could not be shared; the message names the array and the reason."""


class _Process:
    """Whether JAX was at work when a process was forked, in which it would wait for ever."""

    at_work = forked = False

    @classmethod
    def before(cls) -> None:
        cls.at_work = backends_are_initialized()

    @classmethod
    def after(cls) -> None:
        cls.forked = cls.at_work


if hasattr(os, "register_at_fork"):  # where there is a fork
    os.register_at_fork(before=_Process.before, after_in_child=_Process.after)


def require_jax() -> None:
    """Raise an error where JAX would wait for threads that were not forked with it.

    Raises:
        SwapError: in a process that was forked from one in which JAX was at work.

    >>> require_jax()
    """
    if _Process.forked:
        raise SwapError(
            "JAX cannot compute in a process that was forked from one where it was at work; "
            'start it anew, a DataLoader\'s by multiprocessing_context="spawn"'
        )


def to_jax(tensor: torch.Tensor, copy: Copy = "warn", name: str = "the tensor") -> jax.Array:
    """A torch tensor as a JAX array of the same memory.

    JAX takes arrays for constants: whoever writes to the tensor while JAX computes with the array
    changes what is computed.

    Args:
        tensor: on a device that JAX has; its gradient is left behind.
        copy: whether memory that cannot be shared is copied, with a `CopyWarning`, or refused.
        name: of the tensor, for messages.

    Raises:
        SwapError: a tensor that is on no device of JAX's, is float64 without `jax.enable_x64`,
            holds integers that int32 does not, or would have to be copied and must not; a process
            that was forked from one where JAX was at work.

    Source: https://dmlc.github.io/dlpack.

    >>> tensor = torch.arange(3, dtype=torch.float32)
    >>> to_jax(tensor).unsafe_buffer_pointer() == tensor.data_ptr()
    True
    """
    require_jax()
    tensor = tensor.detach()
    if tensor.device.type == "meta" or tensor.layout != torch.strided:
        kind = tensor.device.type if tensor.device.type == "meta" else str(tensor.layout)
        raise SwapError(f"{name} is {kind} and has no values in memory; give a dense tensor")
    reasons = []
    if not has_x64():
        if tensor.dtype in WIDE:
            raise SwapError(f"{name} is {tensor.dtype}, which JAX has under jax.enable_x64 alone")
        if tensor.dtype == torch.int64:
            reasons.append("JAX holds int64 as int32")
            tensor = _narrowed(tensor, name)
    if tensor.is_conj() or tensor.is_neg():
        reasons.append("its conjugate or sign is only noted")
        tensor = tensor.resolve_conj().resolve_neg()
    if not _dense(tensor):
        reasons.append(f"its strides {tensor.stride()} leave gaps or repeat values")
        tensor = tensor.contiguous()
    if tensor.data_ptr() % ALIGNMENT and tensor.device.type == "cpu":
        reasons.append(f"it begins in the middle of {ALIGNMENT} bytes")
        tensor = tensor.clone()
    if reasons and copy != "allow":
        message = f"{name} is copied, not shared: {' and '.join(reasons)}"
        if copy == "never":
            raise SwapError(f"{message}; prepare it or give copy='allow'")
        warnings.warn(message, CopyWarning, stacklevel=2)
    try:
        return jax.dlpack.from_dlpack(tensor)
    except (RuntimeError, ValueError, BufferError, TypeError) as error:
        platforms = ", ".join(sorted({device.platform for device in jax.devices()}))
        raise SwapError(
            f"{name} ({tensor.dtype} on {tensor.device}) cannot be shared with JAX, "
            f"which has {platforms}: {str(error).splitlines()[0]}"
        ) from None


def to_torch(array: jax.Array, name: str = "the array") -> torch.Tensor:
    """A JAX array as a torch tensor of the same memory, once it is computed.

    JAX takes the array for a constant: write to the tensor only where nobody else holds it.

    Args:
        array: on one device.
        name: of the array, for messages.

    Raises:
        SwapError: an array that is spread over devices, or of a dtype that torch lacks.

    >>> array = jnp.ones(3)
    >>> to_torch(array).data_ptr() == array.unsafe_buffer_pointer()
    True
    """
    if len(array.devices()) > 1:
        raise SwapError(f"{name} is on {len(array.devices())} devices; gather it on one first")
    try:
        return torch.from_dlpack(array.block_until_ready())
    except (RuntimeError, ValueError, BufferError, TypeError) as error:
        raise SwapError(
            f"{name} ({array.dtype}) cannot be shared with torch: {str(error).splitlines()[0]}"
        ) from None


def has_x64() -> bool:
    """Whether JAX has numbers of 64 bits at the moment.

    >>> with jax.enable_x64(True):
    ...     has_x64()
    True
    """
    return jax.dtypes.canonicalize_dtype(jnp.dtype("int64")) == jnp.dtype("int64")


def torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype of JAX's.

    >>> torch_dtype(jnp.bfloat16)
    torch.bfloat16
    """
    return getattr(torch, jnp.dtype(dtype).name)


def jax_dtype(dtype: torch.dtype) -> jnp.dtype:
    """The JAX dtype of torch's.

    >>> jax_dtype(torch.bfloat16) == jnp.bfloat16
    True
    """
    return jnp.dtype(str(dtype).removeprefix("torch."))


def _dense(tensor: torch.Tensor) -> bool:
    """Whether the values fill their memory, each once, in some order of the axes."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return tensor.numel() == 0
            expected *= size
    return True


def _narrowed(tensor: torch.Tensor, name: str) -> torch.Tensor:
    narrow = tensor.to(torch.int32)
    if not torch.equal(narrow.long(), tensor):
        raise SwapError(f"{name} holds int64 values that int32, JAX's, does not")
    return narrow
