"""A Transformer learns to turn sequences round, as a JAX user writes it."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from flaxnets import create, layers

WORDS, LENGTH, WIDTH = 12, 6, 32
SIZES = {"d_model": WIDTH, "nhead": 4, "dim_feedforward": 64, "num_layers": 2, "dropout": 0.0}


class Reverser(nnx.Module):
    def __init__(self, rngs):
        self.embedding = layers.Embedding(WORDS, WIDTH, rngs=rngs)
        self.position = nnx.Param(0.1 * jax.random.normal(rngs.params(), (LENGTH, WIDTH)))
        self.encoder = create("transformer_encoder", **SIZES)
        self.head = layers.Linear(WIDTH, WORDS, rngs=rngs)

    def __call__(self, tokens):
        return self.head(self.encoder(self.embedding(tokens) + self.position))


def main(steps=20, batch_size=32):
    """The losses of some steps."""
    key = jax.random.key(0)
    model = Reverser(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, tokens):
        def loss_of(model):
            scores = model(tokens)
            wanted = tokens[:, ::-1]
            return optax.softmax_cross_entropy_with_integer_labels(scores, wanted).mean()

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss

    losses = []
    for number in range(steps):
        tokens = jax.random.randint(jax.random.fold_in(key, number), (batch_size, LENGTH), 0, WORDS)
        losses.append(float(step(model, optimizer, tokens)))
    correct = jnp.mean(model(tokens).argmax(-1) == tokens[:, ::-1])
    print(f"loss {losses[-1]:.4f}, accuracy {correct:.1%}")
    return losses


if __name__ == "__main__":
    main()
