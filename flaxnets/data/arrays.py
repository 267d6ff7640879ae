"""Arrays in NumPy's .npz archives; nothing in them is ever unpickled.

Axes: n examples, f features, h w pixels, c channels, o outputs.
"""

from pathlib import Path

import numpy as np

from flaxnets.data.dataset import DataError, Dataset, fifth

WHOLE = ("inputs", "targets")
PARTS = ("train_inputs", "train_targets", "test_inputs", "test_targets")


def read(files: list[Path], name: str) -> Dataset:
    """The arrays `inputs` and `targets`, or both of them as train_ and test_, of one archive.

    Inputs are rows (n, f) or images (n, h, w) or (n, h, w, c); those of unsigned bytes are
    divided by 255. Targets are labels (n,) of integers from 0, or real numbers (n,) or (n, o).
    Without a test part a fifth is held out, of every class where there are classes.

    Args:
        files: a single one.
        name: of the data set.

    Raises:
        DataError: several files, a broken one, or arrays that are none of these.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.npz")
    ...     np.savez(path, inputs=np.eye(10), targets=np.arange(10) % 2)
    ...     found = read([path], "mine")
    >>> found.train_inputs.shape, found.test_targets, found.num_classes
    ((8, 10), array([0, 1], dtype=int32), 2)
    """
    if len(files) != 1:
        raise DataError(f"{files[0].parent} has {len(files)} *.npz files; want one")
    path = files[0]
    arrays = _load(path)
    if set(arrays) not in (set(WHOLE), set(PARTS)):
        raise DataError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; "
            f"want {' and '.join(WHOLE)}, or {', '.join(PARTS)}"
        )
    fitted = {
        key: (_inputs if key.endswith("inputs") else _targets)(f"{path}: {key}", arrays[key])
        for key in arrays
    }
    if set(arrays) == set(WHOLE):
        _check_pair(path, fitted["inputs"], fitted["targets"])
        held_out = fifth(fitted["targets"], path)
        train, test = ([fitted[key][rows] for key in WHOLE] for rows in (~held_out, held_out))
    else:
        train, test = [fitted[key] for key in PARTS[:2]], [fitted[key] for key in PARTS[2:]]
        for what, some, others in zip(WHOLE, train, test, strict=True):
            if (some.shape[1:], some.dtype) != (others.shape[1:], others.dtype):
                raise DataError(
                    f"{path}: train_{what} are {some.dtype} {some.shape[1:]} each, "
                    f"test_{what} {others.dtype} {others.shape[1:]}"
                )
        _check_pair(path, *train)
        _check_pair(path, *test)
    labelled = train[1].dtype == np.int32
    classes = int(max(train[1].max(), test[1].max())) + 1 if labelled else None
    return Dataset(name, train[0], train[1], test[0], test[1], num_classes=classes)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:  # by us, as NumPy leaves a broken one open
            if file.read(2) != b"PK":
                raise ValueError("it does not begin as a zip file does")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {key: np.asarray(archive[key]) for key in archive.files}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    # A broken archive raises whatever zipfile, zlib and the parser of headers trip over.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is no npz archive of plain arrays: {reason}") from None


def _inputs(where: str, array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3, 4) or not array.size:
        raise DataError(
            f"{where} has the shape {array.shape}; want (n, f), (n, h, w), (n, h, w, c)"
        )
    numbers = _numbers(where, array)
    if array.dtype == np.uint8:
        numbers = numbers / np.float32(255)
    return numbers[..., None] if array.ndim == 3 else numbers


def _targets(where: str, array: np.ndarray) -> np.ndarray:
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{where} has the shape {array.shape}; want (n,) or (n, o)")
    if array.dtype.kind not in "biu":
        return _numbers(where, array).reshape(len(array), -1)
    if array.ndim != 1:
        raise DataError(f"{where} are integers {array.shape}; want (n,), or real numbers (n, o)")
    if array.min() < 0 or array.max() >= np.iinfo(np.int32).max:
        raise DataError(f"{where} are {array.min()} to {array.max()}; labels count from 0")
    return array.astype(np.int32)


def _numbers(where: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} is of {array.dtype}, not of numbers")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        place = tuple(map(int, wrong[0]))
        raise DataError(f"{where} holds {array[place]} at {place}, which is no finite float32")
    return numbers


def _check_pair(path: Path, inputs: np.ndarray, targets: np.ndarray) -> None:
    if len(inputs) != len(targets):
        raise DataError(f"{path}: {len(inputs)} inputs, {len(targets)} targets")
