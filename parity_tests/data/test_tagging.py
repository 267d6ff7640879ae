"""Tagged sentences: tokens and labels read as the file's words and tags."""

from collections import defaultdict

import numpy as np
import pytest

from flaxnets import data
from flaxnets.data import tagging
from flaxnets.data.conllu import read_conllu
from flaxnets.specs import UNKNOWN

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
