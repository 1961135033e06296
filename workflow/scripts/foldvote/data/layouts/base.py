"""The interface of a layout: it lists the images of a data folder, names the classes and corrects labels."""

from collections.abc import Collection, Mapping
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
        id: id of the image, group or person whose label changes.
        field: name of the label, such as a factor.
        before: the present value.
        after: the right value.
    """

    id: str
    field: str
    before: str
    after: str


class CorrectionFault(Exception):
    """The fault of one correction; the text names neither file nor row."""


class DataLayout(Protocol):
    """One layout with its section of the configuration.

    Properties that need no file to be opened (tables, folders, names of factors) belong to the section, a
    `config.data.LayoutSection`.

    Attributes:
        raw_columns: names and types of the manifest columns that only this layout has.
        ignored_fields: fields of corrections that are skipped, because no class depends on them.
    """

    ignored_fields: ClassVar[frozenset[str]]

    @property
    def raw_columns(self) -> RawColumns: ...

    def entries(self, root: Path, split: Split, results: Path) -> tuple[pd.DataFrame, set[str]]:
        """List the images of a split, before any correction.

        Args:
            root: the data folder.
            split: `train` or `test`.
            results: the folder of what the workflow makes, which may lie in the data folder and holds no data.

        Returns:
            One row per image: image_id, path (relative to `root`, with /), profile, group, one column per factor (or
            class_name if there are no factors), and the raw columns; values unknown for a test image are null. Also the
            class names found besides those of the rows, for data without configured classes.

        Raises:
            UserError: for every fault of the folders and tables, with file and row.
        """

    def label_space(self, found: set[str]) -> LabelSpace:
        """The classes of the task.

        Args:
            found: class names of the training rows, for data without configured classes.

        Raises:
            UserError: if fewer than two classes are known.
        """

    def correct(self, frame: pd.DataFrame, correction: Correction, classes: Collection[str]) -> pd.Series:
        """Correct the rows of `entries` in place.

        Args:
            frame: training rows that `entries` returned.
            correction: what to change.
            classes: the names that a class may be given, where the classes are those found in the data.

        Returns:
            Mask of the rows that were changed.

        Raises:
            CorrectionFault: if the correction names an unknown id, field or class, or does not match the rows.
        """

    def draft(self, issue: Mapping[str, Any]) -> list[Correction]:
        """Turn a likely label error into corrections; an empty list if no correction can express it.

        Args:
            issue: a row of `label_issues.LABEL_ISSUES`.
        """
