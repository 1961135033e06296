"""Reading and writing of CSV files and users' tables as text; errors name the line.

Ids such as `000123`, `1e5`, `null` and `NA` stay text. Row numbers in messages count the header as row 1, so that row
`i` of a returned table is row `i + 2`.
"""

import csv
import io
import math
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.errors import UserError, did_you_mean, raise_all
from foldvote.io.cell_text import cell_texts
from foldvote.io.files import whole_file
from foldvote.io.names import plain_name
from foldvote.io.parquet import read_columns

MOST_BYTES = 2 << 30
_ROWS_AT_ONCE = 1 << 14  # written, so that a table of a million rows takes little memory
_MOST_CELL = 1 << 20  # characters in one cell
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_QUOTED = re.compile(r'[,"\r\n\ufeff]')  # \ufeff at the start of a file would be its byte order mark
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read_csv(
    path: str | Path, required: Sequence[str] = (), *, extra: bool = True, empty: bool = False
) -> pd.DataFrame:
    """Read a CSV file with a header, every cell as text.

    A byte order mark, Windows line ends and blank lines at the end are accepted.

    Args:
        path: a comma-separated UTF-8 file.
        required: columns that must be there.
        extra: whether further columns are accepted.
        empty: whether a table without rows is accepted.

    Returns:
        The table: text columns in the file's order, index 0, 1, ...

    Raises:
        UserError: naming file and line, for another encoding, a NUL byte, duplicate or missing columns, a row with
            another number of cells, a broken quote or no rows.
    """
    lines = _records(_text(Path(path)), path)
    header, rows = (lines[0][1], lines[1:]) if lines else ([], [])
    raise_all(_column_faults(path, header, required, extra))
    faults = []
    for line, cells in rows:
        if not cells:
            faults.append(f"{path}, line {line}: is blank; delete it")
        elif len(cells) != len(header):
            faults.append(
                f"{path}, line {line}: has {len(cells)} cells, the header {len(header)}; "
                "correct it, with quotes around a cell that holds a comma"
            )
    raise_all(faults)
    if not rows and not empty:
        raise UserError(f"{path}: holds a header and no rows; add rows or give another file")
    return pd.DataFrame([cells for _, cells in rows], columns=header, dtype="str")


def read_user_table(
    path: str | Path,
    required: Sequence[str] = (),
    *,
    extra: bool = True,
    empty: bool = False,
    exact: bool = False,
    typed: bool = False,
) -> pd.DataFrame:
    """Read a user's CSV or parquet table with every cell as text; an empty cell is the empty text.

    Names of columns are read in their plain spelling (see `names.plain_name`), and so are the cells unless `exact`. A
    cell of a parquet file is the text of its value, see `cell_text.cell_texts`; columns of other types, such as lists,
    are left out unless they are required.

    Args:
        path: a file with the extension .csv, .parquet or .pq.
        required: columns that must be there; the result has them in this spelling.
        extra: whether further columns are accepted.
        empty: whether a table without rows is accepted.
        exact: leave the cells as they are written.
        typed: leave the floating-point columns of a parquet table as they are, which saves time with many numbers.

    Raises:
        UserError: for the errors of `read_csv`, another extension, a damaged parquet file, or a required parquet column
            that is no text.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".csv":
        table = read_csv(path, empty=empty)
        columns = {name: table[name].tolist() for name in table.columns}
    elif kind in (".parquet", ".pq"):
        columns = _parquet_columns(path, required, empty, typed)
    else:
        raise UserError(f"{path}: is neither .csv nor .parquet; give a table of one of these kinds")
    spelling = {plain_name(name): name for name in required}
    header = [spelling.get(plain_name(name), plain_name(name)) for name in columns]
    raise_all(_column_faults(path, header, required, extra))
    spell = str if exact else plain_name
    return pd.DataFrame(
        {
            name: values if isinstance(values, np.ndarray) else pd.Series(list(map(spell, values)), dtype="str")
            for name, values in zip(header, columns.values(), strict=True)
        }
    )


def plain_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table of text with every cell in its plain spelling, see `names.plain_name`."""
    return pd.DataFrame({name: list(map(plain_name, table[name])) for name in table.columns}, dtype="str")


def _parquet_columns(path: Path, required: Sequence[str], empty: bool, typed: bool) -> dict[str, Any]:
    """The columns of a user's parquet file as lists of text; floating-point ones as arrays where `typed`."""
    _plain_size(path)
    try:
        table = read_columns(path)
    except UserError as error:
        remedy = "; delete it and run your command again"
        raise UserError(*(fault.replace(remedy, "; make it anew") for fault in error.faults)) from None
    columns, faults = {}, []
    wanted = set(map(plain_name, required))
    for name in table.column_names:
        if typed and pa.types.is_floating(table.column(name).type):
            columns[name] = table.column(name).to_numpy()
            continue
        try:
            columns[name] = cell_texts(table.column(name))
        except (TypeError, ValueError) as error:
            if plain_name(name) in wanted:
                faults.append(f"{path}: column {name!r} {error}; write it as a column of text")
    raise_all(faults)
    if not table.num_rows and not empty:
        raise UserError(f"{path}: holds no rows; add rows or give another file")
    return columns


def write_csv(frame: pd.DataFrame, path: str | Path, *, for_people: bool = False) -> None:
    """Write a table as a CSV file, whole or not at all: UTF-8, lines end with `\\n`, None and NaN are empty cells.

    `read_csv` gives every text back as it was. Empty cells are quoted, which csv.writer cannot do.

    Args:
        frame: the table; its index is left out.
        path: the CSV file.
        for_people: for tables that are only looked at, and that no program reads: a text that a spreadsheet would run
            as a formula (it begins with = + - @, tab or return, and is not a number) gets an apostrophe in front.

    Raises:
        UserError: if the file cannot be written, or a text is not valid UTF-8 or contains a NUL character.
    """
    written = _unlike_formulas if for_people else _quoted
    header = ",".join(written(str(name)) for name in frame.columns) + "\n"
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(_encoded(header, path))
        for start in range(0, len(frame), _ROWS_AT_ONCE):
            piece = frame.iloc[start : start + _ROWS_AT_ONCE]
            columns = [piece[name].astype(object).tolist() for name in piece.columns]
            rows = (
                [value if isinstance(value, str) else _Plain(_cell(value)) for value in row]
                for row in zip(*columns, strict=True)
            )
            file.write(_encoded("".join(",".join(map(written, row)) + "\n" for row in rows), path))


def _encoded(text: str, path: str | Path) -> bytes:
    if "\0" in text:
        raise UserError(f"{path}: a text holds a NUL character, which no CSV can; rename it in the data")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        shown = ascii(text[max(0, error.start - 20) : error.end + 20])
        raise UserError(f"{path}: the text {shown} is not UTF-8; rename it in the data") from None


def _text(path: Path) -> str:
    """Read a UTF-8 file as text, without its byte order mark."""
    if _plain_size(path) == 0:
        raise UserError(f"{path}: is empty; give a CSV file with a header and rows")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); mend or replace it") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path}: is UTF-16; save it as UTF-8")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise UserError(f"{path}, line {line}: holds a NUL byte, so it is damaged or no CSV; save it anew as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        korean = _decodes(data, "cp949")
        guess = "it reads as cp949, the Korean Windows encoding" if korean else f"byte {data[error.start]:#04x}"
        raise UserError(f"{path}, line {line}: is not UTF-8 ({guess}); save it as UTF-8") from None


def _plain_size(path: Path) -> int:
    try:
        status = os.stat(path)  # noqa: PTH116 - one call says both kind and size
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give an existing one") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); mend or replace it") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is not a plain file; give a CSV or parquet file")
    if status.st_size > MOST_BYTES:
        raise UserError(f"{path}: has {status.st_size:,} bytes, more than a table of images needs; give the right file")
    return status.st_size


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _records(text: str, path: str | Path) -> list[tuple[int, list[str]]]:
    """All records, each with the number of its first line; blank lines at the end are left out."""
    records = []
    before = csv.field_size_limit(_MOST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        line = 1
        for cells in reader:
            records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: not valid CSV ({error}); correct its quotes and line ends") from None
    finally:
        csv.field_size_limit(before)
    while records and not records[-1][1]:
        records.pop()
    return records


def _column_faults(path: str | Path, header: Sequence[str], required: Sequence[str], extra: bool) -> list[str]:
    doubled = sorted({name for name in header if header.count(name) > 1})
    faults = [f"{path}: the column {name!r} stands {header.count(name)} times; keep one" for name in doubled]
    missing = [name for name in required if name not in header]
    separator = next((mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]), None)
    if missing and separator:
        return [f"{path}: its columns are separated by {separator!r}; save it with commas"]
    for name in missing:
        guess = did_you_mean(name, header) or f"; it has {', '.join(map(repr, header[:20])) or 'none'}"
        faults.append(f"{path}: the column {name!r} is missing{guess}")
    if not extra:
        known = set(required)
        faults += [f"{path}: the column {name!r} is not known here; remove it" for name in header if name not in known]
    return faults


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


class _Plain(str):
    """The text of a value that was not text, such as the number -1, and so is not a formula."""


def _unlike_formulas(text: str) -> str:
    """One cell, with an apostrophe in front if a spreadsheet would take it for a formula."""
    formula = not isinstance(text, _Plain) and text.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return _quoted(f"'{text}" if formula else text)


def _quoted(text: str) -> str:
    """One cell as it is written, in quotes if necessary."""
    # An empty cell is quoted as well: if it is the only one of its row, the row would be a blank line.
    return '"{}"'.format(text.replace('"', '""')) if not text or _QUOTED.search(text) else text
