"""Metadata of images as numbers for a network: what is fitted on training images alone, and applied to any others.

A column of numbers becomes two: the number, standardised, and 1 where it is missing. A column of categories becomes
one for each level of the training images, and one for a level that is missing or not among them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from foldvote.config.metadata import MetadataKind
from foldvote.errors import UserError, raise_all
from foldvote.io.names import plain_name
from foldvote.io.parquet import read_table

PREFIX = "meta_"  # of its columns in a manifest
MOST_DEVIATIONS = 10.0  # from the mean, beyond which a number counts as this far
MOST_LEVELS = 200  # of a category
LARGEST = 1e100  # number, so that its square is finite

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Number:
    """A column of numbers: their mean and standard deviation over the training images; 0 and 1 where none has one."""

    name: str
    mean: float
    scale: float

    @property
    def width(self) -> int:
        """Number of columns that it becomes."""
        return 2

    def encode(self, values: pd.Series) -> npt.NDArray[np.float64]:
        """Numbers, NaN where missing: (rows, 2)."""
        numbers = values.to_numpy(np.float64)
        missing = np.isnan(numbers)
        standard = np.clip((numbers - self.mean) / self.scale, -MOST_DEVIATIONS, MOST_DEVIATIONS)
        return np.stack([np.where(missing, 0.0, standard), missing], axis=1)


@dataclass(frozen=True)
class Category:
    """A column of categories: the levels of the training images, sorted."""

    name: str
    levels: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of columns that it becomes."""
        return len(self.levels) + 1

    def encode(self, values: pd.Series) -> npt.NDArray[np.float64]:
        """Texts, None where missing: (rows, levels + 1)."""
        codes = pd.Index(self.levels).get_indexer(pd.Index(values.astype(object)))
        return np.eye(self.width)[codes]  # -1, which is no level, is the last


@dataclass(frozen=True)
class Encoding:
    """How metadata becomes numbers: one entry per column, in the order of the names."""

    columns: tuple[Number | Category, ...]

    @property
    def width(self) -> int:
        """Number of numbers of an image."""
        return sum(column.width for column in self.columns)

    @property
    def kinds(self) -> dict[str, MetadataKind]:
        """The kind of each column, by its name."""
        return {column.name: "number" if isinstance(column, Number) else "category" for column in self.columns}

    @property
    def missing(self) -> Floats32:
        """The numbers of an image without metadata: float32 (width,)."""
        empty = {column.name: [np.nan if isinstance(column, Number) else None] for column in self.columns}
        return encode(pd.DataFrame(empty), self)[0]

    def as_json(self) -> list[dict[str, Any]]:
        """Plain values, of which `of_json` makes the same encoding."""
        return [{name: list(v) if isinstance(v, tuple) else v for name, v in vars(one).items()} for one in self.columns]

    @classmethod
    def of_json(cls, columns: Sequence[Mapping[str, Any]]) -> "Encoding":
        """The encoding of what `as_json` gave."""
        return cls(
            tuple(
                Category(column["name"], tuple(column["levels"])) if "levels" in column else Number(**column)
                for column in columns
            )
        )


@dataclass(frozen=True)
class MetadataRows:
    """The metadata of images, encoded.

    Attributes:
        encoding: fitted on the training images of a member.
        rows: float32 (images, width).
        dropped: share of the training images whose metadata is hidden in an epoch.
    """

    encoding: Encoding
    rows: Floats32
    dropped: float = 0.0


def metadata_columns(columns: Mapping[str, MetadataKind]) -> tuple[tuple[str, pa.DataType], ...]:
    """Names and types of the manifest's columns of metadata.

    Args:
        columns: names and kinds of `data.metadata`.
    """
    kinds = {"number": pa.float64(), "category": pa.string()}
    return tuple((PREFIX + name, kinds[kind]) for name, kind in sorted(columns.items()))


def metadata_cell_faults(
    path: str | Path,
    columns: Mapping[str, MetadataKind],
    table: pd.DataFrame,
    training: "pd.Series[bool]",
    first_row: int = 2,
) -> list[str]:
    """A fault for each cell that is no number where one should be, and for each category of too many levels.

    Args:
        path: the user's table, for messages.
        columns: names and kinds of `data.metadata`.
        table: its cells as text; an empty one is missing.
        training: whether each row is a training image.
        first_row: number of the first row, for messages.
    """
    faults = []
    for name, kind in columns.items():
        texts = table[name]
        if kind == "number":
            faults += [
                f"{path}, row {row}: {name} {text!r} is no finite number; write one such as 12.5, or leave the cell "
                "empty where it is unknown"
                for row, text in enumerate(texts, start=first_row)
                if text and _number(text) is None
            ]
        elif (levels := texts[training & (texts != "")].nunique()) > MOST_LEVELS:
            faults.append(
                f"{path}: {name} has {levels:,} levels in the training rows, more than {MOST_LEVELS}; join rare ones, "
                "or drop it from data.metadata"
            )
    return faults


def metadata_values(columns: Mapping[str, MetadataKind], rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The manifest's columns of metadata, by name.

    Args:
        columns: names and kinds of `data.metadata`.
        rows: rows of the user's table as text, without faults; an empty cell is missing.
    """
    return {
        PREFIX + name: rows[name].map(_number).astype(np.float64)
        if kind == "number"
        else rows[name].astype(object).where(rows[name] != "", None)
        for name, kind in columns.items()
    }


def metadata_of_rows(
    where: str | Path, columns: Mapping[str, MetadataKind], table: pd.DataFrame, first_row: int = 2
) -> pd.DataFrame:
    """The metadata of new images, as `read_metadata` gives that of images of a manifest.

    Args:
        where: the table or the argument that it is, for messages.
        columns: names and kinds of what is wanted.
        table: one row per image, with these columns and any others; a missing value or an empty text is missing.
        first_row: number of the first row, for messages.

    Raises:
        UserError: if a column is missing, a category is of floating-point numbers, of which nobody knows whether they
            stood as 1 or as 1.0 in the table that was learnt from, or a cell is no number where one should be.
    """
    raise_all(
        f"{where}: has no column {name!r}, which the ensemble sees beside the image; add it, with empty cells where it "
        "is unknown"
        for name in columns
        if name not in table
    )
    raise_all(
        f"{where}: {name} is a category and holds {numbers[0]!r}; write its levels as texts, as the data had them"
        for name, kind in columns.items()
        if kind == "category" and (numbers := _floats(table[name]))
    )
    texts = pd.DataFrame({name: table[name].map(_as_text) for name in columns}, dtype=object)
    raise_all(metadata_cell_faults(where, columns, texts, pd.Series(False, index=texts.index), first_row))
    values = metadata_values(columns, texts)
    return pd.DataFrame({name: values[PREFIX + name] for name in sorted(columns)}).reset_index(drop=True)


def read_metadata(manifest: Path, image_ids: Sequence[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The metadata of some images, from a manifest.

    Args:
        manifest: of the split that the images belong to.
        image_ids: the images, each in the manifest.
        columns: names in the user's table; None: all columns.

    Returns:
        One row per image in the order of the ids; the columns are called as in the user's table and sorted by name:
        numbers are float64, NaN where missing, and categories text, None where missing.

    Raises:
        UserError: if the manifest lacks a column or an image.
    """
    table = read_table(manifest).set_index("image_id")
    there = {name.removeprefix(PREFIX): table[name] for name in table if name.startswith(PREFIX)}
    names = sorted(there if columns is None else columns)
    if lacking := [name for name in names if name not in there] + [one for one in image_ids if one not in table.index]:
        raise UserError(f"{manifest}: lacks {lacking[0]!r}; delete it and run your command again")
    chosen = pd.DataFrame({name: there[name] for name in names}, index=table.index).loc[list(image_ids)]
    return chosen.reset_index(drop=True)


def fit_encoding(table: pd.DataFrame) -> Encoding:
    """Fit the encoding on training images.

    Args:
        table: their metadata, as `read_metadata` gives it.
    """
    return Encoding(tuple(_fitted(name, table[name]) for name in sorted(table)))


def encode(table: pd.DataFrame, encoding: Encoding) -> Floats32:
    """Encode the metadata of images.

    Args:
        table: one row per image, with the columns of the encoding; others are ignored.
        encoding: what `fit_encoding` gave.

    Returns:
        float32 (images, width).
    """
    return np.concatenate([one.encode(table[one.name]) for one in encoding.columns], axis=1).astype(np.float32)


def _floats(values: "pd.Series[Any]") -> list[float]:
    """Those of a column's values that are floating-point numbers; NaN is none."""
    return [float(value) for value in values if isinstance(value, float | np.floating) and not np.isnan(value)]


def _as_text(value: Any) -> str:
    return "" if pd.isna(value) else plain_name(str(value))


def _number(text: str) -> float | None:
    """The number of a cell; None if there is no finite one."""
    if not _NUMBER.fullmatch(text) or abs(number := float(text)) > LARGEST:
        return None
    return number


def _fitted(name: str, values: pd.Series) -> Number | Category:
    if pd.api.types.is_float_dtype(values):
        numbers = values.dropna().to_numpy(np.float64)
        if not len(numbers):
            return Number(name, 0.0, 1.0)
        mean, scale = float(numbers.mean()), float(numbers.std())
        return Number(name, mean, scale if scale > 1e-9 * abs(mean) else max(1.0, 1e-9 * abs(mean)))
    return Category(name, tuple(sorted(values.dropna().unique())))
