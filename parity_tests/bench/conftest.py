"""What the bench sets in its own processes is taken back in the suite's.

It times what others have written, and that promotes ranks and dtypes.
"""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _promotion_as_usual(promoting):
    pass


@pytest.fixture(autouse=True)
def _settings_of_torch():
    """The bench has torch round subnormal numbers to zero, as XLA does, and picks its threads."""
    yield
    import torch

    torch.set_flush_denormal(False)
    torch.set_num_threads(1)
