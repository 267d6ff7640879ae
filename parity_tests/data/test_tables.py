"""CSV: what Python's writer wrote is read; errors name file and line."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets import data

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def write(path, rows, **options):
    """A table as `csv.writer` writes it."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows(rows)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=3)
    ),
    st.one_of(
        st.just(NUMBERS.map(lambda number: number + 0.5 if number.is_integer() else number)),
        st.just(st.sampled_from(["b", "a", 'say "c", twice', "über\nlines"])),
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.data(),
)
def test_any_table(tmp_path_factory, rows, kind, end, quoting, draw):
    """Any numbers and words come back, wherever the target stands."""
    given_targets = [draw.draw(kind) for _ in rows]
    place = draw.draw(st.integers(0, len(rows[0])))
    header = [f"column {i}" for i in range(len(rows[0]))]
    table = [
        [*row[:place], target, *row[place:]]
        for row, target in zip([header, *rows], ["target", *given_targets], strict=True)
    ]
    folder = tmp_path_factory.mktemp("csv")
    for part in ("train", "test"):
        write(folder / f"{part}.csv", table, lineterminator=end, quoting=quoting)
    found = data.load("mine", folder)
    for inputs, targets in (
        (found.train_inputs, found.train_targets),
        (found.test_inputs, found.test_targets),
    ):
        np.testing.assert_array_equal(inputs, np.array(rows, np.float32))
        if isinstance(given_targets[0], str):
            assert [found.labels[label] for label in targets] == given_targets
            assert found.num_classes == len(found.labels) == len(set(given_targets))
        else:
            np.testing.assert_array_equal(targets, np.array(given_targets, np.float32)[:, None])
            assert found.num_classes is None


@pytest.mark.parametrize(
    ("targets", "expected", "classes"),
    [
        (["2", "0", "1"] * 2, [2, 0, 1] * 2, 3),
        ([str(i) for i in range(12)], list(range(12)), 12),
        (["3", "1", "2"] * 2, [[3.0], [1.0], [2.0]] * 2, None),
        (["1.0", "0.0"] * 3, [[1.0], [0.0]] * 3, None),
        (["1e3", "-.5"] * 3, [[1000.0], [-0.5]] * 3, None),
        (["yes", "no"] * 3, [1, 0] * 3, 2),
    ],
)
def test_kinds_of_targets(tmp_path, targets, expected, classes):
    """Words and the integers from 0 without a gap are classes; all else are numbers."""
    for part in ("train", "test"):
        write(tmp_path / f"{part}.csv", [["x", "y"], *([i, t] for i, t in enumerate(targets))])
    found = data.load("mine", tmp_path)
    assert found.train_targets.tolist() == expected
    assert found.num_classes == classes


def test_held_out(tmp_path):
    """Of a single file a fifth of every class is held out; blank lines are none."""
    rows = [["x", "y"], *([i, "ab"[i % 2]] for i in range(20))]
    write(tmp_path / "a.csv", rows)
    with open(tmp_path / "a.csv", "a") as file:
        file.write("\n\n")
    for place in (tmp_path, tmp_path / "a.csv"):
        found = data.load("mine", place)
        assert found.test_inputs.ravel().tolist() == [0, 1, 10, 11]
        assert len(found.train_inputs) == 16


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text('01.5,;"\n\r \0abc', max_size=60).map(str.encode)))
def test_any_bytes(tmp_path_factory, content):
    """Any bytes behind a header are a table or one line that names the file."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    for start in (b"", b"a,b\n1,2\n3,4\n5,6\n"):
        path.write_bytes(start + content)
        refusal = f"{path}: none"
        try:
            data.load("mine", path)
        except data.DataError as error:
            refusal = str(error)
        assert refusal.startswith(str(path))
        assert "\n" not in refusal


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv has no row behind its header"),
        ("a,b\n", "a.csv has no row behind its header"),
        ("a\n1\n", "a.csv:1: 1 columns; want 2 or more with commas between"),
        ("a;b\n1;2\n", "a.csv:1: 1 columns; want 2 or more with commas between"),
        (",b\n1,2\n", "a.csv:1: column 1 has no name"),
        ("a,b,a\n1,2,3\n", "a.csv:1: column 'a' is there 2 times"),
        ("1,2\n3,4\n", "a.csv:1: numbers, not the names of columns"),
        ("a,b\n1,2\n1,2,3\n", "a.csv:3: 3 columns, not 2"),
        ('a,b\n1,"x\ny"\n\n1\n', "a.csv:5: 1 columns, not 2"),
        ("a,b\n1,2\n , 2\n", "a.csv:3: column 'a' is empty"),
        ("a,b\n1,\n", "a.csv:2: column 'b' is empty"),
        ("a,b\n1,2\n1x,2\n", "a.csv:3: '1x' is not a finite number"),
        ("a,b\nnan,2\n", "a.csv:2: 'nan' is not a finite number"),
        ("a,b\n1_0,2\n", "a.csv:2: '1_0' is not a finite number"),
        ("a,b\n1e39,2\n", "a.csv:2: '1e39' is not a finite number"),
        ("a,b\n1,2\n1,x\n", "a.csv:3: target 'x' is not a finite number, unlike the first"),
        ("a,b\n1,x\n1,2\n", "a.csv:3: target '2' is a number, unlike the first"),
        ('a,b\n1,"2\n', "a.csv:2: unexpected end of data"),
        ('a,b\n1,"2"3\n', "a.csv:2: ',' expected after"),
        ("a,b\n1,2\n", "a.csv has 1 examples, too few to hold some out; want 3 or more"),
    ],
)
def test_broken(tmp_path, content, message):
    """What breaks the format is named with file and line, in one line."""
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(data.DataError, match=message) as caught:
        data.load("mine", tmp_path)
    assert "\n" not in str(caught.value)


def test_parts_differ(tmp_path):
    """Training and test have the same columns."""
    write(tmp_path / "train.csv", [["a", "b"], [1, 2]])
    write(tmp_path / "test.csv", [["b", "a"], [1, 2]])
    with pytest.raises(data.DataError, match=r"test.csv:1: the columns are not those of .*train"):
        data.load("mine", tmp_path)
