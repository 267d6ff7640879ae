"""Tables of comma-separated values (RFC 4180) with a header.

Axes: n rows, f features.
"""

import csv
import io
import re
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from flaxnets.data.dataset import LIMIT, DataError, Dataset, Memory, fifth
from flaxnets.data.files import read_text, train_and_test
from flaxnets.edge.message import printable

TARGET = "target"  # the column of this name, or the last one
LARGEST = float(np.finfo(np.float32).max)
NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
# Bytes of memory, at most: of a byte of a file, which is held as bytes and as two texts; of a cell,
# as a float32 of its file, of all files and of its part; of a row, as its line and target; of a
# column, as its name and a cell's text.
TEXT, CELL, ROW, COLUMN = 9, 12, 128, 128


@dataclass(frozen=True)
class _Table:
    path: Path
    header: list[str]
    features: np.ndarray
    targets: list[str]
    lines: "array[int]"


def read(files: list[Path], name: str, limit: int = LIMIT) -> Dataset:
    r"""The rows of CSV files: the column `target`, or the last, is what the others tell.

    Features are numbers and stay as they are. Targets are classes where they are words, or the
    integers 0 to k - 1, each of them at least once; else they are numbers. Of a single file a
    fifth is held out, of every class where there are classes.

    Args:
        files: one with "train" and one with "test" in its name, beside others that are not read;
            or a single one.
        name: of the data set.
        limit: bytes of memory that it may take.

    Raises:
        DataError: a file that cannot be read or is too large, a row of another length than the
            header, a cell that is empty or no finite number; file and line are named.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.csv")
    ...     _ = path.write_text("size,kind\n1,cat\n2,cat\n3,cat\n7,dog\n8,dog\n9,dog\n")
    ...     found = read([path], "mine")
    >>> found.test_inputs.tolist(), found.test_targets.tolist(), found.labels
    ([[1.0], [7.0]], [0, 1], ('cat', 'dog'))
    """
    memory = Memory(limit)
    paths = files if len(files) == 1 else train_and_test(files)
    tables = [_parse(path, memory) for path in paths]
    if tables[0].header != tables[-1].header:
        there, here = (printable(table.path) for table in tables)
        raise DataError(f"{here}:1: the columns are not those of {there}")
    inputs = np.concatenate([table.features for table in tables])
    targets, labels = _targets(tables)
    if len(tables) == 1:
        held_out = fifth(targets, files[0])
    else:
        held_out = np.repeat([False, True], [len(table.targets) for table in tables])
    return Dataset(
        name,
        inputs[~held_out],
        targets[~held_out],
        inputs[held_out],
        targets[held_out],
        num_classes=len(labels) or None,
        labels=labels,
    )


def _parse(path: Path, memory: Memory) -> _Table:
    """One file, whose features are numbers; targets are still text."""
    rows = csv.reader(io.StringIO(read_text(path, memory, TEXT), newline=""), strict=True)
    header: list[str] = []
    features, targets, lines = array("f"), list[str](), array("q")
    line, place = 1, 0
    where = printable(path)
    try:
        for cells in rows:
            if not header:
                header = [cell.strip() for cell in cells]
                memory.take(COLUMN * len(header), f"{path}:{line}")
                _check_header(where, header)
                place = header.index(TARGET) if TARGET in header else len(header) - 1
            elif cells:
                if len(cells) != len(header):
                    raise DataError(f"{where}:{line}: {len(cells)} columns, not {len(header)}")
                memory.take(CELL * len(cells) + ROW, f"{path}:{line}")
                texts = [cell.strip() for cell in cells]
                if "" in texts:
                    column = printable(header[texts.index("")])
                    raise DataError(f"{where}:{line}: column '{column}' is empty")
                targets.append(texts.pop(place))
                numbers = [_number(text) for text in texts]
                if None in numbers:
                    wrong = texts[numbers.index(None)]
                    raise DataError(f"{where}:{line}: {wrong[:40]!r} is not a finite number")
                features.extend(cast(list[float], numbers))
                lines.append(line)
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(f"{where}:{rows.line_num}: {printable(error)}") from None
    if not targets:
        raise DataError(f"{where} has no row behind its header; want 1 or more")
    table = np.frombuffer(features, np.float32).reshape(len(targets), -1)
    return _Table(path, header, table, targets, lines)


def _check_header(where: str, header: list[str]) -> None:
    if len(header) < 2:
        raise DataError(f"{where}:1: {len(header)} columns; want 2 or more with commas between")
    if "" in header:
        raise DataError(f"{where}:1: column {header.index('') + 1} has no name")
    column, times = Counter(header).most_common(1)[0]
    if times > 1:
        raise DataError(f"{where}:1: column '{printable(column)}' is there {times} times")
    if all(_number(column) is not None for column in header):
        raise DataError(f"{where}:1: numbers, not the names of columns; put a header there")


def _number(text: str) -> float | None:
    """The number that a text writes in the way of most languages, if float32 can hold it."""
    if not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) <= LARGEST else None


def _targets(tables: list[_Table]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels with what they mean, or numbers (n, 1) with nothing."""
    numeric = _number(tables[0].targets[0]) is not None
    for table in tables:
        for line, target in zip(table.lines, table.targets, strict=True):
            if (_number(target) is not None) != numeric:
                wrong = "not a finite number" if numeric else "a number"
                raise DataError(
                    f"{printable(table.path)}:{line}: target {target[:40]!r} is {wrong}, "
                    "unlike the first one"
                )
    texts = [target for table in tables for target in table.targets]
    found = set(texts)
    if numeric and found != {str(number) for number in range(len(found))}:
        return np.array([float(text) for text in texts], np.float32)[:, None], ()
    labels = sorted(found, key=int if numeric else str)
    number = {label: i for i, label in enumerate(labels)}
    return np.array([number[text] for text in texts], np.int32), tuple(labels)
