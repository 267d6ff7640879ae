"""Options of XLA for proofs and tests, as far as the installed XLA has them.

They come and go with versions of jaxlib: 0.12 has no `xla_cpu_use_fusion_emitters`. An unknown
one is an error where a program is compiled, and in XLA_FLAGS it ends the process.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping

Options = Mapping[str, bool | int | str]

# Float64 proves semantics, which LLVM's optimisation does not change, and without it a step
# compiles in half the time; large convolutions in float64 are loops that need a little of it.
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
OF_CONVOLUTIONS = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
# What optimised code does is seen by `float32` and `bfloat16`, whatever XLA_FLAGS says: these are
# XLA's defaults.
OPTIMISED: Options = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
# The gradient of a kernel over a batch of two axes (x @ kernel, x of shape b t i) is added up in
# bfloat16 by jaxlib 0.11.2 and 0.12.0.1 on a CPU: over 512 rows it is 7 to 10 units off where 1 is
# due. No model is to blame for that; these products do not go to YNNPACK. `doctor` tells users.
OF_BFLOAT16: Options = {**OPTIMISED, "xla_cpu_experimental_ynn_fusion_type": ""}

# Jaxlib lists no options, and their names are in its file even where the options are gone. So a
# process of its own lets XLA read them; it imports no jax and takes half a second.
ASK = (
    "from jaxlib._jax import CompileOptions as C; c = C(); c.executable_build_options.debug_options"
)


def known(options: Options) -> dict[str, bool | int | str]:
    """Those of some options that the installed XLA has.

    >>> known({"xla_backend_optimization_level": 0, "xla_no_such_option": True})
    {'xla_backend_optimization_level': 0}
    """
    unknown = _unknown(tuple(options.items()))
    return {name: value for name, value in options.items() if name not in unknown}


def flags(options: Options) -> str:
    """The same as XLA_FLAGS takes them.

    >>> flags({"xla_backend_optimization_level": 0, "xla_no_such_option": True})
    '--xla_backend_optimization_level=0'
    """
    return " ".join(_flag(name, value) for name, value in known(options).items())


def _flag(name: str, value: bool | int | str) -> str:
    return f"--{name}={str(value).lower()}"


@functools.cache
def _unknown(options: tuple[tuple[str, bool | int | str], ...]) -> set[str]:
    flags = {_flag(name, value): name for name, value in options}
    result = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "XLA_FLAGS": " ".join(flags)},
        capture_output=True,
        text=True,
    )
    said = result.stderr.split()  # Unknown flags in XLA_FLAGS: --xla_one=1 --xla_another=1
    return {name for flag, name in flags.items() if flag in said}
