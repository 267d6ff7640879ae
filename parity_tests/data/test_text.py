"""Text in passages: laid end to end they are the text; nothing of the test is trained on."""

import os
import pydoc_data.topics

import numpy as np
import pytest
from hypothesis import strategies as st

from flaxnets import data
from flaxnets.data import text
from flaxnets.specs import MASK, PAD
from parity_tests.data.reading import check_read
from parity_tests.fuzz import memory_below


@pytest.fixture(scope="module")
def found():
    """Python's documentation."""
    return data.load("python-docs")


def test_passages(found):
    """Passages of 32 words, mostly known ones; MASK is none of them."""
    for tokens, lengths in (found.train_inputs, found.test_inputs):
        assert tokens.shape == (len(lengths), 32)
        assert lengths.min() >= 1
        assert ((tokens == PAD) == (np.arange(32) >= lengths[:, None])).all()
        assert (tokens != MASK).all()
        assert np.mean(tokens == 3) < 0.12
    assert len(found.train_inputs[0]) > 1000
    assert len(found.test_inputs[0]) > 100
    assert found.sizes == {"vocab_size": len(found.words)}
    assert found.words.index("statement") > MASK


def test_vocabulary(found):
    """Every word of the vocabulary occurs five times or more in training, frequent ones first."""
    counts = np.bincount(found.train_inputs[0].ravel(), minlength=len(found.words))[5:]
    assert counts.min() >= 5
    assert (np.diff(counts) <= 0).all()


def test_held_out(found):
    """No passage of 32 words of the test, none of them unknown, is anywhere in training."""
    names = sorted(pydoc_data.topics.topics)
    assert names[0] == "assert"
    shown = [
        " ".join(found.words[i] for i in row[:n]) for row, n in zip(*found.test_inputs, strict=True)
    ]
    assert shown[0].startswith('the " <unknown> " statement')
    trained = " ".join(
        " ".join(found.words[i] for i in row[:n])
        for row, n in zip(*found.train_inputs, strict=True)
    )
    long = [passage for passage in shown if passage.count(" ") == 31]
    assert len(long) > 100
    assert sum(passage in trained for passage in long) == 0


def test_same_twice(found):
    """The split is the same every time."""
    np.testing.assert_array_equal(text.python_docs().test_inputs[0], found.test_inputs[0])


def test_single_file(tmp_path):
    """Of one file the last tenth is for the test, and training and test are the whole text."""
    path = tmp_path / "mine.txt"
    path.write_text("A cat, a dog. " * 50, encoding="utf-8-sig")
    for place in (path, tmp_path):
        mine = data.load("mine", place)
        read = [
            mine.words[i]
            for tokens, lengths in (mine.train_inputs, mine.test_inputs)
            for row, n in zip(tokens, lengths, strict=True)
            for i in row[:n]
        ]
        assert read == ["a", "cat", ",", "a", "dog", "."] * 50
        assert mine.test_inputs[1].sum() == 30


def test_folder(tmp_path):
    """Of several files, every tenth is for the test."""
    for i in range(11):
        (tmp_path / f"{i:02}.txt").write_text(f"same same same word{i} " * 5)
    mine = data.load("mine", tmp_path)
    assert len(mine.train_inputs[0]) == 9
    assert len(mine.test_inputs[0]) == 2
    assert "word1" in mine.words
    assert "word0" not in mine.words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one two", r"mine.txt has 2 words; want 10 or more"),
        (b"", r"mine.txt has 0 words"),
        (b"good\nbad \xff", r"mine.txt:2: byte 0xff is not UTF-8"),
    ],
)
def test_broken(tmp_path, content, message):
    """What is wrong with a file is one line that names it."""
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(data.DataError, match=message):
        data.load("mine", tmp_path)


def test_absent(tmp_path):
    """A file that is not there, and files without a word."""
    with pytest.raises(data.DataError, match=r"gone.txt cannot be read: No such file"):
        data.load("mine", tmp_path / "gone.txt")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("word")
    with pytest.raises(data.DataError, match=r"\*.txt files without a word to train or test on"):
        data.load("mine", tmp_path)


@pytest.mark.parametrize("words", ["the cat, ", "ab ", "\N{GREEK SMALL LETTER ALPHA} ", "\u0130 "])
def test_limit_is_kept(tmp_path, words):
    """Text that takes just the limit is read within it, and a byte less is refused."""
    path = tmp_path / "a.txt"
    path.write_text(words * 100_000)
    limit = 48 * path.stat().st_size
    with memory_below(limit + (2 << 20)):
        assert data.load("mine", path, limit).sizes["vocab_size"] < 9
    with pytest.raises(data.DataError, match=f"a.txt: the data takes {limit:,} bytes of memory"):
        data.load("mine", path, limit - 1)


def test_pipe(tmp_path):
    """A pipe that nobody writes to is refused, and not waited for."""
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(data.DataError, match=r"a.txt cannot be read: no plain file"):
        data.load("mine", tmp_path)


TEXTS = st.tuples(
    st.one_of(
        st.text(max_size=40),
        st.sampled_from(
            [
                *(
                    "one two, three. " * 20,
                    "\x00" * 99,
                    "\x1b[31m red " * 9,
                    "\u0130" * 50,
                    "'" * 500,
                ),
                *(
                    "a'a" * 300,
                    "\r\n" * 50,
                    "\ud800",
                    "\ufeff\ufeff a",
                    "\U0001f4a9 " * 40,
                    "_ " * 30,
                ),
                *("x" * 100_000, "ab " * 20_000, "\u0301" * 100, "1 2 3 4 5 6 7 8 9 10 11 12 13"),
            ]
        ),
    ),
    st.sampled_from([*["utf-8"] * 6, "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp037", "utf-7"]),
    st.sampled_from(["replace", "surrogatepass", "backslashreplace"]),
    st.sampled_from([b"", b"", b"", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00"]),
)


def test_any_structure(tmp_path, attack):
    """Files of any text in any encoding: a right data set or one line."""

    def check(drawn):
        for i, (written, encoding, errors, end) in enumerate(drawn):
            errors = "replace" if errors == "surrogatepass" and encoding[:3] != "utf" else errors
            errors = "replace" if encoding == "utf-7" else errors
            (tmp_path / f"{i}.txt").write_bytes(written.encode(encoding, errors) + end)
        check_read(tmp_path, tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()

    drawn = st.one_of(
        st.lists(TEXTS, min_size=1, max_size=1), st.lists(TEXTS, min_size=1, max_size=12)
    )
    attack("text files", drawn, check, 100)
