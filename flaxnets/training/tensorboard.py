"""A run's metrics as TensorBoard's event files, written by tensorboardX."""

import os
from types import TracebackType
from typing import Self

from flaxnets.training.loop import TrainingError

SECONDS_BETWEEN_FLUSHES = 5  # what a run that is killed loses at the most


class TensorBoardLog:
    """Call it with a step's number and metrics: each becomes a scalar of its own name.

    Args:
        folder: for the event files; `tensorboard --logdir` is given it or one above it.
        first: the step that a resumed run begins after; what an earlier one wrote for later
            steps is no longer shown.

    Raises:
        TrainingError: tensorboardX is not installed.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with TensorBoardLog(folder) as log:
    ...     log(1, {"loss": 0.5})
    >>> len(os.listdir(folder))
    1
    """

    def __init__(self, folder: str | os.PathLike, first: int = 0) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise TrainingError(
                "tensorboardX is not installed; pip install 'flaxnets[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(
            os.fspath(folder),
            purge_step=first + 1 if first else None,
            flush_secs=SECONDS_BETWEEN_FLUSHES,
            # Else a run that is resumed within the second would write over the file.
            filename_suffix=f".{first}.{os.getpid()}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Write a step's metrics, or the figures of an evaluation after it."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
