"""Files are plain files, whole or absent, and where they claim to be."""

import os

import pytest

from flaxnets.edge.files import atomic, read, within


def test_pipe(tmp_path):
    """A pipe that nobody writes to is refused at once, and so are folders and devices."""
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [
        (tmp_path / "pipe", "no plain file"),
        ("/dev/zero", "no plain file"),
        (tmp_path, "a folder"),
    ]:
        with pytest.raises(OSError, match=reason) as caught:
            read(path)
        assert caught.value.filename == str(path)


def test_size(tmp_path):
    """A file that is larger than it may be is not read."""
    (tmp_path / "a").write_bytes(b"12345")
    assert read(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, more than the 4"):
        read(tmp_path / "a", 4)


def test_within(tmp_path):
    """A link may stay in its folder and not leave it, also by a folder or in a circle."""
    folder, outside = tmp_path / "run", tmp_path / "outside"
    for path in (folder, outside):
        path.mkdir()
        (path / "a").write_text("x")
    (folder / "here").symlink_to("a")
    (folder / "away").symlink_to(outside / "a")
    (folder / "folder").symlink_to(outside)
    (folder / "circle").symlink_to("circle")
    (tmp_path / "named").symlink_to(folder)
    assert read(within(folder, "here")) == b"x"
    assert within(tmp_path / "named", "a") == tmp_path / "named" / "a"
    within(folder, "circle")  # leads nowhere, as opening it tells
    for names in (["away"], ["folder", "a"], ["folder"], ["..", "outside"]):
        with pytest.raises(OSError, match="leads out of the folder"):
            within(folder, *names)


def test_write_is_all_or_nothing(tmp_path):
    """A write that fails half-way leaves the old file, and nothing beside it."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")

    def fail_half_way():
        with atomic(path) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_permissions_are_the_users(tmp_path):
    """A new file has the mode that open() would give it."""
    with atomic(tmp_path / "a") as file:
        file.write(b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_link_is_replaced(tmp_path):
    """A link in the place of a file is replaced, and what it leads to stays as it is."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with atomic(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "link").is_symlink()
