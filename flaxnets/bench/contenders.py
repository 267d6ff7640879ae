"""Who is timed: ways to train one spec with Adam on the same batches, each behind one call.

A contender is built in a process of its own, which then imports what it needs.
"""

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

import flaxnets
from flaxnets.bench.machine import cores
from flaxnets.specs import Spec

LR = 1e-3


class UnsuitableError(Exception):
    """A contender that cannot train this network; the message is one line."""


class Contender(NamedTuple):
    """Something that trains.

    Attributes:
        run: takes that many steps and returns when they are done.
        form: how it does so.
        steps: in one dispatch, of which a run takes whole ones.
        settled: builds the forms of it that are to be timed, of which the fastest counts; None
            if this is the only one.
    """

    run: Callable[[int], None]
    form: str = ""
    steps: int = 1
    settled: Callable[[], list["Contender"]] | None = None


def ours(spec: Spec, batches: Sequence[Any]) -> Contender:
    """`TrainStep`, with the steps per dispatch that its probe chooses."""
    import jax
    import jax.numpy as jnp

    from flaxnets import tasks
    from flaxnets.training import Phase, TrainStep, dispatch, optimizers
    from flaxnets.training.step import stack

    step = TrainStep(
        flaxnets.build(spec),
        *[
            Phase(objective, optimizers.adam(LR), part)
            for part, objective in tasks.of(spec).objectives(spec).items()
        ],
    )
    batches = [jax.tree.map(jnp.asarray, batch) for batch in batches]

    def dispatched(how: dispatch.Dispatch) -> Contender:
        take, state = how.of(step), jax.tree.map(jnp.copy, step.state)
        fed: Any = batches
        if how.form != "single":
            fed = [jax.device_put(stack(list(islice(cycle(batches), how.steps))))]
        feed = cycle(fed)

        def run(steps: int) -> None:
            nonlocal state
            for batch in islice(feed, steps // how.steps):
                state, _ = take(state, batch)
            jax.block_until_ready(state)

        return Contender(run, how.form, how.steps)

    return dispatched(dispatch.SINGLE)._replace(
        settled=lambda: [dispatched(dispatch.choose(step, batches[0]))]
    )


def nnx_jit(spec: Spec, batches: Sequence[Any]) -> Contender:
    """The loop of Flax's tutorial: `nnx.jit` around a gradient and an `nnx.Optimizer`."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from flaxnets import tasks

    model = flaxnets.build(spec)
    model = nnx.view(
        model, deterministic=False, use_running_average=False, raise_if_not_found=False
    )
    phases = tasks.of(spec).objectives(spec)
    moved: list[Any] = [
        nnx.All(nnx.Param, nnx.PathContains(part)) if part else nnx.Param for part in phases
    ]
    optimizers = [nnx.Optimizer(model, optax.adam(LR), wrt=wrt) for wrt in moved]
    rngs = nnx.Rngs(0)

    @nnx.jit
    def train_step(model, optimizers, rngs, batch):
        for objective, optimizer, wrt in zip(phases.values(), optimizers, moved, strict=True):

            def loss_of(model, rngs, objective=objective):
                return objective(model, batch, rngs)

            grad = nnx.value_and_grad(loss_of, argnums=nnx.DiffState(0, wrt), has_aux=True)
            (loss, metrics), grads = grad(model, rngs)
            optimizer.update(model, grads)
        return loss, metrics

    feed = cycle([jax.tree.map(jnp.asarray, batch) for batch in batches])

    def run(steps: int) -> None:
        for batch in islice(feed, steps):
            train_step(model, optimizers, rngs, batch)
        jax.block_until_ready(nnx.state(model))

    return Contender(run)


def torch_eager(spec: Spec, batches: Sequence[Any]) -> Contender:
    """The torch twin as a PyTorch user trains it, with one thread and with one a core.

    Of images, in both memory formats.
    """
    images = any(given.axes == "bhwc" for given in spec.examples(1))
    formats = ("contiguous_format", "channels_last") if images else ("contiguous_format",)
    return _torch(spec, batches, formats)


def torch_compile(spec: Spec, batches: Sequence[Any]) -> Contender:
    """The same with `torch.compile` around network and loss, which needs a C++ compiler."""
    return _torch(spec, batches, ("contiguous_format",), compiled=True)


def as_torch(spec: Spec, batches: Sequence[Any]) -> Contender:
    """The loop of a PyTorch user around a network that computes in JAX."""
    return _torch(spec, batches, ("contiguous_format",), swapped=True)


def _torch(
    spec: Spec,
    batches: Sequence[Any],
    formats: Sequence[str],
    compiled: bool = False,
    swapped: bool = False,
) -> Contender:
    import torch

    from torch_ref import tasks
    from torch_ref.training import loop

    torch.set_flush_denormal(True)  # as XLA does
    axes = tuple(given.axes for given in spec.examples(1))
    tensors = [
        loop.batch_of(inputs, targets, axes if len(axes) > 1 else axes[0])
        for inputs, targets in batches
    ]

    def trained(threads: int, form: str) -> Contender:
        layout = getattr(torch, form)

        def laid(given: Any) -> Any:
            if isinstance(given, tuple):
                return tuple(map(laid, given))
            images = torch.is_tensor(given) and given.ndim == 4
            return given.contiguous(memory_format=layout) if images else given

        if swapped:
            from flaxnets import swap

            model: Any = swap.as_torch(flaxnets.build(spec), copy="allow")
        else:
            model = flaxnets.build(spec, "torch").train().to(memory_format=layout)
        phases = [
            loop.Phase(
                torch.compile(objective) if compiled else objective,
                torch.optim.Adam(loop.parameters(model, part), lr=LR),
                part,
            )
            for part, objective in tasks.objectives(spec).items()
        ]
        own = [loop.parameters(model, phase.part) if phase.part else None for phase in phases]
        feed = cycle([laid(batch) for batch in tensors])

        def run(steps: int) -> None:
            torch.set_num_threads(threads)
            for batch in islice(feed, steps):
                for phase, parameters in zip(phases, own, strict=True):
                    loss, _ = phase.objective(model, batch)
                    phase.optimizer.zero_grad()
                    loss.backward(inputs=parameters)
                    phase.optimizer.step()

        counted = f"{threads} thread{'s' if threads > 1 else ''}"
        return Contender(run, counted + (", channels last" if form == "channels_last" else ""))

    forms = [(threads, form) for threads in sorted({1, cores()}) for form in formats]
    return trained(cores(), formats[0])._replace(settled=lambda: [trained(*form) for form in forms])


def seconds(contender: Contender, steps: int) -> float:
    """The time that a step takes, on average over a run.

    >>> seconds(Contender(lambda steps: None), 5) < 1
    True
    """
    began = time.perf_counter()
    contender.run(steps)
    return (time.perf_counter() - began) / steps


def keras(spec: Spec, batches: Sequence[Any]) -> Contender:
    """An equivalent Keras model on its JAX backend, trained with `fit`, where there is one."""
    from flaxnets.bench import keras_models

    if spec.name not in keras_models.MODELS:
        raise UnsuitableError(f"there is no Keras model of {spec.name}")
    return Contender(keras_models.trained(keras_models.model(spec), spec, batches, LR))


CONTENDERS: dict[str, Callable[[Spec, Sequence[Any]], Contender]] = {
    "flaxnets": ours,
    "torch eager": torch_eager,
    "torch.compile": torch_compile,
    "nnx.jit": nnx_jit,
    "keras": keras,
    "as_torch": as_torch,
}
