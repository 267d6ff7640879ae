"""Folders of images, one subfolder a class, which are decoded when they are asked for.

Axes: h w pixels, c channels.
"""

import hashlib
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32

from flaxnets.data.dataset import DataError, Dataset, fifth
from flaxnets.data.lazy import Lazy
from flaxnets.data.packaged import package
from flaxnets.edge.files import opened
from flaxnets.edge.message import printable

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # what these suffixes stand for
PIXELS = 1 << 26  # a full-frame camera's 61 million; decoded in colours, 1.3 GB
BYTES = 8 * PIXELS  # of a file: four channels of 16 bits
FILTERS = threading.Lock()  # of warnings, which all threads share
GREY = ("1", "L", "LA", "La")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # 16 bits a pixel
COLOURED = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


def is_folder(path: Path) -> bool:
    """Whether a folder has a subfolder with an image in it, at any depth.

    >>> is_folder(Path(__file__).parent)
    False
    """
    return any(True for folder in _subfolders(path) for _ in _images(folder))


def read(folder: Path, name: str) -> Dataset:
    """The images of a folder; what their subfolders are called are their classes.

    Images differ in size and channels until `fit` makes them fit a network. Where there are the
    subfolders train and test, the classes are in these; else a fifth of every class is held out.

    Args:
        folder: of one subfolder a class, which may be a link and is searched at any depth, but
            not through further links to folders; files that are not images are passed over.
        name: of the data set.

    Raises:
        DataError: one of train and test without the other, a class that is in test only, a class
            without an image; later, of an image that cannot be decoded, which one.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(6):
    ...         path = Path(folder, "dark" if i < 3 else "light", f"{i}.png")
    ...         path.parent.mkdir(exist_ok=True)
    ...         Image.new("L", (4 + i, 5), 51 * i).save(path)
    ...     found = read(Path(folder), "mine")
    ...     found.labels, found.train_inputs[1].shape, float(found.test_inputs[1][0, 0, 0])
    (('dark', 'light'), (5, 6, 1), 0.6000000238418579)
    """
    parts = [folder / part for part in ("train", "test") if (folder / part).is_dir()]
    if len(parts) == 1:
        other = "test" if parts[0].name == "train" else "train"
        raise DataError(f"{printable(folder)} has a folder {parts[0].name} but none {other}")
    labels = {path.name: i for i, path in enumerate(_subfolders(parts[0] if parts else folder))}
    if not parts:
        paths, targets = _examples(folder, labels)
        held_out = fifth(targets, folder)
        split = [
            ([paths[i] for i in np.flatnonzero(rows)], targets[rows])
            for rows in (~held_out, held_out)
        ]
    else:
        for path in _subfolders(parts[1]):
            if path.name not in labels:
                raise DataError(f"{printable(path)} is a class that {printable(parts[0])} lacks")
        split = [_examples(part, labels) for part in parts]
    (train, train_targets), (test, test_targets) = split
    return Dataset(
        name,
        _decoded(train),
        train_targets,
        _decoded(test),
        test_targets,
        num_classes=len(labels),
        labels=tuple(map(printable, labels)),
    )


def decode(path: Path) -> Float32[np.ndarray, "h w c"]:
    """The pixels of an image between 0 and 1, grey or in red, green and blue.

    Transparency is left out; of several pictures in a file the first is taken.

    Raises:
        DataError: a file that Pillow cannot decode, or one with pixels of another kind.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (1, 1), (255, 0, 51)).save(Path(folder, "a.png"))
    ...     decode(Path(folder, "a.png")).round(1).tolist()
    [[[1.0, 0.0, 0.20000000298023224]]]
    """
    where = printable(path)
    try:
        with opened(path) as file, _opened(file) as image:
            if image.mode not in GREY + DEEP + COLOURED:
                raise DataError(f"{where} has pixels of mode {image.mode}; want 8 or 16 bits each")
            if image.width * image.height > PIXELS:
                raise DataError(
                    f"{where} has {image.width} x {image.height} pixels; make it smaller, "
                    f"{PIXELS:,} are the most"
                )
            mode = "L" if image.mode in GREY else "RGB"
            if image.mode in DEEP:
                pixels = np.asarray(image) / np.float32(65535)
            else:
                whole = image if image.mode == mode else image.convert(mode)
                pixels = np.asarray(whole) / np.float32(255)
    except DataError:
        raise
    # Pillow's plugins raise whatever they trip over in a broken file.
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        said = printable(reason or type(error).__name__)
        raise DataError(f"{where} cannot be decoded: {said}") from None
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _opened(file: BinaryIO) -> Any:
    """An image whose size is known and whose pixels are not decoded yet."""
    if (size := os.fstat(file.fileno()).st_size) > BYTES:
        raise ValueError(f"a file of {size:,} bytes, more than {BYTES:,}")
    pillow = package("PIL.Image", "Pillow")
    with FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", pillow.DecompressionBombWarning)  # of a size we refuse
        try:
            return pillow.open(file, formats=FORMATS)
        except pillow.UnidentifiedImageError:
            raise ValueError(f"it is none of {', '.join(FORMATS)}") from None


def _decoded(paths: list[Path]) -> Lazy:
    try:
        about = [(path.name, path.stat().st_size) for path in paths]
    except OSError as error:  # a link to what is not there
        where = printable(error.filename)
        raise DataError(f"{where} cannot be read: {error.strerror}") from None
    identity = hashlib.sha256(repr(about).encode()).hexdigest()
    return Lazy(len(paths), lambda number: decode(paths[number]), identity)


def _examples(folder: Path, labels: dict[str, int]) -> tuple[list[Path], np.ndarray]:
    paths: list[Path] = []
    targets: list[int] = []
    for name, label in labels.items():
        found = sorted(_images(folder / name))
        if not found:
            suffixes = ", ".join(SUFFIXES)
            raise DataError(f"{printable(folder / name)} holds no image; want {suffixes}")
        paths += found
        targets += [label] * len(found)
    return paths, np.array(targets, np.int32)


def _images(folder: Path) -> Iterator[Path]:
    left = [folder]
    while left:
        for entry in _listed(left.pop()):
            path = Path(entry)
            if entry.is_dir(follow_symlinks=False):  # a link might lead in a circle
                left.append(path)
            elif path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                yield path


def _subfolders(folder: Path) -> list[Path]:
    # Unlike DirEntry.is_dir, Path.is_dir does not raise for links in a circle.
    found = sorted(path for path in map(Path, _listed(folder)) if path.is_dir())
    return [path for path in found if not path.name.startswith((".", "__"))]


def _listed(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{printable(folder)} cannot be read: {error.strerror}") from None
