"""Columns of images that the manifest may lack: of the manifest, or else of the tables of the layout."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.data import DataSettings, Layout, TableLayout
from foldvote.data.layouts.registry import layout_of
from foldvote.data.manifest_table import manifest_schema
from foldvote.errors import UserError, did_you_mean
from foldvote.io.csv_files import plain_cells, read_user_table


def column_values(
    manifest: pd.DataFrame, tables: Sequence[Path], layout: Layout, ids: Sequence[str], name: str
) -> npt.NDArray[np.str_]:
    """The value of each image in a column of the manifest, or else of a table; empty where it has none.

    Args:
        manifest: of the images, with `image_id` as its index.
        tables: those of the layout.
        layout: the section `data` of the configuration.
        ids: of the images.
        name: the column.

    Raises:
        UserError: if neither has the column.
    """
    if name in manifest.columns:
        return manifest[name].reindex(ids).astype("str").fillna("").to_numpy(str)
    known = list(manifest.columns)
    for table in _joined_tables(tables, layout):
        known += list(table.columns)
        if name in table.columns:
            places = pd.Series(ids) if isinstance(layout, TableLayout) else manifest["profile"].reindex(ids)
            return table[name].reindex(places).fillna("").to_numpy(str)
    raise UserError(_nowhere(name, known))


def column_faults(config: DataSettings, names: Sequence[str]) -> list[str]:
    """One line for each column that neither the manifest nor a table of the training images will have.

    Args:
        config: the configuration of the data.
        names: the columns.

    Raises:
        UserError: if a table cannot be read.
    """
    if not names:
        return []
    known = list(manifest_schema(config.data.factor_names, layout_of(config.data).raw_columns).names)
    for table in _joined_tables(config.tables("train"), config.data):
        known += list(table.columns)
    return [_nowhere(name, known) for name in names if name not in known]


def _joined_tables(tables: Sequence[Path], layout: Layout) -> Iterator[pd.DataFrame]:
    """The tables that name images or persons, with these as their index; of rows of one name the first."""
    key = (layout.id or layout.path) if isinstance(layout, TableLayout) else "path"
    for path in tables:
        table = plain_cells(read_user_table(path))
        if key in table.columns:
            yield table.drop_duplicates(key).set_index(key)


def _nowhere(name: str, known: Sequence[str]) -> str:
    return f"leak_check.columns: neither the manifest nor the table of data has {name!r}{did_you_mean(name, known)}"
