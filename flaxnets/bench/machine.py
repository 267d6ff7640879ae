"""The machine that a benchmark runs on: versions, processor, cores, memory of a process."""

import importlib.metadata
import os
import platform
import resource
import sys
from pathlib import Path

PACKAGES = ("flaxnets", "jax", "jaxlib", "flax", "optax", "torch", "keras", "numpy")


def facts() -> dict[str, str]:
    """Versions, processor and cores.

    >>> facts()["device"]
    'cpu'
    """

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "absent"

    return {
        **{package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "device": "cpu",
        "cpu": processor(),
        "cores": str(cores()),
    }


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """How many processors this process may use.

    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """The most memory, in bytes, that this process has held so far.

    Linux passes `ru_maxrss` on to the processes that a large one starts, but not `VmHWM`.

    >>> peak_memory() > 2**20
    True
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024
