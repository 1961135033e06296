"""The cells of a parquet column as text, by the column's type; pandas would make 1.0 of a 1 beside an empty cell."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa


def cell_texts(column: pa.ChunkedArray) -> list[str]:
    """The text of every cell; an empty cell is the empty text.

    Whole numbers have all their digits, bytes are decoded as UTF-8, dictionaries give their values, dates and times are
    ISO 8601 with a space (`2024-01-31 12:00:00`), and a floating-point number is the shortest text that gives it again.

    Args:
        column: a column of any type.

    Raises:
        TypeError: for a type whose values are no text (lists, structs, maps, durations); the message names it.
        ValueError: for bytes that are not UTF-8; the message says so.
    """
    kind = column.type
    if isinstance(kind, pa.DictionaryType):
        return cell_texts(column.cast(kind.value_type))
    if isinstance(kind, pa.JsonType):
        return cell_texts(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if pa.types.is_floating(kind):
        values = column.to_numpy()  # an empty cell is NaN
        return ["" if np.isnan(value) else str(value) for value in values]
    written = _written(kind)
    return ["" if value is None else written(value) for value in column.to_pylist()]


def _written(kind: pa.DataType) -> Callable[[Any], str]:
    """How a value of a type is written."""
    types = pa.types
    of_bytes = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    if any(is_kind(kind) for is_kind in of_bytes):
        return _decoded
    if types.is_decimal(kind):
        return _decimal
    plain = (
        types.is_null,
        types.is_boolean,
        types.is_integer,
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_date,
        types.is_time,
        types.is_timestamp,
    )
    if isinstance(kind, pa.UuidType) or any(is_kind(kind) for is_kind in plain):
        return str
    raise TypeError(f"is of the type {kind}, whose values are no text")


def _decimal(value: Any) -> str:
    return format(value, "f")


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"holds bytes that are not UTF-8, such as {value[:20]!r}") from None
