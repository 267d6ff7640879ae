"""Torch code inside a compiled JAX program on the CPU, on the program's own memory.

XLA calls a C function with pointers to its buffers (its foreign function interface, whose binary
form is stable) and waits for nothing else: no JAX array is made, transferred or waited for while
torch computes, so that the thread pools of the two cannot wait for each other. On other devices
the same code runs by `jax.pure_callback`.
"""

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
import torch

from flaxnets.swap.arrays import SwapError, torch_dtype

Torch = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]
TARGET = "flaxnets_torch"
VERSION = 0, 3  # of the interface that is written down here; XLA refuses what it no longer has
EXECUTE = 3  # the stage in which buffers hold values
INTERNAL = 13  # of XLA's error codes
DTYPES = {  # by the numbers of xla_data.proto
    1: torch.bool,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.uint8,
    7: torch.uint16,
    8: torch.uint32,
    9: torch.uint64,
    10: torch.float16,
    11: torch.float32,
    12: torch.float64,
    15: torch.complex64,
    16: torch.bfloat16,
    18: torch.complex128,
}
_known: list[Torch] = []  # a program refers to its functions by their numbers, as long as it lives
_numbers: dict[Torch, int] = {}
_inside = threading.local()


def inside() -> bool:
    """Whether this thread is one of XLA's that computes with torch right now."""
    return getattr(_inside, "now", False)


def host_call(
    function: Torch, results: Sequence[jax.ShapeDtypeStruct], *arrays: jax.Array
) -> list[jax.Array]:
    """What a function of torch tensors makes of JAX arrays, also in `jit`, `scan` and `vmap`.

    Args:
        function: from tensors that must not be written to, to tensors of the results' shapes and
            dtypes. What it raises inside a program is raised where the results are waited for.
        results: shapes and dtypes.
        arrays: what the function gets.

    >>> double = host_call(lambda x: [x[0] * 2], [jax.ShapeDtypeStruct((2,), "float32")],
    ...     jax.numpy.ones(2))
    >>> double[0].tolist()
    [2.0, 2.0]
    """
    if not any(isinstance(array, jax.core.Tracer) for array in arrays):
        held = [array for array in arrays if isinstance(array, jax.Array)]  # not NumPy's
        devices = {device for array in held for device in array.devices()}
        if len(devices) < 2:
            committed = devices.pop() if any(array.committed for array in held) else None
            return [jax.device_put(x, committed) for x in _by_numpy(function, results, arrays)]
    if function not in _numbers:
        _known.append(function)
        _numbers[function] = len(_known) - 1
    number = np.int64(_numbers[function])

    def in_place(*arrays: jax.Array) -> list[jax.Array]:
        call = jax.ffi.ffi_call(TARGET, list(results), vmap_method="sequential")
        return list(call(*arrays, number=number))

    def by_callback(*arrays: jax.Array) -> list[jax.Array]:
        return list(
            jax.pure_callback(
                lambda *given: _by_numpy(function, results, given),
                list(results),
                *arrays,
                vmap_method="sequential",
            )
        )

    return jax.lax.platform_dependent(*arrays, cpu=in_place, default=by_callback)


def _by_numpy(
    function: Torch, results: Sequence[jax.ShapeDtypeStruct], arrays: Sequence[Any]
) -> list[np.ndarray]:
    held = [np.asarray(array, order="C") for array in arrays]  # as long as their tensors
    places = [torch.empty(x.shape, dtype=torch_dtype(x.dtype)) for x in results]
    _fill(places, function, [_at(x.ctypes.data, x.shape, torch_dtype(x.dtype)) for x in held])
    return list(map(_to_numpy, places))


def _at(address: int, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Memory as a tensor."""
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=dtype).view(shape)


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _fill(places: list[torch.Tensor], function: Torch, tensors: list[torch.Tensor]) -> None:
    """Put what a function returns in its places.

    Raises:
        SwapError: outputs of another shape than their places, or with values that these lack.
    """
    before, _inside.now = inside(), True
    try:
        for index, (place, output) in enumerate(zip(places, function(tensors), strict=True)):
            if place.shape != output.shape:
                raise SwapError(
                    f"output {index} has shape {tuple(output.shape)}, "
                    f"and had {tuple(place.shape)} when it was tried out"
                )
            if place.dtype != output.dtype and not torch.equal(output.to(place.dtype), output):
                raise SwapError(
                    f"output {index} holds {output.dtype} values that {place.dtype} lacks"
                )
            place.copy_(output)
    finally:
        _inside.now = before


# Structures of xla/ffi/api/c_api.h, up to the last field that is read here; most begin with HEAD.
HEAD = (("struct_size", ctypes.c_size_t), ("extension_start", ctypes.c_void_p))


class _Version(ctypes.Structure):
    _fields_ = (*HEAD, ("major", ctypes.c_int), ("minor", ctypes.c_int))


class _Api(ctypes.Structure):
    _fields_ = (
        *HEAD,
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", ctypes.c_void_p),
    )


class _ErrorArguments(ctypes.Structure):
    _fields_ = (*HEAD, ("message", ctypes.c_char_p), ("code", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (
        *HEAD,
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    )

    def tensor(self) -> torch.Tensor:
        """The buffer's memory as a tensor."""
        return _at(self.data, self.dims[: self.rank], DTYPES[self.dtype])


class _Buffers(ctypes.Structure):
    _fields_ = (
        *HEAD,
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("entries", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    )

    def tensors(self) -> list[torch.Tensor]:
        """All of them."""
        return [self.entries[index].contents.tensor() for index in range(self.size)]


class _Scalar(ctypes.Structure):
    _fields_ = (("dtype", ctypes.c_int), ("value", ctypes.POINTER(ctypes.c_int64)))


class _Attributes(ctypes.Structure):
    _fields_ = (
        *HEAD,
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("names", ctypes.c_void_p),
        ("entries", ctypes.POINTER(ctypes.POINTER(_Scalar))),
    )


class _Frame(ctypes.Structure):
    _fields_ = (
        *HEAD,
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
        ("future", ctypes.c_void_p),
    )


class _Metadata(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_size_t), ("version", _Version))


class _Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    )


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Frame))
def _handle(pointer):
    """What XLA calls, in a thread of its own; None, or an error of XLA's making."""
    frame = pointer.contents
    if frame.extension_start:  # XLA asks for the version, before it ever calls
        version = _Extension.from_address(frame.extension_start).metadata.contents.version
        version.major, version.minor = VERSION
        return None
    if frame.stage != EXECUTE:
        return None
    try:
        function = _known[frame.attributes.entries[0].contents.value[0]]
        _fill(frame.results.tensors(), function, frame.arguments.tensors())
    except Exception as error:  # nobody above could catch it
        line = f"{type(error).__name__}: {error}".encode()
        told = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, line, INTERNAL)
        create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(frame.api.contents.create_error)
        return create(ctypes.addressof(told))
    return None


jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(_handle), platform="cpu")
