"""Folders of images: what Pillow wrote is read, and fits the network as an array of images does."""

from itertools import islice

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flaxnets import data
from flaxnets.data import images
from flaxnets.data.stream import stream
from flaxnets.specs import Input

RNG = np.random.default_rng(0)


def write(path, *shape):
    """An image of random bytes, which is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans()), min_size=3),
    st.sampled_from([".png", ".PNG", ".bmp", ".tif"]),
)
def test_any_images(tmp_path_factory, sizes, suffix):
    """Grey and coloured images of any sizes come back."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "labels.csv").write_text("not read")
    written = [
        [
            write(folder / part / f"{i % 2}" / f"{i:02}{suffix}", h, w, *([3] if coloured else []))
            for i, (h, w, coloured) in enumerate(sizes)
        ]
        for part in ("train", "test")
    ]
    found = data.load("mine", folder)
    for pictures, inputs, targets in (
        (written[0], found.train_inputs, found.train_targets),
        (written[1], found.test_inputs, found.test_targets),
    ):
        assert targets.tolist() == [0] * -(-len(sizes) // 2) + [1] * (len(sizes) // 2)
        for pixels, image in zip(pictures[::2] + pictures[1::2], inputs, strict=True):
            assert image.dtype == np.float32
            np.testing.assert_array_equal(image, np.atleast_3d(pixels) / np.float32(255))
    assert found.labels == ("0", "1")
    assert found.num_classes == 2


def test_other_modes(tmp_path):
    """Palettes, transparency, black and white, and 16 bits are what they show."""
    grey = RNG.integers(0, 256, (4, 5), np.uint8)
    coloured = RNG.integers(0, 4, (4, 5, 3), np.uint8) * 85
    deep = RNG.integers(0, 65536, (4, 5), np.uint16)
    for image, name, expected in (
        (Image.fromarray(deep), "a.png", deep / np.float32(65535)),
        (Image.fromarray(grey).convert("LA"), "b.png", grey / np.float32(255)),
        (Image.fromarray(coloured).convert("RGBA"), "c.png", coloured / np.float32(255)),
        (Image.fromarray(coloured).quantize(64), "d.png", coloured / np.float32(255)),
        (Image.fromarray(grey > 99), "e.png", (grey > 99).astype(np.float32)),
    ):
        image.save(tmp_path / name)
        found = images.decode(tmp_path / name)
        np.testing.assert_allclose(found, np.atleast_3d(expected), atol=1e-7, err_msg=name)
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(data.DataError, match=r"f.tif has pixels of mode F; want 8 or 16 bits"):
        images.decode(tmp_path / "f.tif")


def test_held_out(tmp_path):
    """Without a folder test a fifth of every class is held out, and no image is lost."""
    written = [write(tmp_path / "ab"[i % 2] / f"{i:02}.png", 3, 3) for i in range(20)]
    write(tmp_path / ".hidden" / "c.png", 3, 3)
    found = data.load("mine", tmp_path)
    assert np.bincount(found.test_targets).tolist() == [2, 2]
    together = np.concatenate([found.train_inputs, found.test_inputs])
    expected = {pixels.tobytes() for pixels in written}
    assert {(image * 255).round().astype(np.uint8).tobytes() for image in together} == expected


@pytest.mark.parametrize(
    "wanted",
    [
        Input(name="x", shape=(1, 12, 7, 3), axes="bhwc"),
        Input(name="x", shape=(1, 5, 5, 1), axes="bhwc"),
        Input(name="x", shape=(1, 9, 8, 3), axes="bhwc"),
        Input(name="x", shape=(1, 3 * 36), axes="bf"),
    ],
    ids=lambda wanted: str(wanted.shape),
)
def test_fit(tmp_path, wanted):
    """One image at a time through Pillow agrees with all at once through JAX, to rounding."""
    for i in range(10):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", 9, 8, 3)
    lazy = data.load("mine", tmp_path)
    fitted = data.fit(lazy, (wanted,), None)
    assert fitted.train_inputs.shape == (8, *wanted.shape[1:])
    np.testing.assert_allclose(
        np.asarray(fitted.train_inputs),
        data.fit_to(np.asarray(lazy.train_inputs), wanted.shape, wanted.axes),
        atol=1e-6,
    )


def test_sizes_and_channels_that_differ(tmp_path):
    """Each image is what it would be in a folder of its own kind; a stream is `batches`."""
    shapes = [(9, 8, 3), (5, 5), (20, 3, 3), (6, 6), (7, 9)]
    for i in range(15):
        write(tmp_path / "abc"[i % 3] / f"{i:02}.png", *shapes[i % 5])
    lazy = data.load("mine", tmp_path)
    wanted = Input(name="x", shape=(1, 6, 6, 3), axes="bhwc")
    fitted = data.fit(lazy, (wanted,), None)
    for own, made in zip(lazy.train_inputs, fitted.train_inputs, strict=True):
        (expected,) = data.fit_to(own[None], wanted.shape, wanted.axes)
        np.testing.assert_allclose(made, expected, atol=1e-6)
    batches = stream(fitted.train_inputs, fitted.train_targets, 5)
    for some, others in zip(
        islice(batches, 5),
        data.batches(np.asarray(fitted.train_inputs), fitted.train_targets, 5),
        strict=False,
    ):
        jax.tree.map(np.testing.assert_array_equal, some, others)
    batches.close()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"]), st.data())
def test_any_harm(tmp_path_factory, kind, draw):
    """An image that lost its end or some bytes is decoded or refused in one line."""
    path = tmp_path_factory.mktemp("harm") / f"a.{kind}"
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path)
    content = bytearray(path.read_bytes())
    for place in draw.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = draw.draw(st.integers(0, 255))
    path.write_bytes(content[: draw.draw(st.integers(0, len(content)))])
    refusal = f"{path}: none"
    try:
        assert images.decode(path).ndim == 3
    except data.DataError as error:
        refusal = str(error)
    assert refusal.startswith(str(path))
    assert "\n" not in refusal


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "test").rename(folder / "other"), "a folder train but none test"),
        (lambda folder: (folder / "train").rename(folder / "other"), "folder test but none train"),
        (lambda folder: (folder / "test/a").rename(folder / "test/c"), "test/c is a class that"),
        (lambda folder: (folder / "train/b/1.png").unlink(), "train/b holds no image; want .bmp, "),
        (lambda folder: (folder / "test/b/1.png").unlink(), "test/b holds no image; want .bmp, "),
        (
            lambda folder: (folder / "train/a/0.png").write_bytes(b"GIF89a"),
            "a/0.png cannot be decoded",
        ),
    ],
)
def test_broken(tmp_path, harm, message):
    """Each kind of harm is named with the folder or the image."""
    for part in ("train", "test"):
        for i, label in enumerate("ab"):
            write(tmp_path / part / label / f"{i}.png", 3, 3)
    harm(tmp_path)
    with pytest.raises(data.DataError, match=message):
        np.asarray(data.load("mine", tmp_path).train_inputs)


def test_too_few(tmp_path):
    """Classes of two images leave none for the test."""
    for i in range(4):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", 3, 3)
    with pytest.raises(data.DataError, match=r"has 4 examples, too few .* want 3 or more of"):
        data.load("mine", tmp_path)
