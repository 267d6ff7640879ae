"""The IDX files in which MNIST, Fashion-MNIST and their kin are published.

Format: http://yann.lecun.com/exdb/mnist: two zero bytes, the element type, the number of
axes, every length as a big-endian 32-bit integer, the elements.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from flaxnets.data.dataset import DataError, Dataset

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
UNSIGNED_BYTE = 8


def fashion_mnist() -> Dataset:
    """60,000 + 10,000 images 28x28 of clothes (Xiao et al. 2017, arXiv 1708.07747)."""
    if not FASHION_MNIST.is_dir():
        raise DataError(
            f"fashion-mnist is not at {FASHION_MNIST}; apt-get install dataset-fashion-mnist, "
            "or give --data-dir"
        )
    return read_folder("fashion-mnist", FASHION_MNIST)


def read_folder(name: str, folder: Path) -> Dataset:
    """The four files train-images, train-labels, t10k-images and t10k-labels of a folder.

    Raises:
        DataError: a file that is missing or broken, or images and labels that do not match.
    """
    parts = {}
    for part in ("train", "t10k"):
        images = read(_find(folder, f"{part}-images"))
        labels = read(_find(folder, f"{part}-labels"))
        if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels):
            raise DataError(
                f"{folder}: {part} has images {images.shape} and labels {labels.shape}; "
                "want (n, h, w) and (n,), n at least 1"
            )
        parts[part] = (images / np.float32(255))[..., None], labels.astype(np.int32)
    if parts["train"][0].shape[1:] != parts["t10k"][0].shape[1:]:
        raise DataError(f"{folder}: train and t10k images differ in size")
    classes = max(int(labels.max()) for _, labels in parts.values()) + 1
    return Dataset(name, *parts["train"], *parts["t10k"], num_classes=classes)


def read(path: Path) -> np.ndarray:
    """The array of one IDX file of unsigned bytes, gzipped or not.

    Raises:
        DataError: another element type, or a file that is not as long as it says.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(content) < 4 or content[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise DataError(f"{path} is no IDX file of unsigned bytes (it begins {content[:4]!r})")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{path} ends inside its header")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    size = int(np.prod(shape, dtype=object))
    if len(content) - start != size:
        raise DataError(f"{path} holds {len(content) - start} bytes, not {size} for {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _find(folder: Path, stem: str) -> Path:
    found = sorted(folder.glob(f"{stem}*ubyte*"))
    if not found:
        raise DataError(f"{folder} holds no {stem}-idx*-ubyte or {stem}-idx*-ubyte.gz")
    return found[0]
