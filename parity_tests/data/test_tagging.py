"""Tagged sentences: tokens and labels read as the file's words and tags."""

import os
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import strategies as st

from flaxnets import data
from flaxnets.data import tagging
from flaxnets.data.conllu import UPOS, read_conllu
from flaxnets.specs import UNKNOWN
from parity_tests.data.reading import check_read
from parity_tests.fuzz import memory_below

SENTENCES = read_conllu(tagging.ENGLISH)


def test_english():
    """Over 300 sentences, a sixth held out, which decode to the file in its order."""
    found = data.load("english-tags")
    assert len(SENTENCES) > 300
    assert len(found.test_targets) == -(-len(SENTENCES) // 6)
    parts = [(found.train_inputs, found.train_targets), (found.test_inputs, found.test_targets)]
    counts = [0, 0]
    for i, (words, tags, _) in enumerate(SENTENCES):
        part = int(i % 6 == 0)
        (tokens, lengths), targets = parts[part]
        row, counts[part] = counts[part], counts[part] + 1
        end = lengths[row]
        assert [found.labels[label] for label in targets[row, :end]] == tags
        for word, token in zip(words, tokens[row, :end], strict=True):
            assert token == UNKNOWN or found.words[token] == word.lower()
        assert (targets[row, end:] == -100).all()
        assert not tokens[row, end:].any()
    assert counts == [len(part) for _, part in parts]
    assert found.num_classes == found.sizes["tagset_size"] == 17
    assert found.sizes["vocab_size"] == len(found.words)


def test_unknown():
    """UNKNOWN is met in training, and is not much of the test."""
    found = data.load("english-tags")
    for tokens, lengths in (found.train_inputs, found.test_inputs):
        share = np.sum(tokens == UNKNOWN) / lengths.sum()
        assert 0 < share < 0.15


def test_no_overlap():
    """No sentence occurs twice, so that none of the test is trained on."""
    written = [" ".join(sentence.words).lower() for sentence in SENTENCES]
    assert len(set(written)) == len(written)


def test_text():
    """The comment over each sentence is its words, put together as the last column says."""
    texts, lines = [], []
    for line in tagging.ENGLISH.read_text(encoding="utf-8").split("\n"):
        if line.startswith("# text = "):
            texts.append(line.removeprefix("# text = "))
            lines.append("")
        elif line and not line.startswith("#"):
            columns = line.split("\t")
            lines[-1] += columns[1] + " " * (columns[9] != "SpaceAfter=No")
    assert [line.rstrip() for line in lines] == texts


def test_ambiguous():
    """Many words have several tags, as in real English, and 16 of the 17 tags occur."""
    tags = defaultdict(set)
    for sentence in SENTENCES:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            tags[word.lower()].add(tag)
    for word in ("run", "light", "book", "watch", "work", "help", "water"):
        assert tags[word] >= {"NOUN", "VERB"}
    assert tags["that"] == {"DET", "PRON", "SCONJ"}
    assert tags["to"] == {"ADP", "PART"}
    assert sum(len(found) > 1 for found in tags.values()) > 60
    assert len(set.union(*tags.values())) == 16


@pytest.fixture
def folder(tmp_path):
    """A treebank's folder: three parts, a README."""
    lines = tagging.ENGLISH.read_text(encoding="utf-8").split("\n\n")
    for part, chosen in (("train", lines[:40]), ("dev", lines[40:50]), ("test", lines[50:60])):
        (tmp_path / f"en-ud-{part}.conllu").write_text("\n\n".join(chosen), encoding="utf-8")
    (tmp_path / "README.txt").write_text("A treebank.")
    return tmp_path


def test_folder(folder):
    """Train and test are the files of these names."""
    found = data.load("mine", folder)
    assert len(found.train_targets) == 40
    assert len(found.test_targets) == 10
    assert found.test_inputs[1].tolist() == [len(one.words) for one in SENTENCES[50:60]]


def test_file(folder):
    """A single file, named or alone in its folder, is split."""
    (folder / "en-ud-train.conllu").unlink()
    (folder / "en-ud-test.conllu").unlink()
    for place in (folder, folder / "en-ud-dev.conllu"):
        found = data.load("mine", place)
        assert len(found.train_targets) == 8
        assert len(found.test_targets) == 2


def test_wrong_files(folder):
    """Two files of train, no file of test, a file without sentences: each is named."""
    (folder / "en-ud-train2.conllu").write_text("")
    with pytest.raises(data.DataError, match=r"has 2 \*.conllu files with train in their name"):
        data.load("mine", folder)
    (folder / "en-ud-train2.conllu").unlink()
    (folder / "en-ud-test.conllu").write_text("")
    with pytest.raises(data.DataError, match=r"en-ud-test.conllu has 0 sentences; want 1 or more"):
        data.load("mine", folder)
    (folder / "en-ud-test.conllu").unlink()
    with pytest.raises(data.DataError, match=r"has 0 \*.conllu files with test in their name"):
        data.load("mine", folder)
    (folder / "en-ud-train.conllu").write_text("")
    with pytest.raises(data.DataError, match=r"en-ud-train.conllu has 0 sentences; want 2 or more"):
        data.load("mine", folder / "en-ud-train.conllu")


def line(number, word="a", tag="X"):
    """One word of a treebank."""
    return "\t".join([str(number), word, "_", tag, *"______"])


def test_long_sentence(tmp_path):
    """Where one long sentence makes the padded arrays too large, its last line is named."""
    content = "\n".join([f"{line(1)}\n"] * 999 + [line(i) for i in range(1, 100_001)])
    for part in ("train", "test"):
        (tmp_path / f"{part}.conllu").write_text(content if part == "test" else f"{line(1)}\n")
    padded = 8 * 1001 * 100_000
    with (
        memory_below(16 * len(content)),
        pytest.raises(
            data.DataError,
            match=r"test.conllu:101998: a sentence of 100000 words, to which 1001 are padded: the "
            "data takes 8.*bytes of memory, more than the limit of 800,800,000",
        ),
    ):
        data.load("mine", tmp_path, padded)


@pytest.mark.parametrize(
    ("words", "length"), [(["a"], 1), (["\N{SNOWMAN}\N{PILE OF POO}"], 20), (UPOS, 1)]
)
def test_limit_is_kept(tmp_path, words, length):
    """A treebank that takes just the limit is read within it, and a byte less is refused."""
    count = 20_000 // length
    sentence = [line(i + 1, words[i % len(words)], UPOS[i % 17]) for i in range(length)]
    path = tmp_path / "a.conllu"
    path.write_text("\n".join([*sentence, "\n"]) * count)
    limit = 24 * path.stat().st_size + 8 * length * count
    with memory_below(limit + (2 << 20)):
        assert len(data.load("mine", path, limit).train_targets) == count - -(-count // 6)
    last = count * (length + 1) - 1
    with pytest.raises(
        data.DataError, match=f"a.conllu:{last}: .* takes {limit:,} bytes of memory"
    ):
        data.load("mine", path, limit - 1)


def test_pipe(tmp_path):
    """A pipe that nobody writes to is refused, and not waited for."""
    os.mkfifo(tmp_path / "a.conllu")
    with pytest.raises(data.DataError, match=r"a.conllu cannot be read: no plain file"):
        data.load("mine", tmp_path)


IDENTIFIERS = st.one_of(
    st.sampled_from(
        ["", "0", "1-2", "1.1", "1-", "-1", "1.5.2", "\u0661", " 1", "1" * 5000, "1e0"]
    ),
    st.integers(-3, 9).map(str),
    st.text(max_size=3),
)
WORDS = st.one_of(
    st.sampled_from(
        ["a", "The", "\u0130", "\x1b[31m", "\u202e", "\x00", " ", "x" * 3000, "\r", "\x85"]
    ),
    st.text(max_size=4),
)
LONG = {count: "\n".join(line(i + 1) for i in range(count)) for count in (500, 5000)}


@st.composite
def treebanks(draw):
    """A treebank that is right, or wrong in numbers, tags, columns, sentences, encoding."""
    sentences = draw(
        st.lists(st.lists(st.tuples(WORDS, st.sampled_from(UPOS)), max_size=4), max_size=8)
    )
    lines = []
    for sentence in sentences:
        lines += draw(st.sampled_from([[], ["# text = x"], ["#"], ["# \x1b[2J"]]))
        lines += [line(i + 1, *word) for i, word in enumerate(sentence)]
        lines += [""] * draw(st.integers(1, 2))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(lines)))
        way = draw(st.sampled_from(["word", "word", "tag", "columns", "text", "long", "many"]))
        lines[place:place] = {
            "word": [line(draw(IDENTIFIERS), draw(WORDS))],
            "tag": [line(1, "a", draw(st.one_of(st.sampled_from(["_", "", "noun"]), WORDS)))],
            "columns": ["\t" * draw(st.integers(0, 12))],
            "text": [draw(WORDS)],
            "long": ["", LONG[draw(st.sampled_from([500, 5000]))], ""],
            "many": ["", *[line(1), ""] * draw(st.sampled_from([50, 1000]))],
        }[way]
    encoding = draw(st.sampled_from([*["utf-8"] * 6, "utf-8-sig", "utf-16", "latin-1"]))
    return draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])).join(lines).encode(encoding, "replace")


def test_any_structure(tmp_path, attack):
    """Treebanks of any structure: a right data set or one line."""

    def check(contents):
        parts = ["a"] if len(contents) == 1 else ["train", "test"]
        for part, content in zip(parts, contents, strict=True):
            (tmp_path / f"{part}.conllu").write_bytes(content)
        check_read(tmp_path, tmp_path)
        for part in parts:
            (tmp_path / f"{part}.conllu").unlink()

    drawn = st.one_of(st.tuples(treebanks()), st.tuples(treebanks(), treebanks()))
    attack("CoNLL-U files", drawn, check, 100)
