"""Folders of images: what Pillow wrote is read, and fits the network as an array of images does."""

import functools
import io
import os
import re
import shutil
import struct
import tempfile
import warnings
import zlib
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from flaxnets import data
from flaxnets.data import images
from flaxnets.data.stream import stream
from flaxnets.specs import Input
from parity_tests.data.reading import check_read
from parity_tests.fuzz import memory_below, one_line, untouched

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


def chunk(kind, content):
    """A chunk of a PNG, with its sum."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, depth=8, colour=0, idat=b""):
    """A PNG of any size with any data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(idat)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(8193, 8192), "has 8193 x 8192 pixels; make it smaller, 67,108,864 are the most"),
        (png(13000, 13000), "has 13000 x 13000 pixels; make it smaller, 67,108,864 are the most"),
        (png(60000, 60000), "cannot be decoded: Image size .3600000000 pixels. exceeds limit"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
            "cannot be decoded: it is none of BMP, GIF",
        ),
    ],
    ids=["a little", "much", "too much for Pillow", "another format"],
)
def test_pixels(tmp_path, content, message):
    """Sizes are known before a pixel is decoded, and formats are those of the suffixes."""
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with memory_below(32 << 20), pytest.raises(data.DataError, match=f"a.png {message}"):
        images.decode(path)


def test_large_file(tmp_path):
    """A file that is larger than an image can be is not read."""
    path = tmp_path / "a.webp"
    path.write_bytes(b"RIFF\xf0\xff\xff\xffWEBPVP8 ")
    os.truncate(path, 1 << 40)
    with pytest.raises(data.DataError, match=r"a.webp cannot be decoded: a file of 1,099,511,"):
        images.decode(path)


def test_memory(tmp_path, monkeypatch):
    """What an image of the most pixels takes is what is said beside that number."""
    monkeypatch.setattr(images, "PIXELS", 2000 * 2000)
    for name, mode in (("a.png", "RGB"), ("b.png", "L"), ("c.bmp", "RGB"), ("d.tif", "RGB")):
        Image.new(mode, (2000, 2000)).save(tmp_path / name)
        with memory_below(20 * images.PIXELS + (8 << 20)):
            assert images.decode(tmp_path / name).shape[:2] == (2000, 2000)


def test_pipe(tmp_path):
    """A pipe that nobody writes to is refused, and not waited for."""
    for i in range(6):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", 3, 3)
    os.mkfifo(tmp_path / "a" / "1.png")
    with pytest.raises(data.DataError, match=r"a/1.png cannot be decoded: no plain file"):
        np.asarray(data.load("mine", tmp_path).train_inputs)


def test_links(tmp_path, monkeypatch):
    """A class and an image may be links; folders in a circle and deep ones end."""
    for i in range(6):
        write(tmp_path / "images" / "ab"[i % 2] / f"{i}.png", 3, 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").symlink_to(tmp_path / "images" / "a")
    (tmp_path / "mine" / "circle").symlink_to("circle")
    (tmp_path / "images" / "b" / "above").symlink_to("..")
    (tmp_path / "images" / "b" / "again.png").symlink_to("1.png")
    (tmp_path / "mine" / "b").symlink_to(tmp_path / "images" / "b")
    found = data.load("mine", tmp_path / "mine")
    assert found.labels == ("a", "b")
    assert np.bincount(found.train_targets).tolist() == [2, 3]
    monkeypatch.chdir(tmp_path / "mine")
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    os.symlink(tmp_path / "images" / "a" / "0.png", "a.png")
    assert data.load("mine", tmp_path / "mine").labels == ("a", "b", "d")
    os.unlink("a.png")
    for _ in range(1200):  # which pytest, too, would go down one call each
        os.chdir("..")
        os.rmdir("d")


def test_link_to_nothing(tmp_path):
    """It is named, as a terminal may show it."""
    for i in range(6):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", 3, 3)
    (tmp_path / "a" / "\x1b[31m.png").symlink_to("/nowhere")
    with pytest.raises(data.DataError, match=r"/a/\\x1b\[31m.png cannot be read: No such file"):
        data.load("mine", tmp_path)


def test_names(tmp_path):
    """Classes are shown as a terminal may show them."""
    for name in (b"\xff", b"\x1b[31m", "\u00e9".encode()):
        for i in range(3):
            write(tmp_path / os.fsdecode(name) / f"{i}.png", 3, 3)
    assert data.load("mine", tmp_path).labels == (r"\x1b[31m", "\u00e9", r"\udcff")


SIDES = [(1, 1), (8, 6), (1, 40), (70, 1)]
MODES = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "jpeg": ["L", "RGB", "CMYK"],
    "gif": ["1", "L", "P", "RGB"],
    "bmp": ["1", "L", "P", "RGB", "RGBA"],
    "tiff": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"],
    "webp": ["RGB", "RGBA"],
    "ppm": ["1", "L", "RGB", "I"],
}
OPTIONS = {
    "png": [{}, {"save_all": True}, {"exif": True, "icc_profile": True}, {"bits": 2}],
    "jpeg": [{}, {"progressive": True}, {"exif": True, "icc_profile": True}],
    "gif": [{}, {"save_all": True, "loop": 1}, {"interlace": 1, "transparency": 0}],
    "tiff": [
        {},
        {"save_all": True},
        {"exif": True, "icc_profile": True},
        *({"compression": name} for name in ("tiff_lzw", "tiff_deflate", "packbits")),
    ],
    "webp": [{}, {"save_all": True}, {"lossless": True}, {"exif": True, "icc_profile": True}],
}
NUMBERS = st.sampled_from(
    [*range(10), 16, 24, 32, 255, 256, 1000, 4095, 13000, 65535, 2**31 - 1, 2**31, 2**32 - 1]
)


@functools.cache
def encoded(kind, mode, size, number):
    """An image as Pillow writes it."""
    image = Image.linear_gradient("L").resize(size).convert(mode)
    options = dict(OPTIONS.get(kind, [{}])[number])
    if options.pop("exif", None):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # turned to the left
    if options.pop("icc_profile", None):
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if options.get("save_all"):
        options["append_images"] = [image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def fields(kind, content):
    """Places of numbers that say what follows, as offset, width and order of bytes."""
    if kind == "jpeg":
        marks = [one.start() for one in re.finditer(rb"\xff[\xc0-\xcf\xda-\xe2]", content)]
        return [
            (m + at, n, "big") for m in marks for at, n in ((2, 2), (4, 1), (5, 2), (7, 2), (9, 1))
        ]
    if kind == "gif":
        frames = [one.start() for one in re.finditer(rb",\x00\x00\x00\x00", content)]
        found = [(6, 2), (8, 2), (10, 1), *((f + at, 2) for f in frames for at in (1, 3, 5, 7))]
    elif kind == "bmp":
        found = [(10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4)]
    elif kind == "tiff":
        start = int.from_bytes(content[4:8], "little")
        count = int.from_bytes(content[start : start + 2], "little")
        entries = range(start + 2, start + 2 + 12 * count, 12)
        found = [(e + at, n) for e in entries for at, n in ((0, 2), (2, 2), (4, 4), (8, 4))]
        found += [(start, 2), (4, 4), (start + 2 + 12 * count, 4)]
    else:  # webp
        found = [(4, 4), (16, 4), (20, 4), (24, 3), (26, 2), (27, 3), (28, 2)]
    return [(offset, width, "little") for offset, width in found]


@st.composite
def pngs(draw, content):
    """The chunks of a PNG: removed, repeated, put in, or with another header."""
    chunks, place = [], 8
    while place < len(content):
        (size,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(chunks) - 1))
        way = draw(
            st.sampled_from(["header", "header", "remove", "repeat", "put", "put", "pixels"])
        )
        if way == "header":
            offset, width = draw(st.sampled_from([(0, 4), (4, 4), *((i, 1) for i in range(8, 13))]))
            header = bytearray(chunks[0][1].ljust(13, b"\0"))
            header[offset : offset + width] = (draw(NUMBERS) % 256**width).to_bytes(width, "big")
            chunks[0] = b"IHDR", bytes(header)
        elif way == "remove" and len(chunks) > 1:
            del chunks[place]
        elif way == "repeat":
            chunks.insert(draw(st.integers(0, len(chunks))), chunks[place])
        elif way == "put":
            kinds = [
                b"tEXt",
                b"zTXt",
                b"iTXt",
                b"iCCP",
                b"eXIf",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"tRNS",
            ]
            name = draw(st.sampled_from([*kinds, b"PLTE", b"gAMA", b"pHYs", b"IEND", b"\0\0\0\0"]))
            body = draw(st.one_of(st.sampled_from(BODIES), st.binary(max_size=40)))
            chunks.insert(draw(st.integers(0, len(chunks))), (name, body))
        elif way == "pixels":
            chunks[place] = b"IDAT", draw(st.sampled_from(BODIES))
    return content[:8] + b"".join(chunk(*one) for one in chunks)


BODIES = [
    *(b"", b"a\0\0", b"a\0\0" + zlib.compress(bytes(1 << 24)), b"\0" * 26, b"\xff" * 768),
    *(zlib.compress(bytes(size)) for size in (0, 9, 1 << 12, 1 << 24)),
    *(b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", b"\0\0\0\2\0\0\0\0"),
]


@st.composite
def pictures(draw):
    """A file of one of the formats, with up to three of its numbers or chunks changed."""
    kind = draw(st.sampled_from(list(MODES)))
    mode, size = draw(st.sampled_from(MODES[kind])), draw(st.sampled_from(SIDES))
    number = draw(st.integers(0, len(OPTIONS.get(kind, [{}])) - 1))
    content = encoded(kind, mode, size, number)
    way = draw(st.sampled_from(["none", "numbers", "numbers", "numbers", "cut", "bytes"]))
    if way == "cut":
        content = content[: draw(st.integers(0, len(content)))]
    elif way == "bytes":
        content = bytearray(content)
        for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
            content[place] = draw(st.integers(0, 255))
    elif way == "numbers" and kind == "png":
        content = draw(pngs(content))
    elif way == "numbers" and kind == "ppm":
        head = b" ".join(b"%d" % draw(NUMBERS) for _ in range(draw(st.integers(0, 4))))
        content = b"P%d " % draw(st.integers(0, 9)) + head + b"\n" + content[12:]
    elif way == "numbers":
        places = fields(kind, content)
        content = bytearray(content)
        for _ in range(draw(st.integers(1, 3))):
            offset, width, order = draw(st.sampled_from(places))
            value = (draw(NUMBERS) % 256**width).to_bytes(width, order)
            content[offset : offset + width] = value
    return kind, bytes(content)


def test_any_structure(tmp_path, monkeypatch, attack):
    """Images of any structure: pixels between 0 and 1, or one line."""
    monkeypatch.setattr(images, "PIXELS", 1 << 20)

    def check(drawn):
        kind, content = drawn
        path = tmp_path / f"a.{kind}"
        path.write_bytes(content)
        with untouched(tmp_path), memory_below(64 << 20), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, as in a run
            with one_line(data.DataError):
                found = images.decode(path)
                assert found.dtype == np.float32
                assert found.shape[2] in (1, 3)
                assert found.shape[0] * found.shape[1] <= images.PIXELS
                assert (found >= 0).all()
                assert (found <= 1).all()
        path.unlink()

    attack("images", pictures(), check, 200)


FOLDERS = st.sampled_from(["", "a", "b", "train", "test", "train/a", "test/a", "train/b", "test/b"])
FILES = st.sampled_from(
    [
        *(b"a", b"b", b"c", b"train", b"test", b"x.png", b"y.JPG", b".hidden.png", b"__MACOSX"),
        *(b"\xff\xfe", b"\x1b[31m.png", b"new\nline", "\u202egnp.png".encode(), b"a" * 250, b" "),
        *(b"a.csv", b"x.txt", b"t10k-ubyte", b"\xc3\xa9.gif", b"x.npz"),
    ]
).map(os.fsdecode)
THINGS = [
    "image",
    "image",
    "coloured",
    "broken",
    "empty",
    "folder",
    "pipe",
    "remove",
    "away",
    "up",
    "circle",
    "same",
]


@st.composite
def trees(draw):
    """Where classes are, and what is done to the tree."""
    parts = draw(st.sampled_from([[""], [""], ["train", "test"], ["train"]]))
    changes = st.tuples(FOLDERS, FILES, st.sampled_from(THINGS))
    return parts, draw(st.sampled_from([0, 1, 3])), draw(st.lists(changes, max_size=4))


def change(path, thing):
    """Put something into a tree, if its place is there and free."""
    if thing == "remove":
        shutil.rmtree(path.parent)
    elif thing in ("away", "up", "circle", "same"):
        ends = {"away": "/nowhere", "up": "..", "circle": path.name, "same": "../a"}
        path.symlink_to(ends[thing])
    elif thing == "folder":
        path.mkdir()
    elif thing == "pipe":
        os.mkfifo(path)
    else:
        content = {
            "empty": b"",
            "broken": b"\x89PNG\r\n\x1a\n",
            "image": GREY,
            "coloured": COLOURED,
        }
        path.write_bytes(content[thing])


GREY, COLOURED = (encoded("png", mode, (3, 3), 0) for mode in ("L", "RGB"))


def test_any_tree(tmp_path, attack):
    """Folders of any structure: a right data set or one line."""

    def check(drawn):
        parts, count, changes = drawn
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for part in parts:
            for label in "ab":
                (folder / part / label).mkdir(parents=True)
                for i in range(count):
                    (folder / part / label / f"{i}.png").write_bytes(COLOURED)
        for place, name, thing in changes:
            path = folder / place / name
            if path.parent.is_dir() and not os.path.lexists(path) and not path.parent.is_symlink():
                change(path, thing)
        if folder.is_dir():
            check_read(folder, folder)
            shutil.rmtree(folder)

    attack("folders of images", trees(), check, 100)
