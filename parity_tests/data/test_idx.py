"""IDX files: what was written is read, gzipped or not; broken files are one clear line."""

import gzip
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets import data
from flaxnets.data import idx
from parity_tests.data.reading import check_read
from parity_tests.fuzz import memory_below, one_line


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


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1] * 65, "is no array that NumPy knows: maximum supported dimension"),
        ([2**32 - 1] * 255, "the data takes .* bytes of memory, more than the limit of"),
        ([0] + [2**32 - 1] * 3, "is no array that NumPy knows: array is too big"),
        (
            [2**32 - 1] * 3,
            "takes 396,140,812,[0-9,]* bytes of memory, .* raise it with --data-limit",
        ),
    ],
)
def test_header(tmp_path, lengths, message):
    """A header of more axes or elements than there can be is refused in one line."""
    path = tmp_path / "a-ubyte"
    path.write_bytes(bytes([0, 0, 8, len(lengths)]) + struct.pack(f">{len(lengths)}I", *lengths))
    with one_line(data.DataError), pytest.raises(data.DataError, match=message):
        idx.read(path)
    with one_line(data.DataError):
        idx.read(path)


def test_memory(folder):
    """No more is unpacked than the header says, and no more is said than the limit allows."""
    zeros = gzip.compress(bytes(1 << 25)) * 16
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(encode(np.zeros((4, 5, 6)))) + zeros)
    with (
        memory_below(64 << 20),
        pytest.raises(data.DataError, match=r"holds more than the 120 bytes of \(4, 5, 6\)"),
    ):
        data.load("mine", folder)
    path.write_bytes(
        gzip.compress(b"\0\0\x08\3" + struct.pack(">3I", 1 << 9, 1 << 10, 1 << 10)) + zeros
    )
    with (
        memory_below(64 << 20),
        pytest.raises(data.DataError, match=r"takes 2,684,356,\d* bytes of memory, more than the"),
    ):
        data.load("mine", folder, 1 << 31)


def test_limit_is_kept(folder):
    """A folder that takes just the limit is read within it, and a byte less is refused."""
    shape = 40, 600, 600
    for part in ("train", "t10k"):
        for name, array in (("images-idx3", np.ones(shape)), ("labels-idx1", np.ones(shape[0]))):
            for path in folder.glob(f"{part}-{name}*"):
                path.unlink()
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(encode(array), 1))
    limit = 2 * 5 * 40 * (600 * 600 + 1)
    with memory_below(limit + (8 << 20)):
        assert len(data.load("mine", folder, limit).test_inputs) == 40
    with pytest.raises(data.DataError, match=f"more than the limit of {limit - 1:,}"):
        data.load("mine", folder, limit - 1)


def test_pipe(folder):
    """A pipe that nobody writes to is refused, and not waited for."""
    path = folder / "train-images-idx3-ubyte"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(data.DataError, match="ubyte cannot be read: no plain file"):
        data.load("mine", folder)


LENGTHS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 12, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
ZEROS = gzip.compress(bytes(1 << 23))


@st.composite
def idx_files(draw):
    """An IDX file that is right, or wrong in its type, its axes, its length or its gzip."""
    labels = draw(st.booleans())
    shape = [12] if labels else [12, 5, 6]
    kind, marks = 8, b"\0\0"
    content = bytes(range(draw(st.integers(1, 256)))) * 400
    wrong = draw(st.sampled_from(["none", "length", "axes", "more", "kind", "marks", "any"]))
    if wrong in ("length", "any"):
        shape[draw(st.integers(0, len(shape) - 1))] = draw(LENGTHS)
    if wrong in ("axes", "any"):
        shape = draw(st.lists(LENGTHS, max_size=5)) * draw(st.sampled_from([1, 1, 1, 7, 13, 51]))
    if wrong == "kind":
        kind = draw(st.sampled_from([0, 9, 0x0B, 0x0C, 0x0D, 0x0E, 255]))
    if wrong == "marks":
        marks = draw(st.binary(min_size=2, max_size=2))
    size = int(np.prod(shape, dtype=object))
    content = content[: min(size, 10_000)]
    if wrong in ("more", "any"):
        content = content[: draw(st.integers(0, 360))] + bytes(draw(st.integers(0, 9)))
    axes = len(shape) if wrong != "any" else draw(st.integers(0, 255))
    whole = marks + bytes([kind, axes]) + struct.pack(f">{len(shape)}I", *shape) + content
    return ("labels-idx1" if labels else "images-idx3"), draw(packed(whole))


@st.composite
def packed(draw, whole):
    """A file as it is, or as gzip: whole, in several parts, cut, followed by more, changed."""
    way = draw(st.sampled_from(["plain", "whole", "parts", "cut", "more", "zeros", "changed"]))
    if way == "plain":
        return whole
    if way == "parts":
        cut = draw(st.integers(0, len(whole)))
        return gzip.compress(whole[:cut]) + gzip.compress(b"") + gzip.compress(whole[cut:])
    content = gzip.compress(whole)
    if way == "cut":
        return content[: draw(st.integers(2, len(content)))]
    if way == "more":
        return content + draw(st.sampled_from([b"\0" * 9, b"x", b"\x1f\x8b", b"\x1f\x8b\x08\x04"]))
    if way == "zeros":
        return content + ZEROS * 8
    if way == "changed":
        content = bytearray(content)
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


def test_any_structure(tmp_path, attack):
    """Headers and gzips of any structure: a right data set or one line."""
    right = {
        f"{part}-{kind}-ubyte": encode(array)
        for part in ("train", "t10k")
        for kind, array in (
            ("images-idx3", np.arange(360).reshape(12, 5, 6)),
            ("labels-idx1", np.arange(12) % 3),
        )
    }
    for name, content in right.items():
        (tmp_path / name).write_bytes(content)

    def check(drawn):
        kind, content = drawn
        path = tmp_path / f"train-{kind}-ubyte"
        path.write_bytes(content)
        check_read(tmp_path, tmp_path)
        path.write_bytes(right[path.name])

    attack("IDX files", idx_files(), check, 100)
