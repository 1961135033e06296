"""What the configuration knows of a data layout without opening a file."""

from typing import NamedTuple

from foldvote.config.base import Section


class NumericFactor(Section):
    """A factor whose levels are bands of a number that the manifest holds, such as age bands of an age in years."""

    name: str
    """The factor."""
    column: str
    """The manifest's column with the number."""
    borders: tuple[int, ...]
    """Rising; each is the first number of the next band, so there is one band more than borders."""
    detail: tuple[tuple[int, int], ...] = ()
    """Ranges, first and last number, that slices of the scores show number by number; the last is around the last
    border."""
    unit: str = ""
    """What the number counts, for a person to read, such as years."""

    @property
    def bands(self) -> dict[str, tuple[int, ...]]:
        """The borders by the factor's name."""
        return {self.name: self.borders}


class DrawnData(NamedTuple):
    """Data that the workflow draws itself.

    Attributes:
        folder: its name below `results`.
        persons: how many are drawn.
        images: how many pictures of them.
    """

    folder: str
    persons: int
    images: int


class ImageList(NamedTuple):
    """A table that names the images of a split.

    Attributes:
        table: its path relative to the data folder.
        path: column with the path of an image, or of the folder of a person's images.
        split: column that says train or test; None: every row belongs to the split.
        folder: what these paths are relative to, itself relative to the data folder.
        persons: whether a row names the folder of a person.
    """

    table: str
    path: str
    split: str | None = None
    folder: str = ""
    persons: bool = False
