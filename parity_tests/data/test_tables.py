"""CSV: what Python's writer wrote is read; errors name file and line."""

import csv
import io
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxnets import data
from parity_tests.data.reading import check_read
from parity_tests.fuzz import memory_below

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


def seconds(path, content):
    """What a table costs the processor, at best of three times."""
    path.write_text(content)
    found = []
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(data.DataError):
            data.load("mine", path)
        found.append(time.process_time() - start)
    return min(found)


@pytest.mark.parametrize(
    ("small", "make"),
    [
        (16_000, lambda n: f"a,b\n{'1' * n}x,2\n"),
        (16_000, lambda n: f"a,b\n1.{'1' * n}e,2\n"),
        (5_000, lambda n: ",".join(map("c{}".format, range(n)))),
        (2_500, lambda n: "a,b\n" + "".join(f"1,c{i}\n" for i in range(n))),
    ],
    ids=["digits", "decimals", "columns", "classes"],
)
def test_linear(tmp_path, small, make):
    """Four times as much takes four times as long, and not sixteen times."""
    path = tmp_path / "a.csv"
    assert seconds(path, make(4 * small)) < 8 * seconds(path, make(small))


def test_limit_is_kept(tmp_path):
    """A table that takes just the limit is read within it, and a byte less is refused."""
    path = tmp_path / "a.csv"
    for row, rows in (
        ("1," * 40 + "2\n", 4_000),
        ("1,22\n", 40_000),
        ("1,\N{SNOWMAN}\n", 40_000),
    ):
        path.write_text(",".join(f"c{i}" for i in range(row.count(",") + 1)) + "\n" + row * rows)
        columns = row.count(",") + 1
        limit = 9 * path.stat().st_size + rows * (12 * columns + 128) + 128 * columns
        with memory_below(limit + (2 << 20)):
            assert len(data.load("mine", path, limit).test_inputs) == rows / 5
        with pytest.raises(
            data.DataError, match=f"a.csv:{rows + 1}: the data takes {limit:,} bytes"
        ):
            data.load("mine", path, limit - 1)


def test_pipe(tmp_path):
    """A pipe that nobody writes to is refused, and not waited for."""
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(data.DataError, match=r"a.csv cannot be read: no plain file"):
        data.load("mine", tmp_path)


CELLS = st.one_of(
    st.sampled_from(["1", "0", "2", "1.5", "-3e2", ".5", "7.", "+1", "cat", "dog", "", " ", "nan"]),
    st.sampled_from(["inf", "1e39", "1e-400", "1" * 400, "1_0", "0x1", "\u0661", "\u00bd", "1e"]),
    st.sampled_from(
        ['"', '""', '"a\nb"', "a\rb", "\x00", "\x1b[31m", "\u202e", "\ufeff", "a;b", "\x85"]
    ),
    st.text(max_size=3),
    st.floats(width=32).map(repr),
    st.integers(-(10**20), 10**20).map(str),
)
COLUMNS = st.one_of(
    st.sampled_from(
        ["a", "b", "c", "target", "Target", " target", "", "1", "\x1b]0;x\x07", "x" * 999]
    ),
    st.text(max_size=3),
)


@st.composite
def tables(draw):
    """A table that is right, or wrong in cells, rows, header, quotes, ends of lines, encoding."""
    width = draw(st.integers(2, 4))
    header = [*"abcd"[: width - 1], "y"]
    good = draw(
        st.sampled_from(
            [["cat", "dog"], ["0", "1", "2"], ["1.5", "2"], ["7"], ["\N{SNOWMAN}", "x,y"]]
        )
    )
    number = st.sampled_from(["1", "2.5", "-3e-2", " 4 ", "0", ".5", "6."])
    rows = [
        [*draw(st.lists(number, min_size=width - 1, max_size=width - 1)), good[i % len(good)]]
        for i in range(draw(st.sampled_from([0, 1, 3, 6, 12])))
    ]
    if draw(st.booleans()):
        place = draw(st.integers(0, width - 1))
        for row in [header, *rows]:
            row.insert(place, row.pop())
        header[place] = "target"
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.sampled_from([header, *rows]))
        cell = draw(COLUMNS if row is header else CELLS)
        way = draw(st.sampled_from(["change", "change", "change", "insert", "remove", "repeat"]))
        if way == "change" and row:
            row[draw(st.integers(0, len(row) - 1))] = cell
        elif way == "insert":
            row.insert(draw(st.integers(0, len(row))), cell)
        elif way == "remove" and row:
            del row[draw(st.integers(0, len(row) - 1))]
        elif way == "repeat":
            row *= draw(st.sampled_from([2, 100]))
    text = io.StringIO()
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n", "\n\r"]))
    if draw(st.sampled_from([True, True, True, False])):
        csv.writer(text, lineterminator=end, escapechar="\\").writerows([header, *rows])
    else:
        text.write(end.join(",".join(row) for row in [header, *rows]))
    encoding = draw(st.sampled_from([*["utf-8"] * 6, "utf-8-sig", "utf-16", "latin-1", "utf-7"]))
    content = text.getvalue().encode(encoding, "replace")
    return content * draw(st.sampled_from([1, 1, 1, 1, 2, 500]))


def test_any_structure(tmp_path, attack):
    """Tables of any structure: a right data set or one line."""

    def check(contents):
        parts = ["a"] if len(contents) == 1 else ["train", "test"]
        for part, content in zip(parts, contents, strict=True):
            (tmp_path / f"{part}.csv").write_bytes(content)
        check_read(tmp_path, tmp_path)
        for part in parts:
            (tmp_path / f"{part}.csv").unlink()

    drawn = st.one_of(
        st.tuples(tables()), st.tuples(tables(), tables()), tables().map(lambda x: [x] * 2)
    )
    attack("CSV tables", drawn, check, 100)
