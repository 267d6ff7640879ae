"""What the bench sets in its own processes is taken back in the suite's."""

import pytest


@pytest.fixture(autouse=True)
def _settings_of_torch():
    """The bench has torch round subnormal numbers to zero, as XLA does, and picks its threads."""
    yield
    import torch

    torch.set_flush_denormal(False)
    torch.set_num_threads(1)
