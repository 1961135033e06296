"""Fixtures of several test files."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Nets as small as those of the tests run faster on one thread."""
    import torch  # here, as the tests of light stages must not import it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
