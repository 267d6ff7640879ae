"""Archives of arrays: what NumPy wrote is read; broken ones are one clear line."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flaxnets import data

LABELS = np.arange(12) % 3
ROWS = np.arange(24.0).reshape(12, 2)


def write(folder, **arrays):
    """An archive of a few arrays."""
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


@settings(max_examples=50, deadline=None)
@given(
    npst.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, bool]),
        npst.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 99},
    ),
    st.one_of(st.integers(1, 5), st.none()),
    st.booleans(),
)
def test_any_parts(tmp_path_factory, inputs, classes, compressed):
    """Any inputs with labels or numbers come back, those of bytes between 0 and 1."""
    count = len(inputs)
    targets = np.arange(count) % classes if classes else np.linspace(0, 1, count * 2)
    targets = targets if classes else targets.reshape(count, 2)
    path = tmp_path_factory.mktemp("npz") / "mine.npz"
    (np.savez_compressed if compressed else np.savez)(
        path, train_inputs=inputs, train_targets=targets, test_inputs=inputs, test_targets=targets
    )
    for place in (path, path.parent):
        found = data.load("mine", place)
        scaled = inputs / np.float32(255) if inputs.dtype == np.uint8 else inputs
        scaled = scaled.astype(np.float32)
        expected = scaled[..., None] if inputs.ndim == 3 else scaled
        for part in (found.train_inputs, found.test_inputs):
            assert part.dtype == np.float32
            np.testing.assert_array_equal(part, expected)
        np.testing.assert_array_equal(
            found.train_targets, targets if classes else targets.astype(np.float32)
        )
        assert found.train_targets.dtype == (np.int32 if classes else np.float32)
        assert found.num_classes == (min(classes, count) if classes else None)


def test_held_out(tmp_path):
    """Without a test part a fifth of every class, or of all, is held out, and nothing is lost."""
    inputs = np.arange(30.0)[:, None]
    found = data.load("mine", write(tmp_path, inputs=inputs, targets=np.arange(30) % 3))
    assert np.bincount(found.test_targets).tolist() == [2, 2, 2]
    together = np.concatenate([found.train_inputs, found.test_inputs])
    np.testing.assert_array_equal(np.sort(together, axis=0), inputs)
    found = data.load("mine", write(tmp_path, inputs=inputs, targets=np.arange(30.0)))
    assert found.test_targets.tolist() == [[i] for i in range(0, 30, 5)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_harm(tmp_path_factory, draw):
    """An archive that lost its end or some bytes is read or refused in one line."""
    path = write(tmp_path_factory.mktemp("npz"), inputs=ROWS, targets=LABELS)
    content = bytearray(path.read_bytes())
    for place in draw.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = draw.draw(st.integers(0, 255))
    path.write_bytes(content[: draw.draw(st.integers(0, len(content)))])
    refusal = f"{path}: none"
    try:
        data.load("mine", path)
    except data.DataError as error:
        refusal = str(error)
    assert refusal.startswith(str(path))
    assert "\n" not in refusal


class Payload:
    """What must never be run."""

    def __reduce__(self):
        return warnings.warn, ("unpickled",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": ROWS}, "mine.npz holds inputs; want inputs and targets, or train_inputs"),
        ({}, "mine.npz holds nothing; want inputs"),
        ({"inputs": ROWS, "targets": LABELS[1:]}, "12 inputs, 11 targets"),
        ({"inputs": ROWS[:, 0], "targets": LABELS}, r"inputs has the shape \(12,\)"),
        ({"inputs": ROWS[:, :0], "targets": LABELS}, r"inputs has the shape \(12, 0\)"),
        ({"inputs": ROWS.astype(str), "targets": LABELS}, "inputs is of <U.*, not of numbers"),
        (
            {"inputs": np.array([[Payload()]]), "targets": LABELS[:1]},
            "inputs is of object, not of numbers",
        ),
        ({"inputs": ROWS * np.nan, "targets": LABELS}, r"inputs holds nan at \(0, 0\)"),
        ({"inputs": ROWS + 1e40, "targets": LABELS}, r"holds 1e\+40 at \(0, 0\), which is no fini"),
        ({"inputs": ROWS, "targets": ROWS - np.inf}, "targets holds -inf"),
        ({"inputs": ROWS, "targets": LABELS - 1}, "targets are -1 to 1; labels count from 0"),
        ({"inputs": ROWS, "targets": LABELS[:, None]}, r"are integers \(12, 1\); want \(n,\)"),
        ({"inputs": ROWS, "targets": LABELS + 2**31}, "labels count from 0"),
        (
            {"inputs": ROWS[:2], "targets": LABELS[:2]},
            "has 2 examples, too few .* 3 or more of a c",
        ),
        ({"inputs": ROWS[:2], "targets": ROWS[:2]}, "has 2 examples, too few .* 3 or more$"),
        (
            {
                "train_inputs": ROWS,
                "train_targets": LABELS,
                "test_inputs": ROWS,
                "test_targets": LABELS[1:],
            },
            "12 inputs, 11 targets",
        ),
        (
            {
                "train_inputs": ROWS,
                "train_targets": LABELS,
                "test_inputs": ROWS[:, :1],
                "test_targets": LABELS,
            },
            r"train_inputs are float32 \(2,\) each, test_inputs float32 \(1,\)",
        ),
        (
            {
                "train_inputs": ROWS,
                "train_targets": LABELS,
                "test_inputs": ROWS,
                "test_targets": ROWS,
            },
            r"train_targets are int32 \(\) each, test_targets float32 \(2,\)",
        ),
    ],
)
def test_broken(tmp_path, arrays, message):
    """Each mistake gets one line that names file and array."""
    with pytest.raises(data.DataError, match=message):
        data.load("mine", write(tmp_path, **arrays))


def test_absent(tmp_path):
    """A file that is not there, one that is no archive, and more than one."""
    with pytest.raises(data.DataError, match=r"gone.npz cannot be read: No such file"):
        data.load("mine", tmp_path / "gone.npz")
    np.save(tmp_path / "a", ROWS)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(data.DataError, match=r"a.npz is no npz archive of plain arrays"):
        data.load("mine", tmp_path)
    write(tmp_path, inputs=ROWS, targets=LABELS)
    with pytest.raises(data.DataError, match=r"has 2 \*.npz files; want one"):
        data.load("mine", tmp_path)
