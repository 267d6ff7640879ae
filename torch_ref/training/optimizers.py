"""torch.optim's own optimizers, by the names that `flaxnets.training.optimizers` uses."""

import torch

BY_NAME = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
