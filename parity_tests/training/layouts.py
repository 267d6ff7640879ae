"""Train small networks on layouts of eight virtual devices; prints what was seen as JSON."""

import json
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import flaxnets
from flaxnets import data
from flaxnets.experiment import flax_engine
from flaxnets.experiment.recipe import Recipe
from flaxnets.tasks import classification
from flaxnets.training import Phase, TrainStep, optimizers
from flaxnets.training import mesh as meshes
from flaxnets.training.checkpoints import Checkpoints
from flaxnets.training.loop import Trainer, TrainingError

NETWORKS = {
    "lenet": {"image_size": 16},
    "vae": {"in_shape": (1, 8, 8), "channels": (8, 16), "n_latent": 4},
    "transformer": {
        "d_model": 32,
        "nhead": 2,
        "dim_feedforward": 64,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "src_len": 6,
    },
}
# The bound of a VAE is one sum over all pixels, which rounds by 7e-7; larger steps add to that.
RATES = {"lenet": 0.05, "vae": 0.0002, "transformer": 0.05}
# The smallest network goes through all of them: eight devices take eight times as long here.
LAYOUTS = dict.fromkeys(NETWORKS, ("data=1", "data=2,fsdp=2")) | {
    "lenet": ("data=1", "data=2,fsdp=2", "data=8", "data=2", "data=4", "fsdp=4"),
}
STEPS = 50


def engine(name, layout, **options):
    """A network on a layout, before its first step."""
    spec = flaxnets.spec(name, **NETWORKS[name])
    chosen = data.load("co2" if name == "transformer" else "digits")
    chosen = data.fit(chosen, spec.examples(1), spec.targets(1))
    given = {"steps": STEPS, "batch_size": 8, "steps_per_dispatch": 1, **options}
    recipe = Recipe(**given).settled(spec, len(chosen.train_targets))
    if jax.config.read("jax_enable_x64"):
        chosen = chosen.__class__(**{**vars(chosen), **_double(_training_part(chosen))})
    return flax_engine.FlaxEngine(spec, recipe, chosen, meshes.make(layout) if layout else None)


def losses(running, until):
    """The losses of the next steps."""
    found = []
    running.advance(until, lambda step, metrics: found.append(metrics["loss"]), lambda: False)
    return found


def rounding():
    """Losses with plain gradient descent in float32."""
    return {
        name: {
            layout: losses(engine(name, layout, optimizer="sgd", lr=RATES[name]), STEPS)
            for layout in LAYOUTS[name]
        }
        for name in NETWORKS
    }


def semantics():
    """Losses with Adam, parts and an average in float64."""
    begin = flax_engine.begin

    def double(*told):
        model = begin(*told)
        nnx.update(model, _double(nnx.state(model)))
        return model

    options = {"batch_size": 16, "accumulate": 2, "ema": 0.9, "lr": 1e-3}
    with jax.enable_x64(True):
        flax_engine.begin = double
        found = {
            name: {
                layout: losses(engine(name, layout, **options), STEPS)
                for layout in LAYOUTS[name][:3]
            }
            for name in NETWORKS
        }
    flax_engine.begin = begin
    return found


def moved():
    """Losses of a run that changes its layout twice, and of one that does not."""
    folder = tempfile.mkdtemp()
    found = []
    with Checkpoints(folder) as checkpoints:
        for until, layout in ((4, "data=8"), (8, "data=2,fsdp=4"), (12, None)):
            running = engine("vae", layout)
            if before := checkpoints.restore(running.like()):
                running.load_state(before.arrays, {})
            found += losses(running, until)
            checkpoints.save(until, running.state()[0], {})
            checkpoints.wait()
    return {"moved": found, "stayed": losses(engine("vae", "data=8"), 12)}


def held():
    """Bytes of the state on each device, and how many a device holds of the largest leaf."""
    found = {}
    for layout in ("data=4", "fsdp=4"):
        running = engine("transformer", layout)
        losses(running, 1)
        leaves = jax.tree.leaves(running.state()[0])
        largest = max(leaves, key=lambda leaf: leaf.size)
        whole = [0] * 4
        for leaf in leaves:
            for shard in leaf.addressable_shards:
                whole[shard.device.id] += shard.data.nbytes
        found[layout] = {
            "state": whole,
            "all": sum(leaf.nbytes for leaf in leaves),
            "largest": sorted(
                {shard.data.size / largest.size for shard in largest.addressable_shards}
            ),
        }
    return found


def outlives():
    """Whether a trained network is left alone by the steps that follow."""
    running = engine("vae", "data=8")
    losses(running, 1)
    trained = running.trained()
    before = trained.call(np.zeros((2, 8, 8, 1), np.float32), "bhwc", "")
    losses(running, 2)
    after = trained.call(np.zeros((2, 8, 8, 1), np.float32), "bhwc", "")
    return bool((before == after).all())


def reason():
    """What ends a run on several devices at a label out of range."""
    model = flaxnets.create("feedforward", variant="logits")
    phase = Phase(classification.objective(), optimizers.sgd(0.1))
    step = TrainStep(model, phase, mesh=meshes.make("data=2,fsdp=2"))
    batch = np.ones((4, 100), np.float32), np.array([0, 1, 12, 2], np.int32)
    try:
        Trainer(step, lambda number: batch).advance(1)
    except TrainingError as error:
        return str(error)


def _training_part(chosen):
    return {name: getattr(chosen, name) for name in ("train_inputs", "train_targets")}


def _double(tree):
    def double(x):
        return x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(double, tree)


if __name__ == "__main__":
    jobs = (rounding, semantics, moved, held, outlives, reason)
    asked = sys.argv[1:] or [job.__name__ for job in jobs]
    print(json.dumps({job.__name__: job() for job in jobs if job.__name__ in asked}))
