"""Archives of arrays: what NumPy wrote is read; broken ones are one clear line."""

import io
import math
import os
import re
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flaxnets import data
from flaxnets.data import arrays
from parity_tests.data.reading import check_read
from parity_tests.fuzz import memory_below

LABELS = np.arange(12) % 3
ROWS = np.arange(24.0).reshape(12, 2)


def write(folder, **arrays):
    """An archive of a few arrays."""
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


@settings(max_examples=50, deadline=None)
@given(
    npst.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, bool]),
        npst.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 99},
    ),
    st.one_of(st.integers(1, 5), st.none()),
    st.booleans(),
)
def test_any_parts(tmp_path_factory, inputs, classes, compressed):
    """Any inputs with labels or numbers come back, those of bytes between 0 and 1."""
    count = len(inputs)
    targets = np.arange(count) % classes if classes else np.linspace(0, 1, count * 2)
    targets = targets if classes else targets.reshape(count, 2)
    path = tmp_path_factory.mktemp("npz") / "mine.npz"
    (np.savez_compressed if compressed else np.savez)(
        path, train_inputs=inputs, train_targets=targets, test_inputs=inputs, test_targets=targets
    )
    for place in (path, path.parent):
        found = data.load("mine", place)
        scaled = inputs / np.float32(255) if inputs.dtype == np.uint8 else inputs
        scaled = scaled.astype(np.float32)
        expected = scaled[..., None] if inputs.ndim == 3 else scaled
        for part in (found.train_inputs, found.test_inputs):
            assert part.dtype == np.float32
            np.testing.assert_array_equal(part, expected)
        np.testing.assert_array_equal(
            found.train_targets, targets if classes else targets.astype(np.float32)
        )
        assert found.train_targets.dtype == (np.int32 if classes else np.float32)
        assert found.num_classes == (min(classes, count) if classes else None)


def test_held_out(tmp_path):
    """Without a test part a fifth of every class, or of all, is held out, and nothing is lost."""
    inputs = np.arange(30.0)[:, None]
    found = data.load("mine", write(tmp_path, inputs=inputs, targets=np.arange(30) % 3))
    assert np.bincount(found.test_targets).tolist() == [2, 2, 2]
    together = np.concatenate([found.train_inputs, found.test_inputs])
    np.testing.assert_array_equal(np.sort(together, axis=0), inputs)
    found = data.load("mine", write(tmp_path, inputs=inputs, targets=np.arange(30.0)))
    assert found.test_targets.tolist() == [[i] for i in range(0, 30, 5)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_harm(tmp_path_factory, draw):
    """An archive that lost its end or some bytes is read or refused in one line."""
    path = write(tmp_path_factory.mktemp("npz"), inputs=ROWS, targets=LABELS)
    content = bytearray(path.read_bytes())
    for place in draw.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = draw.draw(st.integers(0, 255))
    path.write_bytes(content[: draw.draw(st.integers(0, len(content)))])
    refusal = f"{path}: none"
    try:
        data.load("mine", path)
    except data.DataError as error:
        refusal = str(error)
    assert refusal.startswith(str(path))
    assert "\n" not in refusal


class Payload:
    """What must never be run."""

    def __reduce__(self):
        return warnings.warn, ("unpickled",)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"inputs": ROWS}, "mine.npz holds inputs; want inputs and targets, or train_inputs"),
        ({}, "mine.npz holds nothing; want inputs"),
        ({"inputs": ROWS, "targets": LABELS[1:]}, "12 inputs, 11 targets"),
        ({"inputs": ROWS[:, 0], "targets": LABELS}, r"inputs has the shape \(12,\)"),
        ({"inputs": ROWS[:, :0], "targets": LABELS}, r"inputs has the shape \(12, 0\)"),
        ({"inputs": ROWS.astype(str), "targets": LABELS}, "inputs is of <U.*, not of numbers"),
        (
            {"inputs": np.array([[Payload()]]), "targets": LABELS[:1]},
            "inputs is of object, not of numbers",
        ),
        ({"inputs": ROWS * np.nan, "targets": LABELS}, r"inputs holds nan at \(0, 0\)"),
        ({"inputs": ROWS + 1e40, "targets": LABELS}, r"holds 1e\+40 at \(0, 0\), which is no fini"),
        ({"inputs": ROWS, "targets": ROWS - np.inf}, "targets holds -inf"),
        ({"inputs": ROWS, "targets": LABELS - 1}, "targets are -1 to 1; labels count from 0"),
        ({"inputs": ROWS, "targets": LABELS[:, None]}, r"are integers \(12, 1\); want \(n,\)"),
        ({"inputs": ROWS, "targets": LABELS + 2**31}, "labels count from 0"),
        (
            {"inputs": ROWS[:2], "targets": LABELS[:2]},
            "has 2 examples, too few .* 3 or more of a c",
        ),
        ({"inputs": ROWS[:2], "targets": ROWS[:2]}, "has 2 examples, too few .* 3 or more$"),
        (
            {
                "train_inputs": ROWS,
                "train_targets": LABELS,
                "test_inputs": ROWS,
                "test_targets": LABELS[1:],
            },
            "12 inputs, 11 targets",
        ),
        (
            {
                "train_inputs": ROWS,
                "train_targets": LABELS,
                "test_inputs": ROWS[:, :1],
                "test_targets": LABELS,
            },
            r"train_inputs are float32 \(2,\) each, test_inputs float32 \(1,\)",
        ),
        (
            {
                "train_inputs": ROWS,
                "train_targets": LABELS,
                "test_inputs": ROWS,
                "test_targets": ROWS,
            },
            r"train_targets are int32 \(\) each, test_targets float32 \(2,\)",
        ),
    ],
)
def test_broken(tmp_path, held, message):
    """Each mistake gets one line that names file and array."""
    with pytest.raises(data.DataError, match=message):
        data.load("mine", write(tmp_path, **held))


def test_absent(tmp_path):
    """A file that is not there, one that is no archive, and more than one."""
    with pytest.raises(data.DataError, match=r"gone.npz cannot be read: No such file"):
        data.load("mine", tmp_path / "gone.npz")
    np.save(tmp_path / "a", ROWS)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(data.DataError, match=r"a.npz is no npz archive of plain arrays"):
        data.load("mine", tmp_path)
    write(tmp_path, inputs=ROWS, targets=LABELS)
    with pytest.raises(data.DataError, match=r"has 2 \*.npz files; want one"):
        data.load("mine", tmp_path)


def npy(descr="'<f4'", shape="(12, 2)", body=b"", version=1, by_columns="False", length=None):
    """An array as the format has it, right or wrong."""
    text = f"{{'descr': {descr}, 'fortran_order': {by_columns}, 'shape': {shape}, }}"
    header = text.encode("utf-8", "surrogatepass")
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    width = 2 if version == 1 else 4
    size = (len(header) if length is None else length) % 256**width
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(width, "little") + header + body


def archive(path, members, method=zipfile.ZIP_DEFLATED):
    """A zip file of members of any names, some of them twice."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as file:
        warnings.filterwarnings("ignore", "Duplicate name")
        for name, content in members:
            file.writestr(name, content)
    return path


def test_memory(tmp_path):
    """Sizes are those of the headers, counted before anything is unpacked."""
    zeros = bytes(1 << 26)
    targets = ("targets.npy", npy("'|u1'", "(12,)", bytes(12)))
    for shape, body, limit, message in (
        ("(12, 5000000)", zeros, 1 << 29, "inputs: the data takes 720,000,.* bytes of memory"),
        ("(12, 2)", zeros, 1 << 31, r"inputs does not hold the 96 bytes of \(12, 2\)"),
        ("(12, 5000000)", b"", 1 << 33, "inputs does not hold the 240000000 bytes"),
    ):
        path = archive(tmp_path / "a.npz", [targets, ("inputs.npy", npy(shape=shape, body=body))])
        with memory_below(32 << 20), pytest.raises(data.DataError, match=message):
            data.load("mine", path, limit)
    path = archive(
        tmp_path / "a.npz",
        [targets, ("inputs.npy", npy(version=2, length=1 << 28) + zeros)],
    )
    with memory_below(32 << 20), pytest.raises(data.DataError, match="a header of 268435456 bytes"):
        data.load("mine", path)
    path = archive(tmp_path / "a.npz", [("inputs", zeros), targets], zipfile.ZIP_BZIP2)
    with memory_below(32 << 20), pytest.raises(data.DataError, match="is packed by method 12"):
        data.load("mine", path)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_limit_is_kept(tmp_path, dtype):
    """An archive that takes just the limit is read within it, and a byte less is refused."""
    inputs, targets = np.ones((100, 40_000), dtype), np.arange(100) % 3
    path = write(tmp_path, inputs=inputs, targets=targets)
    limit = inputs.nbytes + 8 * inputs.size + 16 * 100
    del inputs
    with memory_below(limit + (8 << 20)):
        assert len(data.load("mine", path, limit).test_inputs) == 21
    with pytest.raises(data.DataError, match=f"more than the limit of {limit - 1:,}"):
        data.load("mine", path, limit - 1)


def test_pipe(tmp_path):
    """A pipe that nobody writes to is refused, and not waited for."""
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(data.DataError, match=r"a.npz cannot be read: no plain file"):
        data.load("mine", tmp_path)


NAMES = st.one_of(
    st.sampled_from([*arrays.WHOLE, *arrays.PARTS, "x", "", "../inputs", "inputs.npy", "a/b"]),
    # Where zipfile ends a name, and what it cannot write.
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
)
DESCRIPTIONS = st.sampled_from(
    [
        *(
            "'<f4'",
            "'>f4'",
            "'<f8'",
            "'<f2'",
            "'|b1'",
            "'|u1'",
            "'|i1'",
            "'<i8'",
            "'>u8'",
            "'<f16'",
        ),
        *("'|O'", "'<U3'", "'|S0'", "'|S5'", "'|V8'", "'<c8'", "'<M8[s]'", "'<m8[ns]'", "'<M8'"),
        *(
            "[('a', '<f4')]",
            "[('a', '<i4', (2,)), ('\u00e4', '|O')]",
            "'(1000000000,)f8'",
            "'f4,f4'",
        ),
        *("None", "1", "'x'", "''", "'<f4' + ''", "[]", "{}", "print", "'\\d'", "'\\ud800'"),
    ]
)
SHAPES = st.one_of(
    st.lists(st.integers(0, 13), max_size=5).map(lambda x: repr(tuple(x))),
    st.sampled_from(
        [
            *(
                "(12, 2)",
                "(12,)",
                "(2, 12)",
                "(12, 5, 6, 1)",
                "()",
                "(0,)",
                "(12, 0)",
                "(12, 3, 0)",
            ),
            *("(-1,)", "(-2, -12)", "(12, -2)", "(12, 2.0)", "(12L, 2L)", "[12, 2]", "12", "None"),
            *("(True, 1)", f"({2**62}, 2)", f"(0, {2**64})", f"(0, {2**62}, 4)", f"({10**60}, 1)"),
            *(
                "(1,) * 70",
                repr((1,) * 65),
                repr((2,) * 40),
                "(" * 300,
                "[" * 9000,
                "(12, 2",
                "1 is 2",
            ),
        ]
    ),
)
FIELDS = [(4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)]


@st.composite
def members(draw):
    """The members of a right archive, of which up to two are changed."""
    parts = draw(st.booleans())
    numbers = draw(st.booleans())
    found = []
    for name in arrays.PARTS if parts else arrays.WHOLE:
        if name.endswith("inputs"):
            shape = draw(st.sampled_from([(12, 2), (12, 3, 2), (12, 3, 2, 2)]))
            array = (
                np.linspace(0, 99, math.prod(shape))
                .reshape(shape)
                .astype(draw(st.sampled_from(["<f4", ">f8", "f2", "u1", "g"])))
            )
        else:
            array = (
                np.linspace(0, 1, 24).reshape(12, 2)
                if numbers
                else np.arange(12) % draw(st.integers(1, 12))
            )
        array = np.asfortranarray(array) if draw(st.booleans()) else array
        content = io.BytesIO()
        np.lib.format.write_array(content, array, draw(st.sampled_from([(1, 0), (2, 0), (3, 0)])))
        found.append((f"{name}.npy", content.getvalue()))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(found) - 1))
        name, content = found[place]
        way = draw(st.sampled_from(["array", "array", "rename", "twice", "cut", "more", "byte"]))
        if way == "array":
            size = draw(st.sampled_from([0, 1, 12, 24, 48, 96, 192]))
            content = npy(
                draw(DESCRIPTIONS),
                draw(SHAPES),
                draw(st.sampled_from([b"\0", b"\1", b"\xff", b"\x7f"])) * size,
                draw(st.sampled_from([1, 1, 2, 3, 4, 255])),
                draw(st.sampled_from(["True", "False", "1", "None"])),
                draw(st.sampled_from([None, None, None, 0, 1, 70, 2**16 - 1, 2**31])),
            )
        elif way == "rename":
            name = draw(NAMES) + draw(st.sampled_from([".npy", ".npy", "", ".NPY"])) or "x"
        elif way == "twice":
            found.append((draw(st.sampled_from([name, "a.npy"])), content))
        elif way == "cut":
            content = content[: draw(st.integers(0, len(content)))]
        elif way == "more":
            content += bytes(draw(st.sampled_from([1, 8, 1 << 20])))
        else:
            content = bytearray(content)
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
        found[place] = name, bytes(content)
    method = draw(st.sampled_from([0, *[8] * 8, 12]))
    fields = st.tuples(
        st.integers(0, 4),
        st.sampled_from(FIELDS),
        st.sampled_from([0, 1, 8, 9, 12, 99, 2**16 - 1, 2**31, 2**32 - 1]),
    )
    return found, method, draw(st.lists(fields, max_size=draw(st.sampled_from([0, 0, 1, 2]))))


def test_any_structure(tmp_path, attack):
    """Archives, directories and headers of any structure: a right data set or one line."""
    path = tmp_path / "mine.npz"

    def check(drawn):
        found, method, fields = drawn
        archive(path, found, method)
        content = bytearray(path.read_bytes())
        entries = [one.start() for one in re.finditer(rb"PK\x01\x02", content)]
        for number, (offset, width), value in fields:
            start = entries[number % len(entries)] + offset
            content[start : start + width] = (value % 256**width).to_bytes(width, "little")
        path.write_bytes(content)
        check_read(path, tmp_path)

    attack("npz archives", members(), check, 100)
