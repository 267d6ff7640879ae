"""Folders of images, one subfolder a class, which are decoded when they are asked for.

Axes: h w pixels, c channels.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from flaxnets.data.dataset import DataError, Dataset, fifth
from flaxnets.data.lazy import Lazy
from flaxnets.data.packaged import package

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
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
        folder: of one subfolder a class; files that are not images are passed over.
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
        raise DataError(f"{folder} has a folder {parts[0].name} but none {other}")
    labels = tuple(path.name for path in _subfolders(parts[0] if parts else folder))
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
                raise DataError(f"{path} is a class that {parts[0]} lacks")
        split = [_examples(part, labels) for part in parts]
    (train, train_targets), (test, test_targets) = split
    return Dataset(
        name,
        _decoded(train),
        train_targets,
        _decoded(test),
        test_targets,
        num_classes=len(labels),
        labels=labels,
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
    pillow = package("PIL.Image", "Pillow")
    try:
        with pillow.open(path) as image:
            mode = image.mode
            if mode in DEEP:
                pixels = np.asarray(image) / np.float32(65535)
            elif mode in GREY:
                pixels = np.asarray(image.convert("L")) / np.float32(255)
            else:
                pixels = np.asarray(image.convert("RGB")) / np.float32(255)
    # Pillow's plugins raise whatever they trip over in a broken file.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be decoded: {reason}") from None
    if mode not in GREY + DEEP + COLOURED:
        raise DataError(f"{path} has pixels of mode {mode}; want 8 or 16 bits a channel")
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _decoded(paths: list[Path]) -> Lazy:
    about = [(path.name, path.stat().st_size) for path in paths]
    identity = hashlib.sha256(repr(about).encode()).hexdigest()
    return Lazy(len(paths), lambda number: decode(paths[number]), identity)


def _examples(folder: Path, labels: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    paths: list[Path] = []
    targets: list[int] = []
    for label, name in enumerate(labels):
        found = sorted(_images(folder / name))
        if not found:
            raise DataError(f"{folder / name} holds no image; want {', '.join(SUFFIXES)}")
        paths += found
        targets += [label] * len(found)
    return paths, np.array(targets, np.int32)


def _images(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            yield path


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None
    return [path for path in found if not path.name.startswith((".", "__"))]
