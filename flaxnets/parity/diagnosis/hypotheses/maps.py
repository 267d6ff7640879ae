"""What a convolution or pooling may have done instead. Axes are torch's."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own custom)

from flaxnets.parity.diagnosis.hypotheses.hypothesis import Hypothesis, option, weights


def _shifted(axis: int, by: int) -> Callable:
    """The layer on an input that is moved by a pixel, with zeros behind it."""

    def output(m, x):
        pad = [0, 0] * (x.dim() - axis)
        pad[-2:] = [by, -by]
        return m(F.pad(x, pad))

    return output


def _padded(sizes: Callable) -> Callable:
    """A convolution whose padding is `sizes(length, kernel, stride, dilation)`, both ends."""

    def output(m, x):
        numbers = zip(x.shape[2:], m.kernel_size, m.stride, m.dilation, strict=True)
        ends = [sizes(*number) for number in numbers]
        m.padding = (0,) * len(ends)
        return m(F.pad(x, [end for pair in reversed(ends) for end in pair]))

    return output


def _same(length, kernel, stride, dilation):
    """SAME in XLA and TensorFlow: an odd number of pixels has its larger half at the end."""
    total = max((-(-length // stride) - 1) * stride + dilation * (kernel - 1) + 1 - length, 0)
    return total // 2, total - total // 2


def _spatial(w):
    return w.flip(tuple(range(2, w.dim())))


CONVOLUTION = [
    Hypothesis("SAME padding, not {m.padding}", _padded(_same)),
    *(
        Hypothesis(f"padding {n}, not {{m.padding}}", _padded(lambda *sizes, n=n: (n, n)))
        for n in range(4)
    ),
    weights("flipped kernel", "weight", _spatial),
    weights("kernel with rows and columns interchanged", "weight", lambda w: w.transpose(-1, -2)),
    weights("kernel with inputs and outputs interchanged", "weight", lambda w: w.transpose(0, 1)),
    weights("no bias", "bias", torch.zeros_like),
    weights("bias added twice", "bias", lambda b: 2 * b),
    *(
        Hypothesis(f"input shifted by {by} pixel along axis {axis}", _shifted(axis, by))
        for axis in (2, 3, 4)
        for by in (1, -1)
    ),
]


def _everywhere(name: str, number: int) -> Callable:
    def output(m, x):
        setattr(m, name, (number,) * len(getattr(m, name)))
        return m(x)

    return output


TRANSPOSED = [
    weights("kernel with rows and columns interchanged", "weight", lambda w: w.transpose(-1, -2)),
    weights("flipped kernel", "weight", _spatial),
    weights("kernel with inputs and outputs interchanged", "weight", lambda w: w.transpose(0, 1)),
    weights("no bias", "bias", torch.zeros_like),
    *(
        Hypothesis(f"{name} {n}, not {{m.{name}}}", _everywhere(name, n))
        for name in ("padding", "output_padding")
        for n in range(4)
    ),
]


def _mean_of_windows(m, x):
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[x.dim() - 2]
    return pool(x, m.kernel_size, m.stride, m.padding, m.ceil_mode)


MAX_POOL = [
    Hypothesis("mean in place of the maximum", _mean_of_windows),
    Hypothesis("minimum in place of the maximum", lambda m, x: -m(-x)),
    option(ceil_mode=True),
    option(ceil_mode=False),
    *(option(padding=n) for n in range(3)),
    Hypothesis("padded with zeros that may win", lambda m, x: m(x).clamp(min=0)),
]
AVERAGE_POOL = [
    option(count_include_pad=False),
    option(count_include_pad=True),
    option(ceil_mode=True),
    option(ceil_mode=False),
    *(option(padding=n) for n in range(3)),
]
