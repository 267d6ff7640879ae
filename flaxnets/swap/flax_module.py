"""A torch module as an NNX module that stands in `jax.jit`, `jax.grad` and optax loops."""

import copy
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from flaxnets.bridge.convert import as_numpy
from flaxnets.swap.arrays import SwapError, require_jax
from flaxnets.swap.torch_call import Host


def as_flax(module: nn.Module) -> "TorchModule":
    """An NNX module that computes what a torch module computes, in torch.

    Its parameters are `nnx.Param`s and its buffers `nnx.BatchStat`s under torch's names and in
    torch's layouts, beginning with the module's values; the module stays as it is. It is called
    with JAX arrays laid out as torch has them, inside `jax.jit`, `jax.grad`, `jax.vjp` and
    `lax.scan`, too, and trained with optax or `nnx.Optimizer`. `nnx.view(deterministic=...)`
    switches between training and evaluation, and `use_running_average` does so for layers with
    running statistics; it begins as the module is. What draws random numbers takes `rngs` when it
    is called. Gradients compute the module once more. See `torch_function` for what of dtypes
    and shapes is required.

    Args:
        module: a function of its inputs, parameters and buffers.

    Raises:
        SwapError: parameters that have no values.

    >>> network = as_flax(nn.Sequential(nn.Linear(3, 2), nn.Tanh()))
    >>> jax.jit(lambda network, x: network(x))(network, jnp.ones((4, 3))).shape
    (4, 2)
    >>> sorted(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    ['0']
    """
    return TorchModule(module)


class _Part(nnx.Module):
    """A place for the weights of a submodule."""


class TorchModule(nnx.Module):
    """What `as_flax` makes of a torch module."""

    def __init__(self, module: nn.Module) -> None:
        self.deterministic = self.use_running_average = not module.training
        self._template = nnx.static(_Template(module))
        params = dict(module.named_parameters())
        values = params | dict(module.named_buffers())
        for name in self._template.names:
            value = values[name]
            if value.device.type == "meta":
                raise SwapError(f"{name} is meta and has no values; give the module some")
            owner: Any = self
            *above, last = name.split(".")
            for step in above:
                if not hasattr(owner, step):
                    setattr(owner, step, _Part())
                owner = getattr(owner, step)
            kind = nnx.Param if name in params else nnx.BatchStat
            setattr(owner, last, kind(jax.device_put(np.array(as_numpy(value.detach())))))

    def set_view(
        self, deterministic: bool | None = None, use_running_average: bool | None = None
    ) -> None:
        """Switch between training and evaluation, for `nnx.view`.

        Args:
            deterministic: True in evaluation.
            use_running_average: the same for layers with running statistics.
        """
        if deterministic is not None:
            self.deterministic = deterministic
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, *args: Any, rngs: nnx.Rngs | None = None, **kwargs: Any) -> Any:
        """What the module's `forward` computes, of JAX arrays in torch's layouts."""
        require_jax()
        template = self._template
        weights = [self._variable(name) for name in template.names]
        leaves, tree = jax.tree.flatten((args, kwargs))
        host = template.host(tree, self.deterministic, self.use_running_average)
        arrays = [variable[...] for variable in weights] + list(map(jnp.asarray, leaves))
        unseeded = jnp.zeros((), jnp.uint32)
        host.results(*arrays, unseeded)
        if not host.drew:
            seed = unseeded
        elif rngs is None:
            raise SwapError(
                f"{template.kind} draws random numbers; call it with rngs=nnx.Rngs(seed)"
            )
        else:
            seed = jax.random.bits(rngs(), dtype=jnp.uint32)
        outputs, after = host(*arrays, seed)
        for name, value in after.items():
            variable = self._variable(name)
            variable[...] = value.astype(variable.dtype)
        return outputs

    @property
    def tied_weights(self) -> dict[str, str]:
        """Names under which torch holds a weight once more, for the bridge."""
        return self._template.tied

    def _variable(self, name: str) -> nnx.Variable:
        owner: Any = self
        for step in name.split("."):
            owner = getattr(owner, step)
        return owner


class _Template:
    """A torch module without its values, and the calls of it that JAX has compiled."""

    def __init__(self, module: nn.Module) -> None:
        self.kind = type(module).__name__
        self._module = copy.deepcopy(module).to("meta")
        kept = module.state_dict()
        self._buffers = [name for name, _ in module.named_buffers() if name in kept]
        self._constants = {
            k: v.detach().clone() for k, v in module.named_buffers() if k not in kept
        }
        self.names = [name for name, _ in module.named_parameters()] + self._buffers
        first = {id(value): name for name, value in _named(module, True)}
        everywhere = ((name, first[id(value)]) for name, value in _named(module, False))
        self.tied = {name: source for name, source in everywhere if name != source}
        self._hosts: dict[Any, Host] = {}
        self._one_at_a_time = threading.Lock()  # a module's weights are swapped while it computes

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Template":
        """Itself: it holds no values, and what JAX has compiled of it serves copies, too."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """All but what is compiled."""
        return {k: v for k, v in vars(self).items() if k not in ("_hosts", "_one_at_a_time")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A template of its own."""
        vars(self).update(state, _hosts={}, _one_at_a_time=threading.Lock())

    def host(self, tree: Any, deterministic: bool, use_running_average: bool) -> Host:
        """The call for one structure of arguments, in one mode."""
        key = tree, deterministic, use_running_average
        if key not in self._hosts:

            def function(tensors: Sequence[torch.Tensor]) -> Any:
                count = len(self.names)
                state = dict(zip(self.names, tensors[:count], strict=True))
                state |= {name: state[name].detach().clone() for name in self._buffers}
                whole = state | self._constants
                whole |= {name: whole[source] for name, source in self.tied.items()}
                args, kwargs = jax.tree.unflatten(tree, tensors[count:])
                with self._one_at_a_time:
                    for part in self._module.modules():
                        normalises = hasattr(part, "running_mean")
                        part.training = not (use_running_average if normalises else deterministic)
                    outputs = torch.func.functional_call(self._module, whole, args, kwargs)
                training = not (deterministic and use_running_average)
                return outputs, {name: state[name] for name in self._buffers if training}

            self._hosts[key] = Host(function, draws=True)
        return self._hosts[key]


def _named(module: nn.Module, once: bool) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=once)
    yield from module.named_buffers(remove_duplicate=once)
