"""The layout `table`: images that a CSV or parquet table lists, one row per image.

All faults of the table are reported at once; row numbers count the header as row 1.
"""

import math
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa

from foldvote.config.data import TableLayout
from foldvote.data.file_listing import Split
from foldvote.data.label_space import LABEL, LabelSpace, factor_label_space, named_label_space
from foldvote.data.layouts.base import Correction, RawColumns
from foldvote.data.layouts.named_classes import correct_field, draft_field
from foldvote.data.manifest_table import ONLY, WEIGHT
from foldvote.data.metadata import metadata_cell_faults, metadata_columns, metadata_values
from foldvote.errors import UserError, did_you_mean, raise_all
from foldvote.io.csv_files import plain_cells, read_user_table
from foldvote.io.names import paths_on_disk
from foldvote.io.paths import relative_fault, tidy

_FRACTION = re.compile(r"[-+]?\d*\.\d+")
_TRAIN_ONLY = "train_only"
_LEAST, _MOST = 1e-6, 1e6  # weights, so that none is lost when they are scaled


@dataclass(frozen=True)
class ImageTable:
    """A table with one row per image; a correction changes an image or a group. Implements `DataLayout`."""

    ignored_fields: ClassVar[frozenset[str]] = frozenset()
    section: TableLayout

    @property
    def raw_columns(self) -> RawColumns:
        """The columns train_only and sample_weight, where the configuration names them, and those of metadata."""
        named = {ONLY: (self.section.role, pa.bool_()), WEIGHT: (self.section.weight, pa.float64())}
        raw = tuple((name, kind) for name, (column, kind) in named.items() if column is not None)
        return raw + metadata_columns(self.section.metadata)

    def entries(self, root: Path, split: Split, results: Path) -> tuple[pd.DataFrame, set[str]]:  # noqa: ARG002
        """The rows of a split in the order of the table; for test also the class names of the training rows."""
        return _table_entries(root, self.section, split)

    def label_space(self, found: set[str]) -> LabelSpace:
        """The product of the factors' levels; without factors the configured classes, or else those found."""
        if self.section.factors:
            return factor_label_space({name: tuple(levels) for name, levels in self.section.factors.items()})
        return named_label_space(self.section.classes, found)

    def correct(self, frame: pd.DataFrame, correction: Correction, classes: Collection[str]) -> pd.Series:
        """Correct an image or a group in place; the field is the label column or a factor. Returns its rows' mask."""
        if self.section.factors:
            return correct_field(
                frame, correction, {name: (name, levels) for name, levels in self.section.factors.items()}
            )
        levels = self.section.classes or sorted(classes)
        return correct_field(frame, correction, {self._label: ("class_name", levels)})

    def draft(self, issue: Mapping[str, Any]) -> list[Correction]:
        """Turn a label issue into corrections of images or groups."""
        return draft_field(issue, self._label)

    @property
    def _label(self) -> str:
        return self.section.label or LABEL


def _table_entries(root: Path, layout: TableLayout, split: Split) -> tuple[pd.DataFrame, set[str]]:
    path = root / layout.table
    named = [layout.path, layout.id, layout.group, layout.label, *layout.factors, layout.split]
    named += [layout.role, layout.weight, *layout.metadata]
    columns = list(dict.fromkeys(name for name in named if name is not None))
    try:
        written = read_user_table(path, columns, exact=True)
    except UserError as error:
        raise_all([*error.faults, *_missing_images(path, layout, root)])
        raise
    table = plain_cells(written)
    numbers = pd.Series(range(2, len(table) + 2))
    if layout.split is not None:
        wrong = ~table[layout.split].isin(["train", "test"])
        raise_all(
            f"{path}, row {row}: {layout.split} is {text!r}; write train or test"
            for row, text in zip(numbers[wrong], table.loc[wrong, layout.split], strict=True)
        )
        training = table[layout.split] == "train"
    else:
        training = pd.Series(True, index=table.index)
    ids = table[layout.id or layout.path]
    on_disk = pd.Series(_paths_on_disk(root, written[layout.path], table[layout.path]), index=table.index)
    faults = _path_faults(path, on_disk, root)
    faults += _doubled(path, layout.path, table[layout.path].map(tidy))
    faults += _doubled(path, layout.id, ids) if layout.id else []
    faults += [f"{path}, row {row}: {layout.id} is empty; name the image" for row in numbers[ids == ""]]
    faults += _level_faults(path, layout, table[training], numbers[training])
    faults += _role_faults(path, layout.role, table, training) if layout.role else []
    faults += _weight_faults(path, layout.weight, table[training], numbers[training]) if layout.weight else []
    faults += metadata_cell_faults(path, layout.metadata, table, training)
    raise_all(faults)
    found = set(table.loc[training, layout.label]) if layout.label and split == "test" else set()
    rows = table[training if split == "train" else ~training]
    if rows.empty:
        raise UserError(f"{path}: holds no {split} rows; correct the column {layout.split}")
    group = written.loc[rows.index, layout.group].where(rows[layout.group] != "", None)
    frame = pd.DataFrame(
        {
            "image_id": rows[layout.id] if layout.id else rows[layout.path],
            "path": on_disk[rows.index],
            "profile": group,
            "group": group,
        }
    )
    for name in layout.factors:
        frame[name] = rows[name] if split == "train" else None
    if layout.label:
        frame["class_name"] = written.loc[rows.index, layout.label] if split == "train" else None
    if layout.role:
        frame[ONLY] = (rows[layout.role] == _TRAIN_ONLY) & (split == "train")
    if layout.weight:
        frame[WEIGHT] = rows[layout.weight].map(_weight) if split == "train" else 1.0
    return frame.assign(**metadata_values(layout.metadata, rows)), found


def _paths_on_disk(root: Path, written: pd.Series, plain: pd.Series) -> list[str]:
    """The path of each row as the disk spells it; one that is not there, or is no relative path, in plain spelling."""
    paths = [
        text if relative_fault(text) else tidy(own if os.path.lexists(root / own) else text)
        for own, text in zip(written, plain, strict=True)
    ]
    return paths_on_disk(root, paths)


def _missing_images(path: Path, layout: TableLayout, root: Path) -> list[str]:
    """Faults of the paths in a table that lacks other columns; none if it has no paths either."""
    try:
        return _path_faults(path, read_user_table(path, [layout.path])[layout.path], root)
    except UserError:
        return []


def _path_faults(table: Path, paths: pd.Series, root: Path) -> list[str]:
    faults = []
    for row, (text, found) in enumerate(zip(paths, paths_on_disk(root, paths.tolist()), strict=True), start=2):
        fault = relative_fault(text)
        if fault:
            faults.append(f"{table}, row {row}: the path {text!r} {fault}")
        elif not os.path.lexists(root / found):
            hint = "; write / between folders" if "\\" in text else ""
            faults.append(
                f"{table}, row {row}: there is no file {text!r} in {root}{hint or '; add it or remove the row'}"
            )
    return faults


def _doubled(table: Path, column: str, texts: pd.Series) -> list[str]:
    """A fault for each repeated text, with both row numbers."""
    first: dict[str, int] = {}
    return [
        f"{table}, row {row}: {column} {text!r} stands in row {first[text]} already; keep one"
        for row, text in enumerate(texts, start=2)
        if first.setdefault(text, row) != row
    ]


def _level_faults(path: Path, layout: TableLayout, rows: pd.DataFrame, numbers: pd.Series) -> list[str]:
    """A fault for each training row without a group or with an unknown label or level."""
    faults = [
        f"{path}, row {row}: {layout.group} is empty; a training image needs its group"
        for row in numbers[rows[layout.group] == ""]
    ]
    known: dict[str, list[str] | None] = dict(layout.factors) if layout.factors else {str(layout.label): layout.classes}
    for column, names in known.items():
        for row, text in zip(numbers, rows[column], strict=True):
            if names is not None and text not in names:
                shown = ", ".join(names[:20])
                guess = did_you_mean(text, names) or f"; use one of {shown}"
                faults.append(f"{path}, row {row}: {column} {text!r} is not known{guess}")
            elif not text:
                faults.append(f"{path}, row {row}: {column} is empty; a training image needs its class")
            elif names is None and _FRACTION.fullmatch(text):
                faults.append(
                    f"{path}, row {row}: {column} {text!r} is a fraction, which no class is; "
                    "write a name or a whole number, or list it in data.classes"
                )
    return faults


def _role_faults(path: Path, column: str, table: pd.DataFrame, training: "pd.Series[bool]") -> list[str]:
    """A fault for each row of unknown role and each test row that is to be trained on, and one if no row is scored."""
    faults = []
    for row, (text, learnt) in enumerate(zip(table[column], training, strict=True), start=2):
        if text not in ("", "train", _TRAIN_ONLY):
            guess = did_you_mean(text, ("train", _TRAIN_ONLY)) or "; write train or train_only, or leave it empty"
            faults.append(f"{path}, row {row}: {column} {text!r} is not known{guess}")
        elif text == _TRAIN_ONLY and not learnt:
            faults.append(f"{path}, row {row}: {column} is train_only, but the row is a test row; empty the cell")
    if training.any() and (table.loc[training, column] == _TRAIN_ONLY).all():
        faults.append(f"{path}: every training row is train_only, so that nothing can be scored; correct {column}")
    return faults


def _weight_faults(path: Path, column: str, rows: pd.DataFrame, numbers: pd.Series) -> list[str]:
    """A fault for each weight that is no number, or one beyond reason."""
    return [
        f"{path}, row {row}: {column} {text!r} is no weight from {_LEAST:g} to {_MOST:g}; write one, or leave the cell "
        "empty for 1 (to drop an image remove its row)"
        for row, text in zip(numbers, rows[column], strict=True)
        if not _LEAST <= _weight(text) <= _MOST
    ]


def _weight(text: str) -> float:
    """The weight that a cell means: 1 if it is empty, NaN if it is no number."""
    try:
        return float(text or 1)
    except ValueError:
        return math.nan
