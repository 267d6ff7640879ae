"""torch.optim's own optimizers, by the names that `flaxnets.training.optimizers` uses."""

from collections.abc import Mapping

import torch

BY_NAME: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}


def put(
    optimizer: torch.optim.Optimizer,
    slots: Mapping[torch.nn.Parameter, Mapping[str, torch.Tensor]],
) -> None:
    """Let an optimizer remember these slots of its parameters, and nothing else.

    `load_state_dict` would cast them to the dtype of their parameter, also NAdam's product of
    momenta, which is float32 beside parameters in float64.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], momentum=0.9)
    >>> put(optimizer, {weight: {"momentum_buffer": torch.ones(1)}})
    >>> optimizer.state[weight]
    {'momentum_buffer': tensor([1.])}
    """
    optimizer.state.clear()
    for group in optimizer.param_groups:
        on_device = group.get("capturable") or group.get("fused")
        for parameter in group["params"]:
            if parameter in slots:
                optimizer.state[parameter] = {
                    name: value.to(parameter.device) if value.dim() or on_device else value
                    for name, value in slots[parameter].items()
                }
