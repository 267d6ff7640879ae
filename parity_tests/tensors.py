"""Tensors of every kind that torch has, and what is none, for those who are given them."""

import copy
import warnings

import numpy as np
import torch
from hypothesis import strategies as st

REAL = ("float64", "float32", "float16", "bfloat16")
WHOLE = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")
COMPLEX = ("complex128", "complex64")


def dense(dtype="float32", shape=(2, 3)):
    """A plain tensor of zeros and ones."""
    numbers = torch.arange(int(np.prod(shape)), dtype=torch.int64) % 2
    return numbers.reshape(shape).to(getattr(torch, dtype))


# Each as (3, 2), (3,) or as it comes, so that some fit a small layer.
CARRIED = {
    **{dtype: lambda dtype=dtype: dense(dtype, (3, 2)) for dtype in (*REAL, *WHOLE, *COMPLEX)},
    "bias": lambda: dense(shape=(3,)),
    "scalar": lambda: torch.tensor(2.0),
    "empty": lambda: torch.zeros(0, 3),
    "parameter": lambda: torch.nn.Parameter(dense(shape=(3, 2))),
    "buffer": lambda: torch.nn.Buffer(dense(shape=(3,))),
    "transposed": lambda: dense().T,
    "part": lambda: dense(shape=(5, 7))[1:4, 2:6:2],
    "expanded": lambda: torch.ones(1).expand(3),
    "conjugate": lambda: torch.tensor([1 + 2j, 3 - 4j, 0j]).conj(),
    "negative": lambda: torch.tensor([1 + 2j, 3 - 4j, 0j]).conj().imag,
    "both": lambda: torch._neg_view(torch.tensor([1 + 2j]).conj()),
    "channels last": lambda: dense(shape=(1, 2, 2, 2)).to(memory_format=torch.channels_last),
}
LEFT = {
    "sparse": lambda: dense().to_sparse(),
    "sparse csr": lambda: torch.sparse_csr_tensor([0, 1, 2], [0, 1], torch.ones(2), (2, 2)),
    "quantized": lambda: torch.quantize_per_tensor(dense(), 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "on the device meta": lambda: torch.ones(3, 2, device="meta"),
    "float8_e4m3fn": lambda: dense(shape=(3, 2)).to(torch.float8_e4m3fn),
    "float8_e5m2": lambda: dense(shape=(3, 2)).to(torch.float8_e5m2),
}


def make(kind):
    """One of them; of some torch says that they are new."""
    with warnings.catch_warnings(action="ignore"):
        return (CARRIED | LEFT)[kind]()


NONE = [None, True, 3, 2.5, "x\x1b[31m", b"x", 1j, [], {}, [1.0], {"a": {}}, torch.float32]
NAMES = ["weight", "bias", "weight", "bias", "", "a.weight", "\x1b[31m\n", "\u202e", "n" * 3000]
NAMES += [0, None, b"weight", 2.5, ("weight",)]
values = st.one_of(
    st.sampled_from([*CARRIED]).map(make),
    st.sampled_from([*LEFT]).map(make),
    st.sampled_from(NONE).map(copy.deepcopy),
)
states = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)
