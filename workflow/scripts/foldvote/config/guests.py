"""Predictions from elsewhere that join the vote."""

from pydantic import Field

from foldvote.config.base import Section


class Guest(Section):
    """Predictions that something else made, as CSV or parquet: an id and a probability of each class per image."""

    oof: str = Field(min_length=1)
    """Out-of-fold predictions: every image that a fold validates, once; rows of other training images are left out. A
    column `fold` is checked where there is one."""
    test: str | None = None
    """Predictions of every test image; needed where there are test images."""
    reserve: str | None = None
    """Predictions of the reserve, made as those of the test images; needed with `folds.reserve`."""
