"""One training step as a pure, jitted function of a state that is wholly donated.

The state is a tuple of flat leaves, so that a call costs the same few microseconds a leaf
however deep the model is, and Python never loops over parameters.
"""

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


class TrainStep:
    """The training step of a model under an objective and an optimizer.

    Args:
        model: any NNX model; it is read once and left as it is.
        objective: the loss, see `flaxnets.training.objectives`.
        optimizer: any optax transformation.
        seed: of the random numbers of dropout and sampling.

    Attributes:
        state: the `TrainState` to begin with.

    >>> from flaxnets import create
    >>> from flaxnets.training import objectives, optimizers
    >>> model = create("feedforward", variant="logits")
    >>> step = TrainStep(model, objectives.classification(), optimizers.sgd(0.1))
    >>> state, metrics = step(step.state, (jnp.ones((4, 100)), jnp.zeros(4, int)))
    >>> int(state.step), sorted(metrics)
    (1, ['accuracy', 'loss'])
    """

    def __init__(
        self,
        model: nnx.Module,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        seed: int = 0,
    ) -> None:
        self._objective = objective
        self._optimizer = optimizer
        self._graph: Any
        self._graph, params, rest = _split(_training_view(model))
        # Copied, since the state is donated and the model's own arrays must live on.
        flat_params, self._params_tree = jax.tree.flatten(jax.tree.map(jnp.copy, params))
        flat_rest, self._rest_tree = jax.tree.flatten(jax.tree.map(jnp.copy, rest))
        moments, self._moments_tree = jax.tree.flatten(optimizer.init(tuple(flat_params)))
        self.state = TrainState(
            params=tuple(flat_params),
            rest=tuple(flat_rest),
            moments=tuple(moments),
            key=jax.random.key_data(jax.random.key(seed)),
            step=jnp.zeros((), jnp.int32),
        )
        self._jitted = jax.jit(self.pure, donate_argnums=0)
        self._scanned = jax.jit(self._scan, donate_argnums=0)

    def pure(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """The step as a pure function: what `__call__` compiles."""

        def loss_of(params):
            model = self._merge(params, state.rest)
            key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
            loss, metrics = self._objective(model, batch, nnx.Rngs(key))
            rest = jax.tree.leaves(nnx.state(model, nnx.Not(nnx.Param)))
            return loss, (tuple(rest), {"loss": loss, **metrics})

        grads, (rest, metrics) = jax.grad(loss_of, has_aux=True)(state.params)
        moments = jax.tree.unflatten(self._moments_tree, state.moments)
        updates, moments = self._optimizer.update(grads, moments, state.params)
        params = optax.apply_updates(state.params, updates)
        after = TrainState(params, rest, tuple(jax.tree.leaves(moments)), state.key, state.step + 1)
        return after, metrics

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """One jitted step; `state` is donated and must not be used again."""
        return self._jitted(state, batch)

    def many(self, state: TrainState, batches: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """As many steps in one dispatch as the batches' new first axis is long."""
        return self._scanned(state, batches)

    def lower(self, batch: Any, platforms: tuple[str, ...]) -> jax.export.Exported:
        """The step compiled down to StableHLO for platforms that need not be here."""
        return jax.export.export(self._jitted, platforms=platforms)(self.state, batch)

    def model(self, state: TrainState) -> nnx.Module:
        """A model with the weights and statistics of a state, for evaluation."""
        copied = jax.tree.map(jnp.copy, (state.params, state.rest))
        return _evaluation_view(self._merge(*copied))

    def _scan(self, state, batches):
        return jax.lax.scan(self.pure, state, batches)

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
