"""Text is what was written; the errors of other places where files are read are tested there."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flaxnets.data import DataError, load
from flaxnets.data.dataset import Memory
from flaxnets.data.files import read_text, train_and_test
from parity_tests.fuzz import memory_below, one_line


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\N{BYTE ORDER MARK}")))
def test_any_text(tmp_path_factory, text):
    """Any text comes back, with or without a byte-order mark, ends of lines included."""
    path = tmp_path_factory.mktemp("text") / "a.txt"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_bytes(text.encode(encoding))
        assert read_text(path) == text


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from([b"\xff", b"\x80", b"\xc3(", b"\xed\xa0\x80"]),
)
def test_not_text(tmp_path_factory, text, wrong):
    """What is not UTF-8 is named with its line."""
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode() + wrong)
    line = text.count("\n") + 1
    with pytest.raises(DataError, match=f"a.txt:{line}: byte 0x{wrong[0]:02x} is not UTF-8$"):
        read_text(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.csv", "b.csv"], "has 0 [*].csv files with train in their name"),
        (["train.csv", "b.csv"], "has 0 [*].csv files with test in their name"),
        (["train.csv", "train2.csv", "test.csv"], "has 2 [*].csv files with train in their name"),
    ],
)
def test_no_pair(names, message):
    """Which part is missing or there twice is said."""
    with pytest.raises(DataError, match=message):
        train_and_test([Path("folder", name) for name in names])


def test_size(tmp_path):
    """A file of a terabyte is counted, and not read."""
    path = tmp_path / "a.txt"
    path.touch()
    os.truncate(path, 1 << 40)
    for memory in (None, Memory(1 << 39)):
        with memory_below(1 << 20), pytest.raises(DataError, match="takes 1,099,511,627,776 bytes"):
            read_text(path, memory)


@pytest.mark.parametrize("name", ["a\0.csv", "\ud800.npz", "\x1b[31m.csv", "a\nb", "x" * 5000])
def test_names(tmp_path, name):
    """Any name of a file or folder is refused in one line that a terminal may show."""
    with one_line(DataError), pytest.raises(DataError, match=r"cannot be read|is not a folder"):
        load("mine", tmp_path / name)
    with one_line(DataError):
        load(name, tmp_path / name)
