"""Training of the PyTorch twins: objectives, optimizers and loop of `flaxnets.training`."""
