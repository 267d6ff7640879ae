"""The classes of a twin as the text of a Python module in the house's style."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from flaxnets import layers as house_layers
from flaxnets.swap.twin import layers
from flaxnets.swap.twin.construction import Class, Construction
from flaxnets.swap.twin.expressions import literal, wrapped
from flaxnets.swap.twin.modules import Translator

SET_VIEW = '''
    def set_view(self, deterministic: bool | None = None) -> None:
        """Switch between training and evaluation, for `nnx.view`."""
        if deterministic is not None:
            self.deterministic = deterministic
'''
CONSTANTS = 'CONSTANTS = bridge.read(Path(__file__).with_suffix(".safetensors"))'


def written(construction: Construction) -> str:
    """The whole module: docstring, imports, classes.

    Args:
        construction: the classes.
    """
    translator = construction.translator
    taken = frozenset(each.name for each in construction.classes)
    names = {id(module): each.name for each in construction.classes for module in each.modules}
    classes = [_class(each, names, taken, translator) for each in construction.classes]
    text = "\n\n\n".join(classes)
    registered = _registered(construction)
    if registered:
        text += "\n\n\n" + "\n".join(registered)
    constants = f"{CONSTANTS}\n\n\n" if "CONSTANTS[" in text else "\n"
    kind = type(translator.root)
    origin = _origin(kind)
    head = f'"""{construction.classes[-1].name}, translated from {origin}."""'
    return f"{head}\n\n{_imports(text, constants, taken)}\n{constants}{text}\n"


def _origin(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _imports(text: str, constants: str, taken: frozenset[str]) -> str:
    words = set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", text))
    lines = []
    if "CONSTANTS" in constants:
        lines.append("from pathlib import Path")
    if "ClassVar" in words:
        lines += ["from collections.abc import Mapping", "from typing import ClassVar"]
        lines.sort()
    blocks = ["\n".join(lines)] if lines else []
    lines = ["import jax"] if re.search(r"(?<![\w.])jax\.", text) else []
    if "jnp" in words:
        lines.append("import jax.numpy as jnp")
    if "np" in words:
        lines.append("import numpy as np")
    einops = ("einsum", "rearrange", "reduce", "repeat")
    used = [name for name in einops if re.search(rf"(?<![\w.]){name}\(", text)]
    if used:
        lines.append(f"from einops import {', '.join(used)}")
    lines.append("from flax import nnx")
    blocks.append("\n".join(lines))
    lines = []
    whole = [
        name for name in ("bridge", "layers") if re.search(rf"(?<![\w.]){name}\.", text + constants)
    ]
    if whole:
        lines.append(f"from flaxnets import {', '.join(whole)}")
    found = [
        name
        for name in house_layers.__all__
        if name not in taken and re.search(rf"(?<![\w.]){name}\(", text)
    ]
    if found:
        found.sort(key=lambda name: (not name.isupper(), name[0].islower(), name))
        line = f"from flaxnets.layers import {', '.join(found)}"
        if len(line) > 100:
            line = "from flaxnets.layers import (\n    " + ",\n    ".join(found) + ",\n)"
        lines.append(line)
    if lines:
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _class(
    each: Class, names: dict[int, str], taken: frozenset[str], translator: Translator
) -> str:
    code = each.code
    module = code.module
    above = "nnx.Module"
    if code.base is not None:
        above = f"layers.{code.base.__name__}"
    elif isinstance(module, torch.nn.Sequential) and "" in each.attributes:
        above = "nnx.Sequential"
    lines = [f"class {each.name}({above}):", f'    """Twin of `{_origin(type(module))}`."""']
    if module is translator.root and (tied := _tied(translator)):
        entries = ", ".join(f"{literal(k).text}: {literal(v).text}" for k, v in tied.items())
        lines += ["", *wrapped(f"tied_weights: ClassVar[Mapping[str, str]] = {{{entries}}}", 4)]
    lines += _constructor(each, names, taken)
    if code.modes:
        lines += SET_VIEW.rstrip().split("\n")
    if not _inherits_call(code.module, code.base):
        lines += _call(each)
    return "\n".join(lines)


def _inherits_call(module: torch.nn.Module, base: Any) -> bool:
    return base is not None and type(module).forward is base.forward


def _constructor(each: Class, names: dict[int, str], taken: frozenset[str]) -> list[str]:
    statements = []
    for name, value in each.attributes.items():
        shown = _shown(value, names, taken)
        if name == "":
            inner = shown[shown.index("(") :]
            statements.append(f"super().__init__{inner}")
        else:
            statements.append(f"self.{name} = {shown}")
    if each.code.modes:
        statements.append("self.deterministic = False")
    if not statements:
        return []
    parameters = [f"{key}: {_annotation(values)}" for key, values in each.parameters.items()]
    if each.rngs:
        parameters += ["*", "rngs: nnx.Rngs"]
    signature = ", ".join(["self", *parameters])
    lines = ["", *wrapped(f"def __init__({signature}) -> None:", 4)]
    for statement in statements:
        lines += wrapped(statement, 8)
    return lines


def _shown(value: Any, names: dict[int, str], taken: frozenset[str]) -> str:
    """A construction as text; equal entries of a list as a comprehension."""
    if isinstance(value, layers.Call):
        if value.name == "nnx.List":
            entries = [_shown(entry, names, taken) for entry in value.args["*"][0]]
            if len(entries) > 1 and len(set(entries)) == 1:
                return f"nnx.List({entries[0]} for _ in range({len(entries)}))"
            return f"nnx.List([{', '.join(entries)}])"
        if value.name == "nnx.Dict":
            pairs = value.args["*"][0].items()
            inner = ", ".join(f"{literal(k).text}: {_shown(v, names, taken)}" for k, v in pairs)
            return f"nnx.Dict({{{inner}}})"
        if value.name == "nnx.Sequential":
            entries = [_shown(entry, names, taken) for entry in value.args["*"]]
            return f"nnx.Sequential({', '.join(entries)})"
    return layers.text(value, names, taken)


def _annotation(values: tuple[Any, ...]) -> str:
    kinds = []
    for value in values:
        if value is None:
            name = "None"
        elif isinstance(value, tuple):
            name = "tuple"
        else:
            name = type(value).__name__
        if name not in kinds:
            kinds.append(name)
    if "None" in kinds:
        kinds.remove("None")
        kinds.append("None")
    return " | ".join(kinds)


def _call(each: Class) -> list[str]:
    code = each.code
    parameters = ["self", *code.given, *([] if not code.foreign else code.foreign)]
    if code.draws:
        parameters += ["*", "rngs=None"]
    lines = ["", *wrapped(f"def __call__({', '.join(parameters)}):", 4)]
    lists = {
        name: len(child)
        for name, child in code.module.named_children()
        if isinstance(child, torch.nn.ModuleList)
    }
    if code.training is None:
        return lines + rolled(code.lines, lists, 8)
    common = 0
    while code.lines[common] == code.training[common]:
        common += 1
    lines += rolled(code.lines[:common], lists, 8)
    lines.append("        if self.deterministic:")
    lines += rolled(code.lines[common:], lists, 12)
    return lines + rolled(code.training[common:], lists, 8)


def rolled(statements: Sequence[str], lists: Mapping[str, int], indent: int) -> list[str]:
    """Statements as lines; what is said of every entry of a list in turn becomes a loop.

    >>> rolled(["x = self.blocks[0](x)", "x = self.blocks[1](x)"], {"blocks": 2}, 0)
    ['for block in self.blocks:', '    x = block(x)']
    """
    lines: list[str] = []
    index = 0
    while index < len(statements):
        found = _loop(statements[index:], lists)
        if found is None:
            lines += wrapped(statements[index], indent)
            index += 1
            continue
        name, count, period = found
        entry = name.removesuffix("s") or name
        if any(re.search(rf"(?<![\w.]){entry}\b", statement) for statement in statements):
            entry = f"each_{entry}"
        lines.append(f"{' ' * indent}for {entry} in self.{name}:")
        for statement in statements[index : index + period]:
            lines += wrapped(statement.replace(f"self.{name}[0]", entry), indent + 4)
        index += count * period
    return lines


def _loop(statements: Sequence[str], lists: Mapping[str, int]) -> tuple[str, int, int] | None:
    """The list, its length and how many statements there are of each entry."""
    for name, count in lists.items():
        if count < 2:
            continue
        for period in range(1, len(statements) // count + 1):
            first = statements[:period]
            if not any(f"self.{name}[0]" in statement for statement in first):
                continue
            whole = [
                statement.replace(f"self.{name}[0]", f"self.{name}[{entry}]")
                for entry in range(count)
                for statement in first
            ]
            if whole == list(statements[: count * period]):
                return name, count, period
    return None


def _tied(translator: Translator) -> dict[str, str]:
    """What torch's state holds under two names: the copy's and the owner's."""
    tied = {}
    for name, tensor in translator.root.state_dict(keep_vars=True).items():
        owner = translator.owners.get(id(tensor))
        if owner is not None and owner != name:
            tied[name] = owner
    return tied


def _registered(construction: Construction) -> list[str]:
    """Rules of the bridge for classes with counters, which torch has in 64 bits."""
    lines = []
    for each in construction.classes:
        tensors = {**each.code.module._parameters, **each.code.module._buffers}
        own = {n: t for n, t in tensors.items() if n in each.attributes and t is not None}
        owners = construction.translator.owners
        own = {n: t for n, t in own.items() if id(t) in owners}
        if any(t.dtype == torch.int64 for t in own.values()):
            leaves = [
                f'bridge.Leaf("{n}", "{n}"'
                + (', torch_dtype="int64")' if t.dtype == torch.int64 else ")")
                for n, t in own.items()
            ]
            lines += wrapped(f"bridge.register({each.name}, {', '.join(leaves)})", 0)
    return lines
