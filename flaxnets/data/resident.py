"""Data that stays on the device, where indices from the host pick the batches."""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from flaxnets.data.dataset import Arrays, Dataset
from flaxnets.data.sampler import chosen

SHARE = 0.25  # of the free memory; weights, moments and activations want the rest
MEMINFO = Path("/proc/meminfo")  # of Linux; elsewhere all memory counts as free


class Rows(NamedTuple):
    """A batch that is named by the rows of arrays on the device, or several such batches.

    Attributes:
        arrays: any tree of arrays with one example a row.
        indices: (b,) of one batch, (k, b) of k.
    """

    arrays: Any
    indices: Any


class Resident:
    """Training data on the device, in the order of `flaxnets.data.batches`.

    Args:
        inputs: one example a row, in one array or several.
        targets: one a row.
        batch_size: examples a batch.
        seed: of the order.
        device: a device or a sharding to put the arrays on; None for the default device.

    Raises:
        DataError: fewer examples than one batch.

    Attributes:
        arrays: inputs and targets on the device.

    >>> held = Resident(np.arange(4.0, dtype=np.float32), np.arange(4), 2)
    >>> held.rows(step=2).indices.tolist()
    [0, 3]
    >>> inputs, targets = jax.jit(gather)(*held.rows(0))
    >>> inputs.tolist(), targets.tolist()
    ([1.0, 2.0], [1, 2])
    """

    def __init__(
        self,
        inputs: Arrays,
        targets: np.ndarray,
        batch_size: int,
        seed: int = 0,
        device: jax.Device | jax.sharding.Sharding | None = None,
    ) -> None:
        self._order = seed, batch_size, len(targets)
        chosen(
            seed, 0, batch_size, len(targets)
        )  # an impossible batch size shows before anything is moved
        whole = jax.tree.map(np.asarray, (inputs, targets))
        self.arrays: tuple[Any, jax.Array] = jax.device_put(whole, device)

    def rows(self, step: int) -> Rows:
        """The batch of that number, from 0, over all epochs."""
        seed, batch_size, examples = self._order
        return Rows(self.arrays, chosen(seed, step, batch_size, examples))


def gather(arrays: Any, indices: Int32[jax.Array, " b"]) -> Any:
    """One batch of a `Resident`'s arrays; a pure function for use inside `jit`.

    Args:
        arrays: any tree of arrays with one example a row.
        indices: of the examples.

    >>> gather((jnp.eye(3), jnp.arange(3)), jnp.array([2, 0]))[1].tolist()
    [2, 0]
    """
    return jax.tree.map(lambda x: jnp.take(x, indices, axis=0), arrays)


def fits(dataset: Dataset, device: jax.Device) -> bool:
    """Whether the training part takes at most a `SHARE` of the device's free memory.

    Of a CPU that is the free memory of the host. Examples that are read when they are asked for
    count as if all were as large as the first.

    >>> row = np.zeros((1, 1), np.float32)
    >>> fits(Dataset("x", row, row, row, row, num_classes=None), jax.devices()[0])
    True
    """
    leaves = jax.tree.leaves((dataset.train_inputs, dataset.train_targets))
    return sum(leaf.nbytes for leaf in leaves) <= SHARE * free_memory(device)


def free_memory(device: jax.Device) -> int:
    """How many bytes can still be put on a device, as far as it says.

    >>> free_memory(jax.devices()[0]) > 0
    True
    """
    found = device.memory_stats() if device.platform != "cpu" else None
    if found and "bytes_limit" in found:
        return found["bytes_limit"] - found.get("bytes_in_use", 0)
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return math.prod(os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE"))
