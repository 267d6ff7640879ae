"""Many devices: a named mesh, where the state and the batches lie on it, and several processes.

`data` divides the batch alone; `fsdp` divides batch and parameters ("fully sharded data
parallel", Rajbhandari et al. 2019, arXiv 1910.02054). XLA adds the communication.
"""

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")
LEAST = 1024  # numbers: a smaller leaf costs less to copy than to gather


class MeshError(ValueError):
    """A mesh that cannot be; the message is one line."""


def make(text: str) -> Mesh:
    """A mesh of this run's devices, of all its processes together.

    Args:
        text: sizes by axis, as in "data=4" or "data=2,fsdp=2".

    Raises:
        MeshError: an axis that is unknown or given twice, no size, or more devices than
            there are.

    >>> dict(make("data=1").shape)
    {'data': 1, 'fsdp': 1}
    """
    given: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in AXES or not size.isdecimal() or len(size) > 9 or int(size) < 1:
            raise MeshError(f"mesh {text!r}: {part!r} is not data=N or fsdp=N")
        if name in given:
            raise MeshError(f"mesh {text!r}: {name} is given twice")
        given[name] = int(size)
    sizes = dict.fromkeys(AXES, 1) | given
    wanted, there = math.prod(sizes.values()), jax.devices()
    if wanted > len(there):
        raise MeshError(f"mesh {text!r} wants {wanted} devices, there are {len(there)}")
    if wanted < len(there) and jax.process_count() > 1:
        raise MeshError(
            f"mesh {text!r} leaves out some of the {len(there)} devices of all processes"
        )
    return jax.make_mesh(
        tuple(sizes.values()), AXES, (AxisType.Auto, AxisType.Auto), devices=there[:wanted]
    )


def of_state(mesh: Mesh, state: Any) -> Any:
    """Where the leaves of a state lie: the longest axis that `fsdp` divides, else everywhere.

    Args:
        mesh: of devices.
        state: any tree of arrays or shapes; moments are divided as the parameters of their shape.
    """
    parts = mesh.shape["fsdp"]

    def place(leaf: Any) -> NamedSharding:
        fitting = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or not fitting or leaf.size < LEAST:
            return everywhere(mesh)
        longest = max(fitting, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(place, state)


def of_batch(mesh: Mesh, several: bool = False) -> NamedSharding:
    """Where a batch lies, or several behind each other: all devices divide its examples."""
    return NamedSharding(mesh, PartitionSpec(*[None] * several, AXES))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def require_divisible(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Require that the devices can share a batch, and each part of it that is accumulated.

    Raises:
        MeshError: they cannot.
    """
    if batch_size % (mesh.size * accumulate):
        raise MeshError(
            f"batch_size {batch_size} is no multiple of {mesh.size} devices"
            + (f" times {accumulate} parts" if accumulate > 1 else "")
        )


def join(coordinator: str | None, process_id: int | None, num_processes: int | None) -> None:
    """Join the processes of a run, before JAX is used for anything else.

    Args:
        coordinator: host:port of the first process; None for what the cluster's environment says
            where one of the others is given.
        process_id: of this one.
        num_processes: of the run.

    Raises:
        MeshError: the others cannot be reached, or the numbers do not fit.
    """
    for name, value in (("process_id", process_id), ("num_processes", num_processes)):
        if value is not None and not 0 <= value < 2**31:
            raise MeshError(f"{name} {value} is out of range; use 0 to {2**31 - 1}")
    host, _, port = (coordinator or "localhost:1").rpartition(":")
    if not (host and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16):
        raise MeshError(f"coordinator {coordinator!r} is not host:port")
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise MeshError(f"process_id {process_id} is not between 0 and {num_processes - 1}")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise MeshError(f"the processes cannot join: {first_line}") from None
