"""How an array is held: in torch's order of axes, or with torch's channels last.

A layout is None for torch's own order, or the number of the axis, counted in torch's order, that
is held last; all others keep their order.
"""

from collections.abc import Iterable

Layout = int | None
CHANNELS = {2: "b c", 3: "b c l", 4: "b c h w", 5: "b c d h w"}
UNBATCHED = {2: "c l", 3: "c h w", 4: "c d h w"}


def names(ndim: int, layout: Layout = 1) -> list[str]:
    """Names of the axes in torch's order.

    >>> names(4)
    ['b', 'c', 'h', 'w']
    """
    known = UNBATCHED if layout == 0 else CHANNELS
    if layout in (0, 1) and ndim in known:
        return known[ndim].split()
    return [chr(ord("i") + index) for index in range(ndim)]


def held(axes: list[str], layout: Layout) -> list[str]:
    """The axes in the order in which they are held.

    >>> held(["b", "c", "h", "w"], 1)
    ['b', 'h', 'w', 'c']
    """
    if layout is None:
        return axes
    return [*axes[:layout], *axes[layout + 1 :], axes[layout]]


def settled(layout: Layout, ndim: int) -> Layout:
    """The layout, or None where it moves nothing.

    >>> settled(1, 2), settled(1, 4)
    (None, 1)
    """
    return None if layout is None or layout >= ndim - 1 else layout


def pattern(ndim: int, before: Layout, after: Layout) -> str | None:
    """The einops pattern that takes one layout to another; None where they are the same.

    >>> pattern(4, 1, None), pattern(2, 1, None)
    ('b h w c -> b c h w', None)
    """
    before, after = settled(before, ndim), settled(after, ndim)
    if before == after:
        return None
    axes = names(ndim, after if before is None else before)
    return f"{' '.join(held(axes, before))} -> {' '.join(held(axes, after))}"


def axis(dim: int, ndim: int, layout: Layout) -> int:
    """Where the axis that torch calls `dim` is held.

    >>> axis(1, 4, 1), axis(-1, 4, 1), axis(-1, 4, None)
    (-1, 2, -1)
    """
    layout = settled(layout, ndim)
    if layout is None:
        return dim
    dim %= ndim
    if dim == layout:
        return -1
    return dim - (dim > layout)


def reduced(dims: Iterable[int], ndim: int, layout: Layout) -> Layout:
    """The layout that is left when some axes, counted in torch's order, are gone.

    >>> reduced([2, 3], 4, 1), reduced([1], 4, 1), reduced([2], 4, 1)
    (None, None, 1)
    """
    layout = settled(layout, ndim)
    gone = {dim % ndim for dim in dims}
    if layout is None or layout in gone:
        return None
    left = layout - sum(dim < layout for dim in gone)
    return settled(left, ndim - len(gone))
