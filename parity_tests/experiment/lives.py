"""Runs of the command line as processes that cost little: forked from one that has imported all.

It reads a line of JSON for each, {"words": arguments, "log": a file for what it writes}, answers
with the id of the process, and, when that has ended, with its exit code, as in `subprocess`.
"""

import json
import os
import sys

import orbax.checkpoint  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch._dynamo  # noqa: F401 (by the first optimizer)

from flaxnets import cli
from flaxnets.experiment import torch_engine  # noqa: F401
from flaxnets.page import pictures  # noqa: F401
from torch_ref.training import loop  # noqa: F401


def _live(words: list[str], log: str) -> None:
    """Be the command, to the last; nothing of this process goes on behind it."""
    code = 70
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(file, 2)
        code = cli.main(words)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        # A fork takes one thread along; there has to be no other.
        assert len(os.listdir("/proc/self/task")) == 1
        if not (process := os.fork()):
            _live(**json.loads(line))
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
