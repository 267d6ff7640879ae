"""What a network is made of: every weight under both names, and what a forward pass costs."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from rich.table import Table

import flaxnets
from flaxnets import specs
from flaxnets.bridge.convert import entries
from flaxnets.bridge.recording import recorded
from flaxnets.data.resident import free_memory

TOO_LARGE = ": an array has more numbers than XLA counts; use a smaller network"


def list_architectures() -> Table:
    """One row an architecture: its task, input, size and variants."""
    table = Table(title="architectures")
    for column in ("name", "class", "task", "input", "parameters", "variants"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for name in specs.names():
        spec = specs.make(name)
        eaten = ", ".join(
            f"{given.name} ({', '.join(map(str, given.shape[1:]))})" for given in spec.inputs(1)
        )
        others = ", ".join(key for key in specs.variants(name) if key != "default")
        table.add_row(name, spec.twin, spec.task, eaten, f"{count_parameters(spec):,}", others)
    return table


@functools.cache
def count_parameters(spec: specs.Spec) -> int:
    """How many numbers a network learns; nothing is allocated.

    >>> count_parameters(specs.make("lenet"))
    81290
    """
    shapes = nnx.state(nnx.eval_shape(lambda: flaxnets.build(spec)), nnx.Param)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def require_memory(spec: specs.Spec, copies: int, devices: int = 1) -> None:
    """Require that weights in float32 fit into the memory that is free; nothing is allocated.

    Args:
        spec: of a network.
        copies: of its weights; see `Recipe.copies`.
        devices: that divide the copies.

    Raises:
        specs.SpecError: they do not fit.

    >>> require_memory(specs.make("lenet", dense_sizes=(2**31 - 1, 84)), copies=4)
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    flaxnets.specs.SpecError: lenet: 4 times 1,419,486,692,637 weights take 21,152.0 GiB, ...
    """
    weights = count_parameters(spec)
    wanted = 4 * copies * weights / devices / 2**30
    there = free_memory(jax.local_devices()[0]) / 2**30
    if wanted > there:
        raise specs.SpecError(
            f"{spec.name}: {copies} times {weights:,} weights take {wanted:,.1f} GiB, "
            f"{there:,.1f} GiB are free; use a smaller network"
        )


def show(spec: specs.Spec) -> Table:
    """One row a weight: Flax path, torch key, both shapes, size, and its layer's FLOPs.

    FLOPs are XLA's count for one example, before it optimises; nothing is compiled.

    Raises:
        specs.SpecError: arrays of more numbers than XLA counts.
    """
    if count_parameters(spec) >= 2**63:
        raise specs.SpecError(f"{spec.name}{TOO_LARGE}")
    model = nnx.eval_shape(lambda: flaxnets.build(spec))  # nothing is allocated
    flops = _flops(spec, model)
    table = Table(title=f"{spec.twin}: {count_parameters(spec):,} parameters")
    for column in ("Flax path", "torch key", "Flax shape", "torch shape", "size", "FLOPs"):
        table.add_column(column, justify="right" if column in ("size", "FLOPs") else "left")
    counted = set()
    for entry in entries(model):
        layer = entry.name.rpartition(".")[0]
        cost = "" if layer in counted or layer not in flops else f"{flops[layer]:,.0f}"
        counted.add(layer)
        shape = entry.variable.shape
        table.add_row(
            ".".join(map(str, entry.path)),
            entry.name,
            str(shape),
            str(entry.torch_shape),
            f"{math.prod(shape):,}",
            cost,
        )
    table.add_section()
    table.add_row("all", "", "", "", f"{count_parameters(spec):,}", f"{flops['']:,.0f}")
    return table


def _flops(spec: specs.Spec, model: Any) -> dict[str, float]:
    """XLA's count of one forward pass of every module in evaluation, by torch name."""
    known: list[tuple[_Call, float]] = []  # layers that are alike are traced once
    found = {}
    for name, call in _calls(spec, model).items():
        cost = next((cost for other, cost in known if other == call), None)
        if cost is None:
            try:
                cost = call.cost()
            except RuntimeError as error:
                if "overflow" not in str(error):
                    raise
                raise specs.SpecError(f"{spec.name}{TOO_LARGE}") from None
            known.append((call, cost))
        found[name] = cost
    return found


def _calls(spec: specs.Spec, model: Any) -> dict[str, "_Call"]:
    """How every module of a network was called in evaluation, by torch name."""
    inputs = [
        jax.ShapeDtypeStruct(given.shape, jnp.float32 if given.high is None else jnp.int32)
        for given in spec.inputs(1)
    ]
    evaluated = nnx.view(
        model, deterministic=True, use_running_average=True, raise_if_not_found=False
    )
    graph, state = nnx.split(evaluated)
    calls: dict[str, _Call] = {}

    def forward(state, inputs):
        def record(name, module, args, kwargs, output):
            graph, state = nnx.split(module)
            leaves, tree = jax.tree.flatten((state, args, kwargs))
            shapes = [
                jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
                if isinstance(leaf, jax.Array)
                else leaf
                for leaf in leaves
            ]
            calls.setdefault(name, _Call(graph, tree, tuple(shapes)))

        model = nnx.merge(graph, state, copy=True)
        with recorded(model, record):
            return model(*inputs)

    jax.eval_shape(forward, state, inputs)
    return calls


class _Call(NamedTuple):
    """A layer and what it was called with: shapes of arrays, and flags, which are fixed."""

    graph: Any
    tree: Any
    leaves: tuple[Any, ...]

    def cost(self) -> float:
        """XLA's count of operations."""
        arrays = [leaf for leaf in self.leaves if isinstance(leaf, jax.ShapeDtypeStruct)]

        def call(arrays):
            left = iter(arrays)
            leaves = [
                next(left) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
                for leaf in self.leaves
            ]
            state, args, kwargs = jax.tree.unflatten(self.tree, leaves)
            return nnx.merge(self.graph, state)(*args, **kwargs)

        return (jax.jit(call).lower(arrays).cost_analysis() or {}).get("flops", 0.0)
