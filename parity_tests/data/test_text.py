"""Text in passages: laid end to end they are the text; nothing of the test is trained on."""

import pydoc_data.topics

import numpy as np
import pytest

from flaxnets import data
from flaxnets.data import text
from flaxnets.specs import MASK, PAD


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
