"""Torch inside JAX programs: the same numbers, on the same memory, and never a deadlock."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets.swap import host_call as module
from flaxnets.swap.host_call import host_call, inside

FLOAT = jax.ShapeDtypeStruct((3, 4), jnp.float32)


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "int32", "uint8", "bool", "complex64"]
)
@pytest.mark.parametrize("shape", [(3, 2), (), (0, 2)])
def test_dtypes(dtype, shape):
    """Every dtype and shape arrives in torch and comes back bit by bit, in both ways of calling."""
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    array = jnp.asarray(values).astype(dtype)
    result = [jax.ShapeDtypeStruct(shape, dtype)]
    seen = []

    def function(tensors):
        seen.append((tuple(tensors[0].shape), str(tensors[0].dtype)))
        return [tensors[0].clone()]

    found = jax.jit(lambda x: host_call(function, result, x)[0])(array)
    jax.block_until_ready(found)
    if 0 not in shape:  # else XLA knows the result without a call
        assert seen == [(shape, f"torch.{dtype}")]
    assert np.asarray(found).tobytes() == np.asarray(array).tobytes()
    again = module._by_numpy(function, result, [array])[0]
    assert again.dtype == np.asarray(array).dtype
    assert again.tobytes() == np.asarray(array).tobytes()
    at_once = host_call(function, result, array)[0]
    assert at_once.dtype == array.dtype
    assert np.asarray(at_once).tobytes() == np.asarray(array).tobytes()


def test_memory():
    """Torch reads the memory that JAX holds."""
    pointers = []

    def function(tensors):
        pointers.append(tensors[0].data_ptr())
        return [tensors[0] + 1]

    x = jax.block_until_ready(jnp.ones((3, 4)))
    jax.block_until_ready(jax.jit(lambda x: host_call(function, [FLOAT], x))(x))
    assert pointers == [x.unsafe_buffer_pointer()]


def test_transformations():
    """Inside scan and vmap the function is called for every step and row."""
    calls = []

    def function(tensors):
        calls.append(inside())
        return [tensors[0] * 2]

    def double(x):
        return host_call(function, [jax.ShapeDtypeStruct(x.shape, x.dtype)], x)[0]

    last, _ = jax.lax.scan(lambda x, _: (double(x), None), jnp.ones(2), None, length=5)
    assert last.tolist() == [32, 32]
    assert jax.vmap(double)(jnp.arange(3.0)).tolist() == [0, 2, 4]
    assert calls == [True] * 8
    assert not inside()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda tensors: [tensors[0][:2]], r"output 0 has shape \(2, 4\), and had \(3, 4\) when"),
        (lambda tensors: [tensors[0] / 0 * tensors[5]], "IndexError: list index out of range"),
        (lambda tensors: [], "shorter than argument 1"),
        (lambda tensors: [tensors[0].double() / 3], "holds torch.float64 values that torch.float"),
    ],
)
def test_errors(function, message):
    """What goes wrong in torch is an error where the result is waited for."""
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(jax.jit(lambda x: host_call(function, [FLOAT], x))(jnp.ones((3, 4))))


def test_other_platforms():
    """The call is XLA's own on a CPU, JAX's callback elsewhere."""
    traced = jax.make_jaxpr(lambda x: host_call(lambda tensors: [tensors[0]], [FLOAT], x))(
        jnp.ones((3, 4))
    )
    assert "platform_index" in str(traced)
    assert "ffi_call" in str(traced)
    assert "pure_callback" in str(traced)


LOAD = """
import threading, sys, time
import jax, jax.numpy as jnp, torch
from flaxnets.swap.host_call import host_call

torch.set_num_threads(4)
size = 520  # arrays above a megabyte
stop = threading.Event()
busy = jax.jit(lambda x: x @ x / size)

def xla():
    x = jnp.ones((size, size))
    while not stop.is_set():
        x = busy(x)
    x.block_until_ready()

def theirs():
    x = torch.ones(size, size)
    while not stop.is_set():
        x = x @ x / size

others = [threading.Thread(target=target) for target in (xla, xla, theirs, theirs)]
for other in others:
    other.start()

def function(tensors):
    return [tensors[0] @ tensors[0] / size]

def twice(x):  # two calls that do not wait for each other, and large arrays
    shape = [jax.ShapeDtypeStruct(x.shape, x.dtype)]
    one, = host_call(function, shape, x)
    other, = host_call(function, shape, x + 1)
    return busy(one) + busy(other)

run = jax.jit(twice)
results = [run(jnp.ones((size, size))) for _ in range(25)]  # none is waited for
threads = [threading.Thread(target=lambda: jax.block_until_ready(run(jnp.ones((size, size)))))
           for _ in range(4)]
for thread in threads:
    thread.start()
for result in results:
    result.block_until_ready()
for thread in threads:
    thread.join()
stop.set()
for other in others:
    other.join()
print("done", float(results[-1][0, 0]))
"""


def test_no_deadlock_under_load():
    """With both thread pools busy and many calls in flight, every call ends, with its number."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout == "done 17.0\n", done.stderr
