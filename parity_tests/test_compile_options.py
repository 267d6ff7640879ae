"""Options of XLA: what the installed version lacks is left out, and nothing else."""

import os
import subprocess
import sys

import jax
import pytest

from flaxnets import compile_options
from flaxnets.compile_options import OF_BFLOAT16, OF_CONVOLUTIONS, OPTIMISED, UNOPTIMISED

GONE = {"xla_no_such_option": 1, "xla_nor_this_one": False}


def _compiles(options):
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@pytest.mark.parametrize("options", [UNOPTIMISED, OF_CONVOLUTIONS, OPTIMISED, OF_BFLOAT16, GONE])
def test_known(options):
    """Those that are known are those that compile."""
    taken = {name: value for name, value in options.items() if _compiles({name: value})}
    assert compile_options.known(options) == taken
    assert compile_options.known({**GONE, **options}) == taken  # nor do two hide a third


def test_flags():
    """A process whose XLA_FLAGS name gone options among others lives, and obeys the others."""
    options = {**GONE, "xla_force_host_platform_device_count": 3}
    result = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.device_count())"],
        env={**os.environ, "XLA_FLAGS": compile_options.flags(options), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (result.stdout, result.returncode) == ("3\n", 0), result.stderr
