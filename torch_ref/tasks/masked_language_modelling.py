"""Words that are hidden, guessed; see `flaxnets.tasks.masked_language_modelling`."""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.specs import MASK, Spec
from torch_ref.training.objective import Objective


def objective() -> Objective:
    """Hidden words of a batch (tokens and attention mask, anything), guessed from the others."""

    def objective(model, batch):
        (tokens, present), _ = batch
        chosen, other = torch.rand(tokens.shape), torch.rand(tokens.shape)
        other = (other * model.vocab_size).to(tokens.dtype)
        hidden = (chosen < 0.15) & (tokens > MASK)
        seen = torch.where(chosen < 0.135, other, tokens).masked_fill(chosen < 0.12, MASK)
        wanted = tokens.long().masked_fill(~hidden, -100)
        scores = model(torch.where(hidden, seen, tokens), present)
        count = hidden.sum().clamp(min=1)  # a small batch may have none
        loss = F.cross_entropy(scores.movedim(-1, 1), wanted, reduction="sum") / count
        return loss, {"accuracy": (scores.argmax(-1) == wanted).sum() / count}

    return objective


def objectives(spec: Spec) -> dict[str, Objective]:
    """The loss of a network, by the part of the model that it moves."""
    return {"": objective()}
