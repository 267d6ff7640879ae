"""`flaxnets` and `python -m flaxnets`: the process is set up before what is large is imported."""

import os
import sys

from flaxnets.edge import process


def main() -> int:
    """Run the command of `sys.argv`; the exit code."""
    process.streams()
    process.hear()
    from flaxnets import cli

    code = cli.main()
    try:
        sys.stdout.flush()
    except OSError:  # was told of by the command; Python would try again, and tell again
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


if __name__ == "__main__":
    sys.exit(main())
