"""One training step as a pure, jitted function of a state that is wholly donated.

The state is a tuple of flat leaves, so that a call costs the same few microseconds a leaf
however deep the model is, and Python never loops over parameters.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from flaxnets.data.resident import Rows, gather
from flaxnets.training.mesh import everywhere, of_batch, of_state
from flaxnets.training.objective import Objective


class TrainState(NamedTuple):
    """All that a step reads and writes: flat leaves and two scalars.

    Attributes:
        params: the weights.
        rest: running statistics, and the model's own streams of random numbers.
        moments: of the optimizers, phase by phase.
        averages: of the weights, where the step keeps them.
        key: of all random numbers.
        step: how many were taken.
    """

    params: tuple[jax.Array, ...]
    rest: tuple[jax.Array, ...]
    moments: tuple[jax.Array, ...]
    averages: tuple[jax.Array, ...]
    key: jax.Array
    step: jax.Array


STREAMS = 2**31  # folded into a step's key for the streams that a model holds


class Phase(NamedTuple):
    """One loss and the parameters that it moves.

    Attributes:
        objective: the loss, see `flaxnets.tasks`.
        optimizer: any optax transformation. It is given an `nnx.State` of arrays, as
            `nnx.Optimizer` gives it, so that labels and masks may look at paths such as
            `head/kernel`; one that asks for a `value` gets the loss.
        part: the attribute of the model whose parameters are trained; "" for all of them.

    >>> from flaxnets.tasks import classification
    >>> Phase(classification.objective(), optax.sgd(0.1), part="fc2").part
    'fc2'
    """

    objective: Objective
    optimizer: optax.GradientTransformation
    part: str = ""


class TrainStep:
    """The training step of a model: one phase, or several that follow each other.

    Args:
        model: any NNX model, which is read once and left as it is; or a function that builds
            one, which is then born inside `jit`, on the devices of the mesh.
        *phases: what is minimised, in order; each sees the parameters that the one before it
            left, and the same random numbers.
        seed: of the random numbers of dropout and sampling, those that the model draws from
            streams of its own (`nnx.Dropout(rate, rngs=rngs)`) among them.
        precision: what the model computes in; "bfloat16" leaves weights, statistics, moments
            and losses in float32.
        accumulate: how many equal parts a batch is cut into, whose gradients are averaged.
        ema: share that the exponential moving average of the weights keeps of itself at each
            step, as `torch.optim.swa_utils.get_ema_multi_avg_fn`; None for no average.
        remat: whether to compute again in the backward pass whatever is neither a matrix
            product nor a convolution, in place of keeping it in memory.
        mesh: the devices, see `flaxnets.training.mesh`; None for the default device.

    Raises:
        TypeError: something else in place of a phase or of its optax transformation.
        ValueError: no phase, one whose part has no parameters, a mesh of other axes; when it is
            called, an objective that does not return a scalar loss and scalar metrics, a batch
            that does not divide, a state that an earlier step has taken.

    Attributes:
        state: the `TrainState` to begin with.
        shardings: of the state; None without a mesh.

    >>> from flaxnets import create
    >>> from flaxnets.tasks import classification
    >>> from flaxnets.training import optimizers
    >>> model = create("feedforward", variant="logits")
    >>> step = TrainStep(model, Phase(classification.objective(), optimizers.sgd(0.1)))
    >>> state, metrics = step(step.state, (jnp.ones((4, 100)), jnp.zeros(4, int)))
    >>> int(state.step), sorted(metrics)
    (1, ['accuracy', 'loss'])
    """

    def __init__(
        self,
        model: nnx.Module | Callable[[], nnx.Module],
        *phases: Phase,
        seed: int = 0,
        precision: Literal["float32", "bfloat16"] = "float32",
        accumulate: int = 1,
        ema: float | None = None,
        remat: bool = False,
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        if not phases:
            raise ValueError("a step without a phase; give one Phase or more")
        for phase in phases:
            if not isinstance(phase, Phase):
                raise TypeError(
                    f"a {type(phase).__name__} is no Phase; use Phase(objective, optax)"
                )
            if isinstance(phase.optimizer, nnx.Optimizer):
                raise TypeError(
                    "a Phase with an nnx.Optimizer; give the optax transformation, its tx"
                )
        if mesh is not None and set(mesh.axis_names) != {"data", "fsdp"}:
            raise ValueError(f"a mesh with axes {mesh.axis_names}; use flaxnets.training.mesh.make")
        self._phases, self._precision, self._accumulate = phases, precision, accumulate
        self._ema, self._remat, self._mesh = ema, remat, mesh
        there = isinstance(model, nnx.Module)
        build: Any = model
        known: Any = model if there else nnx.eval_shape(build)
        self._graph: Any
        self._graph, params, rest = _split(_training_view(known))
        paths, self._params_tree = jax.tree.flatten_with_path(params)
        self._paths = [tuple(entry.key for entry in path[:-1]) for path, _ in paths]
        self._rest_tree = jax.tree.structure(rest)
        held = jax.tree.leaves(rest, is_leaf=lambda x: isinstance(x, nnx.Variable))
        self._keys = [i for i, one in enumerate(held) if isinstance(one, nnx.RngKey)]
        self._counts = [i for i, one in enumerate(held) if isinstance(one, nnx.RngCount)]
        self._chosen = [
            [i for i, path in enumerate(self._paths) if phase.part in ("", path[0])]
            for phase in phases
        ]
        for phase, chosen in zip(phases, self._chosen, strict=True):
            if not chosen:
                parts = ", ".join(sorted({str(path[0]) for path in self._paths})) or "none"
                raise ValueError(f"no part {phase.part!r} with parameters; the model has {parts}")

        def first_moments(flat: list[Any]) -> list[Any]:
            return [
                phase.optimizer.init(self.tree([flat[i] for i in chosen], index))
                for index, (phase, chosen) in enumerate(zip(phases, self._chosen, strict=True))
            ]

        def begin(params: Any, rest: Any) -> TrainState:
            flat = jax.tree.leaves(params)
            return TrainState(
                params=tuple(flat),
                rest=self._plain(rest),
                moments=tuple(jax.tree.leaves(first_moments(flat))),
                averages=() if ema is None else tuple(map(jnp.copy, flat)),
                key=jax.random.key_data(jax.random.key(seed)),
                step=jnp.zeros((), jnp.int32),
            )

        def born() -> TrainState:
            return begin(*_split(_training_view(build()))[1:])

        self._moments_tree = jax.tree.structure(
            jax.eval_shape(first_moments, jax.tree.leaves(params))
        )
        if there:  # copied, since the state is donated and the model's own arrays must live on
            state = jax.jit(lambda *own: begin(*jax.tree.map(jnp.copy, own)))(params, rest)
            self.shardings = mesh and of_state(mesh, state)
            self.state = jax.device_put(state, self.shardings) if mesh else state
        else:
            self.shardings = mesh and of_state(mesh, jax.eval_shape(born))
            self.state = jax.jit(born, out_shardings=self.shardings)()
        jit = functools.partial(
            jax.jit,
            donate_argnums=0,
            out_shardings=mesh and (self.shardings, everywhere(mesh)),
        )
        self._together = jax.jit(lambda x: x, out_shardings=mesh and everywhere(mesh))
        self._jitted = jit(self.pure)
        self._scanned = jit(self._scan)
        self._unrolled = jit(functools.partial(self._scan, unroll=True))

    def pure(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """The step as a pure function: what `__call__` compiles."""
        after, metrics, _ = self.watched(state, batch)
        return after, metrics

    def watched(
        self, state: TrainState, batch: Any
    ) -> tuple[TrainState, dict[str, jax.Array], list[list[jax.Array]]]:
        """The step as a pure function that gives the gradients of every phase, too."""
        if isinstance(batch, Rows):
            batch = gather(*batch)
        if self._mesh:
            batch = jax.lax.with_sharding_constraint(batch, of_batch(self._mesh))
        params, rest = list(state.params), state.rest
        moments = jax.tree.unflatten(self._moments_tree, state.moments)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        losses: list[jax.Array] = []
        metrics: dict[str, jax.Array] = {}
        gradients: list[list[jax.Array]] = []
        for index, (phase, chosen) in enumerate(zip(self._phases, self._chosen, strict=True)):
            own = self.tree([params[place] for place in chosen], index)
            gradient = functools.partial(self._gradient, phase.objective, chosen, params)
            rest, grads, loss, figures = self._averaged(gradient, rest, batch, key)
            optimizer = optax.with_extra_args_support(phase.optimizer)
            updates, moments[index] = optimizer.update(
                self.tree(grads, index), moments[index], own, value=loss
            )
            after = jax.tree.leaves(optax.apply_updates(own, updates))
            for place, value in zip(chosen, after, strict=True):
                params[place] = value
            gradients.append(grads)
            losses.append(loss)
            metrics |= {f"{phase.part}_loss": loss} if phase.part else {}
            metrics |= figures
        new = TrainState(
            tuple(params),
            rest,
            tuple(jax.tree.leaves(moments)),
            self._average(state, params),
            state.key,
            state.step + 1,
        )
        return new, {"loss": sum(losses[1:], losses[0]), **metrics}, gradients

    def _gradient(self, objective, chosen, params, rest, batch, key):
        """Statistics, gradients, loss and figures of one phase on a batch or a part of it."""

        def loss_of(own):
            whole = list(params)
            for place, value in zip(chosen, own, strict=True):
                whole[place] = value
            narrow = self._gathered([self._narrow(value) for value in whole])
            model = self._merge(narrow, self._seeded(rest, key))
            loss, figures = _checked(objective(model, batch, nnx.Rngs(key)))
            found = self._plain(nnx.state(model, nnx.Not(nnx.Param)))
            streams = {*self._keys, *self._counts}  # which follow from seed and step
            after = tuple(
                old if index in streams else new.astype(old.dtype)
                for index, (old, new) in enumerate(zip(rest, found, strict=True))
            )
            return loss, (after, loss, figures)

        if self._remat:
            loss_of = jax.checkpoint(loss_of, policy=_is_costly)
        grads, (rest, loss, figures) = jax.grad(loss_of, has_aux=True)([params[i] for i in chosen])
        return rest, grads, loss, figures

    def _seeded(self, rest, key):
        """The model's own streams begin anew at every step, each with a key of its own."""
        rest, key = list(rest), jax.random.fold_in(key, STREAMS)
        for number, index in enumerate(self._keys):
            own = jax.random.fold_in(key, number)
            shape = rest[index].shape[:-1]  # of a stream that `nnx.vmap` split
            rest[index] = jax.random.key_data(jax.random.split(own, shape) if shape else own)
        for index in self._counts:
            rest[index] = jnp.zeros_like(rest[index])
        return rest

    def _plain(self, rest) -> tuple[jax.Array, ...]:
        """The leaves of a model's state, keys as their words."""
        leaves = jax.tree.leaves(rest)
        for index in self._keys:
            leaves[index] = jax.random.key_data(leaves[index])
        return tuple(leaves)

    def _narrow(self, value):
        real = jnp.issubdtype(value.dtype, jnp.floating)
        return value.astype(jnp.bfloat16) if real and self._precision == "bfloat16" else value

    def _gathered(self, params):
        """Whole parameters on every device: what `fsdp` divides is how they are kept."""
        if self._mesh is None or self._mesh.shape["fsdp"] == 1:
            return params
        return jax.lax.with_sharding_constraint(params, everywhere(self._mesh))

    def _averaged(self, gradient, rest, batch, key):
        """What `gradient` gives, as a mean over the parts that a batch is cut into."""
        count = self._accumulate
        if count == 1:
            return gradient(rest, batch, key)
        for leaf in jax.tree.leaves(batch):
            if leaf.shape[0] % count:
                raise ValueError(f"a batch of {leaf.shape[0]} is not cut into {count} equal parts")
        parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
        if self._mesh:  # all devices share each part
            parts = jax.lax.with_sharding_constraint(parts, of_batch(self._mesh, several=True))
        keys = jax.random.split(key, count)

        def add(carry, part):
            rest, sums = carry
            rest, *found = gradient(rest, *part)
            return (rest, jax.tree.map(jnp.add, sums, found)), None

        _, *shapes = jax.eval_shape(gradient, rest, jax.tree.map(lambda x: x[0], parts), keys[0])
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        on_cpu = jax.default_backend() == "cpu"  # where a loop over convolutions is slow
        (rest, sums), _ = jax.lax.scan(add, (rest, zeros), (parts, keys), unroll=on_cpu)
        grads, loss, figures = jax.tree.map(lambda x: x / count, sums)
        return rest, grads, loss, figures

    def _average(self, state: TrainState, params: list[jax.Array]) -> tuple[jax.Array, ...]:
        if self._ema is None:
            return ()
        return tuple(
            jnp.where(state.step == 0, new, old + (1 - self._ema) * (new - old))
            for old, new in zip(state.averages, params, strict=True)
        )

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """One jitted step; `state` is donated and must not be used again."""
        return self._run(self._jitted, state, batch)

    def many(self, state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """As many steps in one dispatch as there are batches in a `stack`."""
        return self._run(self._scanned, state, batches)

    def unrolled(self, state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """The same as a program without a loop, which takes longer to compile; see `dispatch`."""
        return self._run(self._unrolled, state, batches)

    def _run(self, program, state, given):
        try:
            return program(state, given)
        except (RuntimeError, ValueError):
            if not state.step.is_deleted():
                raise
        raise ValueError("the state is deleted: a step took it; go on with what that returned")

    def put(self, batch: Any, several: bool = False) -> Any:
        """A batch where the mesh wants it; each process gives its own part of it.

        Args:
            batch: as objectives take it, or `Rows`, of which every process gives all.
            several: whether it is a `stack`.
        """
        if self._mesh is None or isinstance(batch, Rows):
            return batch
        place = of_batch(self._mesh, several)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(place, np.asarray(x)), batch
        )

    def jaxpr(self, batch: Any) -> str:
        """The step as JAX's own code; what is traced for it serves `lower`, too."""
        return str(jax.make_jaxpr(self._jitted)(self.state, batch))

    def lower(self, batch: Any, platforms: tuple[str, ...]) -> jax.export.Exported:
        """The step compiled down to StableHLO for platforms that need not be here."""
        return jax.export.export(self._jitted, platforms=platforms)(self.state, batch)

    def reason(self, state: TrainState, batch: Any) -> str | None:
        """What an objective says against a batch outside of `jit`, where it can see its numbers.

        Args:
            state: of which shapes and dtypes count.
            batch: as the step takes it, on one process.
        """
        if jax.process_count() > 1:
            return None
        batch = gather(*batch) if isinstance(batch, Rows) else jax.device_put(batch)
        model = self.model(state)  # on one device, as the batch is
        for phase in self._phases:
            try:
                phase.objective(model, batch, nnx.Rngs(0))
            except ValueError as error:
                return str(error).partition("\n")[0]
            except Exception:  # an objective of the user's that runs in `jit` alone
                return None
        return None

    def model(self, state: TrainState) -> nnx.Module:
        """A model with the weights, or their average, and statistics of a state, for evaluation."""
        chosen = state.averages or state.params, state.rest
        if self._mesh is None:
            own = copied(chosen)
        else:  # brought together, for a device of this process alone
            own = jax.tree.map(lambda x: x.addressable_data(0), self._together(chosen))
        return _evaluation_view(self._merge(*own))

    def with_model(
        self, state: TrainState, model: nnx.Module, step: int, average: nnx.Module | None = None
    ) -> TrainState:
        """A state with the weights and statistics of a model, after so many steps.

        Args:
            state: whose moments and key stay.
            model: of the structure of the step's own.
            step: how many were taken.
            average: the model with averaged weights, where the step keeps them.
        """
        _, params, rest = _split(_training_view(model))
        kept = state.averages
        if average is not None:
            kept = tuple(jax.tree.leaves(_split(_training_view(average))[1]))
        after = TrainState(
            params=tuple(jax.tree.leaves(params)),
            rest=self._plain(rest),
            moments=state.moments,
            averages=kept,
            key=state.key,
            step=jnp.int32(step),
        )
        # The state is donated, the models live on.
        if self._mesh is None:
            return copied(after)
        return jax.device_put(jax.tree.map(jnp.copy, after), self.shardings)

    def tree(self, leaves: Sequence[jax.Array], phase: int | None = None) -> nnx.State:
        """Arrays at the paths of the parameters that they belong to.

        Args:
            leaves: one for every parameter, or for every one that the phase moves.
            phase: its number, from 0.
        """
        chosen = range(len(leaves)) if phase is None else self._chosen[phase]
        whole = dict(zip(chosen, leaves, strict=True))
        return nnx.from_flat_state(
            [(path, whole[i]) for i, path in enumerate(self._paths) if i in whole]
        )

    def moments(self, state: TrainState) -> list[Any]:
        """The optimizer state of each phase, copied; its trees are states of the parameters."""
        return jax.tree.unflatten(self._moments_tree, copied(state.moments))

    def with_moments(self, state: TrainState, moments: list[Any]) -> TrainState:
        """A state whose phases go on with other optimizer states, as `moments` gives them.

        Raises:
            ValueError: moments of another structure.
        """
        tree: Any
        leaves, tree = jax.tree.flatten(moments)
        if tree != self._moments_tree:
            raise ValueError(f"moments of structure {tree}, not {self._moments_tree}")
        return state._replace(moments=copied(tuple(leaves)))

    def _scan(self, state, batches, unroll=1):
        if isinstance(batches, Rows):
            arrays = batches.arrays

            def pure(state, indices):
                return self.pure(state, Rows(arrays, indices))

            return jax.lax.scan(pure, state, batches.indices, unroll=unroll)
        return jax.lax.scan(self.pure, state, batches, unroll=unroll)

    def _merge(self, params, rest) -> Any:
        rest = list(rest)
        for index in self._keys:
            rest[index] = jax.random.wrap_key_data(rest[index])
        params = jax.tree.unflatten(self._params_tree, params)
        rest = jax.tree.unflatten(self._rest_tree, rest)
        return nnx.merge(self._graph, params, rest, copy=True)


def copied(tree: Any) -> Any:
    """Arrays of their own where they are, copied without a program for each shape.

    >>> x = jnp.ones(3)
    >>> copied({"x": x})["x"].unsafe_buffer_pointer() == x.unsafe_buffer_pointer()
    False
    """
    return jax.device_put(tree, may_alias=False)


def stack(batches: Sequence[Any]) -> Any:
    """Batches behind each other on a new first axis, for several steps in one dispatch.

    >>> stack([(jnp.ones(2), None), (jnp.zeros(2), None)])[0].tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    if isinstance(batches[0], Rows):
        return Rows(batches[0].arrays, np.stack([batch.indices for batch in batches]))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def _checked(found: Any) -> tuple[jax.Array, Mapping[str, jax.Array]]:
    """A scalar loss and scalar metrics by name, which is what an objective returns."""
    if not isinstance(found, tuple):
        raise ValueError(f"an objective returned a {type(found).__name__}; return loss, metrics")
    if len(found) != 2 or not isinstance(found[1], Mapping):
        kinds = ", ".join(type(one).__name__ for one in found)
        raise ValueError(f"an objective returned ({kinds}); return loss, metrics, which is a dict")
    loss, metrics = found
    for name, value in {"the loss": loss, **metrics}.items():
        if jnp.shape(value) != ():
            raise ValueError(f"{name} of an objective has shape {jnp.shape(value)}; use a scalar")
    return loss, metrics


def _is_costly(primitive: Any, *_: Any, **__: Any) -> bool:
    """What rematerialisation keeps: products that take longer to compute than to read."""
    return primitive.name in ("dot_general", "conv_general_dilated")


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    graph, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    return graph, params, rest


def _training_view(model: nnx.Module) -> nnx.Module:
    return nnx.view(model, deterministic=False, use_running_average=False, raise_if_not_found=False)


def _evaluation_view(model: nnx.Module) -> nnx.Module:
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
