"""Faults in optimizers, clipping, schedules and losses."""

from unittest import mock

import jax
import jax.numpy as jnp
import optax

from flaxnets import layers
from flaxnets.parity.mutations.mutation import Mutation, replaced
from flaxnets.training import clipping, optimizers, schedules


def _optimizer(name, change):
    """An optimizer whose options are `change(options)`."""
    original = optimizers.BY_NAME[name]
    return lambda: mock.patch.dict(
        optimizers.BY_NAME, {name: lambda **options: original(**change(options))}
    )


def _decoupled(**options):
    options.pop("amsgrad", None)
    return optimizers.adamw(amsgrad=True, **options)


def _norm(grads):
    return jnp.sqrt(sum(jnp.sum(grad**2) for grad in jax.tree.leaves(grads)))


def _clip(share):
    def clip_grad_norm(max_norm):
        def clip(grads, params=None):
            return jax.tree.map(lambda grad: grad * share(max_norm, _norm(grads)), grads)

        return optax.stateless(clip)

    return replaced(clipping, "clip_grad_norm", clip_grad_norm)


def _step_early(lr, **options):
    rate = _step_lr(lr, **options)
    return lambda count: rate(count + 1)


def _reduction(name, change):
    """A loss that is `change(loss, arguments)`."""
    original = getattr(layers, name)
    return replaced(
        layers, name, lambda *args, **options: change(original(*args, **options), *args)
    )


_step_lr = schedules.step_lr
_nll = layers.nll_loss

MUTATIONS = (
    Mutation(
        "dampening ignored",
        "trajectory",
        _optimizer("sgd", lambda options: {**options, "dampening": 0.0}),
        "momentum_buffer of dense.weight",
        "the optimizer's moments in step 2",
        "dense",
        methods=("sgd momentum",),
    ),
    Mutation(
        "Nesterov's momentum left out",
        "trajectory",
        _optimizer("sgd", lambda options: {**options, "nesterov": False}),
        "update of dense.weight",
        "the optimizer's rule",
        "dense",
        methods=("sgd nesterov",),
    ),
    Mutation(
        "epsilon of Adam 1e-5",
        "trajectory",
        _optimizer("adam", lambda options: {**options, "eps": 1e-5}),
        "update of dense.weight",
        "the optimizer's rule",
        "dense",
    ),
    Mutation(
        "second beta of Adam 0.99",
        "trajectory",
        _optimizer("adam", lambda options: {**options, "betas": (0.9, 0.99)}),
        "exp_avg_sq of dense.weight",
        "larger by the factor 10",
        "dense",
    ),
    Mutation(
        "weight decay of Adam decoupled",
        "trajectory",
        lambda: mock.patch.dict(optimizers.BY_NAME, {"adam": _decoupled}),
        "exp_avg of dense.weight",
        "the optimizer's moments in step 1",
        "dense",
        methods=("adam amsgrad",),
    ),
    Mutation(
        "rate doubled",
        "trajectory",
        _optimizer("sgd", lambda options: {**options, "lr": 2 * options["lr"]}),
        "update of dense.weight",
        "larger by the factor 2",
        "dense",
        methods=("sgd",),
    ),
    Mutation(
        "RMSprop not centred",
        "trajectory",
        _optimizer("rmsprop", lambda options: {**options, "centered": False}),
        "momentum_buffer of dense.weight",
        "the optimizer's moments in step 1",
        "dense",
        methods=("rmsprop centered",),
    ),
    Mutation(
        "clipping without torch's epsilon",
        "trajectory",
        _clip(lambda most, norm: jnp.minimum(most / norm, 1)),
        "momentum_buffer of dense.weight",
        "larger by the factor 1.0000",
        "dense",
        methods=("clipped norm",),
    ),
    Mutation(
        "clipping left out",
        "trajectory",
        _clip(lambda most, norm: 1.0),
        "momentum_buffer of dense.weight",
        "larger by the factor",
        "dense",
        methods=("clipped norm",),
    ),
    Mutation(
        "schedule one step early",
        "trajectory",
        replaced(schedules, "step_lr", _step_early),
        "update of dense.weight",
        "in step 6 of step: smaller by the factor 0.3",
        "dense",
        methods=("step",),
    ),
    Mutation(
        "loss summed in place of its mean",
        "trajectory",
        _reduction("nll_loss", lambda loss, scores, labels: loss * labels.size),
        "loss",
        "the objective in step 1 of sgd: larger by the factor",
        "feedforward",
        methods=("sgd",),
    ),
    Mutation(
        "padding counts in the loss",
        "trajectory",
        replaced(
            layers,
            "nll_loss",
            lambda scores, labels: _nll(scores, jnp.where(labels == -100, 0, labels)),
        ),
        "loss",
        "the objective in step 1 of sgd",
        "lstm_tagger",
        methods=("sgd",),
    ),
)
