"""What a result was computed with and on: versions of packages, device, processor, memory."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax

from flaxnets.specs import SpecError

PLATFORMS = ("cpu", "gpu", "tpu")
PACKAGES = ("flaxnets", "jax", "jaxlib", "flax", "optax", "numpy", "torch")


def device(platform: str | None) -> jax.Device:
    """The first device of a platform.

    Args:
        platform: one of `PLATFORMS`; None for JAX's own choice.

    Raises:
        SpecError: an unknown platform, or one that JAX has no device of.

    >>> device("cpu").platform
    'cpu'
    """
    if platform is not None and platform not in PLATFORMS:
        raise SpecError(f"platform {platform!r} is unknown; use {', '.join(PLATFORMS)}")
    try:
        return jax.devices(platform)[0]
    except RuntimeError:
        there = jax.default_backend()
        raise SpecError(f"platform {platform!r} is absent; JAX runs on {there!r} here") from None


def absent() -> str:
    """One line where JAX_PLATFORMS asks for devices that JAX does not find, else "".

    >>> absent()
    ''
    """
    asked = os.environ.get("JAX_PLATFORMS")
    try:
        if asked:
            jax.devices()
    except (RuntimeError, AssertionError):  # the latter for a platform known but not installed
        jax.config.update("jax_platforms", "")  # whatever is there
        return f"JAX_PLATFORMS={asked}: JAX finds no such device; it has {jax.default_backend()}"
    return ""


def choose(platform: str) -> None:
    """Let this process compute on a platform.

    Raises:
        SpecError: an unknown platform, or one that JAX has no device of.
    """
    jax.config.update("jax_default_device", device(platform))


def version(package: str) -> str:
    """The installed version of a package, "absent" if there is none; nothing is imported.

    >>> version("no-such-package")
    'absent'
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def versions() -> dict[str, str]:
    """The versions of what a result depends on, and of Python.

    >>> list(versions())[:2]
    ['flaxnets', 'jax']
    """
    return {**{name: version(name) for name in PACKAGES}, "python": platform.python_version()}


def hardware(device: jax.Device | None = None) -> dict[str, str]:
    """Platform, number and kind of devices, processor, memory.

    Args:
        device: whose platform is described; JAX's default if none is given.

    >>> list(hardware())
    ['platform', 'devices', 'cpu', 'memory']
    """
    device = device or jax.local_devices()[0]  # of other processes nothing is known
    count = len(jax.devices(device.platform))
    limit = (device.memory_stats() or {}).get("bytes_limit")
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = f"{host / 2**30:.0f} GiB"
    return {
        "platform": device.platform,
        "devices": f"{count} x {device.device_kind}",
        "cpu": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory}, device {limit / 2**30:.0f} GiB" if limit else memory,
    }


def _processor() -> str:
    """The processor's name where the system says it, and its instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({platform.machine()})" if names else platform.machine()
