"""CoNLL-U: what was written is read, whatever stands between the words; errors name the line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets import data
from flaxnets.data.conllu import UPOS, read_conllu

WORDS = st.text(
    st.characters(exclude_characters="\t\n", exclude_categories=["Cs"]), min_size=1, max_size=5
).filter(lambda word: not word.endswith("\r"))
SENTENCES = st.lists(
    st.lists(st.tuples(WORDS, st.sampled_from(UPOS)), min_size=1, max_size=4), max_size=4
)


def line(identifier, word, tag):
    """One line of ten columns."""
    return "\t".join([str(identifier), word, "_", tag, *"______"])


@settings(max_examples=100, deadline=None)
@given(
    SENTENCES,
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from(["", "\N{BYTE ORDER MARK}"]),
    st.randoms(use_true_random=False),
)
def test_any_sentences(tmp_path_factory, sentences, end, finished, mark, random):
    """Any words come back between comments, ranges and empty nodes, with any end of line."""
    lines = []
    for sentence in sentences:
        lines += ["# text = anything\twith a tab"] * random.randint(0, 2)
        for number, (word, tag) in enumerate(sentence, start=1):
            if random.random() < 0.3:
                lines.append(line(f"{number}-{number + 1}", "both", "_"))
            lines.append(line(number, word, tag))
            if random.random() < 0.3:
                lines.append(line(f"{number}.1", "understood", "VERB"))
        lines += [""] * random.randint(1, 3)
    text = end.join(lines) + end * finished
    path = tmp_path_factory.mktemp("conllu") / "a.conllu"
    path.write_bytes((mark + (text if finished else text.rstrip("\r\n"))).encode())
    found = read_conllu(path)
    assert [list(zip(one.words, one.tags, strict=True)) for one in found] == sentences


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# fine\n1\tword\tDET", r"a.conllu:2: 3 columns, not 10"),
        (line(1, "a", "DET") + "\n \n", r"a.conllu:2: 1 columns, not 10"),
        (line(1, "a", "_"), r"a.conllu:1: UPOS '_' is none of ADJ, ADP"),
        (line(1, "a", "NN"), r"a.conllu:1: UPOS 'NN' is none of ADJ, ADP"),
        ("\n\n" + line(2, "a", "DET"), r"a.conllu:3: word '2', not 1"),
        (line(1, "a", "DET") + "\n" + line(1, "b", "X"), r"a.conllu:2: word '1', not 2"),
        (line("x", "a", "DET"), r"a.conllu:1: word 'x', not 1"),
    ],
)
def test_broken(tmp_path, content, message):
    """What breaks the format is named with file and line, in one line."""
    path = tmp_path / "a.conllu"
    path.write_text(content)
    with pytest.raises(data.DataError, match=message) as caught:
        read_conllu(path)
    assert "\n" not in str(caught.value)


def test_unreadable(tmp_path):
    """Bytes that are not UTF-8, and a file that is not there."""
    path = tmp_path / "a.conllu"
    path.write_bytes(
        line(1, "\xe9t\xe9", "NOUN").encode() + b"\n\n" + line(1, "\xe9", "X").encode("latin-1")
    )
    with pytest.raises(data.DataError, match=r"a.conllu:3: byte 0xe9 is not UTF-8"):
        read_conllu(path)
    with pytest.raises(data.DataError, match=r"b.conllu cannot be read: No such file"):
        read_conllu(tmp_path / "b.conllu")
