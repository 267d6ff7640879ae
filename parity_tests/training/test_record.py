"""The record of a checkpoint: what is read is what was written, or an error says what is not."""

import json
from pathlib import Path

import numpy as np
import pytest

from flaxnets.training.record import (
    FORMAT,
    BrokenError,
    CheckpointError,
    kind_of,
    reason_of,
    require_same,
    sealed,
    unsealed,
)

RECORD = {
    "format": FORMAT,
    "step": 3,
    "figures": {"loss": 0.1, "nan": float("inf")},
    "about": {"rest": [None, 1]},
    "leaves": {"w": {"dtype": "float32", "shape": [2, 3], "digest": "0f"}},
}


def test_round_trip(tmp_path):
    """A record is read as it was sealed."""
    (tmp_path / "record.json").write_bytes(sealed(RECORD))
    assert unsealed(tmp_path / "record.json") == RECORD


def test_every_byte(tmp_path):
    """Whichever byte changes, the record is refused or reads the same."""
    path, content = tmp_path / "record.json", sealed(RECORD)
    refused = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            assert unsealed(path) == RECORD
        except BrokenError:
            refused += 1
    assert refused > len(content) / 2


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", json.dumps({"record": {}})])
def test_no_record(tmp_path, content):
    """Other JSON, or none, is no record."""
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(BrokenError, match=r"^record\.json is not a record$"):
        unsealed(tmp_path / "record.json")


def test_other_format(tmp_path):
    """A record of another version is refused by its number."""
    (tmp_path / "record.json").write_bytes(sealed({**RECORD, "format": 2}))
    with pytest.raises(BrokenError, match="format 2; this version reads 1"):
        unsealed(tmp_path / "record.json")


def test_differences():
    """Equal leaves pass; each kind of difference is named."""
    saved = {"a": kind_of(np.ones(3, np.float32)), "b": kind_of(np.ones((2, 2)))}
    require_same(Path("run"), saved, {"a": np.ones(3, np.float32), "b": np.ones((2, 2))})
    with pytest.raises(CheckpointError) as caught:
        require_same(Path("run"), saved, {"a": np.ones(3), "c": np.ones(1)})
    assert str(caught.value) == (
        "run is of another network or optimizer: a is float32[3] there, float64[3] here; "
        "c is missing there, float64[1] here; b is float64[2, 2] there, missing here"
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("DATA_LOSS: Error reading [a page]"), "TensorStore says DATA_LOSS"),
        (RuntimeError("one\ntwo"), "RuntimeError: one"),
    ],
)
def test_reason(error, reason):
    """An exception becomes a few words on one line."""
    assert reason_of(error) == reason
