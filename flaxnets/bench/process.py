"""A case's process as its parent sees it: started, asked, ended."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from flaxnets.bench.case import Case, to_json

PATIENCE = 600.0  # seconds for one answer; torch.compile takes a minute for some


class CaseError(RuntimeError):
    """A case without a time; the message is one line."""


class CaseProcess:
    """A fresh process that trains one case on the CPU.

    Args:
        case: what is timed.
        cache: a folder for what compilers keep between processes.

    Attributes:
        first_step: seconds from the start of the process to the end of its first step.
        memory_mb: the most memory that the process has held until then, in MiB.

    Raises:
        CaseError: there was no first step.
    """

    def __init__(self, case: Case, cache: Path) -> None:
        began = time.perf_counter()
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flaxnets.bench.child", to_json(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=os.environ | environment(cache),
            start_new_session=True,  # torch's compiler starts processes that have to end, too
        )
        try:
            self.memory_mb: float = self._answer()["memory_mb"]
        except CaseError:
            self.close()
            raise
        self.first_step = time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, what: str) -> dict[str, Any]:
        """The answer to "settle" or "turn".

        Raises:
            CaseError: there was none.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what an ended process said last is its answer
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process and all that it started."""
        self._kill()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what it did not read is lost
                if stream is not None:
                    stream.close()
        self._process.wait()
        self._said.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _answer(self) -> dict[str, Any]:
        end = threading.Timer(PATIENCE, self._kill)
        end.start()
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
        finally:
            end.cancel()
        if line:
            answer = json.loads(line)
            if "reason" in answer:
                raise CaseError(answer["reason"])
            return answer
        self._said.seek(0)
        last = ([text.strip() for text in self._said if text.strip()] or ["without a word"])[-1]
        raise CaseError(f"the process ended: {last}")


def environment(cache: Path) -> dict[str, str]:
    """Settings of a case's process: the CPU, and where compilers keep what they have made."""
    return {
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
        "KERAS_HOME": str(cache),
    }
