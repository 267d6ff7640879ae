"""What the readers of files share."""

from pathlib import Path

from flaxnets.data.dataset import DataError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark; ends of lines stay as they are.

    Raises:
        DataError: a file that cannot be read or is not UTF-8; the line is named.

    >>> read_text(Path(__file__)).split()[1:4]
    ['the', 'readers', 'of']
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{number}: byte 0x{content[error.start]:02x} is not UTF-8"
        ) from None


def train_and_test(files: list[Path]) -> tuple[Path, Path]:
    """The one file with "train" and the one with "test" in its name; others are not read.

    Raises:
        DataError: none or several of either.

    >>> [path.name for path in train_and_test([Path("test.csv"), Path("x.csv"), Path("train.csv")])]
    ['train.csv', 'test.csv']
    """
    found = []
    for part in ("train", "test"):
        named = [path for path in files if part in path.name]
        if len(named) != 1:
            raise DataError(
                f"{files[0].parent} has {len(named)} *{files[0].suffix} files with {part} in their "
                "name; want one of train and one of test, or a single file"
            )
        found += named
    return found[0], found[1]
