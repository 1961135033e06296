"""Sizes of images as text."""

from hypothesis import given
from hypothesis import strategies as st

from foldvote.config.image_size import parse_size


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_sizes_are_height_then_width(height: int, width: int) -> None:
    assert parse_size(f"{height}x{width}") == (height, width)
