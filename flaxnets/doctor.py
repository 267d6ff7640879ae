"""Whether this installation computes what it should: small computations with known results.

Every canary compares JAX, eager and jitted, with NumPy in float64 or with known bits. They run
in a process of their own, so that one that crashes or hangs is a finding like any other.
"""

import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flaxnets import environment
from flaxnets.specs import SpecError

EXCLUDED = {  # as in pyproject.toml
    "0.10.2": "reduces batched matrix-vector products wrongly on a CPU (jax #39103)",
    "0.11.0": "returns wrong values on some GPUs (jax #40633)",
    "0.11.1": "returns wrong values on some GPUs (jax #40633)",
}
JAX = "'jax>=0.10.1,!=0.10.2,!=0.11.0,!=0.11.1'"
REPLACE = f"pip install --upgrade --force-reinstall {JAX}"
BOUNDS = {"float32": 1e-5, "float64": 1e-12}  # relative to the largest magnitude
ROWS = 32_769  # the smallest power of two, and one, that jax #39103 shows at in float32
KEY_0 = (4070199207, 4202968722)  # the first words of threefry2x32's key 0
CHILD = (sys.executable, "-m", "flaxnets.doctor")
PATIENCE = 300.0  # seconds for all canaries of a process


@dataclass(frozen=True)
class Canary:
    """A small computation whose result is known.

    Attributes:
        name: of what it tries.
        wrong: says in one line what is wrong; "" if nothing is.
        mend: what to do then, in one line.
        needs: a package without which it is left out.
    """

    name: str
    wrong: Callable[[], str]
    mend: str = REPLACE
    needs: str = ""


@dataclass(frozen=True)
class Finding:
    """What became of a canary: "ok", "wrong" or "left out"."""

    name: str
    state: str
    message: str = ""
    mend: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what is known of the installation.

    >>> Diagnosis([Finding("sort", "ok")], {}, []).healthy
    True
    """

    findings: list[Finding]
    facts: dict[str, str]
    hints: list[str]

    @property
    def healthy(self) -> bool:
        """Whether something was tried and nothing is wrong."""
        return bool(self.findings) and all(found.state != "wrong" for found in self.findings)

    def to_json(self) -> str:
        """`{"healthy": ..., "findings": [...], "facts": {...}, "hints": [...]}`."""
        return json.dumps({"healthy": self.healthy, **asdict(self)}, indent=2)


def examine(heard: Callable[[Finding], None] = lambda finding: None) -> Diagnosis:
    """Try every canary in a fresh process, and in another one after each that ends it.

    Args:
        heard: called with every finding as it comes.

    Raises:
        SpecError: JAX_PLATFORMS asks for devices that JAX does not find.
    """
    findings: list[Finding] = []
    facts: dict[str, str] = {}

    def add(finding: Finding) -> None:
        findings.append(finding)
        heard(finding)

    while len(findings) < len(CANARIES):
        with tempfile.TemporaryFile("w+") as said:
            for message in _child(len(findings), said):
                if "name" in message:
                    add(Finding(**message))
                elif "absent" in message:
                    raise SpecError(message["absent"])
                else:
                    facts = message
            if len(findings) == len(CANARIES):
                break
            said.seek(0)
            last = ([line.strip() for line in said if line.strip()] or ["without a word"])[-1]
        canary = CANARIES[len(findings)]
        add(Finding(canary.name, "wrong", f"the process ended: {last}", canary.mend))
        if not facts:  # it ended before the first canary and would again
            break
    return Diagnosis(findings, facts, hints(facts))


def _child(start: int, said: Any) -> Iterator[dict[str, Any]]:
    process = subprocess.Popen([*CHILD, str(start)], stdout=subprocess.PIPE, stderr=said, text=True)
    end = threading.Timer(PATIENCE, process.kill)
    end.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):  # what libraries print is not for us
                yield json.loads(line)
    finally:
        end.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def child(start: int) -> None:
    """Print the facts and then the findings of the canaries from `start` on, a line each."""
    if line := environment.absent():
        print(json.dumps({"absent": line}), flush=True)
        return
    print(json.dumps(facts()), flush=True)
    for canary in CANARIES[start:]:
        print(json.dumps(asdict(attempt(canary))), flush=True)


def attempt(canary: Canary) -> Finding:
    """One canary, in this process."""
    began = time.perf_counter()
    if canary.needs and not _installed(canary.needs):
        return Finding(canary.name, "left out", f"{canary.needs} is not installed")
    try:
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            message = canary.wrong()
    except Exception as error:  # whatever a broken installation may raise
        message = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    seconds = time.perf_counter() - began
    if message:
        return Finding(canary.name, "wrong", message, canary.mend, seconds)
    return Finding(canary.name, "ok", seconds=seconds)


def agrees(
    function: Callable, truth: Callable, inputs: Sequence[np.ndarray], bounds: Mapping = BOUNDS
) -> str:
    """What is wrong with a function of JAX arrays, eager or jitted, beside NumPy in float64.

    >>> agrees(jnp.cumsum, np.cumsum, [np.arange(3.0)], {"float32": 0})
    ''
    """
    for dtype, bound in bounds.items():
        given = [jnp.asarray(array, dtype) for array in inputs]
        exact = np.asarray(truth(*(np.asarray(array, np.float64) for array in given)))
        for way, run in (("eager", function), ("jitted", jax.jit(function))):
            result = run(*given)
            if result.dtype != dtype or result.shape != exact.shape:
                return f"{way} in {dtype} it gives {result.dtype}{list(result.shape)}"
            gap = np.max(np.abs(np.asarray(result, np.float64) - exact)) / np.max(np.abs(exact))
            if not gap <= bound:
                return f"{way} in {dtype} it is {gap:.1e} from NumPy; {bound:.0e} is allowed"
    return ""


def _random(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(0))
    return [rng.standard_normal(shape) for shape in shapes]


def _matmul() -> str:
    return agrees(lambda x, y: jnp.matmul(x, y), np.matmul, _random((33, 65), (65, 17)))


def _bfloat16() -> str:
    return agrees(
        lambda x, y: jnp.matmul(x, y), np.matmul, _random((33, 65), (65, 17)), {"bfloat16": 2**-7}
    )


def _convolution() -> str:
    def convolved(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def truth(x, kernel):
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
        return np.einsum("bhwcij,ijco->bhwo", windows, kernel)

    return agrees(convolved, truth, _random((2, 9, 7, 3), (3, 2, 3, 5)))


def _batched_reduction() -> str:
    index = np.arange(float(ROWS))
    rows = np.stack([index, np.zeros(ROWS), np.zeros(ROWS)], 1)
    return agrees(
        lambda matrix, rows: jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows),
        lambda matrix, rows: np.sum((rows @ matrix.T) ** 2, 1),
        [np.eye(3), rows],
    )


def _scan() -> str:
    def scanned(x, factor):
        def step(carry, row):
            carry = jnp.tanh(factor * carry + row)
            return carry, carry

        return lax.scan(step, jnp.zeros_like(x[0]), x)[1]

    def truth(x, factor):
        carry, rows = np.zeros_like(x[0]), []
        for row in x:
            carry = np.tanh(factor * carry + row)
            rows.append(carry)
        return np.stack(rows)

    return agrees(scanned, truth, [*_random((37, 5)), np.array(0.5)])


def _pooling_gradient() -> str:
    def gradient(x, weights):
        def loss(x):
            pooled = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2), (1, 2, 2), "VALID")
            return jnp.sum(weights * pooled)

        return jax.grad(loss)(x)

    def truth(x, weights):
        blocks = x.reshape(3, 4, 2, 5, 2)
        largest = blocks == blocks.max((2, 4), keepdims=True)
        return (largest * weights[:, :, None, :, None]).reshape(x.shape)

    return agrees(gradient, truth, _random((3, 8, 10), (3, 4, 5)))


def _softmax() -> str:
    def truth(x):
        powers = np.exp(x - x.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    return agrees(lambda x: jax.nn.softmax(x), truth, [30 * _random((7, 65))[0]])


def _cumsum() -> str:
    return agrees(lambda x: jnp.cumsum(x, 1), lambda x: np.cumsum(x, 1), _random((3, 513)))


def _sort() -> str:
    return agrees(lambda x: jnp.sort(x, 0), lambda x: np.sort(x, 0), _random((1025, 3)))


def _float64() -> str:
    smallest = np.finfo(np.float64).eps
    for way, run in (("eager", jnp.add), ("jitted", jax.jit(lambda x, y: jnp.add(x, y)))):
        found = run(jnp.ones((), "float64"), smallest) - 1
        if found.dtype != jnp.float64 or float(found) != smallest:
            return f"{way}, 1 + {smallest:.1e} - 1 is {float(found):.1e} in {found.dtype}"
    return ""


def _threefry() -> str:
    key = jax.random.key(0)
    words = [int(word) for word in jax.random.bits(key, (2,), "uint32")]
    if tuple(words) != KEY_0:
        return f"the first words of key 0 are {words}, not {list(KEY_0)}"
    if not _installed("torch"):
        return ""
    from torch_ref import random

    ours = np.asarray(jax.random.uniform(key, (1000,), "float32"))
    theirs = random.uniform(random.key(0), (1000,)).numpy()
    return "" if np.array_equal(ours, theirs) else "uniform numbers are not torch_ref.random's"


def _dlpack() -> str:
    import torch

    with jax.default_device(jax.devices("cpu")[0]):
        ours = jnp.arange(96, dtype="float32") * 2
        there = torch.from_dlpack(ours)
        if there.data_ptr() != ours.unsafe_buffer_pointer():
            return "torch copies JAX's array"
        theirs = torch.arange(96, dtype=torch.float32) * 3
        back = jnp.from_dlpack(theirs)
        if back.unsafe_buffer_pointer() != theirs.data_ptr():
            return "JAX copies torch's tensor"
        if there.sum() != 9120 or back.sum() != 13680:
            return f"the numbers change: {there.sum()} and {back.sum()} for 9120 and 13680"
    return ""


def _versions() -> str:
    for package in ("jax", "jaxlib"):
        if (number := environment.version(package)) in EXCLUDED:
            return f"{package} {number} {EXCLUDED[number]}"
    return ""


CANARIES = (
    Canary("versions", _versions, f"pip install {JAX}"),
    Canary("float64", _float64, "run on a device that has float64: JAX_PLATFORMS=cpu"),
    Canary("matrix product", _matmul),
    Canary("matrix product in bfloat16", _bfloat16),
    Canary("convolution", _convolution),
    Canary("batched matrix-vector product, reduced", _batched_reduction, f"pip install {JAX}"),
    Canary("scan", _scan),
    Canary("gradient of pooling", _pooling_gradient),
    Canary("softmax", _softmax),
    Canary("cumulative sum", _cumsum),
    Canary("sort", _sort),
    Canary(
        "random numbers",
        _threefry,
        "unset JAX_THREEFRY_PARTITIONABLE JAX_DEFAULT_PRNG_IMPL (their defaults are right)",
    ),
    Canary("DLPack both ways", _dlpack, f"pip install --upgrade 'torch>=2.10' {JAX}", "torch"),
)


@functools.cache
def _installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def facts() -> dict[str, str]:
    """Versions, devices, memory, and the settings that matter."""
    found = {
        **environment.versions(),
        **environment.hardware(),
        "GPU seen": "yes" if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists() else "no",
    }
    if _installed("torch"):
        import torch

        found |= {"torch CUDA": torch.version.cuda or "none"}
        found |= {"torch threads": str(torch.get_num_threads())}
    settings = ("XLA_", "JAX_", "OMP_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES")
    return found | {name: value for name, value in os.environ.items() if name.startswith(settings)}


def hints(facts: Mapping[str, str]) -> list[str]:
    """What is not wrong but may surprise.

    >>> hints({"platform": "cpu", "GPU seen": "yes"})
    ["a GPU is there but JAX runs on the CPU: pip install 'flaxnets[cuda13]'"]
    """
    said = []
    on_gpu, cuda = facts.get("platform") == "gpu", facts.get("torch CUDA", "none")
    if facts.get("platform") == "cpu" and facts.get("GPU seen") == "yes":
        said.append("a GPU is there but JAX runs on the CPU: pip install 'flaxnets[cuda13]'")
    elif cuda != "none" and not on_gpu:
        said.append(
            f"torch is built for CUDA {cuda} but JAX runs on the CPU: a CPU build of torch is "
            "smaller (--index-url https://download.pytorch.org/whl/cpu)"
        )
    if on_gpu and cuda == "none" and "torch CUDA" in facts:
        said.append("torch has no CUDA: what JAX hands it is copied to the host")
    if on_gpu and cuda != "none" and "XLA_PYTHON_CLIENT_PREALLOCATE" not in facts:
        said.append(
            "JAX takes three quarters of the GPU's memory at once; beside torch set "
            "XLA_PYTHON_CLIENT_PREALLOCATE=false"
        )
    if int(facts.get("torch threads", 1)) > 1 and not on_gpu:
        said.append(
            "torch's and XLA's threads spin against each other in one process: "
            "torch.set_num_threads(1) or OMP_NUM_THREADS=1"
        )
    rounds = facts.get("platform") == "cpu" and facts.get("jaxlib", "")[:5] in ("0.11.", "0.12.")
    if rounds and "ynn_fusion_type" not in facts.get("XLA_FLAGS", ""):
        said.append(
            "this jaxlib adds bfloat16 gradients of kernels up in bfloat16 on a CPU: "
            "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=-individual_dot"
        )
    if facts.get("JAX_DISABLE_JIT", "0").lower() not in ("0", "false", "off", ""):
        said.append("JAX_DISABLE_JIT is set: nothing is compiled")
    return said


if __name__ == "__main__":
    child(int(sys.argv[1]))
