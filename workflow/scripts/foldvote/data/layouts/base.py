"""What a layout has to do: the images of its folders as rows, their classes, and what corrections mean for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import pandas as pd
import pyarrow as pa

from foldvote.data.file_listing import Split
from foldvote.data.label_space import LabelSpace

RawColumns = tuple[tuple[str, pa.DataType], ...]


class Correction(NamedTuple):
    """One change of a label.

    Attributes:
        id: whose label.
        field: which label.
        before: what stands there now.
        after: what is right.
    """

    id: str
    field: str
    before: str
    after: str


class CorrectionFault(Exception):
    """What is wrong with one correction, without file and row number."""


class DataLayout(Protocol):
    """One layout with its section of the configuration.

    What is known without opening a file (tables, folders, names of factors) is said by the section itself, a
    `config.data.LayoutSection`.

    Attributes:
        raw_columns: the manifest's columns that only this layout has: names and types.
        ignored_fields: fields of corrections that are skipped, as no class depends on them.
    """

    raw_columns: ClassVar[RawColumns]
    ignored_fields: ClassVar[frozenset[str]]

    def entries(self, root: Path, split: Split) -> tuple[pd.DataFrame, set[str]]:
        """The images of a split, as they are told: before any correction.

        Args:
            root: the data folder.
            split: `train` or `test`.

        Returns:
            One row per image: image_id, path (relative to `root`, with /), profile, group, one column per factor or
            else class_name, and the raw columns; of a test image, what nobody knows is null. And class names beside
            those of the rows, for data that does not name its classes.

        Raises:
            UserError: every fault of the folders and tables, with file and row.
        """

    def label_space(self, found: set[str]) -> LabelSpace:
        """The classes.

        Args:
            found: class names of the training rows, for data that does not name its classes.

        Raises:
            UserError: if fewer than two classes are known.
        """

    def correct(self, frame: pd.DataFrame, correction: Correction) -> pd.Series:
        """Correct the rows of `entries` in place.

        Args:
            frame: training rows, as `entries` gives them.
            correction: what to change.

        Returns:
            Mask of the rows that were changed.

        Raises:
            CorrectionFault: if it names an unknown id or field, or does not match the rows.
        """

    def draft(self, issue: Mapping[str, Any]) -> list[Correction]:
        """A likely label error as corrections; none where no correction can say it.

        Args:
            issue: a row of `label_issues.LABEL_ISSUES`.
        """
