"""What is different between two models that need not have the same layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
import torch
from flax import nnx

from flaxnets import bridge
from flaxnets.parity.diagnosis.alignment import Match, PartialPair
from flaxnets.parity.diagnosis.explanation import divergence
from flaxnets.parity.diagnosis.trace import Fault, Run, flax_run, gap, torch_run
from flaxnets.parity.proof import check
from flaxnets.specs import Input

ORDER = ("forward", "gradients", "buffers", "forward_train")


@dataclass(frozen=True)
class Diagnosis:
    """Where two models part and why; `print` it.

    Attributes:
        place: the layer, parameter or buffer that differs first, "" where none does.
        cause: the likely one.
        check: that found it, "weights" where weights lack a counterpart, "" where all agree.
        details: a line for every layer or array that was compared.

    >>> print(Diagnosis("norm1", "eps 1e-06, not 1e-05", "forward", ()))
    norm1: eps 1e-06, not 1e-05 (forward)
    """

    place: str
    cause: str
    check: str
    details: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether no difference was found."""
        return not self.check

    def __str__(self) -> str:
        if self.same:
            return "\n".join(("no difference found", *self.details))
        first = f"{self.place}: {self.cause or 'differs, for no reason that is known here'}"
        return "\n".join((f"{first} ({self.check})", *self.details))


def diagnose(
    flax_model: nnx.Module,
    torch_model: torch.nn.Module,
    inputs: Sequence[Input | np.ndarray],
    *,
    seed: int = 0,
) -> Diagnosis:
    """The first difference between a Flax and a torch model, and its likely cause.

    The models may have different names and numbers of layers: weights and layers are matched
    by name, then by order, kind and shape, and what has no counterpart is reported.

    Args:
        flax_model: any `nnx.Module` whose weights the bridge can name.
        torch_model: any `torch.nn.Module`.
        inputs: what the models eat, in order: `flaxnets.specs.Input` descriptions, or arrays
            in Flax's layout.
        seed: of the random weights and inputs that both get.

    Raises:
        bridge.BridgeError: a layer whose bridge rule does not cover its weights.

    >>> pair = nnx.LayerNorm(4, rngs=nnx.Rngs(0)), torch.nn.LayerNorm(4)
    >>> print(diagnose(*pair, [np.random.rand(2, 4)]))  # doctest: +ELLIPSIS
    LayerNorm: eps 1e-06, not 1e-05 (forward)
    ...
    """
    try:
        rows = []
        for name in ORDER:
            rows += check(flax_model, torch_model, inputs, [name], seed=seed).rows
            if not rows[-1].passed:
                break
    except bridge.BridgeError:
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            return _of_unlike(PartialPair(flax_model, torch_model, inputs, seed))
    details = []
    for row in rows:
        details.append(f"{row.check}: error {row.error:.3g}, bound {row.bound:.3g}")
        details += [f"  {array.name}: error {array.error:.3g}" for array in row.arrays]
    failed = rows[-1]
    if failed.passed:
        return Diagnosis("", "", "", tuple(details))
    return Diagnosis(failed.place, failed.cause, failed.check, tuple(details))


def _of_unlike(pair: PartialPair) -> Diagnosis:
    """The diagnosis of models whose weights do not all have a counterpart."""
    found = pair.match
    theirs = torch_run(pair)
    ours = flax_run(pair, rename=lambda name: found.modules.get(name, f"{name} (Flax only)"))
    unlike = _without_counterpart(pair, found, theirs)
    parts = divergence(pair, theirs, ours)
    order = [call.name for call in theirs.calls.values()]
    first = parts
    check = "forward"
    if unlike and (not parts.place or _index(order, unlike.place) <= _index(order, parts.place)):
        first, check = unlike, "weights"
    return Diagnosis(first.place, first.cause, check, tuple(_lines(pair, found, theirs, ours)))


def _index(order: list[str], place: str) -> int:
    name = place.removeprefix("input of ")
    return order.index(name) if name in order else len(order)


def _without_counterpart(pair: PartialPair, found: Match, run: Run) -> Fault | None:
    """The first layer, in data-flow order, with weights that the other side lacks or turns."""
    layers = dict(pair.torch_model().named_modules())
    order = [call.name for call in run.calls.values()]
    faults = []
    for name in found.transposed:
        faults.append(Fault(name.rpartition(".")[0], f"{name.rpartition('.')[2]} transposed"))
    for name, shape in found.missing.items():
        layer, _, weight = name.rpartition(".")
        whole = all(f"{layer}.{w}" in found.missing for w, _ in layers[layer].named_parameters())
        text = type(layers[layer]).__name__ if whole else f"{weight} {shape}"
        same = f"{layer}.{weight}".strip(".")
        if same in found.extra:
            text = f"{weight} has shape {found.extra[same]} in Flax and {shape} in torch"
            faults.append(Fault(layer or type(layers[layer]).__name__, text))
        else:
            place = layer or type(layers[layer]).__name__
            faults.append(Fault(place, f"{text} is missing on the Flax side"))
    for name, shape in found.extra.items():
        if name not in found.missing:
            place = name.rpartition(".")[0] or name
            faults.append(Fault(place, f"{name} {shape} is only on the Flax side"))
    return min(faults, key=lambda fault: _index(order, fault.place), default=None)


def _lines(pair: PartialPair, found: Match, theirs: Run, ours: Run) -> list[str]:
    lines = [
        f"without counterpart in Flax: {name} {shape}" for name, shape in found.missing.items()
    ]
    lines += [
        f"without counterpart in torch: {name} {shape}" for name, shape in found.extra.items()
    ]
    for key, truth in theirs.calls.items():
        if key in ours.calls:
            for name, array in truth.outputs.items():
                other = ours.calls[key].outputs.get(name, np.empty(0))
                shown = f"{truth.name or 'the whole'} {name}"
                lines.append(f"{shown}: error {gap(pair, array, other):.3g}")
    return lines
