"""IDX files: what was written is read, gzipped or not; broken files are one clear line."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets import data
from flaxnets.data import idx


def encode(array):
    """An array of bytes as an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    """A folder with the four files, one pair gzipped, and what is said about them."""
    (tmp_path / "README.txt").write_text("Images.")
    rng = np.random.default_rng(0)
    for part, count, pack in (("train", 12, bytes), ("t10k", 4, gzip.compress)):
        images, labels = rng.integers(0, 256, (count, 5, 6)), np.arange(count) % 3
        end = ".gz" if pack is gzip.compress else ""
        (tmp_path / f"{part}-images-idx3-ubyte{end}").write_bytes(pack(encode(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte{end}").write_bytes(pack(encode(labels)))
    return tmp_path


def test_folder(folder):
    """Four files make a data set."""
    found = data.load("mine", folder)
    assert found.train_inputs.shape == (12, 5, 6, 1)
    assert found.test_targets.tolist() == [0, 1, 2, 0]
    assert found.num_classes == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 99))
def test_any_array(tmp_path_factory, shape, seed):
    """Any array of bytes comes back."""
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path_factory.mktemp("idx") / "a-ubyte"
    path.write_bytes(encode(array))
    np.testing.assert_array_equal(idx.read(path), array)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "holds 359 bytes, not 360"),
        (lambda path: path.write_bytes(path.read_bytes()[:9]), "ends inside its header"),
        (lambda path: path.write_bytes(b""), "is no IDX file of unsigned bytes"),
        (lambda path: path.write_bytes(b"\x1f\x8bxx"), "cannot be read"),
        (lambda path: path.write_bytes(b"\0\0\x0d\x01\0\0\0\0"), "is no IDX file of unsigned"),
        (lambda path: path.unlink(), "holds no train-images"),
        (lambda path: path.write_bytes(encode(np.zeros((3, 5, 6)))), "train has images"),
        (lambda path: path.write_bytes(encode(np.zeros((12, 5, 5)))), "differ in size"),
    ],
)
def test_broken(folder, harm, message):
    """Each kind of harm is named."""
    harm(folder / "train-images-idx3-ubyte")
    with pytest.raises(data.DataError, match=message):
        data.load("mine", folder)


def test_empty(folder):
    """Files without a single image are refused, and the least number is named."""
    (folder / "train-images-idx3-ubyte").write_bytes(encode(np.zeros((0, 5, 6))))
    (folder / "train-labels-idx1-ubyte").write_bytes(encode(np.zeros(0)))
    with pytest.raises(data.DataError, match=r"train has images \(0, 5, 6\).*n at least 1"):
        data.load("mine", folder)


def test_absent_folder(tmp_path):
    """A folder that is not there is named."""
    with pytest.raises(data.DataError, match="nowhere is not a folder"):
        data.load("mine", tmp_path / "nowhere")


def test_absent_fashion_mnist(monkeypatch, tmp_path):
    """Where Debian's package is absent, it is named."""
    monkeypatch.setattr(idx, "FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(data.DataError, match="apt-get install dataset-fashion-mnist"):
        data.load("fashion-mnist")


@pytest.mark.skipif(
    not idx.FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist():
    """The published sizes."""
    found = data.load("fashion-mnist")
    assert found.train_inputs.shape == (60000, 28, 28, 1)
    assert np.bincount(found.test_targets).tolist() == [1000] * 10
