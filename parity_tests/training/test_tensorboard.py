"""The scalars in the event files and the metrics that were logged, step by step."""

import math
import re
import struct
import sys

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from flaxnets.training.loop import TrainingError
from flaxnets.training.tensorboard import TensorBoardLog


def _events(folder):
    """The events of a folder; a record is length, checksum, content, checksum."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def _scalars(folder):
    return [
        (event.step, value.tag, value.simple_value)
        for event in _events(folder)
        for value in event.summary.value
    ]


def test_scalars(tmp_path):
    """Every metric of every step is there, under its name, rounded to float32."""
    logged = [
        (1, {"loss": 2.3087, "accuracy": 0.1}),
        (8, {"loss": 1e-30, "accuracy": 0.2}),
        (8, {"eval_accuracy": 0.3}),
    ]
    with TensorBoardLog(tmp_path / "new" / "folder") as log:
        for step, metrics in logged:
            log(step, metrics)
    assert _scalars(tmp_path / "new" / "folder") == [
        (step, name, np.float32(value))
        for step, metrics in logged
        for name, value in metrics.items()
    ]


def test_not_finite(tmp_path):
    """NaN and infinity are written as they are."""
    with TensorBoardLog(tmp_path) as log:
        log(1, {"loss": math.nan, "norm": math.inf})
    (_, _, loss), (_, _, norm) = _scalars(tmp_path)
    assert math.isnan(loss)
    assert norm == math.inf


def test_resumed(tmp_path):
    """A resumed run takes back what was written for the steps after the one it begins at."""
    with TensorBoardLog(tmp_path) as log:
        log(6, {"loss": 9.0})
    with TensorBoardLog(tmp_path, first=5) as log:
        log(6, {"loss": 3.0})
    starts = [e.step for e in _events(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [6]
    assert [value for *_, value in _scalars(tmp_path)] == [9.0, 3.0]


def test_error_inside(tmp_path):
    """What was logged before an error is in the file."""

    def run():
        with TensorBoardLog(tmp_path) as log:
            log(1, {"loss": 1.0})
            raise TrainingError("broken")

    with pytest.raises(TrainingError, match="broken"):
        run()
    assert _scalars(tmp_path) == [(1, "loss", 1.0)]


def test_absent(tmp_path, monkeypatch):
    """Without the package there is one line that says what to install, and no file."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    wanted = re.escape("tensorboardX is not installed; pip install 'flaxnets[tensorboard]'")
    with pytest.raises(TrainingError, match=wanted):
        TensorBoardLog(tmp_path / "new")
    assert not (tmp_path / "new").exists()
