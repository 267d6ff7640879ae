"""The process of a command: its signals and streams, set up before anything large is imported.

SIGINT and SIGTERM end a command with one line and the exit code that shells use, 130 or 143.
While a run trains, its own handlers stand in their place, which save before they stop.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0  # seconds after a signal in which a command puts its things in order
AGAIN = 0.5  # seconds after which another SIGINT is meant, and not sent twice by a terminal


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end of a command that has something to put in order."""


_heard: int | None = None
_raises = False
_ending = threading.Lock()


def hear() -> None:
    """Let SIGINT and SIGTERM end this process, unless they are ignored, as under nohup."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # A handler waits while the main thread computes outside Python; the other thread does not.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    for one in SIGNALS:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _ask)


@contextlib.contextmanager
def tidied() -> Iterator[None]:
    """What a signal ends in here is left by an exception: files, folders, other processes.

    Elsewhere nothing is raised, since a library in the middle of its import or of a callback
    would print a traceback, or keep the exception to itself.
    """
    global _raises
    _raises = True
    try:
        yield
    finally:
        _raises = False
        if _heard is not None:
            _end(_heard)


def _ask(number: int, _: FrameType | None) -> None:
    global _heard
    if not _raises:
        _end(number)
    if _heard is None:
        _heard = number
        raise Interrupted


def _watch(reader: int) -> None:
    """End the process where its main thread does not: after `GRACE`, or at a second SIGINT."""
    first = None
    while True:
        number = os.read(reader, 1)[0]
        if number not in SIGNALS:
            continue
        now = time.monotonic()
        if first is None:
            first = now
            if signal.getsignal(number) is _ask:
                timer = threading.Timer(GRACE, _end, [number])
                timer.daemon = True
                timer.start()
        elif number == signal.SIGINT and now - first > AGAIN:
            _end(number)


def _end(number: int) -> NoReturn:
    """Say what has ended the process, in one line, and end it."""
    _ending.acquire()  # for good: it is said once
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")  # the cursor, which a bar of progress hides
        os.write(2, f"flaxnets: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def streams() -> None:
    """Standard streams that are there and take any character."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed, so that the next file would take its number
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
