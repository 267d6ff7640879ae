"""One training step as a pure, jitted function of a state that is wholly donated.

The state is a tuple of flat leaves, so that a call costs the same few microseconds a leaf
however deep the model is, and Python never loops over parameters.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from flaxnets.training.objectives import Objective


class TrainState(NamedTuple):
    """All that a step reads and writes: flat leaves and two scalars."""

    params: tuple[jax.Array, ...]
    rest: tuple[jax.Array, ...]
    moments: tuple[jax.Array, ...]
    key: jax.Array
    step: jax.Array


class Phase(NamedTuple):
    """One loss and the parameters that it moves.

    Attributes:
        objective: the loss, see `flaxnets.training.objectives`.
        optimizer: any optax transformation; one that asks for a `value` gets the loss.
        part: the attribute of the model whose parameters are trained; "" for all of them.
    """

    objective: Objective
    optimizer: optax.GradientTransformation
    part: str = ""


class TrainStep:
    """The training step of a model: one phase, or several that follow each other.

    Args:
        model: any NNX model; it is read once and left as it is.
        *phases: what is minimised, in order; each sees the parameters that the one before it
            left, and the same random numbers.
        seed: of the random numbers of dropout and sampling.

    Raises:
        ValueError: no phase, or one whose part has no parameters.

    Attributes:
        state: the `TrainState` to begin with.

    >>> from flaxnets import create
    >>> from flaxnets.training import objectives, optimizers
    >>> model = create("feedforward", variant="logits")
    >>> step = TrainStep(model, Phase(objectives.classification(), optimizers.sgd(0.1)))
    >>> state, metrics = step(step.state, (jnp.ones((4, 100)), jnp.zeros(4, int)))
    >>> int(state.step), sorted(metrics)
    (1, ['accuracy', 'loss'])
    """

    def __init__(self, model: nnx.Module, *phases: Phase, seed: int = 0) -> None:
        if not phases:
            raise ValueError("a step without a phase; give one Phase or more")
        self._phases = phases
        self._graph: Any
        self._graph, params, rest = _split(_training_view(model))
        # Copied, since the state is donated and the model's own arrays must live on.
        params, rest = jax.tree.map(jnp.copy, (params, rest))
        paths, self._params_tree = jax.tree.flatten_with_path(params)
        flat_params = [leaf for _, leaf in paths]
        self._paths = [tuple(entry.key for entry in path[:-1]) for path, _ in paths]
        flat_rest, self._rest_tree = jax.tree.flatten(rest)
        self._chosen = [
            [i for i, path in enumerate(self._paths) if phase.part in ("", path[0])]
            for phase in phases
        ]
        for phase, chosen in zip(phases, self._chosen, strict=True):
            if not chosen:
                raise ValueError(f"part {phase.part!r} of the model has no parameters")
        moments, self._moments_tree = jax.tree.flatten(
            [
                phase.optimizer.init([flat_params[i] for i in chosen])
                for phase, chosen in zip(phases, self._chosen, strict=True)
            ]
        )
        self.state = TrainState(
            params=tuple(flat_params),
            rest=tuple(flat_rest),
            moments=tuple(moments),
            key=jax.random.key_data(jax.random.key(seed)),
            step=jnp.zeros((), jnp.int32),
        )
        self._jitted = jax.jit(self.pure, donate_argnums=0)
        self._scanned = jax.jit(self._scan, donate_argnums=0)
        self._unrolled = jax.jit(functools.partial(self._scan, unroll=True), donate_argnums=0)

    def pure(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """The step as a pure function: what `__call__` compiles."""
        after, metrics, _ = self.watched(state, batch)
        return after, metrics

    def watched(
        self, state: TrainState, batch: Any
    ) -> tuple[TrainState, dict[str, jax.Array], list[list[jax.Array]]]:
        """The step as a pure function that gives the gradients of every phase, too."""
        params, rest = list(state.params), state.rest
        moments = jax.tree.unflatten(self._moments_tree, state.moments)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        losses: list[jax.Array] = []
        metrics: dict[str, jax.Array] = {}
        gradients: list[list[jax.Array]] = []
        for index, (phase, chosen) in enumerate(zip(self._phases, self._chosen, strict=True)):

            def loss_of(own, phase=phase, chosen=chosen, rest=rest):
                whole = list(params)
                for place, value in zip(chosen, own, strict=True):
                    whole[place] = value
                model = self._merge(whole, rest)
                loss, figures = phase.objective(model, batch, nnx.Rngs(key))
                after = jax.tree.leaves(nnx.state(model, nnx.Not(nnx.Param)))
                return loss, (loss, tuple(after), figures)

            own = [params[place] for place in chosen]
            grads, (loss, rest, figures) = jax.grad(loss_of, has_aux=True)(own)
            optimizer = optax.with_extra_args_support(phase.optimizer)
            updates, moments[index] = optimizer.update(grads, moments[index], own, value=loss)
            for place, value in zip(chosen, optax.apply_updates(own, updates), strict=True):
                params[place] = value
            gradients.append(grads)
            losses.append(loss)
            metrics |= {f"{phase.part}_loss": loss} if phase.part else {}
            metrics |= figures
        after = TrainState(
            tuple(params), rest, tuple(jax.tree.leaves(moments)), state.key, state.step + 1
        )
        return after, {"loss": sum(losses[1:], losses[0]), **metrics}, gradients

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """One jitted step; `state` is donated and must not be used again."""
        return self._jitted(state, batch)

    def many(self, state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """As many steps in one dispatch as the batches' new first axis is long."""
        return self._scanned(state, batches)

    def unrolled(self, state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """The same as a program without a loop, which takes longer to compile; see `dispatch`."""
        return self._unrolled(state, batches)

    def lower(self, batch: Any, platforms: tuple[str, ...]) -> jax.export.Exported:
        """The step compiled down to StableHLO for platforms that need not be here."""
        return jax.export.export(self._jitted, platforms=platforms)(self.state, batch)

    def model(self, state: TrainState) -> nnx.Module:
        """A model with the weights and statistics of a state, for evaluation."""
        copied = jax.tree.map(jnp.copy, (state.params, state.rest))
        return _evaluation_view(self._merge(*copied))

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
        """The optimizer state of each phase, copied; its trees are lists of parameters."""
        return jax.tree.unflatten(self._moments_tree, [jnp.copy(leaf) for leaf in state.moments])

    def with_moments(self, state: TrainState, moments: list[Any]) -> TrainState:
        """A state whose phases go on with other optimizer states, as `moments` gives them.

        Raises:
            ValueError: moments of another structure.
        """
        tree: Any
        leaves, tree = jax.tree.flatten(moments)
        if tree != self._moments_tree:
            raise ValueError(f"moments of structure {tree}, not {self._moments_tree}")
        return state._replace(moments=tuple(jnp.copy(leaf) for leaf in leaves))

    def _scan(self, state, batches, unroll=1):
        return jax.lax.scan(self.pure, state, batches, unroll=unroll)

    def _merge(self, params, rest) -> Any:
        params = jax.tree.unflatten(self._params_tree, params)
        rest = jax.tree.unflatten(self._rest_tree, rest)
        return nnx.merge(self._graph, params, rest, copy=True)


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    graph, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    return graph, params, rest


def _training_view(model: nnx.Module) -> nnx.Module:
    return nnx.view(model, deterministic=False, use_running_average=False, raise_if_not_found=False)


def _evaluation_view(model: nnx.Module) -> nnx.Module:
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
