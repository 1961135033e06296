"""Reading and writing of parquet tables, which are checked against their schemas.

A file contains page checksums and a small provenance record (JSON in the schema's metadata) with its own digest, so
that a truncated or altered file is refused instead of read.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foldvote.errors import UserError, raise_all
from foldvote.io.files import canonical, sha256_bytes, whole_file

_METADATA = b"foldvote"
MOST_ROWS = 50_000_000
MOST_BYTES = 16 << 30
_CHUNK_BYTES = 1 << 30
_GROUP_ROWS = 16_384  # small row groups can be read many rows at a time, see _read_within_limits


def write_table(
    frame: pd.DataFrame,
    path: str | Path,
    schema: pa.Schema,
    key: Sequence[str] = (),
    record: dict[str, Any] | None = None,
) -> None:
    """Check a table against its schema and write it, whole or not at all.

    Args:
        frame: the rows, with exactly the columns of the schema, in any order.
        path: the parquet file.
        schema: the schema of the file.
        key: columns that together identify a row: no two rows may have equal values.
        record: provenance that is stored in the file, and read by `read_record`.

    Raises:
        UserError: if columns are missing or unknown, a value does not fit its column, a key occurs twice, or a number
            is not finite.
    """
    raise_all(_column_faults(set(frame.columns), schema, str(path)))
    loose = pa.schema([field.with_nullable(True) for field in schema])  # empty values are reported below
    try:
        table = pa.Table.from_pandas(frame[schema.names], schema=loose, preserve_index=False, safe=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError) as error:
        raise UserError(f"{path}: a value does not fit its column: {' '.join(str(error).split())}") from error
    _check_rows(table, schema, key, str(path))
    with table_writer(path, schema, record) as writer:
        writer.write_table(pa.Table.from_arrays(table.columns, schema=writer.schema), _GROUP_ROWS)


@contextmanager
def table_writer(path: str | Path, schema: pa.Schema, record: dict[str, Any] | None = None) -> Iterator[Any]:
    """A writer of a table of any length, which is there, whole, after the block.

    Args:
        path: the parquet file.
        schema: the schema of the file; tables that are written have that of the writer, which holds the record as well.
        record: provenance that is stored in the file, and read by `read_record`.

    Yields:
        A pyarrow.parquet.ParquetWriter.

    Raises:
        UserError: if the file cannot be written.
    """
    text = canonical(record or {})
    sealed = canonical({"record": record or {}, "sha256": sha256_bytes(text.encode())})
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema.with_metadata({_METADATA: sealed.encode()}),
            compression="zstd",
            # Floating-point numbers rarely repeat: a dictionary of them costs time and space.
            use_dictionary=[field.name for field in schema if not pa.types.is_floating(field.type)],
            write_page_checksum=True,
            store_schema=True,
        ) as writer,
    ):
        yield writer


def read_table(path: str | Path, schema: pa.Schema | None = None, key: Sequence[str] = ()) -> pd.DataFrame:
    """Read and check a table as a data frame.

    Args:
        path: the parquet file.
        schema: its expected schema; None accepts any columns (a user's table).
        key: columns that together identify a row.

    Raises:
        UserError: if the file is missing, damaged, expands beyond reason, or does not fit the schema.
    """
    # In one chunk: pyarrow.array of a text column with several chunks is not an Array, which joins by id need.
    return read_columns(path, schema, key).combine_chunks().to_pandas()


def read_columns(path: str | Path, schema: pa.Schema | None = None, key: Sequence[str] = ()) -> pa.Table:
    """Read and check a table as an Arrow table, without one Python object per cell.

    Args:
        path: the parquet file.
        schema: its expected schema; None accepts any columns (a user's table).
        key: columns that together identify a row.

    Raises:
        UserError: if the file is missing, damaged, expands beyond reason, or does not fit the schema.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = _read_within_limits(file, path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; run your command again to make it") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: damaged or not parquet ({_first_line(error)}); delete it and run your command again"
        ) from error
    if schema is not None:
        raise_all(_column_faults(set(table.column_names), schema, str(path)))
        table = _with_string_columns(table.select(schema.names))
        wrong = [
            f"{path}: column {field.name} is {table.schema.field(field.name).type}, not {field.type}; make it anew"
            for field in schema
            if table.schema.field(field.name).type != field.type
        ]
        raise_all(wrong)
        _check_rows(table, schema, key, str(path))
    return table.replace_schema_metadata(None)


def column_names(path: str | Path) -> list[str]:
    """The names of a table's columns; none if it cannot be read, which `read_table` says in words."""
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError):
        return []


def read_record(path: str | Path) -> dict[str, Any]:
    """The provenance record of a parquet file that `write_table` wrote.

    Raises:
        UserError: if the file has none, or the record was altered.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
        sealed = json.loads(metadata[_METADATA])
        record, digest = sealed["record"], sealed["sha256"]
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; run your command again to make it") from error
    except (KeyError, TypeError, ValueError, pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: has no provenance record, so foldvote did not write it; delete it and run again"
        ) from error
    if sha256_bytes(canonical(record).encode()) != digest:
        raise UserError(f"{path}: its provenance record was altered; delete the file and run your command again")
    return record


def required(name: str, kind: pa.DataType) -> pa.Field:
    """A field of a schema in which every row needs a value."""
    return pa.field(name, kind, nullable=False)


def _column_faults(columns: set[str], schema: pa.Schema, path: str) -> list[str]:
    expected = set(schema.names)
    faults = [
        f"{path}: column {name!r} is missing; delete the file and run your command again"
        for name in sorted(expected - columns)
    ]
    return faults + [
        f"{path}: column {name!r} is not part of this table; remove it" for name in sorted(columns - expected)
    ]


def _with_string_columns(table: pa.Table) -> pa.Table:
    """Cast large_string columns, which pandas writes, to string."""
    columns = [column.cast(pa.string()) if column.type == pa.large_string() else column for column in table.columns]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _check_rows(table: pa.Table, schema: pa.Schema, key: Sequence[str], path: str) -> None:
    faults = []
    for field in schema:
        column = table.column(field.name)
        column = column.drop_null() if field.nullable else column  # an empty value is not NaN
        floating = pa.types.is_floating(field.type)
        if not field.nullable and column.null_count and not floating:
            faults.append(f"{path}: column {field.name} has {column.null_count} empty values; every row needs one")
        elif floating and not np.isfinite(column.to_numpy()).all():
            rows = np.flatnonzero(~np.isfinite(column.to_numpy()))[:5].tolist()
            faults.append(
                f"{path}: column {field.name} is not finite in rows {rows}; the model that made it has diverged"
            )
    if key and table.num_rows:
        counts = table.group_by(list(key)).aggregate([([], "count_all")])
        doubled = counts.filter(pc.greater(counts["count_all"], 1))
        if doubled.num_rows:
            shown = [" ".join(str(row[name]) for name in key) for row in doubled.slice(0, 5).to_pylist()]
            faults.append(
                f"{path}: {doubled.num_rows} rows stand twice or more, such as {', '.join(shown)}; keep each once"
            )
    raise_all(faults)


def _read_within_limits(file: pq.ParquetFile, path: str | Path) -> pa.Table:
    """Read a file in chunks, up to a limit that depends on its size: a few bytes can expand to gigabytes."""
    metadata = file.metadata
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    most = min(MOST_BYTES, max(64 << 20, 1000 * Path(path).stat().st_size))
    beyond = UserError(f"{path}: expands beyond reason for its size ({metadata.num_rows:,} rows claimed); delete it")
    if metadata.num_rows > MOST_ROWS or sum(group.total_byte_size for group in groups) > most:
        raise beyond
    schema = file.schema_arrow
    raise_all(
        f"{path}: column {name!r} stands twice; make the file anew"
        for name in sorted({name for name in schema.names if schema.names.count(name) > 1})
    )
    # A cell is at most as large as its row group, so this bounds the first chunk, too. Numbers are never large.
    few_rows = min(max(_CHUNK_BYTES // max([1, *(group.total_byte_size for group in groups)]), 1), _GROUP_ROWS)
    numbers = [field.name for field in schema if pa.types.is_primitive(field.type)]
    others = [field.name for field in schema if field.name not in set(numbers)]
    columns: dict[str, pa.ChunkedArray] = {}
    size = 0
    for names, rows in ((numbers, _GROUP_ROWS), (others, few_rows)):
        batches = []
        for batch in file.iter_batches(batch_size=rows, columns=names, use_threads=False):
            size += batch.nbytes
            if size > most:
                raise beyond
            batches.append(batch)
        part = pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in names]))
        columns |= dict(zip(names, part.columns, strict=True))
    table = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
    if table.num_rows != metadata.num_rows:
        raise UserError(
            f"{path}: holds {table.num_rows:,} rows and claims {metadata.num_rows:,}; delete it and run again"
        )
    table.validate(full=True)
    return table


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
