"""Shared memory: pointers are equal, values are, and whatever forces a copy is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaxnets import swap
from flaxnets.swap.arrays import has_x64, jax_dtype, torch_dtype

SHARED = {
    "float32": torch.randn(4, 5),
    "float16": torch.randn(4, 5).half(),
    "bfloat16": torch.randn(4, 5).bfloat16(),
    "int32": torch.arange(6, dtype=torch.int32),
    "bool": torch.tensor([True, False]),
    "uint8": torch.arange(3, dtype=torch.uint8),
    "scalar": torch.tensor(3.0),
    "transposed": torch.randn(4, 5).T,
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "wants a gradient": torch.randn(3, requires_grad=True),
}
COPIED = {
    "every second": (torch.randn(4, 10)[:, ::2], "its strides (10, 2) leave gaps or repeat"),
    "repeated": (torch.randn(1, 3).expand(4, 3), "its strides (0, 1) leave gaps or repeat"),
    "from the second on": (torch.randn(9)[1:], "it begins in the middle of 64 bytes"),
    "int64": (torch.tensor([-(2**31), 2**31 - 1]), "JAX holds int64 as int32"),
    "conjugate": (torch.randn(3, dtype=torch.complex64).conj(), "is only noted"),
}


def _equal(array, tensor):
    tensor = tensor.detach().resolve_conj()
    values = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    np.testing.assert_array_equal(np.asarray(array, values.numpy().dtype), values.numpy())


@pytest.mark.parametrize("name", SHARED)
def test_shared(name):
    """A tensor, its JAX array and the tensor of that: one memory, the same values, in jit too."""
    tensor = SHARED[name]
    array = swap.to_jax(tensor, "never")
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()
    assert array.dtype == jax_dtype(tensor.dtype)
    assert torch_dtype(array.dtype) == tensor.dtype
    _equal(array, tensor)
    _equal(jax.jit(lambda x: x + 0 if x.dtype != bool else x & True)(array), tensor)
    back = swap.to_torch(array)
    assert back.data_ptr() == tensor.data_ptr()
    assert torch.equal(back, tensor)


@pytest.mark.parametrize("name", COPIED)
def test_copied(name):
    """What cannot be shared holds the same values, and says why, as it is asked to."""
    tensor, reason = COPIED[name]
    with pytest.warns(swap.CopyWarning) as told:
        array = swap.to_jax(tensor, name="weights")
    assert reason in str(told[0].message)
    assert str(told[0].message).startswith("weights is copied, not shared")
    _equal(array, tensor)
    assert array.unsafe_buffer_pointer() != tensor.data_ptr()
    _equal(swap.to_jax(tensor, "allow"), tensor)
    with pytest.raises(swap.SwapError, match="prepare it or give copy='allow'"):
        swap.to_jax(tensor, "never")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor([2**31]), "the tensor holds int64 values that int32, JAX's, does not"),
        (torch.zeros(2, dtype=torch.float64), "is torch.float64, which JAX has under jax.enable_x"),
        (torch.zeros(2, device="meta"), "the tensor is meta and has no values in memory"),
        (torch.eye(2).to_sparse(), "the tensor is torch.sparse_coo and has no values"),
    ],
)
def test_refused(tensor, message):
    """What JAX would make other numbers of is an error."""
    with pytest.raises(swap.SwapError, match=message):
        swap.to_jax(tensor, "allow")


def test_x64():
    """Under x64 float64 and int64 are shared as they are."""
    assert not has_x64()
    with jax.enable_x64(True):
        for tensor in (torch.randn(3, dtype=torch.float64), torch.tensor([2**40])):
            array = swap.to_jax(tensor, "never")
            assert array.unsafe_buffer_pointer() == tensor.data_ptr()
            _equal(array, tensor)


def test_no_torch_dtype():
    """A key of random numbers has no dtype in torch, which is said."""
    with pytest.raises(swap.SwapError, match=r"the key .* cannot be shared with torch"):
        swap.to_torch(jax.random.key(0), "the key")


def test_to_torch_waits():
    """A tensor is computed when it is handed over."""
    x = jnp.ones((500, 500))
    product = jax.jit(lambda x: jnp.linalg.matrix_power(x / 500, 20))(x)
    np.testing.assert_allclose(swap.to_torch(product), np.full((500, 500), 1 / 500), rtol=1e-4)
