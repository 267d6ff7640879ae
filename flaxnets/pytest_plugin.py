"""A fixture for tests of one's own pairs: pytest finds it wherever flaxnets is installed.

Loading it imports neither jax nor torch; the fixture does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flaxnets.parity import Report


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that hold for every `parity_check` of a session."""
    group = parser.getgroup("flaxnets", "parity of Flax and torch models")
    group.addoption(
        "--parity-platform", metavar="cpu|gpu|tpu", help="platform of the JAX side of parity_check"
    )
    group.addoption(
        "--parity-checks",
        metavar="CHECKS",
        help="the only checks that parity_check makes, with commas between their names",
    )


@pytest.fixture
def parity_check(request: pytest.FixtureRequest) -> Iterator[Callable[..., Report]]:
    """`flaxnets.parity.check` with the session's options; the test fails where a check does.

    A failure is one line for every check that failed. Checks that a test names are narrowed
    down to those of `--parity-checks`; where none is left, the test is skipped.
    """
    pytest.importorskip("torch", reason="parity_check needs torch: pip install 'flaxnets[torch]'")
    from flaxnets import parity
    from flaxnets.parity import device
    from flaxnets.specs import SpecError

    allowed = _split(request.config.getoption("--parity-checks"))
    for unknown in set(allowed) - set(parity.CHECKS):
        known = ", ".join(parity.CHECKS)
        pytest.fail(f"--parity-checks: {unknown!r} is unknown; use {known}", pytrace=False)

    def check(
        flax_model: Any,
        torch_model: Any,
        inputs: Sequence[Any],
        checks: Sequence[str] | None = None,
        **options: Any,
    ) -> Report:
        chosen = [name for name in checks or parity.CHECKS if not allowed or name in allowed]
        if not chosen:
            pytest.skip(f"--parity-checks leaves out {', '.join(checks or ())}")
        options = {"name": request.node.name, **options}
        report = parity.check(flax_model, torch_model, inputs, chosen, **options)
        try:
            report.raise_if_failed()
        except parity.ParityError as error:
            pytest.fail(str(error), pytrace=False)
        return report

    try:
        with device.on(request.config.getoption("--parity-platform")):
            yield check
    except SpecError as error:
        pytest.fail(f"--parity-platform: {error}", pytrace=False)


def _split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]
